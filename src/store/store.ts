import type { Readable } from "node:stream";
import type { Accepted } from "../core/enqueue.ts";
import type { Activation, Attempt, LogRecord } from "../core/invocation.ts";

/** The four durable abilities. An implementation may serve some of them; `compose.ts` puts a Store together. */
export interface Store {
  readonly values: Values;
  readonly log: ActivationLog;
  readonly queue: Queue;
  readonly blobs: Blobs;
  /** Writes what is still in memory and closes; nothing may be called afterwards. */
  close(): Promise<void>;
}

/** A JSON value with its revision, which grows with every change of the key. */
export interface ValueEntry {
  readonly key: string;
  readonly value: unknown;
  readonly revision: number;
}

/**
 * One change of a key. `expect` makes it conditional: a revision, `absent`, or `any`. `value: null` deletes.
 */
export interface ValueChange {
  readonly collection: string;
  readonly key: string;
  readonly value: unknown;
  readonly expect: number | "absent" | "any";
}

/** Small JSON values by collection and key, compare-and-swap, durable before the promise resolves. */
export interface Values {
  get(collection: string, key: string): Promise<ValueEntry | null>;
  /** In key order (by UTF-8 bytes), keys greater than `after` that begin with `prefix`. */
  list(
    collection: string,
    query: { readonly prefix?: string; readonly after?: string; readonly limit: number },
  ): Promise<readonly ValueEntry[]>;
  /**
   * Applies all changes or none, in one transaction; answers the new revisions in order (0 for deletions). Expectations speak of the state before
   * the commit; of several changes of one key the last stays. A revision never comes back, not even after the key was deleted and made anew.
   * @throws KoineError `conflict` (value `name`: the key) when an expectation does not hold; `storage-full`, `storage-failed`
   */
  commit(changes: readonly ValueChange[]): Promise<readonly number[]>;
}

export interface ActivationQuery {
  readonly namespace: string;
  /** With `package`, one function. */
  readonly name?: string;
  readonly package?: string;
  readonly state?: Activation["state"];
  /** Started at or after / before, milliseconds since the epoch. */
  readonly sinceMs?: number;
  readonly beforeMs?: number;
  /** Continue after this activation id, in the listing's order; nothing follows an id that is not there (any more). */
  readonly after?: string;
  readonly limit: number;
}

export interface LogQuery {
  readonly namespace: string;
  readonly name?: string;
  readonly package?: string;
  readonly version?: number;
  readonly activationId?: string;
  readonly sinceMs?: number;
  readonly beforeMs?: number;
  /** Only records with a greater sequence number. */
  readonly afterSequence?: number;
  /** The newest `limit` of what matches, answered oldest first. */
  readonly limit: number;
}

export interface StoredLogRecord extends LogRecord {
  /** Grows by at least 1 per record; orders records of one platform. */
  readonly sequence: number;
}

/** Activations, their results, and log lines; bounded by age and size. */
export interface ActivationLog {
  /**
   * Hands records over without waiting: they are written in groups, a crash may lose the last second of them. Never throws and never blocks;
   * beyond a bound on what waits to be written the oldest log lines are dropped and counted. A later record of the same activation id replaces the earlier.
   */
  append(activations: readonly Activation[], logs: readonly LogRecord[]): void;
  /** Keeps the result of an activation, and with it what was appended before: durable before it resolves. */
  putResult(
    activationId: string,
    result: { readonly status: number; readonly headers: readonly string[]; readonly body: Uint8Array },
  ): Promise<void>;
  getResult(
    activationId: string,
  ): Promise<{ readonly status: number; readonly headers: readonly string[]; readonly body: Uint8Array } | null>;
  get(activationId: string): Promise<Activation | null>;
  /** Newest start first; of the same millisecond, the one appended last. */
  list(query: ActivationQuery): Promise<readonly Activation[]>;
  logs(query: LogQuery): Promise<readonly StoredLogRecord[]>;
  /** Resolves when everything appended so far can be read. */
  flush(): Promise<void>;
  /** Removes what is older than `olderThanMs` (epoch) and, oldest first, what exceeds `bytesMax` together; answers how many activations and lines went. */
  retain(bounds: {
    readonly olderThanMs: number;
    readonly bytesMax: number;
  }): Promise<{ readonly activations: number; readonly lines: number }>;
  /** Counts of what `append` had to drop. */
  dropped(): number;
}

