import type { Caller } from "../../core/invocation.ts";
import { newId } from "../../core/ids.ts";
import type { AnswerHead, BodyReader, GatewayResponse, RequestBody, ResponseListener } from "../../dialects/dialect.ts";
import type { RequestHeaders } from "../../dialects/request-headers.ts";
import type { EdgeRequest } from "../edge-request.ts";
import { type Framing, isBodiless, renderHead } from "./answer.ts";
import type { RequestHead } from "./reader.ts";

/** What an exchange needs of its connection. */
export interface ExchangeOwner {
  readonly remoteAddress: string;
  /** Lines that end a head, with the length of the body where it is known. */
  tail(closes: boolean, lengthBytes: number | null): string;
  /** Whether the connection is to end with this answer, for reasons of its own. */
  ending(exchange: Http1Exchange): boolean;
  /** Sends a part of an answer, in its turn; answers false when the client cannot take more now. */
  put(exchange: Http1Exchange, text: string, bytes: Buffer | null): boolean;
  /** The answer is complete. */
  answered(exchange: Http1Exchange): void;
  /** The body may flow, or may not any more. */
  bodyWanted(exchange: Http1Exchange): void;
  /** Breaks the connection. */
  destroy(): void;
}

const EMPTY = Buffer.alloc(0);
/** Bodies up to this size leave in one piece with their head; copying them costs less than a second buffer in the write. */
const JOINED_BYTES_MAX = 16_384;

/** One request and its answer on a connection. The contract's three views of it are one object: there is one for every request. */
export class Http1Exchange implements EdgeRequest, RequestBody, GatewayResponse {
  readonly id: string;
  readonly receivedAtMs: number;
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly headers: RequestHeaders;
  caller: Caller | null = null;
  readonly lengthBytes: number;
  whole: Buffer | null;
  listener: ResponseListener | null = null;
  /** The connection ends after this exchange. */
  closes: boolean;

  /** The exchange that came after it on the connection. */
  next: Http1Exchange | null = null;
  /** What waits for the answers before it. */
  heldText = "";
  heldBytes: Buffer[] | null = null;
  heldLength = 0;

  readonly #owner: ExchangeOwner;
  #reader: BodyReader | null = null;
  #paused = false;
  #bodyOver: boolean;
  #answer: "none" | "begun" | "complete" | "gone" = "none";
  #framing: Framing = "none";
  /** Bytes of the body that the head promised and that are still to come. */
  #missing = 0;

  constructor(owner: ExchangeOwner, head: RequestHead, receivedAtMs: number) {
    const { target, fields } = head;
    const queryAt = target.indexOf("?");
    this.#owner = owner;
    this.id = newId(receivedAtMs);
    this.receivedAtMs = receivedAtMs;
    this.method = head.method;
    this.path = queryAt < 0 ? target : target.slice(0, queryAt);
    this.query = queryAt < 0 ? "" : target.slice(queryAt);
    this.headers = fields.headers;
    this.lengthBytes = fields.bodyLength;
    this.closes = fields.closes;
    this.whole = fields.bodyLength === 0 ? EMPTY : null;
    this.#bodyOver = fields.bodyLength === 0;
  }

  get remoteAddress(): string {
    return this.#owner.remoteAddress;
  }

  get body(): RequestBody {
    return this;
  }

  get response(): GatewayResponse {
    return this;
  }

  // RequestBody

  read(reader: BodyReader): void {
    this.#reader = reader;
    this.#owner.bodyWanted(this);
  }

