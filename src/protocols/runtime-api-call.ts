import type { IncomingMessage, ServerResponse } from "node:http";
import { KoineError, toKoineError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type { RuntimeApiWording } from "./lambda-runtime-api.ts";
import type { OpenCall } from "./program-link.ts";
import type { LinkInvocation, LinkResponder, Specialisation } from "./protocol.ts";
import { type ErrorShape, readReport, reply } from "./runtime-api-http.ts";

/** What a call needs of its link. */
export interface RuntimeApiOwner {
  readonly wording: RuntimeApiWording;
  readonly specialisation: Specialisation | null;
  /** Its body is here: a program may have it. */
  complete(call: RuntimeCall): void;
  ended(call: RuntimeCall): void;
}

/** Between the JSON that precedes a streamed answer and its body. */
const PRELUDE_END = Buffer.alloc(8);
const PRELUDE_BYTES_MAX = 64 * 1024;
const ACCEPTED = { status: "OK" };

/**
 * One invocation: waits for its body and for a program, is handed over, answered, and over when the program asks for the next one. Nothing
 * can tell a program that nobody wants its answer any more: one that was cancelled holds its place until it is answered.
 */
export class RuntimeCall implements OpenCall {
  readonly id: string;
  readonly #owner: RuntimeApiOwner;
  readonly #invocation: LinkInvocation;
  readonly #responder: LinkResponder;
  readonly #body: Buffer[];
  #bodyBytes: number;
  #phase: "gathering" | "waiting" | "given" | "answering" | "answered" | "over" = "gathering";
  #cancelled = false;
  /** The streamed answer that is coming in. */
  #incoming: IncomingMessage | null = null;
  /** What the end will be, known before the program asks again. */
  #error: KoineError | null = null;
  /** The answer broke off: most likely because the program ends. */
  #isBroken = false;

  constructor(owner: RuntimeApiOwner, invocation: LinkInvocation, responder: LinkResponder) {
    this.id = invocation.id;
    this.#owner = owner;
    this.#invocation = invocation;
    this.#responder = responder;
    this.#body = [invocation.body];
    this.#bodyBytes = invocation.body.length;
  }

  /** Whether an answer has begun: there is no other after it. */
  get isAnswered(): boolean {
    return this.#phase === "answering" || this.#phase === "answered" || this.#phase === "over";
  }

  /** Whether nothing more is to come but the program's next question. */
  get isDone(): boolean {
    return this.#phase === "answered";
  }

  begin(): void {
    if (this.#invocation.bodyComplete) this.#gathered();
    else this.#responder.drained();
  }

  // Exchange

  write(chunk: Buffer): boolean {
    if (this.#phase !== "gathering") return true;
    this.#bodyBytes += chunk.length;
    if (this.#bodyBytes > limits.programPayloadBytesMax) {
      const limit = limits.programPayloadBytesMax;
      this.#end(new KoineError("payload-too-large", { what: "an invocation by this protocol", limit }));
    } else this.#body.push(chunk);
    return true;
  }

  end(): void {
    if (this.#phase === "gathering") this.#gathered();
  }

  resume(): void {
    this.#incoming?.resume();
  }

  cancel(): void {
    this.#cancelled = true;
    if (this.#phase === "gathering" || this.#phase === "waiting") this.#end(new KoineError("client-closed-request"));
    this.#incoming?.resume();
  }

  lost(): void {
    const error = this.#isBroken ? null : this.#error;
    if (!this.#over()) return;
    // Runtimes may end after an error that they have told.
    if (error === null) this.#responder.lost();
    else this.#responder.failed(error.report());
  }

  // What the program does

  /** Hands the invocation over, as the answer to a request for one. */
  giveTo(response: ServerResponse): void {
    const { wording, specialisation } = this.#owner;
    if (specialisation === null) return;
    const { call } = this.#invocation;
    const body = Buffer.concat(this.#body.splice(0));
    this.#phase = "given";
    try {
      const event = call.kind === "http" ? wording.eventOf(call, body, this.#invocation) : body;
      const headers = wording.invocationHeaders(this.#invocation, specialisation);
      const type = call.kind === "http" ? "application/json" : call.contentType;
      response.writeHead(200, ["Content-Type", type, "Content-Length", String(event.length), ...headers]);
      response.end(event);
    } catch (thrown) {
      response.destroy();
      this.#end(toKoineError(thrown));
    }
  }

  answering(): void {
    this.#phase = "answering";
  }

  receive(
    request: IncomingMessage,
    response: ServerResponse,
    { isStreaming }: { readonly isStreaming: boolean },
  ): void {
    this.answering();
    if (isStreaming) this.#stream(request, response);
    else this.#collect(request, response);
  }

  /** The program reports an error instead of an answer. */
  failedWith(thrown: ErrorShape): void {
    const { type, message } = thrown;
    this.#answered(new KoineError("handler-failed", { detail: `${type}: ${message}` }, { thrown }));
  }

  /** The program asks for the next invocation: it is done with this one. */
  asksAgain(): void {
    this.#end(this.#error);
  }

  #gathered(): void {
    this.#phase = "waiting";
    this.#owner.complete(this);
  }

  #collect(request: IncomingMessage, response: ServerResponse): void {
    const bytesMax = limits.programPayloadBytesMax;
    const parts: Buffer[] = [];
    let length = 0;
    request.on("data", (part: Buffer) => {
      length += part.length;
      if (length <= bytesMax) parts.push(part);
    });
    request.on("end", () => {
      if (length > bytesMax) {
        const errorMessage = `Exceeded maximum allowed payload size (${bytesMax} bytes).`;
        reply(response, 413, { errorType: "RequestEntityTooLarge", errorMessage });
        const detail = `it has more than ${bytesMax} bytes; stream a larger one`;
        this.#answered(new KoineError("invalid-response", { detail }));
        return;
      }
      reply(response, 202, ACCEPTED);
      this.#give(Buffer.concat(parts));
    });
    request.on("close", () => this.#brokenOff(request));
  }

  #give(result: Buffer): void {
    if (this.#phase !== "answering") return;
    try {
      const { head, body } =
        this.#invocation.call.kind === "http"
          ? this.#owner.wording.answerOf(result)
          : { head: JSON_HEAD, body: result };
      this.#responder.head(head);
      if (body.length > 0) this.#responder.body(body, true);
    } catch (thrown) {
      this.#answered(toKoineError(thrown));
      return;
    }
    this.#answered(null);
  }

  #stream(request: IncomingMessage, response: ServerResponse): void {
    this.#incoming = request;
    const { wording } = this.#owner;
    const type = request.headers["content-type"];
    let prelude: Buffer[] | null = type === wording.preludeType ? [] : null;
    if (prelude === null) {
      const headers = ["Content-Type", type ?? "application/octet-stream"];
      this.#responder.head({ status: 200, headers });
    }
    const give = (chunk: Buffer): void => {
      if (chunk.length > 0 && !this.#responder.body(chunk) && !this.#cancelled) request.pause();
    };
    request.on("data", (chunk: Buffer) => {
      if (this.#phase !== "answering" || this.#error !== null) return;
      if (prelude === null) {
        give(chunk);
        return;
      }
      prelude.push(chunk);
      const rest = this.#endOfPrelude(Buffer.concat(prelude));
      if (rest === null) return;
      prelude = null;
      give(rest);
    });
    request.on("end", () => {
      this.#incoming = null;
      reply(response, 202, ACCEPTED);
      const error = this.#error ?? trailerError(request, wording);
      if (error === null && prelude !== null)
        this.#answered(new KoineError("invalid-response", { detail: "it ended within its metadata" }));
      else this.#answered(error);
    });
    request.on("close", () => this.#brokenOff(request));
  }

  /** What follows the prelude; null while that is not complete, or is none. */
  #endOfPrelude(bytes: Buffer): Buffer | null {
    const at = bytes.indexOf(PRELUDE_END);
    try {
      if (at >= 0) {
        this.#responder.head(this.#owner.wording.preludeOf(bytes.subarray(0, at)));
        return bytes.subarray(at + PRELUDE_END.length);
      }
      if (bytes.length > PRELUDE_BYTES_MAX)
        throw new KoineError("invalid-response", { detail: `its metadata is longer than ${PRELUDE_BYTES_MAX} bytes` });
    } catch (thrown) {
      this.#error = toKoineError(thrown);
    }
    return null;
  }

  #brokenOff(request: IncomingMessage): void {
    if (request.complete || this.#phase !== "answering") return;
    this.#incoming = null;
    this.#isBroken = true;
    this.#answered(new KoineError("invalid-response", { detail: "the program broke off in the middle of it" }));
  }

  /** The caller has all of it; the program may still have work that belongs to it. */
  #answered(error: KoineError | null): void {
    if (this.#phase !== "answering") return;
    this.#phase = "answered";
    this.#error = error;
    if (error === null) this.#responder.bodyEnded();
  }

  #end(error: KoineError | null): void {
    if (!this.#over()) return;
    if (error === null && this.#cancelled) this.#responder.failed(new KoineError("client-closed-request").report());
    else if (error === null) this.#responder.succeeded();
    else this.#responder.failed(error.report());
  }

  /** Answers whether it was not over before. */
  #over(): boolean {
    if (this.#phase === "over") return false;
    this.#phase = "over";
    this.#owner.ended(this);
    return true;
  }
}

const JSON_HEAD = { status: 200, headers: ["Content-Type", "application/json"] };

/** A streamed answer may still fail at its end. */
function trailerError(request: IncomingMessage, { headers }: RuntimeApiWording): KoineError | null {
  const type = request.trailers[headers.errorType];
  const encoded = request.trailers[headers.errorBody];
  if (type === undefined && encoded === undefined) return null;
  const thrown = readReport(Buffer.from(encoded ?? "", "base64"), type);
  return new KoineError("handler-failed", { detail: `${thrown.type}: ${thrown.message}` }, { thrown });
}
