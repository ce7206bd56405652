import { type Clock, VirtualClock } from "../../../core/clock.ts";
import type { Accepted, EnqueueItem } from "../../../core/enqueue.ts";
import { KoineError } from "../../../core/errors.ts";
import type { FunctionRef, Version } from "../../../core/function.ts";
import { limits } from "../../../core/limits.ts";
import { Telemetry } from "../../../core/telemetry.ts";
import { openMemoryStore } from "../../../store/memory.ts";
import type { Store } from "../../../store/store.ts";
import type { TriggerKind } from "../../../triggers/trigger.ts";
import { Secrets } from "../../secrets.ts";
import { Triggers } from "../triggers.ts";

/** An event as its function would get it. */
export interface DeliveredEvent {
  readonly id: string;
  readonly source: string;
  readonly type: string;
  readonly data?: unknown;
  readonly [attribute: string]: unknown;
}

/** What a test sees and steers of the queue behind triggers. */
export interface Queue {
  /** The invocations that were accepted, each with its events. */
  readonly accepted: { readonly item: EnqueueItem; readonly events: readonly DeliveredEvent[] }[];
  /** While set, nothing is accepted. */
  refusal: KoineError | null;
  /** Holds acceptance back until it resolves. */
  gate: Promise<void>;
}

/** What outlives a platform: its store and what was accepted. */
export interface Durable {
  readonly store: Store;
  readonly queue: Queue;
}

export function durable(): Durable {
  return { store: openMemoryStore(), queue: { accepted: [], refusal: null, gate: Promise.resolve() } };
}

export const target: FunctionRef = { namespace: "default", package: "", name: "f" };

/** Triggers of one node on a store that may be shared. A queue of the test's own stands for the real one and recognises idempotency keys. */
export function openTriggers(
  kinds: readonly TriggerKind[],
  { store, queue }: Durable,
  options: { readonly clock?: Clock; readonly node?: string } = {},
): {
  readonly triggers: Triggers;
  readonly secrets: Secrets;
  readonly telemetry: Telemetry;
  readonly messages: string[];
} {
  const clock = options.clock ?? new VirtualClock();
  const telemetry = new Telemetry();
  const messages: string[] = [];
  const sealer = {
    seal: (text: string) => Buffer.from(text).toString("base64"),
    open: (text: string) => Buffer.from(text, "base64").toString(),
  };
  const secrets = new Secrets(store, sealer, limits);
  const enqueueAll = async (items: readonly EnqueueItem[]): Promise<readonly Accepted[]> => {
    await queue.gate;
    if (queue.refusal !== null) throw queue.refusal;
    return items.map((item) => {
      const key = item.options?.idempotencyKey;
      const earlier =
        key === undefined ? undefined : queue.accepted.find((other) => other.item.options?.idempotencyKey === key);
      if (earlier !== undefined) return { activationId: earlier.item.invocation.id, duplicate: true };
      const content = JSON.parse(item.invocation.body.toString("utf8")) as DeliveredEvent | readonly DeliveredEvent[];
      queue.accepted.push({ item, events: Array.isArray(content) ? content : [content as DeliveredEvent] });
      return { activationId: item.invocation.id, duplicate: false };
    });
  };
  const triggers = new Triggers({
    kinds: new Map(kinds.map((kind) => [kind.name, kind])),
    store,
    secrets,
    clock,
    limits,
    telemetry,
    logger: {
      log: (level, message, fields) => void messages.push(`${level} ${message} ${JSON.stringify(fields ?? {})}`),
    },
    // A rejection that nobody handles ends the test run, as it would end the platform.
    supervise: (_, promise) => void promise,
    node: options.node ?? "local",
    alone: options.node === undefined,
    enqueueAll,
    resolve: (ref) => {
      if (ref.name !== target.name) throw new KoineError("function-not-found", { name: ref.name, suggestion: "" });
      return { ...ref } as unknown as Version;
    },
    random: () => 0.5,
  });
  return { triggers, secrets, telemetry, messages };
}

/** All events that were accepted, in order. */
export function eventsIn(queue: Queue): readonly DeliveredEvent[] {
  return queue.accepted.flatMap(({ events }) => events);
}
