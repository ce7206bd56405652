import { STATUS_CODES } from "node:http";
import { invocationHeaders } from "../../core/api.ts";
import { KoineError } from "../../core/errors.ts";
import type { AnswerHead } from "../../dialects/dialect.ts";

/** How an answer says where its body ends. */
export type Framing = "none" | "length" | "chunked";

const REQUEST_ID = `${invocationHeaders.requestId}: `;
const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

/** Status line and headers of an answer up to the value of the request's id, made once for each head. */
export function renderHead(head: AnswerHead): string {
  if (head.rendered !== null) return head.rendered;
  let text = `HTTP/1.1 ${head.status} ${STATUS_CODES[head.status] ?? ""}\r\n`;
  for (let index = 0; index + 1 < head.headers.length; index += 2) {
    const name = head.headers[index] ?? "";
    const value = head.headers[index + 1] ?? "";
    // Whoever made the head has checked it; a line break here would be an answer of somebody else's making.
    if (!NAME.test(name) || !VALUE.test(value))
      throw new KoineError("internal", { detail: `header '${name}' of an answer cannot be sent` });
    text += `${name}: ${value}\r\n`;
  }
  head.rendered = flat(text + REQUEST_ID);
  return head.rendered;
}

/** In one piece: what was joined would be copied together for each answer anew. */
function flat(text: string): string {
  return Buffer.from(text, "latin1").toString("latin1");
}

/** Statuses whose answers have no body, whatever the headers say. */
export function isBodiless(status: number): boolean {
  return status === 204 || status === 304;
}

/** The lines at the end of a head, which change once a second. */
export class HeadTail {
  readonly #keepAlive: string;
  #second = 0;
  #keeping = "";
  #closing = "";
  #lengthBytes = -1;
  #lengthTail = "";
  #lengthText = "";

  constructor(keepAliveMs: number) {
    this.#keepAlive = `Connection: keep-alive\r\nKeep-Alive: timeout=${Math.floor(keepAliveMs / 1_000)}\r\n\r\n`;
  }

  /** The same behind the length of the body. Answers of one kind mostly have the same length. */
  withLength(lengthBytes: number, nowMs: number, closes: boolean): string {
    const tail = this.at(nowMs, closes);
    if (lengthBytes !== this.#lengthBytes || tail !== this.#lengthTail) {
      this.#lengthBytes = lengthBytes;
      this.#lengthTail = tail;
      this.#lengthText = flat(`Content-Length: ${lengthBytes}\r\n${tail}`);
    }
    return this.#lengthText;
  }

  /** Date, and whether the connection stays open, with the empty line. */
  at(nowMs: number, closes: boolean): string {
    const second = Math.floor(nowMs / 1_000);
    if (second !== this.#second) {
      this.#second = second;
      const date = `Date: ${new Date(nowMs).toUTCString()}\r\n`;
      this.#keeping = date + this.#keepAlive;
      this.#closing = `${date}Connection: close\r\n\r\n`;
    }
    return closes ? this.#closing : this.#keeping;
  }
}
