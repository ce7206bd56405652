import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { invocationHeaders } from "../core/api.ts";
import { KoineError, toKoineError } from "../core/errors.ts";
import { newId } from "../core/ids.ts";
import type { Caller } from "../core/invocation.ts";
import type { Limits } from "../core/limits.ts";
import type { Counter, Logger, Telemetry } from "../core/telemetry.ts";
import type { Dialect } from "../dialects/dialect.ts";
import { errorBody, errorHeaders, respondError, respondJson, respondText } from "../dialects/respond.ts";
import type { Access } from "./access.ts";
import type { EdgeRequest } from "./edge-request.ts";
import { Http1Front, type ListenOptions } from "./http1/front.ts";
import { NodeExchange } from "./node-exchange.ts";
import { asksForUpgrade, UpgradeExchange } from "./upgrade-exchange.ts";

export interface GatewayParts {
  readonly access: Access;
  /** In the order in which they are asked. */
  readonly dialects: readonly Pick<Dialect, "handle" | "handleForeign">[];
  readonly telemetry: Telemetry;
  readonly logger: Logger;
  readonly limits: Limits;
  readonly openapi: () => Readonly<Record<string, unknown>>;
  /** Where a platform has several engines: sees every request but those for its health first, and lets `answer` have it at once, later or never. */
  readonly route?: (request: EdgeRequest, answer: (request: EdgeRequest) => void) => void;
  /** Whether everything at the host of a request is a dialect's, paths for its health too. */
  readonly elsewhere?: (request: EdgeRequest) => boolean;
  /** The figures of all engines; absent: there is one. */
  readonly metrics?: () => Promise<string>;
}

/**
 * The HTTP edge: request ids, identity, health, metrics; everything else is a dialect's. Common requests are read by our own front end, all others
 * by `node:http`; what follows does not know which.
 */
export class Gateway {
  readonly #parts: GatewayParts;
  readonly #front: Http1Front;
  readonly #requests: Counter;
  readonly #refused: Counter;
  readonly #upgraded = new Set<Duplex>();
  #ready = false;

  constructor(parts: GatewayParts) {
    const { limits, telemetry } = parts;
    this.#parts = parts;
    this.#requests = telemetry.counter("koine_http_requests_total", "HTTP requests received.");
    this.#refused = telemetry.counter("koine_http_refused_total", "HTTP requests that could not be parsed.");
    const settings = {
      keepAliveMs: limits.keepAliveMsMax,
      slownessMsMax: limits.requestSlownessMsMax,
      lingerMs: limits.lingerMsMax,
      wholeBodyBytesMax: limits.inlineBodyBytesMax,
      unwantedBytesMax: limits.requestBodyBytesMax,
    };
    const tooSlow = (): string => {
      this.#refused.add();
      return refusal(new KoineError("request-timed-out", { timeoutMs: limits.requestSlownessMsMax }));
    };
    const handle = (request: EdgeRequest): void => this.#handle(request);
    this.#front = new Http1Front(this.#nodeServer(), settings, { handle, tooSlow });
  }

  /** Begins to accept connections; answers the address. @throws KoineError `port-in-use`, `invalid-configuration` */
  async listen(port: number, host: string, options: ListenOptions = {}): Promise<AddressInfo> {
    return await this.#front.listen(port, host, options);
  }

  /** Accepts connections at another port too. @throws KoineError `port-in-use`, `invalid-configuration` */
  async listenToo(port: number, host: string): Promise<AddressInfo> {
    return await this.#front.listenToo(port, host);
  }

  /** Connections that are open. */
  get connections(): number {
    return this.#front.connections;
  }

  /** Answers a request that another engine has received and counted. */
  passedOn(request: EdgeRequest): void {
    this.#answerOrRefuse(request);
  }

  /** Says whether `/readyz` answers 200. */
  setReady(ready: boolean): void {
    this.#ready = ready;
  }

