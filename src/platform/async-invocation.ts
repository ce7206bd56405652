import type { KeptAnswer, PartialFailureReader, RetryPolicy } from "../core/enqueue.ts";
import { KoineError, toKoineError } from "../core/errors.ts";
import type { FunctionSpec, Version } from "../core/function.ts";
import type {
  Activation,
  Invocation,
  InvocationFigures,
  Outcome,
  Responder,
  ResponseHead,
} from "../core/invocation.ts";
import type { Limits } from "../core/limits.ts";
import type { Ended } from "../queue/dispatcher.ts";
import type { Lease } from "../store/store.ts";
import type { FollowUps } from "./follow-ups.ts";
import type { PlatformParts } from "./parts.ts";
import { encodePayload, type InvocationHead, toInvocation } from "./queued-payload.ts";

const EMPTY = Buffer.alloc(0);
/** Statuses of HTTP answers below 500 after which another attempt may succeed. */
const TEMPORARY = new Set([408, 425, 429]);
/** With `no`, an answer says that another attempt would be in vain. */
const RETRY_HEADER = "koine-retry";

export interface AsyncParts extends PlatformParts {
  readonly partialFailureReaders: ReadonlyMap<string, PartialFailureReader>;
  readonly followUps: FollowUps;
}

/** Runs a queued invocation to its end and keeps its answer; what cannot be run at all is an end too. */
export async function runQueued(
  parts: AsyncParts,
  { item, attempt }: Lease,
  { head, body, signal }: { readonly head: InvocationHead; readonly body: Buffer; readonly signal: AbortSignal },
): Promise<Ended> {
  const { limits, catalogue, clock, journal } = parts;
  const invocation = toInvocation(item, head, { body, attempt });
  const { hops = 0 } = head;
  let version: Version;
  try {
    if (hops > limits.destinationHopsMax)
      throw new KoineError("destination-loop", { limit: limits.destinationHopsMax });
    version = catalogue.resolve(invocation.ref);
  } catch (thrown) {
    const error = toKoineError(thrown);
    journal.activation(neverRan(invocation, error, clock.nowMs()));
    const outcome: Outcome = { kind: "failed", fault: error.fault, error: error.report() };
    return { outcome, policy: policyOf(undefined, head.retry, limits), retryable: false };
  }
  const policy = policyOf(version.spec, head.retry, limits);
  const answered = new Collector(limits.resultBytesMax);
  const ran = await run(parts, { invocation, version, signal }, answered);
  const judged = judge(parts, { ran, head, invocation, answered });
  if (judged.outcome !== ran && answered.figures !== null) {
    const { figures } = answered;
    journal.activation(finished({ invocation, version, outcome: judged.outcome, figures, status: answered.status }));
  }
  await keepRecord(parts, invocation.id, answered);
  const { destinations } = version.spec;
  const { follower } = head;
  if (destinations === undefined && follower === undefined) return { ...judged, policy };
  const { enqueuedAtMs } = item;
  const followUps = parts.followUps.of({ invocation, version, hops, answered, follower, policy, enqueuedAtMs });
  return { ...judged, policy, followUps, keepsDead: follower?.keepsFailures !== true };
}

/** The policy of work: what its acceptance says, then its function, then the platform. */
export function policyOf(
  spec: FunctionSpec | undefined,
  override: Partial<RetryPolicy> | undefined,
  limits: Limits,
): RetryPolicy {
  const {
    attemptsMax = limits.asyncAttemptsDefault,
    delayMs = 60_000,
    ageMsMax = limits.asyncAgeMsDefault,
  } = spec?.retry ?? {};
  return { attemptsMax, ageMsMax, delaysMs: doubling(delayMs, limits.retryDelayMsMax), ...override };
}

function doubling(firstMs: number, mostMs: number): readonly number[] {
  const delaysMs = [Math.min(firstMs, mostMs)];
  for (let next = firstMs * 2; next < mostMs && next > 0 && delaysMs.length < 32; next *= 2) delaysMs.push(next);
  return delaysMs;
}

async function run(
  { engine, supervise }: PlatformParts,
  { invocation, version, signal }: { invocation: Invocation; version: Version; signal: AbortSignal },
  answered: Collector,
): Promise<Outcome> {
  try {
    return await new Promise<Outcome>((resolve) => {
      answered.onEnded = resolve;
      const exchange = engine.invoke(invocation, version, answered);
      answered.resume = () => exchange.resume();
      const cancel = (): void => {
        if (isCancelled(signal))
          supervise("stop an invocation", Promise.resolve(engine.cancel(invocation.id, invocation.ref.namespace)));
        else exchange.cancel();
      };
      if (signal.aborted) cancel();
      else signal.addEventListener("abort", cancel, { once: true });
    }).then((outcome) => (isCancelled(signal) ? { kind: "failed", ...cancelled() } : outcome));
  } catch (thrown) {
    const error = toKoineError(thrown);
    if (error.fault === "platform") return { kind: "rejected", error: error.report(), retryAfterMs: 1_000 };
    return { kind: "failed", fault: error.fault, error: error.report() };
  }
}

