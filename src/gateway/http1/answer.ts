import { STATUS_CODES } from "node:http";
import { KoineError } from "../../core/errors.ts";
import type { AnswerHead } from "../../dialects/dialect.ts";

/** How an answer says where its body ends. */
export type Framing = "none" | "length" | "chunked";

const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

/** Status line and headers of an answer, made once for each head. */
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
  head.rendered = text;
  return text;
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

  constructor(keepAliveMs: number) {
    this.#keepAlive = `Connection: keep-alive\r\nKeep-Alive: timeout=${Math.floor(keepAliveMs / 1_000)}\r\n\r\n`;
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
