import { once } from "node:events";
import { createServer } from "node:http";
import { connect, type Socket } from "node:net";
import { VirtualClock } from "../../../core/clock.ts";
import { AnswerHead } from "../../../dialects/dialect.ts";
import type { EdgeRequest } from "../../edge-request.ts";
import { Http1Front } from "../front.ts";

/** A front end that listens, with a `node:http` server behind it that says so, and time that a test moves. */
export class ServedFront implements AsyncDisposable {
  readonly clock = new VirtualClock();
  readonly front: Http1Front;
  /** What our own reader has read, in order. */
  readonly requests: EdgeRequest[] = [];
  /** Answers requests; by default at once, with method and path. */
  handle: (request: EdgeRequest) => void = (request) => answer(request, `${request.method} ${request.path}`);
  readonly #clients: Client[] = [];
  #port = 0;

  private constructor() {
    const server = createServer((incoming, response) => {
      incoming.resume().on("end", () => response.end(`node ${incoming.method} ${incoming.url}`));
    });
    const settings = {
      keepAliveMs: 65_000,
      slownessMsMax: 60_000,
      lingerMs: 5_000,
      wholeBodyBytesMax: 1_000,
      unwantedBytesMax: 1_000_000,
      clock: this.clock,
    };
    const handle = (request: EdgeRequest): void => {
      this.requests.push(request);
      this.handle(request);
    };
    const tooSlow = (): string => "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n";
    this.front = new Http1Front(server, settings, { handle, tooSlow });
  }

  static async listen(): Promise<ServedFront> {
    const served = new ServedFront();
    served.#port = (await served.front.listen(0, "127.0.0.1")).port;
    return served;
  }

  async connect(): Promise<Client> {
    const socket = connect({ port: this.#port, host: "127.0.0.1", allowHalfOpen: true });
    await once(socket, "connect");
    const client = new Client(socket);
    this.#clients.push(client);
    return client;
  }

  /** Resolves with so many requests read. */
  async read(count: number): Promise<readonly EdgeRequest[]> {
    await until(() => this.requests.length >= count);
    return this.requests;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { socket } of this.#clients) socket.destroy();
    await this.front.close(AbortSignal.abort());
  }
}

/** A client that says exactly what it is told. */
export class Client {
  readonly socket: Socket;
  received = "";
  ended = false;
  closed = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding("latin1").on("data", (text: string) => (this.received += text));
    socket.on("error", () => {});
    socket.on("end", () => (this.ended = true));
    socket.on("close", () => (this.closed = true));
  }

  send(text: string): void {
    this.socket.write(text, "latin1");
  }

  /** Resolves with everything received once it holds this text, so many times. */
  async until(text: string, times = 1): Promise<string> {
    await until(() => this.received.split(text).length > times);
    return this.received;
  }

  /** Resolves with everything received when the other side has ended. */
  async untilEnd(): Promise<string> {
    await until(() => this.ended || this.closed);
    return this.received;
  }
}

/** Looks again in every turn of the loop; the test's own limit ends what never comes. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
}

export function answer(request: EdgeRequest, text: string, headers: readonly string[] = []): void {
  request.response.send(new AnswerHead(200, headers), text);
}
