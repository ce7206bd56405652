import type { ServerResponse } from "node:http";
import { invocationHeaders } from "../../core/api.ts";
import { errorTable, KoineError } from "../../core/errors.ts";
import type {
  Exchange,
  InvocationFigures,
  Outcome,
  Responder,
  ResponseHead,
  StartKind,
} from "../../core/invocation.ts";
import { respondError, respondErrorReport } from "../respond.ts";

/** Headers that belong to one connection or to the platform, never to a function's answer. */
const NOT_FORWARDED = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  ...Object.values(invocationHeaders),
]);

/**
 * Writes an invocation's answer to an HTTP response. A small answer leaves in one write with its length; a long one flows with the
 * client's back-pressure; one that is cut breaks the connection, so that nobody takes it for whole.
 */
export class HttpResponder implements Responder {
  exchange: Exchange | null = null;
  /** Called when the instance can take more of the request's body. */
  onDrained: () => void = () => {};
  readonly #response: ServerResponse;
  readonly #id: string;
  readonly #version: number;
  #head: ResponseHead | null = null;
  #start: StartKind = "warm";
  #held: Buffer | null = null;
  #began = false;
  #ended = false;

  constructor(response: ServerResponse, id: string, version: number) {
    this.#response = response;
    this.#id = id;
    this.#version = version;
    response.on("close", () => {
      if (!response.writableFinished) this.exchange?.cancel();
    });
    response.on("drain", () => this.exchange?.resume());
  }

  head(head: ResponseHead, start: StartKind): void {
    this.#head = head;
    this.#start = start;
  }

  body(chunk: Buffer): boolean {
    if (this.#ended) return true;
    if (this.#began) return this.#response.write(chunk);
    if (this.#held === null) {
      this.#held = chunk;
      queueMicrotask(() => this.#begin());
      return true;
    }
    this.#begin();
    return this.#response.write(chunk);
  }

  bodyEnded(): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#began) {
      this.#response.end();
      return;
    }
    this.#began = true;
    const body = this.#held;
    if (!this.#writeHead(body === null ? 0 : body.length)) return;
    if (body === null) this.#response.end();
    else this.#response.end(body);
  }

  ended(outcome: Outcome, figures: InvocationFigures): void {
    if (outcome.kind === "succeeded") {
      this.bodyEnded();
      return;
    }
    if (this.#ended) return;
    this.#ended = true;
    if (this.#began) {
      this.#response.destroy();
      return;
    }
    const start = figures.cold ? "cold" : "warm";
    const headers = [invocationHeaders.start, start, invocationHeaders.version, String(this.#version)];
    respondErrorReport(this.#response, this.#id, {
      status: errorTable[outcome.error.code].status,
      report: outcome.error,
      headers,
    });
  }

  /** Answers with the platform's own error and gives the invocation up. */
  refuse(error: KoineError): void {
    if (!this.#ended) {
      this.#ended = true;
      respondError(this.#response, this.#id, error);
    }
    this.exchange?.cancel();
  }

  drained(): void {
    this.onDrained();
  }

  /** Sends the head and what was held back: the answer is longer than one piece. */
  #begin(): void {
    if (this.#began || this.#ended) return;
    this.#began = true;
    const held = this.#held;
    if (this.#writeHead(null) && held !== null && !this.#response.write(held)) return;
  }

  /** Answers false when the head cannot be sent; then an error was. */
  #writeHead(length: number | null): boolean {
    const { status, headers } = this.#head ?? { status: 200, headers: [] };
    const sent: string[] = [];
    for (let index = 0; index + 1 < headers.length; index += 2) {
      const name = headers[index] ?? "";
      const lower = name.toLowerCase();
      if (
        NOT_FORWARDED.has(lower) ||
        (lower === "content-length" && length !== null && this.#response.req.method !== "HEAD")
      )
        continue;
      sent.push(name, headers[index + 1] ?? "");
    }
    const bodiless = status === 204 || status === 304 || this.#response.req.method === "HEAD";
    if (length !== null && !bodiless) sent.push("Content-Length", String(length));
    sent.push(
      invocationHeaders.requestId,
      this.#id,
      invocationHeaders.start,
      this.#start,
      invocationHeaders.version,
      String(this.#version),
    );
    try {
      this.#response.writeHead(status, sent);
      return true;
    } catch (thrown) {
      this.#ended = true;
      const detail = thrown instanceof Error ? thrown.message : String(thrown);
      respondError(this.#response, this.#id, new KoineError("invalid-response", { detail }));
      return false;
    }
  }
}
