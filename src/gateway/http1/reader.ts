import { RecentTexts } from "../../core/recent.ts";
import { RequestHeaders } from "../../dialects/request-headers.ts";

/** The largest head that is read here, in bytes; a larger one is somebody else's. */
export const HEAD_BYTES_MAX = 8_192;

/**
 * What stands at a place of what a client sent. `request`: a request of the common kind, without any doubt about where it begins and ends.
 * `incomplete`: may become one when more comes. `odd`: anything else, right or wrong.
 */
export type Reading = "request" | "incomplete" | "odd";

/** A request's head; one object is used for all, so whoever keeps something copies it. */
export class RequestHead {
  method = "";
  /** Path and query, as sent. */
  target = "";
  fields: HeaderFields = NO_FIELDS;
  /** Bytes of the head, the empty line included. */
  length = 0;
}

/** The header lines of a request, and what they say about the connection. */
export interface HeaderFields {
  readonly headers: RequestHeaders;
  /** Bytes of the body. */
  readonly bodyLength: number;
  /** The client wants no further request on the connection. */
  readonly closes: boolean;
}

const NO_FIELDS: HeaderFields = { headers: new RequestHeaders([]), bodyLength: 0, closes: false };
const RECENT_FIELDS = 256;
const KEPT_TEXT_LENGTH_MAX = 2_048;

const METHODS = ["GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS"] as const;
const VERSION_AND_END = " HTTP/1.1\r\n";
/** Origin form by RFC 3986; percent signs are looked at apart. */
const TARGET = /^\/[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]*$/;
const BAD_PERCENT = /%(?![0-9A-Fa-f]{2})/;
/** One line: a token, a colon at once, a value without control characters. */
const LINE = /([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)\r\n/y;
const HOST = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._]+)(?::[0-9]{0,5})?$/;
const LENGTH = /^(?:0|[1-9][0-9]{0,14})$/;
/** What a head looks like as far as it has come: text, and line ends that are whole. */
const BEGINNING = /^[A-Z](?:[\t\x20-\x7e\x80-\xff]|\r\n)*\r?$/;

/**
 * Reads heads of requests: strictly what RFC 9112 and RFC 9110 define, and of that only what is common. It refuses nothing: whatever is not
 * beyond doubt is `odd`. Clients mostly send the same header lines again and again, so their meaning is kept for a while.
 */
export class HeadReader {
  readonly head = new RequestHead();
  readonly #recent = new RecentTexts<HeaderFields>(RECENT_FIELDS);

  /** Reads what begins at `at`; with `request` as the answer, `head` tells about it. */
  read(bytes: Buffer, at: number): Reading {
    const text = bytes.toString("latin1", at, Math.min(bytes.length, at + HEAD_BYTES_MAX));
    const end = text.indexOf("\r\n\r\n");
    if (end < 0) return text.length < HEAD_BYTES_MAX && BEGINNING.test(text) ? "incomplete" : "odd";
    const lineEnd = text.indexOf("\r\n");
    const method = methodOf(text);
    const targetEnd = lineEnd - VERSION_AND_END.length + 2;
    if (method === null || targetEnd < method.length + 2 || !text.startsWith(VERSION_AND_END, targetEnd)) return "odd";
    const target = text.slice(method.length + 1, targetEnd);
    if (!TARGET.test(target) || (target.includes("%") && BAD_PERCENT.test(target))) return "odd";
    const fields = this.#fields(text.slice(lineEnd + 2, end + 2), bytes, at + lineEnd + 2);
    if (fields === null) return "odd";
    const { head } = this;
    head.method = method;
    head.target = target;
    head.fields = fields;
    head.length = end + 4;
    return "request";
  }

  #fields(text: string, bytes: Buffer, at: number): HeaderFields | null {
    const known = this.#recent.get(text);
    if (known !== undefined) return known;
    // Made anew: a slice would keep everything alive that it was cut from.
    const kept = bytes.toString("latin1", at, at + text.length);
    const fields = parseFields(kept);
    if (fields !== null && kept.length <= KEPT_TEXT_LENGTH_MAX) this.#recent.set(kept, fields);
    return fields;
  }
}

function methodOf(text: string): string | null {
  for (const method of METHODS) {
    if (text.startsWith(method) && text.charCodeAt(method.length) === 0x20) return method;
  }
  return null;
}

/** Null when a line is odd, or says something that only few clients say. */
function parseFields(text: string): HeaderFields | null {
  const raw: string[] = [];
  const names: string[] = [];
  let hosts = 0;
  let bodyLength = -1;
  let closes = false;
  LINE.lastIndex = 0;
  while (LINE.lastIndex < text.length) {
    const line = LINE.exec(text);
    if (line === null) return null;
    const [, name = "", padded = ""] = line;
    const value = trimmed(padded);
    const lower = name.toLowerCase();
    raw.push(name, value);
    names.push(lower);
    switch (lower) {
      case "host":
        if (!HOST.test(value)) return null;
        hosts++;
        break;
      case "content-length":
        if (bodyLength >= 0 || !LENGTH.test(value)) return null;
        bodyLength = Number(value);
        break;
      case "connection": {
        const option = value.toLowerCase();
        if (option !== "close" && option !== "keep-alive") return null;
        closes ||= option === "close";
        break;
      }
      case "expect":
      case "http2-settings":
      case "proxy-connection":
      case "transfer-encoding":
      case "upgrade":
        return null;
      default:
        break;
    }
  }
  if (hosts !== 1) return null;
  return { headers: new RequestHeaders(raw, names), bodyLength: Math.max(0, bodyLength), closes };
}

/** Without the optional white space of RFC 9110, which is not what `trim` takes for it. */
function trimmed(value: string): string {
  let from = 0;
  let to = value.length;
  while (from < to && isBlank(value.charCodeAt(from))) from++;
  while (to > from && isBlank(value.charCodeAt(to - 1))) to--;
  return value.slice(from, to);
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}