/** Records as another process of the platform has packed them for this kind of log. */
export interface PackedRecords {
  readonly count: number;
  /** Null: there are lines only. */
  readonly activations: Uint8Array | null;
  /** What activations have in common, as JSON. */
  readonly shapes: string;
  /** JSON of log lines; null: there are none. */
  readonly lines: string | null;
}

/** Optional ability of a log: takes what others have packed, without opening it; otherwise as `append`. */
export interface TakesPacked {
  appendPacked(records: PackedRecords): void;
}

export function takesPacked(log: ActivationLog): log is ActivationLog & TakesPacked {
  return "appendPacked" in log;
}

export interface QueueItem {
  /** Equals the activation id. */
  readonly id: string;
  /** Items of one lane are the work of one function: `functionKey`, or that and `@` with what else is done for it. */
  readonly lane: string;
  readonly payload: Uint8Array;
  /** Not before this time, milliseconds since the epoch. */
  readonly dueAtMs: number;
  /** From when its age counts: when it was accepted or, for what was to wait, first due. */
  readonly enqueuedAtMs: number;
  /** Within its lane: 0 goes before 1 (what is absent is that), that before 2; see `limits.priorityAgeMs`. */
  readonly priority?: QueuePriority;
  /** Items of one lane with the same key are claimed one after the other, in the order in which they were enqueued. */
  readonly orderingKey?: string;
}

export type QueuePriority = 0 | 1 | 2;

/** An item, and under which key it is accepted only once in its lane until a time. */
export interface NewQueueItem extends QueueItem {
  readonly idempotency?: { readonly key: string; readonly untilMs: number };
}

/** What a queue may hold before it refuses. */
export interface QueueBounds {
  readonly nowMs: number;
  /** Items in all that nobody has finished. A lane may hold as many as there is room left, so that one alone fills half and others still find room. */
  readonly lengthMax: number;
  /** Age of the oldest item of a lane that could have run and has not been tried, beyond which the lane takes no more. */
  readonly ageMsMax: number;
  /** Dead letters of a lane, at which it takes no more. */
  readonly deadLettersMax: number;
  /** Idempotency keys that are remembered in all. */
  readonly keysMax: number;
}

/** Proof of a claim: settles only while the epoch is still the item's newest. */
export interface Receipt {
  readonly id: string;
  readonly epoch: number;
}

export interface Lease {
  readonly item: QueueItem;
  readonly receipt: Receipt;
  /** How often it was claimed before, plus one; a claim that was released does not count. */
  readonly attempt: number;
  /** Set when a failed attempt of it is remembered. */
  readonly hasFailed?: boolean;
}

/** `followUps` are enqueued in the same commit, without bounds: they take the place of what ends. `attempt` joins the item's history. */
export type Settlement =
  | { readonly kind: "done"; readonly attempt?: Attempt; readonly followUps?: readonly QueueItem[] }
  /** With a payload, that takes the place of the item's. */
  | { readonly kind: "retry"; readonly dueAtMs: number; readonly attempt?: Attempt; readonly payload?: Uint8Array }
  /** Gives the claim back as if it had never been made: the attempt does not count. Due again at `dueAtMs`, without it as before. */
  | { readonly kind: "release"; readonly dueAtMs?: number }
  | {
      readonly kind: "dead";
      readonly reason: string;
      /** Error code of the last outcome. */
      readonly code?: string;
      readonly atMs: number;
      readonly attempt?: Attempt;
      readonly payload?: Uint8Array;
      readonly followUps?: readonly QueueItem[];
    };

export interface DeadLetterHead {
  readonly id: string;
  readonly lane: string;
  readonly enqueuedAtMs: number;
  readonly attempts: number;
  readonly reason: string;
  readonly code: string;
  readonly atMs: number;
}

export interface DeadLetter extends DeadLetterHead {
  readonly payload: Uint8Array;
  /** The newest `limits.attemptsKept` at most, oldest first. */
  readonly history: readonly Attempt[];
}

export interface DeadLetterQuery {
  /** Lanes, or with `prefix` all that begin so. */
  readonly lanes?: readonly string[];
  readonly prefix?: string;
  readonly code?: string;
  /** Died at or after / before, milliseconds since the epoch. */
  readonly sinceMs?: number;
  readonly beforeMs?: number;
  readonly after?: string;
  readonly limit: number;
}

