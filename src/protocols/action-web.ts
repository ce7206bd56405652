import { KoineError } from "../core/errors.ts";
import type { Call, HttpCall, ResponseHead } from "../core/invocation.ts";

/** Actions take and give JSON objects; requests become parameters and results become answers as for web actions. */

type Json = Readonly<Record<string, unknown>>;

/** @throws KoineError `invalid-json` for a payload that is none */
export function actionParameters(call: Call, body: Buffer): unknown {
  if (call.kind === "http") return webParameters(call, body);
  if (body.length === 0) return {};
  const value = parse(body);
  return typeof value === "object" && value !== null ? value : { payload: value };
}

/** @throws KoineError `invalid-response`, or `handler-failed` where the result is an error */
export function actionAnswer(call: Call, body: Buffer): { readonly head: ResponseHead; readonly body: Buffer } {
  let result: unknown;
  try {
    result = JSON.parse(body.toString("utf8"));
  } catch {
    throw new KoineError("invalid-response", { detail: "the action's result is not JSON" });
  }
  if (typeof result !== "object" || result === null)
    throw new KoineError("invalid-response", { detail: "the action did not return an object or an array" });
  const fields = result as Json;
  const { error } = fields;
  const isError = error !== undefined && error !== null && !Array.isArray(result);
  if (call.kind === "http" && isResponse(isError ? error : result))
    return webAnswer((isError ? error : result) as Json);
  if (isError) {
    const message = typeof error === "string" ? error : JSON.stringify(error);
    throw new KoineError("handler-failed", { detail: message }, { thrown: { type: "ApplicationError", message } });
  }
  return { head: { status: 200, headers: ["Content-Type", "application/json"] }, body };
}

function webParameters(call: HttpCall, body: Buffer): Json {
  const headers: Record<string, string> = {};
  for (let index = 0; index + 1 < call.headers.length; index += 2) {
    const name = (call.headers[index] ?? "").toLowerCase();
    const value = call.headers[index + 1] ?? "";
    headers[name] = Object.hasOwn(headers, name) ? `${headers[name]}, ${value}` : value;
  }
  const queryAt = call.url.indexOf("?");
  const path = queryAt < 0 ? call.url : call.url.slice(0, queryAt);
  const query = queryAt < 0 ? "" : call.url.slice(queryAt + 1);
  return {
    ...Object.fromEntries(new URLSearchParams(query)),
    ...bodyParameters(headers["content-type"]?.split(";", 1)[0]?.trim().toLowerCase() ?? "", body),
    __ow_method: call.method.toLowerCase(),
    __ow_headers: headers,
    __ow_path: path === "/" ? "" : path,
    __ow_query: query,
  };
}

function bodyParameters(type: string, body: Buffer): Json {
  if (body.length === 0) return {};
  if (type === "application/json" || type === "") {
    const value = attempt(body);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Json;
  }
  if (type === "application/x-www-form-urlencoded")
    return Object.fromEntries(new URLSearchParams(body.toString("utf8")));
  const isText = type.startsWith("text/") || type === "application/json";
  return { __ow_body: body.toString(isText ? "utf8" : "base64") };
}

function isResponse(value: unknown): boolean {
  return (
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    ("statusCode" in value || "body" in value || "headers" in value)
  );
}

function webAnswer(fields: Json): { readonly head: ResponseHead; readonly body: Buffer } {
  const { statusCode, headers, body } = fields;
  const flat: string[] = [];
  let type: string | null = null;
  for (const [name, value] of Object.entries(typeof headers === "object" && headers !== null ? headers : {})) {
    if (/^(?:content-length|transfer-encoding)$/i.test(name)) continue;
    if (/^content-type$/i.test(name)) type = String(value);
    for (const one of Array.isArray(value) ? value : [value]) flat.push(name, String(one));
  }
  const isEmpty = body === undefined || body === null || body === "";
  const status = Number(statusCode ?? (isEmpty ? 204 : 200));
  if (!Number.isInteger(status) || status < 200 || status > 599)
    throw new KoineError("invalid-response", { detail: `statusCode ${String(statusCode)} is not one of 200 to 599` });
  if (isEmpty) return { head: { status, headers: flat }, body: Buffer.alloc(0) };
  if (type === null) flat.push("Content-Type", typeof body === "string" ? "text/html" : "application/json");
  const bytes = typeof body === "string" ? Buffer.from(body, isBinary(type) ? "base64" : "utf8") : JSON.stringify(body);
  return { head: { status, headers: flat }, body: Buffer.from(bytes) };
}

/** Bodies of these types are base64 in a result. */
function isBinary(type: string | null): boolean {
  if (type === null) return false;
  return !/^(?:text\/|application\/(?:json|xml|javascript|x-www-form-urlencoded|[\w.-]+\+(?:json|xml))\b)/i.test(type);
}

function parse(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString("utf8"));
  } catch (thrown) {
    throw new KoineError("invalid-json", { detail: thrown instanceof Error ? thrown.message : String(thrown) });
  }
}

function attempt(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString("utf8"));
  } catch {
    return undefined;
  }
}

/** What a program says of an error: `{"error": …}`, or its text. */
export function errorText(body: Buffer): string {
  const text = body.toString("utf8").trim().slice(0, ERROR_LENGTH_MAX);
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null || !("error" in value)) return text;
    return typeof value.error === "string" ? value.error : JSON.stringify(value.error);
  } catch {
    return text;
  }
}

const ERROR_LENGTH_MAX = 2_000;
