import { type ClientRequest, type IncomingMessage, request } from "node:http";
import type { Duplex } from "node:stream";
import type { Clock } from "../core/clock.ts";
import { KoineError } from "../core/errors.ts";
import type { HttpCall } from "../core/invocation.ts";
import { limits } from "../core/limits.ts";
import { Timed, type Timeouts } from "../core/timeouts.ts";
import type { Connections } from "./http-connections.ts";
import { requestHeaders, responseHeaders } from "./http-headers.ts";
import type { OpenCall } from "./program-link.ts";
import type { LinkInvocation, LinkResponder } from "./protocol.ts";

/** What an exchange needs of its link. */
export interface HttpOwner {
  readonly connections: Connections;
  readonly clock: Clock;
  /** Connections that were upgraded, by when something last moved on them. */
  readonly upgraded: Timeouts;
  endsSoon(withinMs: number): Promise<boolean>;
  ended(call: HttpExchange): void;
}

/** What a connection that breaks has to do with the program's end shows within this time. */
const ENDING_MS_MAX = 500;
/** May be sent again when the program closed the connection before it can have read them. */
const REPEATABLE = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);

/** One request to a program and its answer. */
export class HttpExchange extends Timed implements OpenCall {
  readonly #owner: HttpOwner;
  readonly #invocation: LinkInvocation;
  readonly #responder: LinkResponder;
  #request: ClientRequest | null = null;
  #answer: IncomingMessage | null = null;
  /** The connection after its upgrade. */
  #stream: Duplex | null = null;
  #cancelDuration: (() => void) | null = null;
  #isOver = false;
  #isRepeated = false;

  constructor(owner: HttpOwner, invocation: LinkInvocation, responder: LinkResponder) {
    super();
    this.#owner = owner;
    this.#invocation = invocation;
    this.#responder = responder;
  }

