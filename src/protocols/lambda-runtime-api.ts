import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { KoineError } from "../core/errors.ts";
import type { Call, HttpCall, RawHeaders, ResponseHead } from "../core/invocation.ts";
import { limits } from "../core/limits.ts";
import { ProgramLink } from "./program-link.ts";
import { type RuntimeApiOwner, RuntimeCall } from "./runtime-api-call.ts";
import { readReport, reply, routeOf, wholeBody } from "./runtime-api-http.ts";
import type { LinkEvents, LinkInvocation, LinkResponder, Protocol, Reach, Specialisation } from "./protocol.ts";

/** What a dialect calls things on this wire, and how it turns requests into events. */
export interface RuntimeApiWording {
  /** What programs find in their environment; `address` is where the platform listens for them. */
  environment(specialisation: Specialisation, address: string): Readonly<Record<string, string>>;
  /** Of the answer that hands an invocation over; `id` and `deadlineMs` (since the epoch) among them. */
  invocationHeaders(invocation: InvocationFacts, specialisation: Specialisation): RawHeaders;
  /** An HTTP request as JSON. */
  eventOf(call: HttpCall, body: Buffer, facts: InvocationFacts): Buffer;
  /** A handler's JSON as an HTTP answer. @throws KoineError `invalid-response` */
  answerOf(result: Buffer): { readonly head: ResponseHead; readonly body: Buffer };
  /** Headers of an answer from the JSON that precedes a streamed one. @throws KoineError `invalid-response` */
  preludeOf(json: Buffer): ResponseHead;
  readonly headers: RuntimeApiHeaders;
  /** The type of a streamed answer that begins with such JSON. */
  readonly preludeType: string;
}

/** Names of headers that programs send, in lower case. */
export interface RuntimeApiHeaders {
  readonly responseMode: string;
  readonly errorType: string;
  readonly errorBody: string;
}

export interface InvocationFacts {
  readonly id: string;
  /** Milliseconds since the epoch. */
  readonly deadlineMs: number;
  readonly attempt: number;
  readonly call: Call;
}

/** Requests to other paths than the runtime's; answers whether it took one. */
export type RuntimeApiExtension = (request: IncomingMessage, response: ServerResponse) => boolean;

const PORT = 9001;
export const PATH_BASE = "/2018-06-01/runtime";

/** The Runtime API of Lambda: the program asks for the next invocation and posts what came of it. */
export function createLambdaRuntimeApi(
  wording: RuntimeApiWording,
  extension: RuntimeApiExtension | null = null,
): Protocol {
  return {
    name: "lambda-runtime-api",
    program: {
      ability: "listen",
      port: PORT,
      readyMsMax: limits.programReadyMsMax,
      environment: (specialisation) =>
        wording.environment(specialisation, `127.0.0.1:${specialisation.program?.port ?? PORT}`),
    },
    connect: (reach, events) => new RuntimeApiLink(reach, events, { wording, extension }),
  };
}

interface LinkOptions {
  readonly wording: RuntimeApiWording;
  readonly extension: RuntimeApiExtension | null;
}

/** One that asks for work and has none yet. */
type Asking = (call: RuntimeCall) => void;

class RuntimeApiLink extends ProgramLink<RuntimeCall> implements RuntimeApiOwner {
  readonly wording: RuntimeApiWording;
  readonly #extension: RuntimeApiExtension | null;
  readonly #server: Server;
  specialisation: Specialisation | null = null;
  /** In order of arrival, with their bodies complete. */
  readonly #waiting: RuntimeCall[] = [];
  readonly #asking: Asking[] = [];
  /** Those that a program has, by id. */
  readonly #given = new Map<string, RuntimeCall>();
  #ready: PromiseWithResolvers<void> | null = null;
  #isInitialised = false;

  constructor(reach: Reach, events: LinkEvents, { wording, extension }: LinkOptions) {
    super(reach, events);
    this.wording = wording;
    this.#extension = extension;
    this.#server = createServer({ maxHeaderSize: limits.programHeadBytesMax, requestTimeout: 0, keepAliveTimeout: 0 });
    this.#server.headersTimeout = limits.requestSlownessMsMax;
    this.#server.on("request", (request, response) => this.#handle(request, response));
    this.#server.on("clientError", (_, socket) => socket.destroy());
  }