function isCancelled(signal: AbortSignal): boolean {
  return signal.aborted && signal.reason instanceof KoineError && signal.reason.code === "cancelled";
}

function cancelled(): Pick<Extract<Outcome, { kind: "failed" }>, "fault" | "error"> {
  const error = new KoineError("cancelled");
  return { fault: error.fault, error: error.report() };
}

/** An answer of 400 or more is a failure of asynchronous work, since nobody is there to read it; so is a batch of which a part failed. */
function judge(
  parts: AsyncParts,
  of: {
    readonly ran: Outcome;
    readonly head: InvocationHead;
    readonly invocation: Invocation;
    readonly answered: Collector;
  },
): Pick<Ended, "outcome" | "retryable" | "retryAfterMs" | "remaining"> {
  const { ran, head, invocation, answered } = of;
  const saysNo = answered.header(RETRY_HEADER)?.trim().toLowerCase() === "no";
  if (ran.kind === "failed") return { outcome: ran, retryable: !saysNo && ran.error.cause?.retryable !== false };
  if (ran.kind !== "succeeded") return { outcome: ran };
  const status = answered.status ?? 200;
  if (status >= 400) {
    const retryable = !saysNo && (status >= 500 || TEMPORARY.has(status));
    const retryAfterMs = retryAfter(answered.header("retry-after"), parts.limits.retryDelayMsMax);
    return { outcome: failedWith(new KoineError("answered-error", { status })), retryable, retryAfterMs };
  }
  if (head.partialFailures === undefined) return { outcome: ran };
  try {
    const reader = parts.partialFailureReaders.get(head.partialFailures);
    if (reader === undefined) {
      const what = `reading partial failures of '${head.partialFailures}'`;
      throw new KoineError("not-supported", { what, remedy: "Start the koine that accepted this work." });
    }
    const body = reader(invocation, answered.kept());
    if (body === null) return { outcome: ran };
    const remaining = encodePayload({ head, body });
    return { outcome: failedWith(new KoineError("batch-partly-failed")), remaining, retryable: !saysNo };
  } catch (thrown) {
    if (thrown instanceof KoineError) return { outcome: failedWith(thrown) };
    const detail = thrown instanceof Error ? thrown.message : String(thrown);
    return { outcome: failedWith(new KoineError("invalid-response", { detail }, { cause: thrown })) };
  }
}

function failedWith(error: KoineError): Outcome {
  return { kind: "failed", fault: error.fault, error: error.report() };
}

/** Seconds of a Retry-After header, in milliseconds. */
function retryAfter(text: string | undefined, mostMs: number): number | undefined {
  return text !== undefined && /^[0-9]{1,9}$/.test(text.trim()) ? Math.min(Number(text) * 1_000, mostMs) : undefined;
}

/** What is settled leaves the queue for good, so its record must be there before. That it cannot be written is no reason to run it again. */
async function keepRecord({ journal, logger }: PlatformParts, id: string, answered: Collector): Promise<void> {
  try {
    const head = answered.headSeen;
    // Its sync takes the record along, which was appended before.
    if (head === null) await journal.flush();
    else await journal.result(id, { status: head.status, headers: head.headers, body: answered.bytes() });
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

/** The record of an invocation that ended without having run. */
export function neverRan(invocation: Invocation, error: KoineError, nowMs: number): Activation {
  const queuedMs = Math.max(0, nowMs - invocation.receivedAtMs);
  return { ...queuedActivation(invocation), state: "failed", queuedMs, error: error.report() };
}

/** The record of one whose outcome is another than the engine's. */
function finished(of: {
  readonly invocation: Invocation;
  readonly version: Version;
  readonly outcome: Outcome;
  readonly figures: InvocationFigures;
  readonly status: number | null;
}): Activation {
  const { invocation, version, outcome, figures, status } = of;
  const error = outcome.kind === "succeeded" ? null : outcome.error;
  const known = { version: version.number, state: outcome.kind, status, error };
  return { ...queuedActivation(invocation), ...figures, ...known };
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

  get status(): number | null {
    return this.headSeen?.status ?? null;
  }

  /** The value of a header by its lower-case name. */
  header(name: string): string | undefined {
    const { headers = [] } = this.headSeen ?? {};
    const at = headers.findIndex((other, index) => index % 2 === 0 && other.toLowerCase() === name);
    return at < 0 ? undefined : headers[at + 1];
  }

  kept(): KeptAnswer {
    return { status: this.status ?? 200, headers: this.headSeen?.headers ?? [], body: this.bytes() };
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
