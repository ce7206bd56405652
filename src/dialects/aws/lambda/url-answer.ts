import type { ErrorReport } from "../../../core/errors.ts";
import type { Exchange, Outcome, Responder, ResponseHead, StartKind } from "../../../core/invocation.ts";
import { AnswerHead, type GatewayRequest } from "../../dialect.ts";
import { AnswerHeads, HttpResponder } from "../../http-responder.ts";
import type { RawHeaders } from "../../../core/invocation.ts";

export interface UrlAnswerOptions {
  readonly version: number;
  /** `BUFFERED`: nothing is sent before all of it is there, and no more than this many bytes. Null: it flows. */
  readonly bytesMax: number | null;
  /** What becomes of the headers that the function gives. */
  headers(given: RawHeaders): RawHeaders;
}

/** Writes what a function answered at its address. A function that failed is `502`, as nobody there knows its errors. */
export class UrlAnswer implements Responder {
  readonly #request: GatewayRequest;
  readonly #options: UrlAnswerOptions;
  readonly #inner: HttpResponder;
  readonly #held: Buffer[] = [];
  #bytes = 0;

  constructor(request: GatewayRequest, options: UrlAnswerOptions) {
    this.#request = request;
    this.#options = options;
    this.#inner = new HttpResponder(request, options.version, new AnswerHeads());
    this.#inner.onFailed = (outcome) => this.#fail(outcome);
  }

  set exchange(exchange: Exchange) {
    this.#inner.exchange = exchange;
  }

  head(head: ResponseHead, start: StartKind): void {
    this.#inner.head({ status: head.status, headers: this.#options.headers(head.headers) }, start);
  }

  body(chunk: Buffer, last?: boolean): boolean {
    const { bytesMax } = this.#options;
    if (bytesMax === null) return this.#inner.body(chunk, last);
    this.#bytes += chunk.length;
    if (this.#bytes <= bytesMax) this.#held.push(chunk);
    return true;
  }

  bodyEnded(): void {
    if (this.#options.bytesMax === null) this.#inner.bodyEnded();
  }

  ended(...[outcome, figures]: Parameters<Responder["ended"]>): void {
    const { bytesMax } = this.#options;
    if (bytesMax !== null && outcome.kind === "succeeded") {
      if (this.#bytes > bytesMax) {
        refuseUrl(this.#request, 502, "Internal Server Error");
        return;
      }
      if (this.#bytes > 0) this.#inner.body(Buffer.concat(this.#held), true);
    }
    this.#inner.ended(outcome, figures);
  }

  #fail(outcome: Exclude<Outcome, { kind: "succeeded" }>): void {
    if (outcome.kind === "rejected") rejectUrl(this.#request, outcome.error);
    else refuseUrl(this.#request, 502, "Internal Server Error");
  }
}

function rejectUrl(request: GatewayRequest, error: ErrorReport): void {
  if (error.code !== "too-many-requests") {
    refuseUrl(request, 503, "Service Unavailable");
    return;
  }
  const body = {
    Reason: "ReservedFunctionConcurrentInvocationLimitExceeded",
    Type: "User",
    message: "Rate Exceeded.",
  };
  const headers = ["x-amzn-ErrorType", "TooManyRequestsException", "x-amzn-RequestId", request.id];
  request.response.send(
    new AnswerHead(429, [...headers, "Retry-After", "1", "Content-Type", "application/json"]),
    JSON.stringify(body),
  );
}

/** An answer in the form of the real service. */
export function refuseUrl(request: GatewayRequest, status: number, message: string, errorType?: string): void {
  const headers = ["x-amzn-RequestId", request.id, ...(errorType === undefined ? [] : ["x-amzn-ErrorType", errorType])];
  if (status >= 500) {
    request.response.send(new AnswerHead(status, [...headers, "Content-Type", "text/plain"]), message);
    return;
  }
  request.response.send(
    new AnswerHead(status, [...headers, "Content-Type", "application/json"], { closes: status === 413 }),
    JSON.stringify({ Message: message }),
  );
}
