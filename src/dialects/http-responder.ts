import { invocationHeaders } from "../core/api.ts";
import { errorTable, type KoineError } from "../core/errors.ts";
import type { Exchange, InvocationFigures, Outcome, Responder, ResponseHead, StartKind } from "../core/invocation.ts";
import { AnswerHead, type GatewayRequest, type GatewayResponse, type ResponseListener } from "./dialect.ts";
import { respondError, respondErrorReport } from "./respond.ts";

/** Headers that belong to one connection or to the platform, never to a function's answer. */
const NOT_FORWARDED = new Set([
  "connection",
  "content-length",
  "keep-alive",
  "proxy-authenticate",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  ...Object.values(invocationHeaders),
]);
const SWITCHING = 101;
const LENGTH = /^[0-9]{1,15}$/;

/**
 * What functions' heads become on the wire. A function mostly answers with the same head, which the link then gives as the same object: its
 * last one is kept.
 */
export class AnswerHeads {
  #from: ResponseHead | null = null;
  #start: StartKind = "warm";
  #version = 0;
  #answer: AnswerHead | null = null;

  of(head: ResponseHead, start: StartKind, version: number): AnswerHead {
    if (this.#answer !== null && this.#from === head && this.#start === start && this.#version === version)
      return this.#answer;
    const answer = answerHead(head, start, version);
    this.#from = head;
    this.#start = start;
    this.#version = version;
    this.#answer = answer;
    return answer;
  }
}

function answerHead({ status, headers }: ResponseHead, start: StartKind, version: number): AnswerHead {
  const sent: string[] = [];
  const lengths: string[] = [];
  for (let index = 0; index + 1 < headers.length; index += 2) {
    const name = headers[index] ?? "";
    const lower = name.toLowerCase();
    if (lower === "content-length") lengths.push(headers[index + 1] ?? "");
    if (!NOT_FORWARDED.has(lower) || (status === SWITCHING && lower === "upgrade"))
      sent.push(name, headers[index + 1] ?? "");
  }
  sent.push(invocationHeaders.start, start, invocationHeaders.version, String(version));
  const [length] = lengths;
  const lengthBytes = lengths.length === 1 && length !== undefined && LENGTH.test(length) ? Number(length) : null;
  return new AnswerHead(status, sent, { lengthBytes });
}

/**
 * Writes an invocation's answer to an HTTP response. A small answer leaves in one write with its length; a long one flows with the
 * client's back-pressure; one that is cut breaks the connection, so that nobody takes it for whole.
 */
export class HttpResponder implements Responder, ResponseListener {
  exchange: Exchange | null = null;
  /** Called when the instance can take more of the request's body. */
  onDrained: (() => void) | null = null;
  /** Answers, in the words of a dialect, for a function that failed before a part of its answer was sent; null: in the platform's own. */
  onFailed: ((outcome: Exclude<Outcome, { kind: "succeeded" }>) => void) | null = null;
  /** Called when the connection has switched to the protocol that the request asked for. */
  onSwitched: (() => void) | null = null;
  readonly #request: GatewayRequest;
  readonly #response: GatewayResponse;
  readonly #version: number;
  readonly #heads: AnswerHeads;
  #head: AnswerHead | null = null;
  #held: Buffer | null = null;
  #began = false;
  #ended = false;

  constructor(request: GatewayRequest, version: number, heads: AnswerHeads) {
    this.#request = request;
    this.#response = request.response;
    this.#version = version;
    this.#heads = heads;
    this.#response.listener = this;
  }

  // Responder: what the engine does

  head(head: ResponseHead, start: StartKind): void {
    this.#head = this.#heads.of(head, start, this.#version);
    if (head.status !== SWITCHING || this.#request.upgrade === undefined) return;
    // The client speaks first, and not before it has seen this.
    this.#begin();
    this.onSwitched?.();
  }

  body(chunk: Buffer, last = false): boolean {
    if (this.#ended) return true;
    if (this.#began) return this.#response.write(chunk);
    if (this.#held === null) {
      this.#held = chunk;
      // The end that makes it a small answer may be about to come.
      if (!last) queueMicrotask(() => this.#begin());
      return true;
    }
    this.#begin();
    return this.#response.write(chunk);
  }

  bodyEnded(): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#began) this.#response.end();
    else this.#response.send(this.#answerHead, this.#held);
  }

  ended(outcome: Outcome, figures: InvocationFigures): void {
    if (outcome.kind === "succeeded") {
      this.bodyEnded();
      return;
    }
    if (this.#ended) return;
    this.#ended = true;
    if (this.#began) {
      this.#response.abort();
      return;
    }
    if (this.onFailed !== null) {
      this.onFailed(outcome);
      return;
    }
    const start = figures.cold ? "cold" : "warm";
    const headers = [invocationHeaders.start, start, invocationHeaders.version, String(this.#version)];
    respondErrorReport(this.#request, {
      status: errorTable[outcome.error.code].status,
      report: outcome.error,
      headers,
    });
  }

  drained(): void {
    this.onDrained?.();
  }

  // ResponseListener: what the client does

  flowed(): void {
    this.exchange?.resume();
  }

  left(): void {
    this.exchange?.cancel();
  }

  /** Answers with the platform's own error and gives the invocation up. */
  refuse(error: KoineError): void {
    if (!this.#ended) {
      this.#ended = true;
      respondError(this.#request, error);
    }
    this.exchange?.cancel();
  }

  get #answerHead(): AnswerHead {
    return this.#head ?? new AnswerHead(200, []);
  }

  /** Sends the head and what was held back: the answer is longer than one piece. */
  #begin(): void {
    if (this.#began || this.#ended) return;
    this.#began = true;
    this.#response.begin(this.#answerHead);
    if (this.#held !== null) this.#response.write(this.#held);
    this.#held = null;
  }
}
