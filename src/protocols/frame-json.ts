import { KoineError, type ThrownReport } from "../core/errors.ts";
import type { CodeCacheFile } from "../core/code-package.ts";
import type { HttpCall, ResponseHead } from "../core/invocation.ts";
import { RecentTexts } from "../core/recent.ts";
import type { LinkInvocation, Specialisation, Specialised } from "./protocol.ts";

/** The JSON inside frames. What comes from an instance is written by somebody else's code: every field is checked. */
const PROTOCOL_VERSION = 1;
/** Longest texts of an error that are kept, in characters. */
const MESSAGE_LENGTH_MAX = 8_192;
const STACK_LENGTH_MAX = 32_768;

/** What is the same text in JSON, between quotation marks. */
const PLAIN = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/;

/** An invocation's head as JSON: its beginning as text, its end as bytes. */
export interface EncodedHead {
  readonly text: string;
  readonly rest: Buffer;
}

/** What many requests of a client have in common, which is most of a head. */
interface Rest {
  readonly basePath: string;
  readonly origin: string;
  readonly remoteAddress: string;
  readonly bytes: Buffer;
}

const RECENT_RESTS = 32;
const EMPTY = Buffer.alloc(0);

/** Writes heads by hand: of what an HTTP call says, only the headers need a real encoder, and those are mostly encoded already. */
export class HeadEncoder {
  /** By the headers as JSON. */
  readonly #recent = new RecentTexts<Rest>(RECENT_RESTS);

  encode(invocation: LinkInvocation): EncodedHead {
    const { id, attempt, deadlineMs, call } = invocation;
    if (call.kind === "event") {
      const { contentType, context } = call;
      const text = JSON.stringify({ id, attempt, deadlineMs, kind: "event", contentType, context });
      return { text, rest: EMPTY };
    }
    const text =
      `{"id":${quoted(id)},"attempt":${attempt},"deadlineMs":${deadlineMs},"kind":"http","method":${quoted(call.method)},` +
      `"url":${quoted(call.url)}`;
    return { text, rest: this.#rest(call) };
  }

  #rest({ headers, headersJson, basePath, origin, remoteAddress, context }: HttpCall): Buffer {
    const json = headersJson ?? JSON.stringify(headers);
    // What a dialect adds belongs to one request: there is nothing to remember.
    if (context !== undefined)
      return Buffer.from(`,"headers":${json},${JSON.stringify({ basePath, origin, remoteAddress, context }).slice(1)}`);
    const known = this.#recent.get(json);
    if (known?.basePath === basePath && known.origin === origin && known.remoteAddress === remoteAddress)
      return known.bytes;
    const bytes = Buffer.from(
      `,"headers":${json},"basePath":${quoted(basePath)},"origin":${quoted(origin)},"remoteAddress":${quoted(remoteAddress)}}`,
    );
    this.#recent.set(json, { basePath, origin, remoteAddress, bytes });
    return bytes;
  }
}

function quoted(text: string): string {
  return PLAIN.test(text) ? `"${text}"` : JSON.stringify(text);
}

/** What a READY says, or what is wrong with it. */
export function parseReady(payload: Buffer): { readonly invokesEarly: boolean } | string {
  const ready = parseObject(payload);
  if (ready === null) return "a malformed READY";
  const version = ready["protocol"];
  if (version !== PROTOCOL_VERSION) return `protocol version ${String(version)}`;
  return { invokesEarly: ready["invokesEarly"] === true };
}

const CODE_CACHE_PATH = /^[\w-][\w.-]{0,100}(\/[\w-][\w.-]{0,100}){0,7}$/;

/** Null when it is malformed, or leads out of where it belongs. The content is a copy. */
export function parseCodeCache(payload: Buffer): CodeCacheFile | null {
  if (payload.length < 2) return null;
  const contentAt = 2 + payload.readUInt16LE(0);
  if (contentAt > payload.length) return null;
  const path = payload.toString("latin1", 2, contentAt);
  return CODE_CACHE_PATH.test(path) ? { path, content: Buffer.from(payload.subarray(contentAt)) } : null;
}

export function parseSpecialised(payload: Buffer): Specialised | null {
  const { handlerModel, loadMs } = parseObject(payload) ?? {};
  if (typeof handlerModel !== "string" || typeof loadMs !== "number" || !(loadMs >= 0)) return null;
  return { handlerModel, loadMs };
}

/** An answer's head, and why it cannot be sent over HTTP. */
export interface ParsedHead {
  readonly head: ResponseHead;
  readonly problem: string | null;
}

/** Texts of heads up to this length are remembered, in bytes. */
const RECENT_HEAD_BYTES_MAX = 1_024;
const RECENT_HEADS = 32;

/** Reads the heads that instances send. A function mostly answers with the same few, and gets the same object for them. */
export class HeadParser {
  readonly #recent = new RecentTexts<ParsedHead>(RECENT_HEADS);

  /** Null when it has not the form of a HEAD. */
  parse(payload: Buffer): ParsedHead | null {
    if (payload.length > RECENT_HEAD_BYTES_MAX) return parseHead(payload);
    const text = payload.toString("latin1");
    const known = this.#recent.get(text);
    if (known !== undefined) return known;
    const parsed = parseHead(payload);
    if (parsed !== null) this.#recent.set(text, parsed);
    return parsed;
  }
}

function parseHead(payload: Buffer): ParsedHead | null {
  const { status, headers } = parseObject(payload) ?? {};
  if (typeof status !== "number" || !Array.isArray(headers) || headers.length % 2 !== 0) return null;
  if (!headers.every((part) => typeof part === "string")) return null;
  const head = { status, headers };
  return { head, problem: headProblem(head) };
}

const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

function headProblem(head: ResponseHead): string | null {
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
      ? {
          type: type.slice(0, 256),
          message,
          ...textField("stack", error["stack"], STACK_LENGTH_MAX),
          ...(error["retryable"] === false ? { retryable: false } : {}),
        }
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
