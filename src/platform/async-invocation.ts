import { type KoineError, toKoineError } from "../core/errors.ts";
import { type FunctionRef, functionKey } from "../core/function.ts";
import type {
  Activation,
  Call,
  Invocation,
  InvocationFigures,
  Outcome,
  Responder,
  ResponseHead,
} from "../core/invocation.ts";
import type { QueueItem } from "../store/store.ts";
import type { PlatformParts } from "./parts.ts";

interface StoredHead {
  readonly ref: FunctionRef;
  readonly call: Call;
  readonly receivedAtMs: number;
}

const EMPTY = Buffer.alloc(0);

/** An accepted invocation as bytes: 4 bytes length of the head, head JSON, body. */
export function encodeQueued(invocation: Invocation): QueueItem {
  const { ref, call, receivedAtMs, body, id } = invocation;
  const head = Buffer.from(JSON.stringify({ ref, call, receivedAtMs } satisfies StoredHead));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(head.length);
  return {
    id,
    lane: functionKey(ref),
    payload: Buffer.concat([length, head, body]),
    dueAtMs: receivedAtMs,
    enqueuedAtMs: receivedAtMs,
  };
}

export function decodeQueued(item: QueueItem, attempt: number): Invocation {
  const payload = Buffer.from(item.payload.buffer, item.payload.byteOffset, item.payload.byteLength);
  const headEnd = 4 + payload.readUInt32LE(0);
  const head = JSON.parse(payload.toString("utf8", 4, headEnd)) as StoredHead;
  return { ...head, id: item.id, mode: "async", attempt, body: payload.subarray(headEnd), bodyComplete: true };
}

/** Runs a queued invocation to its outcome and keeps its answer; what cannot be run at all is an outcome too. */
export async function runQueued(
  parts: PlatformParts,
  item: QueueItem,
  attempt: number,
  signal: AbortSignal,
): Promise<Outcome> {
  const invocation = decodeQueued(item, attempt);
  try {
    const version = parts.catalogue.resolve(invocation.ref);
    const collected = new Collector(parts.limits.resultBytesMax);
    const outcome = await new Promise<Outcome>((resolve) => {
      collected.onEnded = resolve;
      const exchange = parts.engine.invoke(invocation, version, collected);
      collected.resume = () => exchange.resume();
      signal.addEventListener("abort", () => exchange.cancel(), { once: true });
    });
    await keepRecord(parts, invocation.id, collected);
    return outcome;
  } catch (thrown) {
    const error = toKoineError(thrown);
    if (error.fault === "platform") return { kind: "rejected", error: error.report(), retryAfterMs: 1_000 };
    parts.journal.activation(neverRan(invocation, error, parts.clock.nowMs()));
    return { kind: "failed", fault: error.fault, error: error.report() };
  }
}

/** What is settled leaves the queue for good, so its record must be there before. That it cannot be written is no reason to run it again. */
async function keepRecord({ store, journal, logger }: PlatformParts, id: string, collected: Collector): Promise<void> {
  try {
    const head = collected.headSeen;
    if (head !== null)
      await store.log.putResult(id, { status: head.status, headers: head.headers, body: collected.bytes() });
    await journal.flush();
  } catch (thrown) {
    logger.log("error", "the answer of an asynchronous invocation cannot be kept", { id, error: String(thrown) });
  }
}

/** The record of an accepted invocation that has not run yet. */
export function queuedActivation(invocation: Invocation): Activation {
  const { ref, id, mode, attempt, receivedAtMs } = invocation;
  return {
    id,
    namespace: ref.namespace,
    package: ref.package,
    name: ref.name,
    version: 0,
    mode,
    attempt,
    state: "queued",
    startedAtMs: receivedAtMs,
    durationMs: 0,
    queuedMs: 0,
    startMs: 0,
    cold: false,
    memoryBytes: 0,
    status: null,
    error: null,
    instanceId: "",
  };
}

function neverRan(invocation: Invocation, error: KoineError, nowMs: number): Activation {
  const queuedMs = Math.max(0, nowMs - invocation.receivedAtMs);
  return { ...queuedActivation(invocation), state: "failed", queuedMs, error: error.report() };
}

/** Keeps an answer up to a bound; what is longer is cut, the function is not disturbed. */
export class Collector implements Responder {
  headSeen: ResponseHead | null = null;
  figures: InvocationFigures | null = null;
  onEnded: (outcome: Outcome) => void = () => {};
  resume: () => void = () => {};
  readonly #bytesMax: number;
  readonly #chunks: Buffer[] = [];
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  head(head: ResponseHead): void {
    this.headSeen = head;
  }

  body(chunk: Buffer): boolean {
    const room = this.#bytesMax - this.#bytes;
    if (room > 0) this.#chunks.push(chunk.length <= room ? chunk : chunk.subarray(0, room));
    this.#bytes += chunk.length;
    return true;
  }

  bodyEnded(): void {}

  ended(outcome: Outcome, figures: InvocationFigures): void {
    this.figures = figures;
    this.onEnded(outcome);
  }

  bytes(): Buffer {
    return this.#chunks.length === 0 ? EMPTY : Buffer.concat(this.#chunks);
  }
}
