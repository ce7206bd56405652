import { createHash } from "node:crypto";
import { CLOUD_EVENT, CLOUD_EVENT_BATCH, toStructured } from "../../core/cloud-events.ts";
import type { Clock } from "../../core/clock.ts";
import type { Accepted, EnqueueItem, EnqueueOptions, PartialFailureReader } from "../../core/enqueue.ts";
import { KoineError, toKoineError } from "../../core/errors.ts";
import { type CloudEvent, PARTITION_KEY } from "../../core/event.ts";
import { newId } from "../../core/ids.ts";
import type { Invocation } from "../../core/invocation.ts";
import { limits, type Limits } from "../../core/limits.ts";
import type { Supervise } from "../../core/telemetry.ts";
import type { Ordering, Trigger } from "./record.ts";

/** The name under which the reader of partial failures is registered. */
export const PARTIAL_FAILURES = "events";

const ITEMS_PER_COMMIT = 500;
const PAUSE_MS_MIN = 100;
const PAUSE_MS_MAX = 2_000;
/** What may be over soon; anything else is told to the source at once. */
const PASSING: ReadonlySet<string> = new Set([
  "too-many-requests",
  "queue-full",
  "dead-letters-full",
  "storage-full",
  "storage-failed",
  "platform-overloaded",
]);

/** What invocations of triggers carry beside their events. */
export interface TriggerContext {
  readonly name: string;
  readonly kind: string;
  readonly ordering: Ordering;
}

/** The invocation of a trigger's function with these events: one by itself, or a batch. */
export function toInvocation(trigger: Trigger, events: readonly CloudEvent[], nowMs: number): EnqueueItem {
  const [first] = events;
  const single = trigger.batch === null && events.length === 1 && first !== undefined;
  const content = single ? toStructured(first) : events.map(toStructured);
  const context: TriggerContext = { name: trigger.name, kind: trigger.kind, ordering: trigger.ordering };
  const invocation: Invocation = {
    id: newId(nowMs),
    ref: trigger.target,
    call: { kind: "event", contentType: single ? CLOUD_EVENT : CLOUD_EVENT_BATCH, context: { trigger: context } },
    mode: "async",
    attempt: 1,
    receivedAtMs: nowMs,
    body: Buffer.from(JSON.stringify(content)),
    bodyComplete: true,
  };
  const { retry, priority, ordering } = trigger;
  const options: EnqueueOptions = {
    ...(priority === "normal" ? {} : { priority }),
    ...(Object.keys(retry).length === 0 ? {} : { retry }),
    ...(ordering === "none" || first === undefined
      ? {}
      : { orderingKey: bounded(`${trigger.id}/${orderingKeyOf(ordering, first)}`) }),
    ...(single
      ? { idempotencyKey: bounded(`${trigger.id}/${first.source}/${first.id}`) }
      : { partialFailures: PARTIAL_FAILURES }),
  };
  return { invocation, options };
}

/** A key that the queue takes, whatever length the parts have. */
function bounded(key: string): string {
  return key.length <= limits.queueKeyLengthMax ? key : createHash("sha256").update(key).digest("base64url");
}

/** Events for a trigger as invocations: one each, or in batches. */
export function invocationsFor(trigger: Trigger, events: readonly CloudEvent[], nowMs: number): readonly EnqueueItem[] {
  const { batch } = trigger;
  if (batch === null) return events.map((event) => toInvocation(trigger, [event], nowMs));
  const items: EnqueueItem[] = [];
  for (let from = 0; from < events.length; from += batch.size)
    items.push(toInvocation(trigger, events.slice(from, from + batch.size), nowMs));
  return items;
}

/** Events with the same key are handled one after the other. */
export function orderingKeyOf(ordering: Ordering, event: CloudEvent): string {
  switch (ordering) {
    case "none":
    case "all":
      return "";
    case "key":
      return String(event.extensions?.[PARTITION_KEY] ?? "");
    default:
      return ordering satisfies never;
  }
}

/**
 * Reads `{ "batchItemFailures": [{ "itemIdentifier": EVENT_ID }] }` from a batch's answer. What is ordered is tried again from the first that failed on;
 * else only what failed.
 */
export const readPartialFailures: PartialFailureReader = (invocation, answer) => {
  const failed = failedIds(answer.body);
  if (failed.size === 0) return null;
  const events = JSON.parse(invocation.body.toString("utf8")) as readonly { readonly id: string }[];
  const known = new Set(events.map(({ id }) => id));
  const unknown = [...failed].find((id) => !known.has(id));
  if (unknown !== undefined)
    throw new KoineError("invalid-response", {
      detail: `batchItemFailures names '${unknown}', which is not in the batch`,
    });
  const context =
    invocation.call.kind === "event" ? (invocation.call.context?.["trigger"] as TriggerContext | undefined) : undefined;
  const ordered = context !== undefined && context.ordering !== "none";
  const first = events.findIndex(({ id }) => failed.has(id));
  return Buffer.from(JSON.stringify(ordered ? events.slice(first) : events.filter(({ id }) => failed.has(id))));
};

