import type { IncomingMessage } from "node:http";
import { STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";
import { invocationHeaders } from "../core/api.ts";
import { newId } from "../core/ids.ts";
import type { Caller } from "../core/invocation.ts";
import type { AnswerHead, BodyReader, GatewayResponse, RequestBody, ResponseListener } from "../dialects/dialect.ts";
import { RequestHeaders } from "../dialects/request-headers.ts";
import type { EdgeRequest } from "./edge-request.ts";

const EMPTY = Buffer.alloc(0);

/** Whether a request asks for a protocol that is passed on to functions; to others it is a request like any. */
export function asksForUpgrade(incoming: IncomingMessage): boolean {
  return incoming.method === "GET" && incoming.headers.upgrade?.toLowerCase() === "websocket";
}

/**
 * A request to switch protocols. After an answer of 101 the bodies are the bytes of the other protocol, both ways, until one side ends; any
 * other answer is the last one on its connection.
 */
export class UpgradeExchange implements EdgeRequest, RequestBody, GatewayResponse {
  readonly id: string;
  readonly receivedAtMs: number;
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly headers: RequestHeaders;
  readonly remoteAddress: string;
  readonly upgrade: string;
  readonly lengthBytes = 0;
  /** Of the request itself; what follows 101 is read. */
  readonly whole = EMPTY;
  caller: Caller | null = null;
  listener: ResponseListener | null = null;
  readonly #socket: Duplex;
  readonly #first: Buffer;
  #answer: "none" | "begun" | "complete" = "none";

  constructor(incoming: IncomingMessage, socket: Duplex, first: Buffer) {
    this.receivedAtMs = Date.now();
    this.id = newId(this.receivedAtMs);
    this.#socket = socket;
    this.#first = first;
    this.method = incoming.method ?? "GET";
    this.upgrade = incoming.headers.upgrade ?? "";
    const url = incoming.url ?? "/";
    const queryAt = url.indexOf("?");
    this.path = queryAt < 0 ? url : url.slice(0, queryAt);
    this.query = queryAt < 0 ? "" : url.slice(queryAt);
    this.headers = new RequestHeaders(incoming.rawHeaders);
    this.remoteAddress = incoming.socket.remoteAddress ?? "";
    socket.on("error", () => {});
    socket.on("drain", () => this.listener?.flowed());
    socket.on("close", () => {
      if (this.#answer !== "complete") this.listener?.left();
      this.#answer = "complete";
    });
  }

  get body(): RequestBody {
    return this;
  }

  get response(): GatewayResponse {
    return this;
  }

  // RequestBody

  read(reader: BodyReader): void {
    if (this.#first.length > 0) reader.piece(this.#first);
    this.#socket.on("data", (chunk: Buffer) => reader.piece(chunk));
    this.#socket.on("end", () => reader.completed());
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  // GatewayResponse

  get begun(): boolean {
    return this.#answer !== "none";
  }

  send(head: AnswerHead, body: Buffer | string | null): void {
    if (this.#answer !== "none") return;
    this.#answer = "complete";
    const bytes = body === null ? EMPTY : Buffer.from(body);
    this.#writeHead(head, ["Content-Length", String(bytes.length), "Connection", "close"]);
    this.#socket.end(bytes);
  }

  begin(head: AnswerHead): void {
    if (this.#answer !== "none") return;
    this.#answer = "begun";
    const isSwitch = head.status === 101;
    this.#writeHead(head, ["Connection", isSwitch ? "Upgrade" : "close"]);
  }

  write(chunk: Buffer | string): boolean {
    return this.#answer === "begun" ? this.#socket.write(chunk) : true;
  }

  end(): void {
    if (this.#answer !== "begun") return;
    this.#answer = "complete";
    this.#socket.end();
  }

  abort(): void {
    this.#answer = "complete";
    this.#socket.destroy();
  }

  #writeHead(head: AnswerHead, more: readonly string[]): void {
    const headers = [...head.headers, invocationHeaders.requestId, this.id, ...more];
    let text = `HTTP/1.1 ${head.status} ${STATUS_CODES[head.status] ?? ""}\r\n`;
    for (let index = 0; index + 1 < headers.length; index += 2) text += `${headers[index]}: ${headers[index + 1]}\r\n`;
    this.#socket.write(`${text}\r\n`, "latin1");
  }
}
