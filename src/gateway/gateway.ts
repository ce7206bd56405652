import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from "node:http";
import type { AddressInfo } from "node:net";
import { type ErrorBody, invocationHeaders } from "../core/api.ts";
import { KoineError, toKoineError } from "../core/errors.ts";
import { newId } from "../core/ids.ts";
import type { Limits } from "../core/limits.ts";
import type { Counter, Logger, Telemetry } from "../core/telemetry.ts";
import type { Dialect, GatewayRequest } from "../dialects/dialect.ts";
import { respondError, respondJson, respondText } from "../dialects/respond.ts";
import type { Access } from "./access.ts";

export interface GatewayParts {
  readonly access: Access;
  /** In the order in which they are asked. */
  readonly dialects: readonly Dialect[];
  readonly telemetry: Telemetry;
  readonly logger: Logger;
  readonly limits: Limits;
  readonly openapi: () => Readonly<Record<string, unknown>>;
}

const KEEP_ALIVE_MS = 65_000;
const HEADERS_TIMEOUT_MS = 60_000;

/** The HTTP edge: request ids, identity, health, metrics; everything else is a dialect's. */
export class Gateway {
  readonly #parts: GatewayParts;
  readonly #server: Server;
  readonly #requests: Counter;
  readonly #refused: Counter;
  #ready = false;
  #closing = false;

  constructor(parts: GatewayParts) {
    this.#parts = parts;
    this.#requests = parts.telemetry.counter("koine_http_requests_total", "HTTP requests received.");
    this.#refused = parts.telemetry.counter("koine_http_refused_total", "HTTP requests that could not be parsed.");
    this.#server = createServer(
      {
        maxHeaderSize: parts.limits.headerBytesMax,
        keepAliveTimeout: KEEP_ALIVE_MS,
        headersTimeout: HEADERS_TIMEOUT_MS,
        requestTimeout: 0,
        // Refused by `#handle`, in the platform's own words.
        requireHostHeader: false,
      },
      (incoming, response) => this.#handle(incoming, response),
    );
    // Their bytes are bounded; their count need not be.
    this.#server.maxHeadersCount = 0;
    this.#server.on("checkContinue", (incoming, response) => {
      // A body that is going to be refused is not asked for.
      if (!(Number(incoming.headers["content-length"]) > parts.limits.requestBodyBytesMax)) response.writeContinue();
      this.#handle(incoming, response);
    });
    this.#server.on("checkExpectation", (incoming, response) => this.#handle(incoming, response));
    this.#server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
      this.#refused.add();
      if (socket.writable) socket.end(this.#refusal(error));
      else socket.destroy();
    });
  }

  /** Begins to accept connections; answers the address. @throws KoineError `port-in-use`, `invalid-configuration` */
  async listen(port: number, host: string): Promise<AddressInfo> {
    await new Promise<void>((resolve, reject) => {
      const failed = (error: NodeJS.ErrnoException): void => {
        if (error.code === "EADDRINUSE") reject(new KoineError("port-in-use", { port, host }, { cause: error }));
        else
          reject(
            new KoineError(
              "invalid-configuration",
              { detail: `cannot listen on ${host}:${port}: ${error.message}` },
              { cause: error },
            ),
          );
      };
      this.#server.once("error", failed);
      this.#server.listen({ port, host, backlog: 1_024 }, () => {
        this.#server.off("error", failed);
        resolve();
      });
    });
    const address = this.#server.address();
    if (address === null || typeof address === "string")
      throw new KoineError("internal", { detail: "the server has no address" });
    return address;
  }

  /** Says whether `/readyz` answers 200. */
  setReady(ready: boolean): void {
    this.#ready = ready;
  }

  /** Takes no more connections; what is under way may end until the signal aborts. */
  async close(signal: AbortSignal): Promise<void> {
    this.#closing = true;
    this.#ready = false;
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    this.#server.closeIdleConnections();
    const abort = (): void => this.#server.closeAllConnections();
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
    await closed;
  }

  #handle(incoming: IncomingMessage, response: ServerResponse): void {
    const receivedAtMs = Date.now();
    const id = newId(receivedAtMs);
    this.#requests.add();
    if (this.#closing) response.shouldKeepAlive = false;
    try {
      if (incoming.headers.host === undefined && incoming.httpVersion === "1.1")
        throw new KoineError("invalid-request", { detail: "a request of HTTP/1.1 needs a Host header" });
      const url = pathOf(incoming.url ?? "/");
      const queryAt = url.indexOf("?");
      const path = queryAt < 0 ? url : url.slice(0, queryAt);
      if (this.#health(path, id, response)) return;
      const request: GatewayRequest = {
        incoming,
        response,
        id,
        receivedAtMs,
        path,
        query: queryAt < 0 ? "" : url.slice(queryAt),
        caller: this.#parts.access.identify(incoming),
      };
      if (this.#own(request)) return;
      for (const dialect of this.#parts.dialects) if (dialect.handle(request)) return;
      throw new KoineError("not-found", { path });
    } catch (thrown) {
      const error = toKoineError(thrown);
      if (error.code === "internal")
        this.#parts.logger.log("error", "a request failed", { requestId: id, error: String(error.cause) });
      respondError(response, id, error);
    }
  }

  /** The whole answer to a request that could not be parsed; there is no response object for it. */
  #refusal(error: NodeJS.ErrnoException): string {
    const limit = this.#parts.limits.headerBytesMax;
    const refused =
      error.code === "HPE_HEADER_OVERFLOW"
        ? new KoineError("headers-too-large", { limit })
        : new KoineError("invalid-request", { detail: `it is not HTTP: ${error.message}` });
    const requestId = newId();
    const body: ErrorBody = { error: { ...refused.report(), requestId } };
    const text = `${JSON.stringify(body)}\n`;
    return [
      `HTTP/1.1 ${refused.status} ${STATUS_CODES[refused.status] ?? ""}`,
      "Connection: close",
      "Content-Type: application/json; charset=utf-8",
      `Content-Length: ${Buffer.byteLength(text)}`,
      `${invocationHeaders.error}: ${refused.code}`,
      `${invocationHeaders.requestId}: ${requestId}`,
      `\r\n${text}`,
    ].join("\r\n");
  }

  /** Answered to everybody: they say nothing but yes or no. */
  #health(path: string, id: string, response: ServerResponse): boolean {
    if (path !== "/healthz" && path !== "/readyz") return false;
    const ok = path === "/healthz" || this.#ready;
    respondText(response, id, { status: ok ? 200 : 503, text: ok ? "ok\n" : "not ready\n" });
    return true;
  }

  #own(request: GatewayRequest): boolean {
    const { path, id, response, caller } = request;
    if (path !== "/metrics" && path !== "/openapi.json") return false;
    if (caller === null || !caller.rights.has("read")) throw new KoineError("unauthorized");
    if (path === "/openapi.json") respondJson(response, id, { status: 200, body: this.#parts.openapi() });
    else if (caller.namespace !== null) throw new KoineError("forbidden", { detail: "metrics cover all namespaces" });
    else
      respondText(response, id, {
        status: 200,
        text: this.#parts.telemetry.render(),
        contentType: "text/plain; version=0.0.4; charset=utf-8",
      });
    return true;
  }
}

/** What proxies send, `GET http://host/path`, means the same as `GET /path`. */
function pathOf(url: string): string {
  if (url.startsWith("/")) return url;
  const rest = /^https?:\/\/[^/?#]*(.*)$/i.exec(url)?.[1];
  if (rest === undefined) return url;
  return rest.startsWith("/") ? rest : `/${rest}`;
}
