import type { Attempt, Invocation } from "./invocation.ts";

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
  /** Who is told how it ended, beside the destinations of its function. */
  readonly follower?: FollowerNote | undefined;
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

/** Names an `OutcomeFollower`, with what it is to know of one invocation; JSON-serialisable. */
export interface FollowerNote {
  readonly name: string;
  readonly note: Readonly<Record<string, unknown>>;
  /** Its follow-ups are all that is kept of a failure: no dead letter stays. */
  readonly keepsFailures: boolean;
}

/** How an asynchronous invocation has ended for good. */
export interface EndedInvocation {
  readonly invocation: Invocation;
  /** Of the last attempt. */
  readonly attempt: Attempt;
  /** Whether its age was over before its attempts were. */
  readonly expired: boolean;
  /** Null: the last attempt had none. */
  readonly answer: KeptAnswer | null;
  readonly endedAtMs: number;
  readonly note: FollowerNote["note"];
}

/** What follows from an end: another invocation, or something that its follower brings to where it goes. */
export type FollowUp =
  | {
      readonly kind: "invocation";
      readonly invocation: Invocation;
      readonly options: EnqueueOptions;
    }
  | { readonly kind: "delivery"; readonly destination: string; readonly body: Buffer };

/** What a dialect does with the outcomes of what it enqueued. */
export interface OutcomeFollower {
  /** What follows is accepted in the commit that ends the invocation. Pure: it may be asked again after a crash. */
  follow(ended: EndedInvocation): readonly FollowUp[];
  /** Brings a delivery to its destination, at least once; tried again when it throws. */
  deliver(delivery: {
    readonly id: string;
    readonly namespace: string;
    readonly destination: string;
    readonly body: Buffer;
    readonly signal: AbortSignal;
  }): Promise<void>;
}