  /** Takes no more connections; what is under way may end until the signal aborts. */
  async close(signal: AbortSignal): Promise<void> {
    this.#ready = false;
    const abort = (): void => {
      for (const socket of this.#upgraded) socket.destroy();
    };
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
    await this.#front.close(signal);
  }

  #nodeServer(): Server {
    const { limits } = this.#parts;
    const server = createServer({
      maxHeaderSize: limits.headerBytesMax,
      keepAliveTimeout: limits.keepAliveMsMax,
      headersTimeout: limits.requestSlownessMsMax,
      requestTimeout: 0,
      // Refused by `#handleNode`, in the platform's own words.
      requireHostHeader: false,
      shouldUpgradeCallback: asksForUpgrade,
    });
    server.on("upgrade", (incoming, socket, first) => this.#handleUpgrade(incoming, socket, first));
    server.on("request", (incoming, response) => this.#handleNode(incoming, response));
    // Their bytes are bounded; their count need not be.
    server.maxHeadersCount = 0;
    server.on("checkContinue", (incoming, response) => {
      // A body that is going to be refused is not asked for.
      if (!(Number(incoming.headers["content-length"]) > limits.requestBodyBytesMax)) response.writeContinue();
      this.#handleNode(incoming, response);
    });
    server.on("checkExpectation", (incoming, response) => this.#handleNode(incoming, response));
    server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
      this.#refused.add();
      if (socket.writable) socket.end(refusal(this.#refusedFor(error)));
      else socket.destroy();
    });
    return server;
  }

  #refusedFor(error: NodeJS.ErrnoException): KoineError {
    const { limits } = this.#parts;
    if (error.code === "HPE_HEADER_OVERFLOW")
      return new KoineError("headers-too-large", { limit: limits.headerBytesMax });
    if (error.code === "ERR_HTTP_REQUEST_TIMEOUT")
      return new KoineError("request-timed-out", { timeoutMs: limits.requestSlownessMsMax });
    return new KoineError("invalid-request", { detail: `it is not HTTP: ${error.message}` });
  }

  #handleNode(incoming: IncomingMessage, response: ServerResponse): void {
    if (this.#front.closing) response.shouldKeepAlive = false;
    const { slow, unwantedBytesMax } = this.#front;
    this.#handleHosted(incoming, new NodeExchange(incoming, response, { slow, unwantedBytesMax }));
  }

  #handleUpgrade(incoming: IncomingMessage, socket: Duplex, first: Buffer): void {
    this.#upgraded.add(socket);
    socket.once("close", () => this.#upgraded.delete(socket));
    this.#handleHosted(incoming, new UpgradeExchange(incoming, socket, first));
  }

  #handleHosted(incoming: IncomingMessage, request: EdgeRequest): void {
    const hosts = request.headers.count("host");
    if (hosts === 1 || (hosts === 0 && incoming.httpVersion === "1.0")) {
      this.#handle(request);
      return;
    }
    this.#requests.add();
    const detail = hosts === 0 ? "a request of HTTP/1.1 needs a Host header" : "it has more than one Host header";
    respondError(request, new KoineError("invalid-request", { detail }));
  }

  #handle(request: EdgeRequest): void {
    this.#requests.add();
    const { route } = this.#parts;
    if (this.#health(request)) return;
    if (route === undefined) this.#answerOrRefuse(request);
    else route(request, this.#answer);
  }

  readonly #answer = (request: EdgeRequest): void => this.#answerOrRefuse(request);

  #answerOrRefuse(request: EdgeRequest): void {
    try {
      const identify = (): Caller | null => this.#parts.access.identify(request.headers);
      for (const dialect of this.#parts.dialects) if (dialect.handleForeign?.(request, identify) === true) return;
      request.caller = this.#parts.access.identify(request.headers);
      if (this.#own(request)) return;
      for (const dialect of this.#parts.dialects) if (dialect.handle(request)) return;
      throw new KoineError("not-found", { path: request.path });
    } catch (thrown) {
      const error = toKoineError(thrown);
      if (error.code === "internal")
        this.#parts.logger.log("error", "a request failed", { requestId: request.id, error: String(error.cause) });
      respondError(request, error);
    }
  }

  /** Answered to everybody: they say nothing but yes or no. */
  #health(request: EdgeRequest): boolean {
    const { path } = request;
    if (path !== "/healthz" && path !== "/readyz") return false;
    if (this.#parts.elsewhere?.(request) === true) return false;
    const ok = path === "/healthz" || this.#ready;
    respondText(request, { status: ok ? 200 : 503, text: ok ? "ok\n" : "not ready\n" });
    return true;
  }

  #own(request: EdgeRequest): boolean {
    const { path, caller } = request;
    if (path !== "/metrics" && path !== "/openapi.json") return false;
    if (caller === null || !caller.rights.has("read")) throw new KoineError("unauthorized");
    if (path === "/openapi.json") respondJson(request, { status: 200, body: this.#parts.openapi() });
    else if (caller.namespace !== null) throw new KoineError("forbidden", { detail: "metrics cover all namespaces" });
    else this.#respondMetrics(request);
    return true;
  }

  #respondMetrics(request: EdgeRequest): void {
    const contentType = "text/plain; version=0.0.4; charset=utf-8";
    const { metrics, telemetry } = this.#parts;
    if (metrics === undefined) respondText(request, { status: 200, text: telemetry.render(), contentType });
    else
      metrics().then(
        (text) => respondText(request, { status: 200, text, contentType }),
        (thrown: unknown) => respondError(request, toKoineError(thrown)),
      );
  }
}

/** The whole answer to what never became a request. */
function refusal(error: KoineError): string {
  const { status } = error;
  const requestId = newId();
  const report = error.report();
  const body = errorBody(report, requestId).toString("utf8");
  const headers = [
    ...errorHeaders(status, report),
    invocationHeaders.requestId,
    requestId,
    "Connection",
    "close",
    "Content-Length",
    String(Buffer.byteLength(body)),
  ];
  const lines = headers.flatMap((name, index) => (index % 2 === 0 ? [`${name}: ${headers[index + 1] ?? ""}\r\n`] : []));
  return `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}\r\n${lines.join("")}\r\n${body}`;
}