  pause(): void {
    if (this.#paused || this.complete) return;
    this.#paused = true;
    this.#owner.bodyWanted(this);
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#owner.bodyWanted(this);
  }

  // GatewayResponse

  get begun(): boolean {
    return this.#answer !== "none";
  }

  get complete(): boolean {
    return this.#answer === "complete" || this.#answer === "gone";
  }

  send(head: AnswerHead, body: Buffer | string | null): void {
    if (this.#answer !== "none") return;
    const bytes = typeof body === "string" ? Buffer.from(body) : body;
    const length = announcedLength(head, this.method, bytes);
    const sent = this.method === "HEAD" || isBodiless(head.status) ? null : bytes;
    // The head says whether the connection closes, so it comes first.
    const begin = this.#headText(head);
    const text = begin + this.#owner.tail(this.closes, length);
    this.#answer = "complete";
    if (sent === null || sent.length === 0) this.#owner.put(this, text, null);
    else if (sent.length <= JOINED_BYTES_MAX) this.#owner.put(this, text + sent.toString("latin1"), null);
    else this.#owner.put(this, text, sent);
    this.#owner.answered(this);
  }

  begin(head: AnswerHead): void {
    if (this.#answer !== "none") return;
    let text = this.#headText(head);
    this.#framing = "none";
    if (isBodiless(head.status) || this.method === "HEAD") {
      if (head.lengthBytes !== null && head.status !== 204) text += `Content-Length: ${head.lengthBytes}\r\n`;
    } else if (head.lengthBytes === null) {
      this.#framing = "chunked";
      text += "Transfer-Encoding: chunked\r\n";
    } else {
      this.#framing = "length";
      this.#missing = head.lengthBytes;
      text += `Content-Length: ${head.lengthBytes}\r\n`;
    }
    this.#answer = "begun";
    this.#owner.put(this, text + this.#owner.tail(this.closes, null), null);
  }

  write(chunk: Buffer | string): boolean {
    if (this.#answer !== "begun") return true;
    const bytes = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
    if (bytes.length === 0) return true;
    switch (this.#framing) {
      case "none":
        return true;
      case "chunked": {
        const size = `${bytes.length.toString(16)}\r\n`;
        if (bytes.length <= JOINED_BYTES_MAX)
          return this.#owner.put(this, `${size}${bytes.toString("latin1")}\r\n`, null);
        this.#owner.put(this, size, bytes);
        return this.#owner.put(this, "\r\n", null);
      }
      case "length":
        this.#missing -= bytes.length;
        if (this.#missing >= 0) return this.#owner.put(this, "", bytes);
        // More than was promised: the client would take the rest for the next answer.
        this.abort();
        return true;
      default:
        return this.#framing satisfies never;
    }
  }

  end(): void {
    if (this.#answer !== "begun") return;
    if (this.#framing === "length" && this.#missing > 0) {
      this.abort();
      return;
    }
    this.#answer = "complete";
    if (this.#framing === "chunked") this.#owner.put(this, "0\r\n\r\n", null);
    this.#owner.answered(this);
  }

  abort(): void {
    if (this.complete) return;
    this.#answer = "gone";
    this.#owner.destroy();
  }

  // What the connection does

  /** Whether pieces of the body would be taken now. Nobody wants what comes after the answer, and so it is taken. */
  get takesBody(): boolean {
    return this.complete || (this.#reader !== null && !this.#paused);
  }

  receive(piece: Buffer): void {
    if (!this.complete) this.#reader?.piece(piece);
  }

  received(): void {
    this.#bodyOver = true;
    if (!this.complete) this.#reader?.completed();
  }

  flowed(): void {
    if (this.#answer === "begun") this.listener?.flowed();
  }

  /** The connection is gone. */
  left(): void {
    const over = this.complete;
    this.#answer = "gone";
    if (!this.#bodyOver && !over) this.#reader?.cut();
    if (!over) this.listener?.left();
  }

  #headText(head: AnswerHead): string {
    const text = `${renderHead(head)}${this.id}\r\n`;
    if (head.closes || this.#owner.ending(this)) this.closes = true;
    return text;
  }
}

/** What Content-Length says in a whole answer; null: there is none. */
function announcedLength(head: AnswerHead, method: string, body: Buffer | null): number | null {
  if (head.status === 204) return null;
  if (head.status === 304) return head.lengthBytes;
  if (method === "HEAD") return head.lengthBytes ?? body?.length ?? null;
  return body?.length ?? 0;
}