  begin(): void {
    try {
      this.#send();
    } catch (thrown) {
      // A path or header that no server could read.
      const detail = `it cannot be passed on: ${messageOf(thrown)}`;
      queueMicrotask(() => this.#fail(new KoineError("invalid-request", { detail }, { cause: thrown })));
    }
  }

  // Exchange

  write(chunk: Buffer): boolean {
    if (this.#isOver) return true;
    if (this.#stream === null) return this.#request?.write(chunk) ?? true;
    this.#moved();
    return this.#stream.write(chunk);
  }

  end(): void {
    if (this.#isOver) return;
    if (this.#stream === null) this.#request?.end();
    else this.#stream.end();
  }

  resume(): void {
    this.#answer?.resume();
    this.#stream?.resume();
  }

  cancel(): void {
    if (this.#isOver) return;
    this.#fail(new KoineError("client-closed-request"));
  }

  lost(): void {
    if (this.#over()) this.#responder.lost();
    this.#drop();
  }

  // Timed

  /** Nothing moved on an upgraded connection for too long. */
  override timedOut(): void {
    this.#complete();
    this.#drop();
  }

  #send(): void {
    const { call, body, bodyComplete, id } = this.#invocation;
    const lengthBytes = bodyComplete ? body.length : null;
    const http: HttpCall = call.kind === "http" ? call : eventRequest(call.contentType);
    const sent = request({
      agent: this.#owner.connections,
      method: http.method,
      path: http.url,
      headers: requestHeaders(http, { lengthBytes, invocationId: id }),
      maxHeaderSize: limits.programHeadBytesMax,
      // The head leaves at once when the body is awaited, else together with it.
      insecureHTTPParser: false,
    });
    this.#request = sent;
    sent.on("error", (error) => void this.#broken(sent, error));
    sent.on("drain", () => this.#drained(sent));
    sent.on("response", (answer) => this.#onAnswer(sent, answer));
    sent.on("upgrade", (answer, stream, first) => {
      if (http.upgrade !== undefined && !this.#isOver) {
        this.#onUpgrade(answer, stream, first);
        return;
      }
      stream.destroy();
      this.#fail(new KoineError("invalid-response", { detail: "its status is 101, which nobody asked for" }));
    });
    if (http.upgrade !== undefined) {
      // What the client sends before the switch belongs to the protocol after it.
      sent.end();
      return;
    }
    if (bodyComplete) sent.end(body);
    else {
      sent.flushHeaders();
      if (body.length > 0) sent.write(body);
    }
  }

  #drained(sent: ClientRequest): void {
    if (!this.#isOver && sent === this.#request) this.#responder.drained();
  }

  #onAnswer(sent: ClientRequest, answer: IncomingMessage): void {
    if (this.#isOver || sent !== this.#request) {
      answer.destroy();
      return;
    }
    this.#answer = answer;
    const status = answer.statusCode ?? 0;
    if (status < 200 || status > 599) {
      this.#fail(new KoineError("invalid-response", { detail: `its status is ${status}` }));
      return;
    }
    const { call } = this.#invocation;
    if (call.kind === "event" && status >= 400) {
      this.#failEvent(answer, status);
      return;
    }
    this.#responder.head({ status, headers: responseHeaders(answer.rawHeaders, undefined) });
    answer.on("data", (chunk: Buffer) => {
      if (!this.#isOver && !this.#responder.body(chunk)) answer.pause();
    });
    answer.on("end", () => {
      if (!answer.complete) return;
      this.#complete();
      // A body that nobody has read to its end would be taken for the next request.
      if (!sent.writableEnded) sent.destroy();
    });
    answer.on("error", (error) => void this.#broken(sent, error));
  }

  /** What an event's handler answers with an error status is its error. */
  #failEvent(answer: IncomingMessage, status: number): void {
    const parts: Buffer[] = [];
    let length = 0;
    const done = (): void => {
      const said = Buffer.concat(parts).toString("utf8").trim();
      const detail = `the program answered ${status}${said === "" ? "" : `: ${said.slice(0, SAID_LENGTH_MAX)}`}`;
      this.#fail(new KoineError("handler-failed", { detail }));
    };
    answer.on("data", (chunk: Buffer) => {
      if (length < SAID_LENGTH_MAX) parts.push(chunk);
      length += chunk.length;
      if (length >= SAID_LENGTH_MAX) done();
    });
    answer.on("end", done).on("error", done);
  }

  #onUpgrade(answer: IncomingMessage, stream: Duplex, first: Buffer): void {
    this.#stream = stream;
    this.#cancelDuration = this.#owner.clock.after(limits.upgradedMsMax, () => this.timedOut());
    this.#moved();
    const headers = responseHeaders(answer.rawHeaders, answer.headers.upgrade);
    this.#responder.head({ status: 101, headers });
    const receive = (chunk: Buffer): void => {
      this.#moved();
      if (!this.#isOver && !this.#responder.body(chunk)) stream.pause();
    };
    const { body } = this.#invocation;
    if (body.length > 0) stream.write(body);
    if (first.length > 0) receive(first);
    stream.on("data", receive);
    stream.on("drain", () => this.#responder.drained());
    stream.on("error", () => {});
    // Each side of such a connection says its own goodbye: whichever way it ends, it has ended.
    stream.on("end", () => stream.end());
    stream.on("close", () => this.#complete());
    this.#responder.drained();
  }

  #moved(): void {
    if (!this.#isOver) this.#owner.upgraded.add(this);
  }

  async #broken(sent: ClientRequest, error: Error): Promise<void> {
    if (this.#isOver || sent !== this.#request) return;
    const code = "code" in error && typeof error.code === "string" ? error.code : "";
    if (this.#mayRepeat(sent, code)) {
      this.#isRepeated = true;
      this.begin();
      return;
    }
    if (code.startsWith("HPE_") || code === "ERR_INVALID_CHAR") {
      this.#fail(new KoineError("invalid-response", { detail: `it is not HTTP: ${error.message}` }, { cause: error }));
      return;
    }
    if (await this.#owner.endsSoon(ENDING_MS_MAX)) return;
    const began = this.#answer === null ? "before its answer" : "in the middle of its answer";
    const detail = code === "ECONNREFUSED" ? "nothing listens there any more" : `it closed the connection ${began}`;
    this.#fail(new KoineError("invalid-response", { detail }, { cause: error }));
  }

  /** A program may close a connection in the moment in which it is used again; it has then not read the request. */
  #mayRepeat(sent: ClientRequest, code: string): boolean {
    const { call, bodyComplete } = this.#invocation;
    return (
      !this.#isRepeated &&
      sent.reusedSocket &&
      this.#answer === null &&
      bodyComplete &&
      (code === "ECONNRESET" || code === "EPIPE") &&
      call.kind === "http" &&
      call.upgrade === undefined &&
      REPEATABLE.has(call.method)
    );
  }

  #complete(): void {
    if (!this.#over()) return;
    this.#responder.bodyEnded();
    this.#responder.succeeded();
  }

  #fail(error: KoineError): void {
    if (this.#over()) this.#responder.failed(error.report());
    this.#drop();
  }

  /** Answers whether it was not over before. */
  #over(): boolean {
    if (this.#isOver) return false;
    this.#isOver = true;
    this.timeouts?.remove(this);
    this.#cancelDuration?.();
    this.#owner.ended(this);
    return true;
  }

  #drop(): void {
    this.#request?.destroy();
    this.#stream?.destroy();
  }
}

const SAID_LENGTH_MAX = 2_000;

/** How an event reaches a server that knows only requests. */
function eventRequest(contentType: string): HttpCall {
  return {
    kind: "http",
    method: "POST",
    url: "/",
    headers: ["Host", "localhost", "Content-Type", contentType],
    basePath: "",
    origin: "http://localhost",
    remoteAddress: "",
  };
}

function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
