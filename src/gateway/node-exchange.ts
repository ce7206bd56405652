import type { IncomingMessage, ServerResponse } from "node:http";
import { invocationHeaders } from "../core/api.ts";
import { newId } from "../core/ids.ts";
import type { Caller } from "../core/invocation.ts";
import { Timed, type Timeouts } from "../core/timeouts.ts";
import type { AnswerHead, BodyReader, GatewayResponse, RequestBody, ResponseListener } from "../dialects/dialect.ts";
import { RequestHeaders } from "../dialects/request-headers.ts";
import type { EdgeRequest } from "./edge-request.ts";

export interface NodeExchangeSettings {
  /** Bodies of which the next part is awaited. */
  readonly slow: Timeouts;
  /** What is taken and thrown away of a body after an early answer, in bytes. */
  readonly unwantedBytesMax: number;
}

const EMPTY = Buffer.alloc(0);

/** A request and its answer on a connection that `node:http` serves. */
export class NodeExchange extends Timed implements EdgeRequest, RequestBody, GatewayResponse {
  readonly id: string;
  readonly receivedAtMs: number;
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly headers: RequestHeaders;
  readonly remoteAddress: string;
  readonly lengthBytes: number | null;
  readonly whole: Buffer | null;
  caller: Caller | null = null;
  listener: ResponseListener | null = null;
  readonly #incoming: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #settings: NodeExchangeSettings;
  #unwanted = 0;
  /** Bytes that the head promised and that are still to come; null: their end will show. */
  #missing: number | null = null;

  constructor(incoming: IncomingMessage, response: ServerResponse, settings: NodeExchangeSettings) {
    super();
    this.receivedAtMs = Date.now();
    this.id = newId(this.receivedAtMs);
    this.#incoming = incoming;
    this.#response = response;
    this.#settings = settings;
    this.method = incoming.method ?? "GET";
    const url = pathOf(incoming.url ?? "/");
    const queryAt = url.indexOf("?");
    this.path = queryAt < 0 ? url : url.slice(0, queryAt);
    this.query = queryAt < 0 ? "" : url.slice(queryAt);
    this.headers = new RequestHeaders(incoming.rawHeaders);
    this.remoteAddress = incoming.socket.remoteAddress ?? "";
    const chunked = this.headers.get("transfer-encoding") !== undefined;
    this.lengthBytes = chunked ? null : Number(this.headers.get("content-length") ?? 0);
    this.whole = this.lengthBytes === 0 ? EMPTY : null;
    response.on("close", () => {
      this.timeouts?.remove(this);
      if (!response.writableFinished) this.listener?.left();
    });
    response.on("drain", () => this.listener?.flowed());
    response.once("finish", () => this.#discard());
  }

  get body(): RequestBody {
    return this;
  }

  get response(): GatewayResponse {
    return this;
  }

  override timedOut(): void {
    this.#incoming.destroy();
  }

  // RequestBody

  read(reader: BodyReader): void {
    const incoming = this.#incoming;
    incoming.on("data", (chunk: Buffer) => {
      if (this.#response.writableFinished) return;
      this.#settings.slow.add(this);
      reader.piece(chunk);
    });
    let over = false;
    const ends = (how: () => void): void => {
      this.timeouts?.remove(this);
      if (!over) how();
      over = true;
    };
    incoming.on("end", () => ends(() => reader.completed()));
    incoming.on("error", () => {});
    incoming.on("close", () => ends(() => reader.cut()));
    this.#settings.slow.add(this);
  }

  pause(): void {
    if (this.#response.writableFinished) return;
    this.timeouts?.remove(this);
    this.#incoming.pause();
  }

  resume(): void {
    if (!this.#incoming.isPaused()) return;
    this.#settings.slow.add(this);
    this.#incoming.resume();
  }

  // GatewayResponse

  get begun(): boolean {
    return this.#response.headersSent;
  }

  send(head: AnswerHead, body: Buffer | string | null): void {
    if (this.#response.headersSent) return;
    const bytes = typeof body === "string" ? Buffer.from(body) : body;
    const bodiless = this.method === "HEAD" || head.status === 304;
    const length = bodiless ? (head.lengthBytes ?? bytes?.length ?? null) : (bytes?.length ?? 0);
    this.#writeHead(head, head.status === 204 ? null : length);
    this.#response.end(bytes ?? undefined);
  }

  begin(head: AnswerHead): void {
    if (this.#response.headersSent) return;
    this.#missing = this.method === "HEAD" ? null : head.lengthBytes;
    this.#writeHead(head, head.lengthBytes);
  }

  write(chunk: Buffer | string): boolean {
    if (this.#missing !== null) {
      this.#missing -= Buffer.byteLength(chunk);
      if (this.#missing < 0) {
        this.abort();
        return true;
      }
    }
    return this.#response.write(chunk);
  }

  end(): void {
    if (this.#missing !== null && this.#missing > 0) this.abort();
    else this.#response.end();
  }

  abort(): void {
    if (!this.#response.writableFinished) this.#response.destroy();
  }

  #writeHead(head: AnswerHead, length: number | null): void {
    const headers = [...head.headers, invocationHeaders.requestId, this.id];
    if (length !== null) headers.push("Content-Length", String(length));
    if (head.closes) headers.push("Connection", "close");
    this.#response.writeHead(head.status, headers);
  }

  /** What nobody has read must still be taken from the connection, or the next request on it would wait for ever. */
  #discard(): void {
    const incoming = this.#incoming;
    if (incoming.complete) return;
    this.#settings.slow.add(this);
    incoming.on("data", (chunk: Buffer) => {
      this.#unwanted += chunk.length;
      this.#settings.slow.add(this);
      if (this.#unwanted > this.#settings.unwantedBytesMax) incoming.destroy();
    });
    incoming.on("end", () => this.timeouts?.remove(this));
    incoming.on("error", () => {});
    incoming.resume();
  }
}

/** What proxies send, `GET http://host/path`, means the same as `GET /path`. */
function pathOf(url: string): string {
  if (url.startsWith("/")) return url;
  const rest = /^https?:\/\/[^/?#]*(.*)$/i.exec(url)?.[1];
  if (rest === undefined) return url;
  return rest.startsWith("/") ? rest : `/${rest}`;
}
