import { type AddressInfo, createServer, type Server as NetServer, type Socket } from "node:net";
import type { Server } from "node:http";
import { type Clock, systemClock } from "../../core/clock.ts";
import { KoineError } from "../../core/errors.ts";
import { Timeouts } from "../../core/timeouts.ts";
import type { EdgeRequest } from "../edge-request.ts";
import { HeadTail } from "./answer.ts";
import { type ConnectionHost, Http1Connection } from "./connection.ts";
import { HeadReader } from "./reader.ts";

export interface FrontSettings {
  /** How long a connection may stay open without a request, in milliseconds. */
  readonly keepAliveMs: number;
  /** How long a client may take to send a head, a body that is collected here, or any part of another body, in milliseconds. */
  readonly slownessMsMax: number;
  /** How long the end of a connection may take after the last answer, in milliseconds. */
  readonly lingerMs: number;
  /** Bodies up to this size are collected before anybody hears of the request, in bytes. */
  readonly wholeBodyBytesMax: number;
  /** What is taken and thrown away of a body after an early answer, in bytes. */
  readonly unwantedBytesMax: number;
  readonly clock?: Clock;
}

export interface FrontEvents {
  handle(request: EdgeRequest): void;
  /** The whole answer for a client that took too long, status line and all. */
  tooSlow(): string;
}

export interface ListenOptions {
  /**
   * Several processes of the same user listen on the same port, and the kernel divides connections among them: the first, which makes sure that nobody
   * else does, or a further one.
   */
  readonly shared?: "first" | "further";
}

/**
 * Serves the common kind of HTTP/1.1 request by itself and leaves every other connection, with all that came on it, to the `node:http` server
 * it is given; that server is also the one that listens.
 */
export class Http1Front implements ConnectionHost {
  readonly reader = new HeadReader();
  readonly tail: HeadTail;
  readonly idle: Timeouts;
  readonly slow: Timeouts;
  readonly lingering: Timeouts;
  readonly wholeBodyBytesMax: number;
  readonly unwantedBytesMax: number;
  readonly #events: FrontEvents;
  readonly #server: Server;
  readonly #clock: Clock;
  readonly #leave: readonly ((socket: Socket) => void)[];
  readonly #connections = new Set<Http1Connection>();
  #second: NetServer | null = null;
  #closing = false;

  constructor(server: Server, settings: FrontSettings, events: FrontEvents) {
    const clock = settings.clock ?? systemClock;
    this.#server = server;
    this.#events = events;
    this.#clock = clock;
    this.tail = new HeadTail(settings.keepAliveMs);
    this.idle = new Timeouts(clock, settings.keepAliveMs);
    this.slow = new Timeouts(clock, settings.slownessMsMax);
    this.lingering = new Timeouts(clock, settings.lingerMs);
    this.wholeBodyBytesMax = settings.wholeBodyBytesMax;
    this.unwantedBytesMax = settings.unwantedBytesMax;
    // The server's own listeners get the connections that are left to it.
    this.#leave = server.listeners("connection") as ((socket: Socket) => void)[];
    server.removeAllListeners("connection");
    server.on("connection", (socket: Socket) => {
      this.#connections.add(new Http1Connection(this, socket));
    });
  }

  /** Begins to accept connections; answers the address. @throws KoineError `port-in-use`, `invalid-configuration` */
  async listen(port: number, host: string, { shared }: ListenOptions = {}): Promise<AddressInfo> {
    return await listenOn(this.#server, {
      port: shared === "first" ? await freePort(port, host) : port,
      host,
      reusePort: shared !== undefined,
    });
  }

  /** Accepts connections at another port too, until it closes. @throws KoineError `port-in-use`, `invalid-configuration` */
  async listenToo(port: number, host: string): Promise<AddressInfo> {
    const second = createServer({ allowHalfOpen: true, noDelay: true }, (socket) =>
      this.#server.emit("connection", socket),
    );
    const address = await listenOn(second, { port, host, reusePort: false });
    this.#second = second;
    return address;
  }

  /** Connections that are served here. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Takes no more connections; what is under way may end until the signal aborts. */
  async close(signal: AbortSignal): Promise<void> {
    this.#closing = true;
    this.#second?.close();
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    this.#server.closeIdleConnections();
    for (const connection of this.#connections) if (connection.isIdle) connection.destroy();
    const abort = (): void => {
      this.#server.closeAllConnections();
      for (const connection of this.#connections) connection.destroy();
    };
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
    await closed;
    for (const timeouts of [this.idle, this.slow, this.lingering]) timeouts.close();
  }

  // ConnectionHost

  get closing(): boolean {
    return this.#closing;
  }

  nowMs(): number {
    return this.#clock.nowMs();
  }

  handle(request: EdgeRequest): void {
    this.#events.handle(request);
  }

  handOver(socket: Socket, rest: Buffer): void {
    if (rest.length > 0) socket.unshift(rest);
    for (const leave of this.#leave) leave.call(this.#server, socket);
  }

  tooSlow(): string {
    return this.#events.tooSlow();
  }

  gone(connection: Http1Connection): void {
    this.#connections.delete(connection);
  }
}

/** @throws KoineError `port-in-use`, `invalid-configuration` */
async function listenOn(
  server: NetServer,
  { port, host, reusePort }: { readonly port: number; readonly host: string; readonly reusePort: boolean },
): Promise<AddressInfo> {
  await new Promise<void>((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException): void => {
      const detail = `cannot listen on ${host}:${port}: ${error.message}`;
      if (error.code === "EADDRINUSE") reject(new KoineError("port-in-use", { port, host }, { cause: error }));
      else reject(new KoineError("invalid-configuration", { detail }, { cause: error }));
    };
    server.once("error", failed);
    server.listen({ port, host, backlog: 1_024, reusePort }, () => {
      server.off("error", failed);
      resolve();
    });
  });
  const address = server.address();
  if (address === null || typeof address === "string")
    throw new KoineError("internal", { detail: "the server has no address" });
  return address;
}

/** Who shares a port is not told that another platform shares it too: so it is looked at without sharing first. */
async function freePort(port: number, host: string): Promise<number> {
  const server = createServer();
  const address = await listenOn(server, { port, host, reusePort: false });
  await new Promise((resolve) => server.close(resolve));
  return address.port;
}
