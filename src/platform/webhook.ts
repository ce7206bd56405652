import { createHmac } from "node:crypto";
import { type IncomingMessage, request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import { isIP } from "node:net";
import { KoineError, toKoineError } from "../core/errors.ts";
import type { Reachable } from "./reachable.ts";

export interface WebhookRequest {
  readonly url: string;
  /** Repeats of the same delivery have the same id. */
  readonly id: string;
  readonly attempt: number;
  readonly contentType: string;
  readonly body: Buffer;
  readonly secret: string;
  readonly nowMs: number;
}

export interface WebhookAnswer {
  readonly status: number;
  /** Beginning of what it answered. */
  readonly text: string;
  readonly retryAfter: string | undefined;
}

/**
 * `t=SECONDS,v1=HEX`: HMAC-SHA256 with the secret over `SECONDS.BODY`. Whoever receives it computes the same, compares in constant time, and refuses
 * what is older than some minutes.
 */
export function signatureOf(body: Buffer, secret: string, atMs: number): string {
  const seconds = Math.floor(atMs / 1_000);
  const mac = createHmac("sha256", secret).update(`${seconds}.`).update(body).digest("hex");
  return `t=${seconds},v1=${mac}`;
}

/**
 * Sends a signed event to a URL; follows no redirect. Answers whatever status came.
 * @throws KoineError `destination-refused` where it may not go, `destination-failed` when nothing answered
 */
export async function sendWebhook(
  request: WebhookRequest,
  within: {
    readonly reachable: Reachable;
    readonly answerBytesMax: number;
    /** Ends it, also when it takes too long. */
    readonly signal: AbortSignal;
  },
): Promise<WebhookAnswer> {
  const { reachable, answerBytesMax, signal } = within;
  const url = new URL(request.url);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const refuse = (detail: string): KoineError =>
    new KoineError("destination-refused", { destination: request.url, detail });
  const encrypted = url.protocol === "https:";
  // An address is not looked up, so that nobody else would judge it.
  const refusal = isIP(host) === 0 ? null : reachable.refusal(host, encrypted);
  if (refusal !== null) throw refuse(refusal);
  const { promise, resolve, reject } = Promise.withResolvers<WebhookAnswer>();
  const send = encrypted ? requestHttps : requestHttp;
  const outgoing = send(url, {
    method: "POST",
    // A connection of its own: none is shared whose address was judged for another name.
    agent: false,
    lookup: reachable.lookupFor(encrypted),
    headers: headersOf(request),
    signal,
  });
  outgoing.on("response", (incoming) => {
    readBeginning(incoming, answerBytesMax).then((text) => {
      resolve({ status: incoming.statusCode ?? 0, text, retryAfter: incoming.headers["retry-after"] });
      outgoing.destroy();
    }, reject);
  });
  outgoing.on("error", reject);
  outgoing.end(request.body);
  try {
    return await promise;
  } catch (thrown) {
    const error = toKoineError(thrown);
    if (error.code === "destination-refused") throw refuse(String(error.values["detail"]));
    const detail = signal.aborted ? "it did not answer in time" : error.message;
    throw new KoineError("destination-failed", { destination: request.url, detail }, { cause: thrown });
  }
}

function headersOf({ body, contentType, id, attempt, secret, nowMs }: WebhookRequest): Record<string, string> {
  return {
    "content-type": contentType,
    "content-length": String(body.length),
    "user-agent": "koine",
    "koine-delivery": id,
    "koine-attempt": String(attempt),
    "koine-signature": signatureOf(body, secret, nowMs),
  };
}

async function readBeginning(incoming: IncomingMessage, bytesMax: number): Promise<string> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of incoming as AsyncIterable<Buffer>) {
    pieces.push(piece.subarray(0, bytesMax - bytes));
    bytes += piece.length;
    if (bytes >= bytesMax) break;
  }
  return Buffer.concat(pieces).toString("utf8");
}
