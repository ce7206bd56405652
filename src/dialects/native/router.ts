import { z } from "zod";
import { KoineError, toKoineError } from "../../core/errors.ts";
import { isName } from "../../core/function.ts";
import type { Right } from "../../core/invocation.ts";
import type { Supervise } from "../../core/telemetry.ts";
import { limits } from "../../core/limits.ts";
import type { GatewayRequest } from "../dialect.ts";
import { decodeSegment } from "./address.ts";
import { wholeOf } from "../request-body.ts";
import { respondEmpty, respondError, respondJson } from "../respond.ts";

export type Parameters = Readonly<Record<string, string>>;

/** What a route's action is given: path parameters, parsed query and body. */
export interface RouteInput<Query, Body> {
  readonly request: GatewayRequest;
  readonly parameters: Parameters;
  readonly query: Query;
  readonly body: Body;
  /** Aborted when the client leaves. */
  readonly signal: AbortSignal;
  /** Resolves when the client can take more, after `write` answered false, or has left. */
  flowing(): Promise<void>;
}

/** An answer, or null when the action has answered by itself. */
export type RouteAnswer = {
  readonly status: number;
  readonly body?: unknown;
  readonly headers?: readonly string[];
} | null;

export interface Route {
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE";
  /** `/v1/namespaces/{ns}/functions/{fn}`; a parameter is one segment, percent-decoded. */
  readonly path: string;
  readonly right: Right;
  /** Whether it tells about all namespaces at once: then callers who are bound to one are refused. */
  readonly acrossNamespaces: boolean;
  readonly summary: string;
  /** Name of the answer's shape in `core/api.ts`, for the description. */
  readonly answers: string;
  readonly query: z.ZodType;
  readonly body: z.ZodType | null;
  run(input: RouteInput<unknown, unknown>): Promise<RouteAnswer>;
}

const nothing = z.strictObject({});

interface RouteDescription<Query extends z.ZodType, Body extends z.ZodType> {
  readonly right: Right;
  readonly acrossNamespaces?: true;
  readonly summary: string;
  readonly answers: string;
  readonly query?: Query;
  readonly body?: Body;
}

/** A route at `METHOD /path`; ties the action's types to its schemas. Without a schema the query must be empty and the body is left alone. */
export function route<Query extends z.ZodType = typeof nothing, Body extends z.ZodType = z.ZodUndefined>(
  address: `${Route["method"]} ${string}`,
  description: RouteDescription<Query, Body>,
  run: (input: RouteInput<z.output<Query>, z.output<Body>>) => Promise<RouteAnswer>,
): Route {
  const [method, path] = address.split(" ") as [Route["method"], string];
  const { right, acrossNamespaces = false, summary, answers, query = nothing, body = null } = description;
  const typed = (input: RouteInput<unknown, unknown>): ReturnType<typeof run> =>
    run(input as RouteInput<z.output<Query>, z.output<Body>>);
  return { method, path, right, acrossNamespaces, summary, answers, query, body, run: typed };
}

/** Finds the route of a request and runs it; every failure becomes the platform's error shape. */
export class Router {
  readonly #routes: readonly { readonly segments: readonly string[]; readonly route: Route }[];
  readonly #supervise: Supervise;

  constructor(routes: readonly Route[], supervise: Supervise) {
    this.#routes = routes.map((route) => ({ segments: route.path.split("/").slice(1), route }));
    this.#supervise = supervise;
  }

  handle(request: GatewayRequest): boolean {
    if (!request.path.startsWith("/v1/")) return false;
    const found = this.#find(request);
    this.#supervise("answer a management call", answer(request, found.route, found.parameters));
    return true;
  }

  #find(request: GatewayRequest): { readonly route: Route; readonly parameters: Parameters } {
    const segments = request.path.split("/").slice(1);
    const { method } = request;
    const allowed: string[] = [];
    for (const candidate of this.#routes) {
      const parameters = matchSegments(candidate.segments, segments);
      if (parameters === null) continue;
      if (candidate.route.method === method) return { route: candidate.route, parameters };
      allowed.push(candidate.route.method);
    }
    if (allowed.length === 0) throw new KoineError("not-found", { path: request.path });
    throw new KoineError("method-not-allowed", {
      method,
      path: request.path,
      allowed: [...new Set(allowed)].join(", "),
    });
  }
}

async function answer(request: GatewayRequest, route: Route, parameters: Parameters): Promise<void> {
  const { caller } = request;
  const gone = new AbortController();
  let wake = (): void => {};
  request.response.listener = {
    flowed: () => wake(),
    left: () => {
      gone.abort();
      wake();
    },
  };
  const flowing = (): Promise<void> =>
    new Promise((resolve) => {
      wake = resolve;
      if (gone.signal.aborted) resolve();
    });
  try {
    if (caller === null) throw new KoineError("unauthorized");
    const namespace = parameters["ns"];
    const elsewhere = namespace !== undefined && caller.namespace !== null && caller.namespace !== namespace;
    if (elsewhere || !caller.rights.has(route.right)) {
      const where = namespace === undefined ? "" : ` in namespace '${namespace}'`;
      throw new KoineError("forbidden", { detail: `'${caller.subject}' has no right to ${route.right}${where}` });
    }
    if (namespace !== undefined && !isName(namespace)) throw new KoineError("invalid-name", { name: namespace });
    if (route.acrossNamespaces && caller.namespace !== null) {
      throw new KoineError("forbidden", {
        detail: `this is about all namespaces, '${caller.subject}' is bound to one`,
      });
    }
    const query = parse(route.query, Object.fromEntries(new URLSearchParams(request.query)), "query");
    const body = route.body === null ? undefined : parse(route.body, await readJson(request), "body");
    const result = await route.run({ request, parameters, query, body, signal: gone.signal, flowing });
    if (result === null) return;
    if (result.body === undefined) respondEmpty(request, result.status, result.headers);
    else respondJson(request, { ...result, body: result.body });
  } catch (thrown) {
    respondError(request, toKoineError(thrown));
  }
}

function matchSegments(pattern: readonly string[], segments: readonly string[]): Parameters | null {
  if (pattern.length !== segments.length) return null;
  const parameters: Record<string, string> = {};
  for (const [index, part] of pattern.entries()) {
    const segment = segments[index] ?? "";
    if (part.startsWith("{")) {
      if (segment === "") return null;
      parameters[part.slice(1, -1)] = decodeSegment(segment);
    } else if (part !== segment) return null;
  }
  return parameters;
}

function parse(schema: z.ZodType, value: unknown, where: string): unknown {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const detail = result.error.issues.map((issue) => `${[where, ...issue.path].join(".")}: ${issue.message}`).join("; ");
  throw new KoineError("invalid-request", { detail });
}

async function readJson(request: GatewayRequest): Promise<unknown> {
  const type = request.headers.get("content-type") ?? "application/json";
  if (!/^application\/(?:[\w.+-]+\+)?json\b/i.test(type)) {
    throw new KoineError("unsupported-media-type", { type, expected: "application/json" });
  }
  const text = (await wholeOf(request.body, limits.managementBodyBytesMax, "the request")).toString("utf8");
  if (text.trim() === "") return {};
  try {
    return JSON.parse(text);
  } catch (thrown) {
    throw new KoineError("invalid-json", { detail: thrown instanceof Error ? thrown.message : String(thrown) });
  }
}