  protected async prepare(specialisation: Specialisation, signal: AbortSignal): Promise<string> {
    const { reach } = this;
    if (reach.listen === undefined) {
      const remedy = "'koine doctor' says what this machine offers.";
      throw new KoineError("not-supported", { what: "Listening in this kind of sandbox", remedy });
    }
    this.specialisation = specialisation;
    const ready = (this.#ready = Promise.withResolvers<void>());
    const onAbort = (): void => ready.reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      await reach.listen(specialisation.program?.port ?? PORT, (connection) => {
        this.#server.emit("connection", connection);
      });
      reach.begin?.();
      if (signal.aborted) onAbort();
      await ready.promise;
      return "lambda-runtime-api";
    } catch (thrown) {
      if (!signal.aborted || this.over || thrown instanceof KoineError) throw thrown;
      throw new KoineError("program-not-ready", {
        timeoutMs: limits.programReadyMsMax,
        detail: "it has not asked for an invocation",
        remedy: `Ask for one at http://127.0.0.1:${specialisation.program?.port ?? PORT}${PATH_BASE}/invocation/next; see what it wrote with 'koine logs'.`,
      });
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  protected open(invocation: LinkInvocation, responder: LinkResponder): RuntimeCall {
    return new RuntimeCall(this, invocation, responder);
  }

  protected begin(call: RuntimeCall): void {
    call.begin();
  }

  protected release(): void {
    this.#waiting.length = 0;
    this.#asking.length = 0;
    this.#given.clear();
    this.#server.closeAllConnections();
  }

  // RuntimeApiOwner

  complete(call: RuntimeCall): void {
    const asking = this.#asking.shift();
    if (asking === undefined) this.#waiting.push(call);
    else asking(call);
  }

  ended(call: RuntimeCall): void {
    this.#given.delete(call.id);
    const at = this.#waiting.indexOf(call);
    if (at >= 0) this.#waiting.splice(at, 1);
    this.settled(call);
  }

  // What programs ask

  #handle(request: IncomingMessage, response: ServerResponse): void {
    request.on("error", () => {});
    response.on("error", () => {});
    const route = routeOf(request, PATH_BASE);
    switch (route.kind) {
      case "next":
        this.#next(request, response);
        return;
      case "response":
        this.#response(route.id, request, response);
        return;
      case "error":
        this.#error(route.id, request, response);
        return;
      case "init-error":
        this.#initError(request, response);
        return;
      case "wrong-method":
        reply(response, 405, { errorType: "MethodNotAllowed", errorMessage: "Method not allowed" });
        return;
      case "unknown":
        if (this.#extension?.(request, response) === true) return;
        reply(response, 404, { errorType: "NotFound", errorMessage: "There is nothing at this path" });
        return;
      default:
        route satisfies never;
    }
  }

  #next(request: IncomingMessage, response: ServerResponse): void {
    request.resume();
    this.#isInitialised = true;
    this.#ready?.resolve();
    // Whoever asks again is done with what it had.
    for (const call of this.#given.values()) {
      if (call.isDone) {
        call.asksAgain();
        break;
      }
    }
    const busy = this.#given.size + this.#asking.length;
    if (this.#given.size > 0 && busy >= (this.specialisation?.instanceConcurrency ?? 1)) {
      refuseState(response, "an invocation that was handed over has no response yet");
      return;
    }
    const give = (call: RuntimeCall): void => {
      this.#given.set(call.id, call);
      call.giveTo(response);
    };
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) {
      give(waiting);
      return;
    }
    this.#asking.push(give);
    response.once("close", () => {
      const at = this.#asking.indexOf(give);
      if (at >= 0) this.#asking.splice(at, 1);
    });
  }

  #response(id: string, request: IncomingMessage, response: ServerResponse): void {
    const call = this.#callFor(id, request, response);
    if (call === null) return;
    const mode = request.headers[this.wording.headers.responseMode];
    if (mode !== undefined && mode !== "streaming") {
      request.resume();
      reply(response, 400, {
        errorType: "InvalidFunctionResponseMode",
        errorMessage: `Invalid function response mode: ${String(mode).slice(0, 100)}`,
      });
      return;
    }
    call.receive(request, response, { isStreaming: mode === "streaming" });
  }

  #error(id: string, request: IncomingMessage, response: ServerResponse): void {
    const call = this.#callFor(id, request, response);
    if (call === null) return;
    call.answering();
    wholeBody(request, limits.programHeadBytesMax * 4).then(
      (body) => {
        reply(response, 202, OK);
        call.failedWith(readReport(body, headerOf(request, this.wording.headers.errorType)));
      },
      () => response.destroy(),
    );
  }

  #initError(request: IncomingMessage, response: ServerResponse): void {
    if (this.#isInitialised) {
      request.resume();
      refuseState(response, "its initialisation is over");
      return;
    }
    wholeBody(request, limits.programHeadBytesMax * 4).then(
      (body) => {
        reply(response, 202, OK);
        const thrown = readReport(body, headerOf(request, this.wording.headers.errorType));
        const handler = this.specialisation?.handler ?? "";
        const detail = `${thrown.type}: ${thrown.message}`;
        const error = new KoineError("handler-load-failed", { handler, detail }, { thrown });
        this.#ready?.reject(error);
      },
      () => response.destroy(),
    );
  }

  /** The call that an answer belongs to; null: there is none, which has been told. */
  #callFor(id: string, request: IncomingMessage, response: ServerResponse): RuntimeCall | null {
    const call = this.#given.get(id);
    if (call !== undefined && !call.isAnswered) return call;
    request.resume();
    if (call === undefined) reply(response, 400, { errorType: "InvalidRequestID", errorMessage: "Invalid request ID" });
    else refuseState(response, "the invocation has a response already");
    return null;
  }
}

export const OK = { status: "OK" };

function refuseState(response: ServerResponse, why: string): void {
  reply(response, 403, { errorType: "InvalidStateTransition", errorMessage: `Transition is not allowed: ${why}` });
}

function headerOf(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return typeof value === "string" ? value : undefined;
}
