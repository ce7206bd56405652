import type { RawHeaders } from "../../../core/invocation.ts";
import type { RequestHeaders } from "../../request-headers.ts";

/** The CORS settings of a function's address, as they were given. */
export interface Cors {
  readonly AllowCredentials?: boolean;
  readonly AllowHeaders?: readonly string[];
  readonly AllowMethods?: readonly string[];
  readonly AllowOrigins?: readonly string[];
  readonly ExposeHeaders?: readonly string[];
  readonly MaxAge?: number;
}

/** Whether a browser asks what it may send. */
export function isPreflight(method: string, headers: RequestHeaders): boolean {
  return (
    method === "OPTIONS" &&
    headers.get("origin") !== undefined &&
    headers.get("access-control-request-method") !== undefined
  );
}

/** The answer's headers to a preflight; of what is not allowed nothing is said. */
export function preflightHeaders(cors: Cors, headers: RequestHeaders): RawHeaders {
  const origin = originHeaders(cors, headers);
  if (origin.length === 0) return [];
  const method = headers.get("access-control-request-method") ?? "";
  const methods = cors.AllowMethods?.includes("*") === true ? [method] : (cors.AllowMethods ?? []);
  const asked = headers.get("access-control-request-headers");
  const allowed = cors.AllowHeaders?.includes("*") === true ? (asked ?? "") : (cors.AllowHeaders ?? []).join(",");
  return [
    ...origin,
    ...(methods.length === 0 ? [] : ["access-control-allow-methods", methods.join(",")]),
    ...(allowed === "" ? [] : ["access-control-allow-headers", allowed]),
    ...(cors.MaxAge === undefined ? [] : ["access-control-max-age", String(cors.MaxAge)]),
  ];
}

/** Headers of a function's answer with what the settings say in place of what the function says of it. */
export function withCors(cors: Cors, request: RequestHeaders, answer: RawHeaders): RawHeaders {
  const kept = answer.filter((_, index) => {
    const name = answer[index - (index % 2)] ?? "";
    return !name.toLowerCase().startsWith("access-control-");
  });
  const expose = cors.ExposeHeaders ?? [];
  const origin = originHeaders(cors, request);
  return [
    ...kept,
    ...origin,
    ...(origin.length === 0 || expose.length === 0 ? [] : ["access-control-expose-headers", expose.join(",")]),
  ];
}

function originHeaders({ AllowOrigins = [], AllowCredentials = false }: Cors, headers: RequestHeaders): RawHeaders {
  const origin = headers.get("origin");
  if (origin === undefined) return [];
  const any = AllowOrigins.includes("*");
  if (!any && !AllowOrigins.some((allowed) => matches(allowed, origin))) return [];
  return [
    "access-control-allow-origin",
    any && !AllowCredentials ? "*" : origin,
    ...(AllowCredentials ? ["access-control-allow-credentials", "true"] : []),
    "vary",
    "Origin",
  ];
}

/** `https://*.example.com` stands for every name below it. */
function matches(allowed: string, origin: string): boolean {
  if (allowed.toLowerCase() === origin.toLowerCase()) return true;
  const [scheme, rest] = allowed.toLowerCase().split("://*.");
  return (
    rest !== undefined && origin.toLowerCase().startsWith(`${scheme}://`) && origin.toLowerCase().endsWith(`.${rest}`)
  );
}
