import type { Invocation } from "./invocation.ts";

/** How asynchronous work is tried again. */
export interface RetryPolicy {
  /** Attempts that count, the first included. */
  readonly attemptsMax: number;
  /** Age since it fell due for the first time, at which it is given up, in milliseconds. */
  readonly ageMsMax: number;
  /** Wait after the first failed attempt, after the second, and so on; the last one stays. Each is spread by up to a fifth. In milliseconds. */
  readonly delaysMs: readonly number[];
}

/** `high` goes before `normal`, that before `low`, within one function; none waits for ever. */
export type Priority = "high" | "normal" | "low";

export const PRIORITIES: readonly Priority[] = ["high", "normal", "low"];

/** How accepted work is to be handled, beside what its function says. */
export interface EnqueueOptions {
  /** Not before this time, milliseconds since the epoch. */
  readonly dueAtMs?: number | undefined;
  /** Work of one function with the same key runs one after the other in the order in which it was accepted; a retry holds up what follows, a dead letter does not. */
  readonly orderingKey?: string | undefined;
  /** The same key for the same function within `limits.idempotencyWindowMs` is accepted once: the later call gets the activation of the first. */
  readonly idempotencyKey?: string | undefined;
  readonly priority?: Priority | undefined;
  /** What differs from the function's own policy. */
  readonly retry?: Partial<RetryPolicy> | undefined;
  /** Names a reader of partial failures (see `PartialFailureReader`), for batches of which a part may fail. */
  readonly partialFailures?: string | undefined;
}

export interface EnqueueItem {
  readonly invocation: Invocation;
  readonly options?: EnqueueOptions | undefined;
}

/** What became of accepted work. */
export interface Accepted {
  /** The activation; of an earlier one, when the idempotency key was known. */
  readonly activationId: string;
  /** Whether it was accepted before and nothing was added now. */
  readonly duplicate: boolean;
}

/** A function's answer to an asynchronous invocation, as far as it was kept. */
export interface KeptAnswer {
  readonly status: number;
  readonly headers: readonly string[];
  readonly body: Buffer;
}

/**
 * Reads from the answer of a batch's invocation which part of it failed. Answers the body that is to be tried again (and that the dead letter keeps),
 * or null when all of it succeeded. What it throws counts as a failure of the whole batch. Pure: it may be asked again after a crash.
 */
export type PartialFailureReader = (invocation: Invocation, answer: KeptAnswer) => Buffer | null;
