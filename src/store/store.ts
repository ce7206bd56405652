import type { Readable } from "node:stream";
import type { Activation, LogRecord } from "../core/invocation.ts";

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
  /** Keeps the result of an activation (durable before it resolves). */
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

export interface QueueItem {
  /** Equals the activation id. */
  readonly id: string;
  /** Items of one lane are the work of one function: `functionKey`. */
  readonly lane: string;
  readonly payload: Uint8Array;
  /** Not before this time, milliseconds since the epoch. */
  readonly dueAtMs: number;
  readonly enqueuedAtMs: number;
}

/** Proof of a claim: settles only while the epoch is still the item's newest. */
export interface Receipt {
  readonly id: string;
  readonly epoch: number;
}

export interface Lease {
  readonly item: QueueItem;
  readonly receipt: Receipt;
  /** How often it was claimed before, plus one. */
  readonly attempt: number;
}

export type Settlement =
  | { readonly kind: "done" }
  | { readonly kind: "retry"; readonly dueAtMs: number }
  /** Gives the claim back as if it had never been made: the attempt does not count. Due again at `dueAtMs`, without it as before. */
  | { readonly kind: "release"; readonly dueAtMs?: number }
  | { readonly kind: "dead"; readonly reason: string; readonly atMs: number };

export interface DeadLetter {
  readonly item: QueueItem;
  readonly attempts: number;
  readonly reason: string;
  readonly atMs: number;
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

/** Durable work: at least once, by leases. */
export interface Queue {
  /** Durable (fdatasync) before it resolves; concurrent calls share one commit. An id that is there already is left as it is. @throws KoineError `storage-full`, `storage-failed` */
  enqueue(items: readonly QueueItem[]): Promise<void>;
  /**
   * Claims up to `limit` due items, fairly over lanes: first the oldest of each lane (oldest due first), then the second of each, and so on. `laneRoom`
   * bounds how many of a lane are claimed (0: none); lanes it does not name are not bounded. Fewer than `limit` means that nothing else was due.
   * An expired claim is due again.
   */
  lease(request: {
    readonly limit: number;
    readonly nowMs: number;
    readonly leaseMs: number;
    readonly laneRoom?: Readonly<Record<string, number>>;
  }): Promise<readonly Lease[]>;
  /** Prolongs a claim; false when it was lost. */
  extend(receipt: Receipt, untilMs: number): Promise<boolean>;
  /** Ends a claim durably; false when it was lost: then nothing was changed. */
  settle(receipt: Receipt, settlement: Settlement): Promise<boolean>;
  state(nowMs: number): Promise<QueueState>;
  /** In id order; the oldest beyond `limits.deadLettersMax` are removed. */
  deadLetters(query: {
    readonly lane?: string;
    readonly after?: string;
    readonly limit: number;
  }): Promise<readonly DeadLetter[]>;
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