export interface QueueState {
  /** Items that nobody holds, due or not; an expired claim counts here. */
  readonly waiting: number;
  readonly leased: number;
  readonly dead: number;
  /** The earliest time after now at which an item falls due or a claim expires; null: there is none. */
  readonly nextDueAtMs: number | null;
  readonly oldestEnqueuedAtMs: number | null;
}

export interface LaneState {
  readonly lane: string;
  /** Items that nobody has finished. */
  readonly length: number;
  readonly dead: number;
  /** Of what could run, not held up by an ordering key, and has not been tried; null: there is none. */
  readonly oldestEnqueuedAtMs: number | null;
}

/** An item that is in the queue now. */
export interface QueuedItem {
  readonly item: QueueItem;
  readonly leased: boolean;
  readonly attempts: number;
  readonly history: readonly Attempt[];
}

/** Durable work: at least once, by leases. */
export interface Queue {
  /**
   * Durable (fdatasync) before it resolves; concurrent calls share one commit. All or none. An id that is there already, and an idempotency key that is
   * remembered, leave the earlier item as it is and answer its id as a duplicate; a key is remembered after its item has gone.
   * @throws KoineError `queue-full`, `dead-letters-full` by the bounds; `storage-full`, `storage-failed`
   */
  enqueue(items: readonly NewQueueItem[], bounds?: QueueBounds): Promise<readonly Accepted[]>;
  /**
   * Claims up to `limit` due items, fairly over lanes: first of those of which the fewest are claimed already, of these of what was served longest ago;
   * within a lane the oldest due first, with `limits.priorityAgeMs` between priorities. `laneRoom` bounds how many of a lane are claimed (0: none),
   * `roomPerLane` those of lanes that it does not name. Fewer than `limit` means that nothing else was due. An expired claim is due again.
   */
  lease(request: LeaseRequest): Promise<readonly Lease[]>;
  /** Prolongs a claim; false when it was lost. */
  extend(receipt: Receipt, untilMs: number): Promise<boolean>;
  /** Ends a claim durably; false when it was lost: then nothing was changed. */
  settle(receipt: Receipt, settlement: Settlement): Promise<boolean>;
  /** Removes an item for good unless somebody holds it; durable. */
  cancel(id: string, nowMs: number): Promise<"cancelled" | "leased" | "absent">;
  find(id: string, nowMs: number): Promise<QueuedItem | null>;
  /** Attempts of an item that ended well after it had failed, oldest first; empty for others. Kept as long as activations. */
  attempts(id: string): Promise<readonly Attempt[]>;
  state(nowMs: number): Promise<QueueState>;
  /** Lanes that hold something, the longest first. */
  lanes(limit: number): Promise<readonly LaneState[]>;
  /** In id order. Dead letters stay until they are replayed or purged. */
  deadLetters(query: DeadLetterQuery): Promise<readonly DeadLetterHead[]>;
  deadLetter(id: string): Promise<DeadLetter | null>;
  /**
   * Makes items of dead letters again, in the order given and `spacingMs` apart, with all their attempts; durable. Those that are gone are left out, so
   * that repeating it changes nothing. Answers the ids of those that were there. @throws KoineError as `enqueue`
   */
  replay(
    ids: readonly string[],
    request: { readonly nowMs: number; readonly spacingMs: number; readonly bounds?: QueueBounds },
  ): Promise<readonly string[]>;
  /** Removes dead letters for good; answers how many were there. */
  purge(ids: readonly string[]): Promise<number>;
}

export interface LeaseRequest {
  readonly limit: number;
  readonly nowMs: number;
  readonly leaseMs: number;
  readonly laneRoom?: Readonly<Record<string, number>>;
  readonly roomPerLane?: number;
}

/** Immutable bytes by digest (`sha256:…` of something the caller defines). */
export interface Blobs {
  /** Durable before it resolves; the same key twice keeps the first. Nothing is visible under the key until it is whole. */
  put(key: string, source: Readable): Promise<{ readonly bytes: number }>;
  open(key: string): Promise<Readable | null>;
  has(key: string): Promise<boolean>;
  delete(key: string): Promise<void>;
  list(): Promise<readonly string[]>;
}
