import type { HttpCall, RawHeaders } from "../core/invocation.ts";

/** Headers that belong to one connection; whatever `Connection` names is one of them too. */
const HOP_BY_HOP: readonly string[] = [
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];
/** Asked of the platform, and done by it. */
const DONE_BEFORE = ["expect"];
/** Told by the platform, whatever a client says; `x-forwarded-for` grows instead. */
const FORWARDED = ["x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix", "x-forwarded-for", "x-request-id"];

export interface RequestShape {
  /** null: it comes in pieces. */
  readonly lengthBytes: number | null;
  readonly invocationId: string;
}

/** What a program gets to see of a request's headers; with `Upgrade`, where the client asks for one. */
export function requestHeaders(call: HttpCall, shape: RequestShape): string[] {
  const { headers, upgrade } = call;
  const dropped = new Set([...HOP_BY_HOP, ...DONE_BEFORE, ...FORWARDED, ...namedByConnection(headers)]);
  const sent: string[] = [];
  let lengthHeader: string | null = null;
  let isChunked = false;
  let hasHost = false;
  const chain: string[] = [];
  for (let index = 0; index + 1 < headers.length; index += 2) {
    const name = headers[index] ?? "";
    const value = headers[index + 1] ?? "";
    const lower = name.toLowerCase();
    hasHost ||= lower === "host";
    if (lower === "content-length") lengthHeader = value;
    else if (lower === "transfer-encoding") isChunked = true;
    else if (lower === "x-forwarded-for") chain.push(value);
    else if (!dropped.has(lower)) sent.push(name, value);
  }
  const { host, protocol } = new URL(call.origin);
  if (!hasHost) sent.push("Host", host);
  sent.push("X-Forwarded-For", [...chain, call.remoteAddress].filter((part) => part !== "").join(", "));
  sent.push("X-Forwarded-Host", host, "X-Forwarded-Proto", protocol.slice(0, -1), "X-Forwarded-Prefix", call.basePath);
  sent.push("X-Request-Id", shape.invocationId);
  if (upgrade !== undefined) sent.push("Connection", "Upgrade", "Upgrade", upgrade);
  else if (shape.lengthBytes === null && (isChunked || lengthHeader === null))
    sent.push("Transfer-Encoding", "chunked");
  else if (shape.lengthBytes === null && lengthHeader !== null) sent.push("Content-Length", lengthHeader);
  else if (shape.lengthBytes !== null && (shape.lengthBytes > 0 || lengthHeader !== null))
    sent.push("Content-Length", String(shape.lengthBytes));
  return sent;
}

/** What a client gets to see of an answer's headers. */
export function responseHeaders(raw: RawHeaders, upgrade: string | undefined): RawHeaders {
  // The edge says the time of its answers itself.
  const dropped = new Set([...HOP_BY_HOP, "date", ...namedByConnection(raw)]);
  const sent: string[] = [];
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = raw[index] ?? "";
    if (!dropped.has(name.toLowerCase())) sent.push(name, raw[index + 1] ?? "");
  }
  if (upgrade !== undefined) sent.push("Upgrade", upgrade);
  return sent;
}

function namedByConnection(headers: RawHeaders): string[] {
  const names: string[] = [];
  for (let index = 0; index + 1 < headers.length; index += 2) {
    if (headers[index]?.toLowerCase() !== "connection") continue;
    for (const part of headers[index + 1]?.split(",") ?? []) names.push(part.trim().toLowerCase());
  }
  return names;
}
