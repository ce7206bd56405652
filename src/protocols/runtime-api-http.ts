import type { IncomingMessage, ServerResponse } from "node:http";

/** What a program's request is about. */
export type Route =
  | { readonly kind: "next" }
  | { readonly kind: "response" | "error"; readonly id: string }
  | { readonly kind: "init-error" }
  | { readonly kind: "wrong-method" }
  | { readonly kind: "unknown" };

const UNKNOWN: Route = { kind: "unknown" };

export function routeOf({ method = "", url = "" }: IncomingMessage, base: string): Route {
  const path = url.split("?", 1)[0] ?? "";
  if (!path.startsWith(`${base}/`)) return UNKNOWN;
  const [subject, name, verb, ...rest] = path.slice(base.length + 1).split("/");
  if (rest.length > 0) return UNKNOWN;
  if (subject === "init" && name === "error" && verb === undefined) return only("POST", method, { kind: "init-error" });
  if (subject !== "invocation" || name === undefined) return UNKNOWN;
  if (name === "next" && verb === undefined) return only("GET", method, { kind: "next" });
  if (verb === "response" || verb === "error") return only("POST", method, { kind: verb, id: name });
  return UNKNOWN;
}

function only(allowed: string, method: string, route: Route): Route {
  return method === allowed ? route : { kind: "wrong-method" };
}

export function reply(response: ServerResponse, status: number, body: Readonly<Record<string, unknown>>): void {
  if (response.headersSent) return;
  response.writeHead(status, { "content-type": "application/json" }).end(`${JSON.stringify(body)}\n`);
}

/** Collects a body; what exceeds the bound is read and dropped. */
export function wholeBody(request: IncomingMessage, bytesMax: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    let length = 0;
    request.on("data", (part: Buffer) => {
      if (length < bytesMax) parts.push(part);
      length += part.length;
    });
    request.on("end", () => resolve(Buffer.concat(parts).subarray(0, bytesMax)));
    request.on("close", () => reject(new Error("the program broke off")));
  });
}

export interface ErrorShape {
  readonly type: string;
  readonly message: string;
  readonly stack?: string;
  /** The description itself, where it is one. */
  readonly told?: string;
}

const MESSAGE_LENGTH_MAX = 8_192;
const STACK_LENGTH_MAX = 32_768;

/** An error as programs describe it: `{ errorType, errorMessage, stackTrace | trace }`, every field of which may be missing. */
export function readReport(body: Buffer, typeHeader: string | undefined): ErrorShape {
  const text = body.toString("utf8");
  const value = parsed(text);
  const named = textOf(value?.["errorType"]) ?? typeHeader ?? "Unhandled";
  const message = textOf(value?.["errorMessage"]) ?? (value === null ? text.trim() : "");
  const lines = value?.["stackTrace"] ?? value?.["trace"];
  const stack = Array.isArray(lines) ? lines.map(lineOf).join("\n").slice(0, STACK_LENGTH_MAX) : "";
  return {
    type: named.slice(0, 256),
    message: message.slice(0, MESSAGE_LENGTH_MAX),
    ...(stack === "" ? {} : { stack }),
    ...(value === null || text.length > STACK_LENGTH_MAX ? {} : { told: text }),
  };
}

/** A frame is text, or an object of some kind. */
function lineOf(line: unknown): string {
  return typeof line === "string" ? line : (JSON.stringify(line) ?? "");
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function parsed(text: string): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Readonly<Record<string, unknown>>)
      : null;
  } catch {
    return null;
  }
}