function failedIds(body: Buffer): ReadonlySet<string> {
  let answer: unknown;
  try {
    answer = JSON.parse(body.toString("utf8"));
  } catch {
    return new Set();
  }
  if (typeof answer !== "object" || answer === null || !("batchItemFailures" in answer)) return new Set();
  const { batchItemFailures: failures } = answer;
  if (failures === null || failures === undefined) return new Set();
  if (!Array.isArray(failures))
    throw new KoineError("invalid-response", { detail: "batchItemFailures is not an array" });
  return new Set(
    failures.map((failure: unknown) => {
      const id =
        typeof failure === "object" && failure !== null && "itemIdentifier" in failure ? failure.itemIdentifier : null;
      if (typeof id !== "string" || id === "")
        throw new KoineError("invalid-response", { detail: "an entry of batchItemFailures has no itemIdentifier" });
      return id;
    }),
  );
}

interface Pending {
  readonly items: readonly EnqueueItem[];
  readonly done: PromiseWithResolvers<readonly Accepted[]>;
}

/** Puts invocations into the durable queue: what comes in one turn, or while a commit is under way, shares the next commit. */
export class Deliveries {
  readonly #enqueueAll: (items: readonly EnqueueItem[]) => Promise<readonly Accepted[]>;
  readonly #clock: Clock;
  readonly #limits: Limits;
  readonly #supervise: Supervise;
  #pending: Pending[] = [];
  #running = false;

  constructor(parts: {
    readonly enqueueAll: (items: readonly EnqueueItem[]) => Promise<readonly Accepted[]>;
    readonly clock: Clock;
    readonly limits: Limits;
    readonly supervise: Supervise;
  }) {
    this.#enqueueAll = parts.enqueueAll;
    this.#clock = parts.clock;
    this.#limits = parts.limits;
    this.#supervise = parts.supervise;
  }

  /** All of them or none, once. @throws KoineError as `Platform.enqueueAll` */
  async put(items: readonly EnqueueItem[]): Promise<readonly Accepted[]> {
    if (items.length === 0) return [];
    const pending = { items, done: Promise.withResolvers<readonly Accepted[]>() };
    this.#pending.push(pending);
    if (!this.#running) {
      this.#running = true;
      this.#supervise("deliver events", this.#run());
    }
    return await pending.done.promise;
  }

  /** As `put`, but waits while the queue is full or cannot be written, within `limits.triggerAcceptMsMax`. */
  async putPatiently(items: readonly EnqueueItem[], signal: AbortSignal): Promise<readonly Accepted[]> {
    const deadlineMs = this.#clock.monotonicMs() + this.#limits.triggerAcceptMsMax;
    for (let pauseMs = PAUSE_MS_MIN; ; pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX)) {
      signal.throwIfAborted();
      try {
        return await this.put(items);
      } catch (thrown) {
        const error = toKoineError(thrown);
        if (!PASSING.has(error.code) || this.#clock.monotonicMs() + pauseMs > deadlineMs) throw error;
      }
      await pause(this.#clock, pauseMs, signal);
    }
  }

  async #run(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#pending.length > 0) {
      let count = 0;
      const end = this.#pending.findIndex(({ items }) => (count += items.length) >= ITEMS_PER_COMMIT);
      const some = this.#pending.splice(0, end < 0 ? this.#pending.length : end + 1);
      await this.#commit(some);
    }
    this.#running = false;
  }

  async #commit(some: readonly Pending[]): Promise<void> {
    try {
      const accepted = await this.#enqueueAll(some.flatMap(({ items }) => items));
      let from = 0;
      for (const { items, done } of some) done.resolve(accepted.slice(from, (from += items.length)));
    } catch (thrown) {
      // One that cannot be accepted must not keep the others out; in turn, so that their order stays.
      if (some.length > 1) for (const one of some) await this.#commit([one]);
      else some[0]?.done.reject(thrown);
    }
  }
}

/** Resolves after a while; rejects as soon as the signal aborts. */
export async function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const cancel = clock.after(ms, resolve);
  const abort = (): void => {
    cancel();
    reject(signal.reason instanceof Error ? signal.reason : new Error(String(signal.reason)));
  };
  signal.addEventListener("abort", abort);
  try {
    await promise;
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
