import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { Duplex } from "node:stream";
import { AnswerHead } from "../../../dialects/dialect.ts";
import type { EdgeRequest } from "../../edge-request.ts";
import { Http1Front } from "../front.ts";

/** A request as somebody read it; only those count whose body came to its end. */
export interface ReadRequest {
  readonly method: string;
  readonly target: string;
  readonly headers: readonly string[];
  readonly body: string;
}

export interface Comparison {
  readonly ours: readonly ReadRequest[];
  readonly oracle: readonly ReadRequest[];
  /** How many of `ours` our own reader has read; the rest was read by `node:http` after the connection was handed over. */
  readonly readByFront: number;
}

const SERVER_OPTIONS = { maxHeaderSize: 32 * 1024, requireHostHeader: false, keepAliveTimeout: 0, requestTimeout: 0 };

/** Lets a front end, and `node:http` alone, read the same bytes in the same pieces. */
export class ReaderComparison {
  readonly #oracle = createServer(SERVER_OPTIONS);
  readonly #behind = createServer(SERVER_OPTIONS);
  readonly #front: Http1Front;
  readonly #read = new Map<Duplex, ReadRequest[]>();
  #frontRead = 0;
  #late = false;
  #current: MemorySocket | null = null;

  constructor() {
    for (const server of [this.#oracle, this.#behind]) this.#record(server);
    const settings = {
      keepAliveMs: 60_000,
      slownessMsMax: 60_000,
      lingerMs: 1_000,
      wholeBodyBytesMax: 1_000,
      unwantedBytesMax: 1_000_000,
    };
    const handle = (request: EdgeRequest): void => this.#handle(request);
    this.#front = new Http1Front(this.#behind, settings, { handle, tooSlow: () => "" });
  }

  /** @param late whether our answers come in a later turn, so that pipelined requests wait for each other */
  async compare(pieces: readonly Buffer[], late: boolean): Promise<Comparison> {
    this.#frontRead = 0;
    this.#late = late;
    const ours = await this.#feed(this.#behind, pieces);
    const readByFront = this.#frontRead;
    return { ours, readByFront, oracle: await this.#feed(this.#oracle, pieces) };
  }

  close(): void {
    for (const timeouts of [this.#front.idle, this.#front.slow, this.#front.lingering]) timeouts.close();
  }

  async #feed(server: Server, pieces: readonly Buffer[]): Promise<readonly ReadRequest[]> {
    const socket = new MemorySocket();
    const read: ReadRequest[] = [];
    this.#read.set(socket, read);
    this.#current = socket;
    server.emit("connection", socket);
    for (const piece of pieces) {
      if (socket.destroyed) break;
      socket.push(piece);
      await turn();
    }
    // What was handed over, or answered in turn, takes a few more.
    for (let more = 0; more < (this.#late ? 8 : 3); more++) await turn();
    socket.destroy();
    await turn();
    this.#read.delete(socket);
    return [...read];
  }

  #handle(request: EdgeRequest): void {
    const { body, response, method } = request;
    const read = this.#current === null ? undefined : this.#read.get(this.#current);
    const ends = (text: string): void => {
      read?.push({ method, target: request.path + request.query, headers: request.headers.raw, body: text });
      this.#frontRead++;
      const answer = (): void => response.send(new AnswerHead(200, ["Content-Type", "text/plain"]), "ok");
      if (this.#late) setImmediate(answer);
      else answer();
    };
    if (body.whole !== null) {
      ends(body.whole.toString("latin1"));
      return;
    }
    let text = "";
    body.read({ piece: (chunk) => (text += chunk.toString("latin1")), completed: () => ends(text), cut: () => {} });
  }

  #record(server: Server): void {
    server.maxHeadersCount = 0;
    server.on("request", (incoming: IncomingMessage, response: ServerResponse) => {
      let text = "";
      incoming.setEncoding("latin1").on("data", (part: string) => (text += part));
      incoming.on("error", () => {});
      incoming.on("end", () => {
        const { method = "", url = "", rawHeaders } = incoming;
        this.#read.get(incoming.socket)?.push({ method, target: url, headers: rawHeaders, body: text });
        response.end("ok");
      });
    });
    // Not closed at once: what came whole before the bytes that are refused is still on its way.
    server.on("clientError", () => {});
  }
}

/** The server's end of a connection that exists in memory only. */
class MemorySocket extends Duplex {
  readonly remoteAddress = "127.0.0.1";

  constructor() {
    super({ allowHalfOpen: true, decodeStrings: false });
    this.on("error", () => {});
  }

  override _read(): void {}

  override _write(_chunk: unknown, _encoding: string, done: () => void): void {
    done();
  }

  destroySoon(): void {
    this.end(() => this.destroy());
  }

  setTimeout(): this {
    return this;
  }

  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
