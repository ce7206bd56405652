import type { Accepted, EnqueueItem, OutcomeFollower, PartialFailureReader } from "../core/enqueue.ts";
import { KoineError, toKoineError } from "../core/errors.ts";
import type { FunctionRef } from "../core/function.ts";
import { functionKey } from "../core/function.ts";
import type { Activation, Attempt, Outcome } from "../core/invocation.ts";
import type { Limits } from "../core/limits.ts";
import { defaultRetryPolicy } from "../queue/retry.ts";
import type { Ended } from "../queue/dispatcher.ts";
import type {
  DeadLetterHead,
  DeadLetterQuery,
  Lease,
  NewQueueItem,
  QueueBounds,
  QueuedItem,
  Settlement,
} from "../store/store.ts";
import { neverRan, queuedActivation, runQueued } from "./async-invocation.ts";
import { deliver } from "./delivery.ts";
import type { TopicPublisher } from "./destinations.ts";
import { FollowUps } from "./follow-ups.ts";
import type { PlatformParts } from "./parts.ts";
import {
  decodePayload,
  deliveriesLane,
  encodeQueued,
  functionOfLane,
  type QueuedPayload,
  toInvocation,
} from "./queued-payload.ts";
import { QueueMetrics } from "./queue-metrics.ts";

export interface AsyncWorkParts extends PlatformParts {
  readonly partialFailureReaders: ReadonlyMap<string, PartialFailureReader>;
  readonly outcomeFollowers: ReadonlyMap<string, OutcomeFollower>;
  readonly topics: TopicPublisher;
}

/** A dead letter with its event. */
export interface DeadLetterDetail extends DeadLetterHead, QueuedPayload {
  readonly history: readonly Attempt[];
}

/** What is known of a run beside its record. */
export interface RunState {
  readonly attempts: readonly Attempt[];
  /** Null: nothing of it is in the queue. */
  readonly queued: QueuedItem | null;
  readonly isDead: boolean;
}

/** Which dead letters of a namespace. */
export type DeadLetterChoice = Pick<DeadLetterQuery, "code" | "sinceMs" | "beforeMs"> & { readonly ref?: FunctionRef };

/** What is done later: accepted, run, retried, delivered, kept when it fails. */
export class AsyncWork {
  readonly #parts: AsyncWorkParts;
  readonly #followUps: FollowUps;
  readonly #metrics: QueueMetrics;
  /** Stops an item that runs here; set when the dispatcher is there. */
  cancelRunning: (id: string) => Promise<boolean> = () => Promise.resolve(false);

  constructor(parts: AsyncWorkParts) {
    this.#parts = parts;
    this.#followUps = new FollowUps(parts.clock, parts.limits, parts.outcomeFollowers);
    this.#metrics = new QueueMetrics(parts);
  }

  /** All or none, on disk when it resolves. @throws KoineError as `Platform.enqueue` */
  async accept(items: readonly EnqueueItem[]): Promise<readonly Accepted[]> {
    const { limits, store, journal, clock, catalogue } = this.#parts;
    const nowMs = clock.nowMs();
    const encoded = items.map((item): NewQueueItem => {
      catalogue.resolve(item.invocation.ref);
      return encodeQueued(item, { limits, nowMs });
    });
    let accepted: readonly Accepted[];
    try {
      accepted = await store.queue.enqueue(encoded, boundsOf(limits, nowMs));
    } catch (thrown) {
      this.#metrics.refused(toKoineError(thrown));
      throw thrown;
    }
    for (const [index, { invocation }] of items.entries())
      if (accepted[index]?.duplicate === false) journal.activation(queuedActivation(invocation));
    this.#metrics.changed();
    return accepted;
  }

