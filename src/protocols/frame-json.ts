import { KoineError, type ThrownReport } from "../core/errors.ts";
import type { ResponseHead } from "../core/invocation.ts";
import type { LinkInvocation, Specialisation, Specialised } from "./protocol.ts";

/** The JSON inside frames. What comes from an instance is written by somebody else's code: every field is checked. */
const PROTOCOL_VERSION = 1;
/** Longest texts of an error that are kept, in characters. */
const MESSAGE_LENGTH_MAX = 8_192;
const STACK_LENGTH_MAX = 32_768;

export function encodeHead(invocation: LinkInvocation): string {
  const { id, attempt, deadlineMs, call } = invocation;
  return JSON.stringify(
    call.kind === "http"
      ? {
          id,
          attempt,
          deadlineMs,
          kind: "http",
          method: call.method,
          url: call.url,
          headers: call.headers,
          basePath: call.basePath,
          origin: call.origin,
          remoteAddress: call.remoteAddress,
        }
      : { id, attempt, deadlineMs, kind: "event", contentType: call.contentType, context: call.context },
  );
}

/** Answers what is wrong with a READY, or null. */
export function parseReady(payload: Buffer): string | null {
  const ready = parseObject(payload);
  if (ready === null) return "a malformed READY";
  const version = ready["protocol"];
  return version === PROTOCOL_VERSION ? null : `protocol version ${String(version)}`;
}

export function parseSpecialised(payload: Buffer): Specialised | null {
  const { handlerModel, loadMs } = parseObject(payload) ?? {};
  if (typeof handlerModel !== "string" || typeof loadMs !== "number" || !(loadMs >= 0)) return null;
  return { handlerModel, loadMs };
}

/** Null when it has not the form of a HEAD; whether its values can be used says `headProblem`. */
export function parseHead(payload: Buffer): ResponseHead | null {
  const { status, headers } = parseObject(payload) ?? {};
  if (typeof status !== "number" || !Array.isArray(headers) || headers.length % 2 !== 0) return null;
  if (!headers.every((part) => typeof part === "string")) return null;
  return { status, headers };
}

const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

/** Answers why an answer's head cannot be sent over HTTP, or null. */
export function headProblem(head: ResponseHead): string | null {
  const { status, headers } = head;
  if (!Number.isInteger(status) || status < 200 || status > 599) return `status ${status} is not one of 200 to 599`;
  for (let index = 0; index < headers.length; index += 2) {
    const name = headers[index] ?? "";
    if (!NAME.test(name)) return `'${name.slice(0, 100)}' is not a header name`;
    if (!VALUE.test(headers[index + 1] ?? ""))
      return `the value of header '${name}' has characters that HTTP does not allow`;
  }
  return null;
}

/** An error of an invocation, or (with the specialisation) of loading; null when the instance may not send such a one. */
export function parseError(payload: Buffer, of: Specialisation | "invocation"): KoineError | null {
  const error = parseObject(payload);
  if (error === null) return null;
  const { code, message: text, type } = error;
  if (typeof text !== "string") return null;
  const message = text.slice(0, MESSAGE_LENGTH_MAX);
  const thrown: ThrownReport | undefined =
    typeof type === "string"
      ? { type: type.slice(0, 256), message, ...textField("stack", error["stack"], STACK_LENGTH_MAX) }
      : undefined;
  const options = thrown === undefined ? {} : { thrown };
  if (of === "invocation") {
    if (code !== "handler-failed" && code !== "invalid-response") return null;
    const failed = code === "handler-failed" && thrown !== undefined;
    return new KoineError(code, { detail: failed ? `${thrown.type}: ${message}` : message }, options);
  }
  const { handler, handlerModel } = of;
  switch (code) {
    case "handler-load-failed":
      return new KoineError(
        code,
        { handler, detail: thrown === undefined ? message : `${thrown.type}: ${message}` },
        options,
      );
    case "handler-syntax-error":
      return new KoineError(code, { handler, detail: detailOr(error["detail"], message) }, options);
    case "handler-not-found":
      return new KoineError(code, { handler, detail: message, ...exportsField(error["exports"]) }, options);
    case "unknown-handler-model":
      return new KoineError(code, {
        model: handlerModel,
        runtime: detailOr(error["detail"], "of this language"),
        known: ["auto", ...of.adapters.map((adapter) => adapter.model)].join(", "),
      });
    default:
      return null;
  }
}

function detailOr(detail: unknown, otherwise: string): string {
  return typeof detail === "string" ? detail.slice(0, MESSAGE_LENGTH_MAX) : otherwise;
}

function exportsField(names: unknown): { exports?: string } {
  if (!Array.isArray(names)) return {};
  return {
    exports: names
      .filter((name) => typeof name === "string")
      .join(", ")
      .slice(0, MESSAGE_LENGTH_MAX),
  };
}

function textField(name: string, value: unknown, lengthMax: number): Record<string, string> {
  return typeof value === "string" ? { [name]: value.slice(0, lengthMax) } : {};
}

function parseObject(payload: Buffer): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(payload.toString("utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Readonly<Record<string, unknown>>)
      : null;
  } catch {
    return null;
  }
}