  /** Runs one claimed item; the dispatcher settles it. */
  async run(lease: Lease, signal: AbortSignal): Promise<Ended> {
    let payload: QueuedPayload;
    try {
      payload = decodePayload(lease.item.payload);
    } catch (thrown) {
      const error = new KoineError(
        "internal",
        { detail: `queued work ${lease.item.id} cannot be read` },
        { cause: thrown },
      );
      const outcome: Outcome = { kind: "failed", fault: "caller", error: error.report() };
      return { outcome, policy: defaultRetryPolicy, retryable: false };
    }
    const { head, body } = payload;
    if (head.kind === "delivery") return await deliver(this.#parts, lease, { head, body, signal });
    return await runQueued({ ...this.#parts, followUps: this.#followUps }, lease, { head, body, signal });
  }

  settled(lease: Lease, settlement: Settlement, outcome: Outcome): void {
    this.#metrics.settled(lease, settlement, outcome);
  }

  /** Items of a lane that may run at a time. */
  laneLimit(lane: string): number {
    const { key, deliveries } = functionOfLane(lane);
    if (deliveries) return this.#parts.limits.deliveriesPerFunctionMax;
    return this.#parts.catalogue.slotsMax(key) ?? Number.POSITIVE_INFINITY;
  }

  // Runs

  async stateOf(id: string): Promise<RunState> {
    const { queue } = this.#parts.store;
    const queued = await queue.find(id, this.#parts.clock.nowMs());
    if (queued !== null) return { attempts: queued.history, queued, isDead: false };
    const letter = await queue.deadLetter(id);
    if (letter !== null) return { attempts: letter.history, queued, isDead: true };
    return { attempts: await queue.attempts(id), queued, isDead: false };
  }

  /** Ends an invocation that waits or runs; false: there is none. */
  async cancel(namespace: string, id: string): Promise<boolean> {
    const { store, clock, journal, engine } = this.#parts;
    const queued = await store.queue.find(id, clock.nowMs());
    if (queued === null) return await engine.cancel(id, namespace);
    if (!queued.item.lane.startsWith(`${namespace}/`)) return false;
    const cancelled = await store.queue.cancel(id, clock.nowMs());
    if (cancelled === "leased") return await this.cancelRunning(id);
    if (cancelled === "absent") return false;
    this.#metrics.changed();
    const { head, body } = decodePayload(queued.item.payload);
    if (head.kind === "delivery") return true;
    const invocation = toInvocation(queued.item, head, { body, attempt: Math.max(1, queued.attempts) });
    journal.activation(neverRan(invocation, new KoineError("cancelled"), clock.nowMs()));
    return true;
  }

  /** Runs a dead letter again under its id. @throws KoineError `not-acceptable-state` when its event is not kept */
  async replayRun(id: string): Promise<void> {
    const { store, clock, limits } = this.#parts;
    const nowMs = clock.nowMs();
    const replayed = await store.queue.replay([id], { nowMs, spacingMs: 0, bounds: boundsOf(limits, nowMs) });
    if (replayed.length > 0) return;
    const waits = (await store.queue.find(id, nowMs)) !== null;
    throw new KoineError("not-acceptable-state", {
      detail: waits
        ? `Activation '${id}' is in the queue still`
        : `The event of activation '${id}' is not kept: only those of dead letters are`,
    });
  }

  // Dead letters

  async deadLetters(
    namespace: string,
    choice: DeadLetterChoice & Pick<DeadLetterQuery, "after" | "limit">,
  ): Promise<readonly DeadLetterHead[]> {
    const { ref, ...rest } = choice;
    const where = ref === undefined ? { prefix: `${namespace}/` } : { lanes: [functionKey(ref), deliveriesLane(ref)] };
    return await this.#parts.store.queue.deadLetters({ ...rest, ...where });
  }

  /** @throws KoineError `dead-letter-not-found` */
  async deadLetter(namespace: string, id: string): Promise<DeadLetterDetail> {
    const letter = await this.#parts.store.queue.deadLetter(id);
    if (letter === null || !letter.lane.startsWith(`${namespace}/`))
      throw new KoineError("dead-letter-not-found", { id });
    const { payload, ...rest } = letter;
    return { ...rest, ...decodePayload(payload) };
  }

  /**
   * Runs dead letters again, `perSecond` of them a second; answers the ids, in order. What is repeated after a failure goes on where it ended, since
   * those that were replayed are no dead letters any more. @throws KoineError `queue-full`
   */
  async replay(
    namespace: string,
    choice: DeadLetterChoice,
    { limit, perSecond }: { readonly limit: number; readonly perSecond: number },
  ): Promise<readonly string[]> {
    const { store, clock, limits } = this.#parts;
    const letters = await this.deadLetters(namespace, { ...choice, limit });
    const nowMs = clock.nowMs();
    const replayed = await store.queue.replay(
      letters.map(({ id }) => id),
      { nowMs, spacingMs: 1_000 / perSecond, bounds: boundsOf(limits, nowMs) },
    );
    this.#metrics.changed();
    return replayed;
  }

  /** Removes dead letters for good; answers how many. */
  async purge(namespace: string, choice: DeadLetterChoice, limit: number): Promise<number> {
    const letters = await this.deadLetters(namespace, { ...choice, limit });
    const purged = await this.#parts.store.queue.purge(letters.map(({ id }) => id));
    this.#metrics.changed();
    return purged;
  }

  /** @throws KoineError `dead-letter-not-found` */
  async purgeOne(namespace: string, id: string): Promise<void> {
    await this.deadLetter(namespace, id);
    await this.#parts.store.queue.purge([id]);
    this.#metrics.changed();
  }
}

/** The record of what waits in the queue; null when nothing does, or no invocation. */
export function recordOf({ queued }: RunState): Activation | null {
  if (queued === null) return null;
  const { head, body } = decodePayload(queued.item.payload);
  if (head.kind === "delivery") return null;
  return queuedActivation(toInvocation(queued.item, head, { body, attempt: Math.max(1, queued.attempts) }));
}

function boundsOf(limits: Limits, nowMs: number): QueueBounds {
  return {
    nowMs,
    lengthMax: limits.queueLengthMax,
    ageMsMax: limits.queueAgeMsMax,
    deadLettersMax: limits.deadLettersMax,
    keysMax: limits.idempotencyKeysMax,
  };
}
