import type { Clock } from "./clock.ts";

/** Something that a `Timeouts` may hold; in one of them at a time. */
export abstract class Timed {
  /** Belong to the list that holds it. */
  timeouts: Timeouts | null = null;
  timeoutBefore: Timed | null = null;
  timeoutAfter: Timed | null = null;
  timeoutDueMs = 0;

  abstract timedOut(): void;
}

/**
 * Things that time out when the same time has passed since they were added. Since all wait equally long, the oldest is always the next: adding
 * and removing is a few assignments, and one timer serves them all.
 */
export class Timeouts {
  readonly #clock: Clock;
  readonly #delayMs: number;
  #first: Timed | null = null;
  #last: Timed | null = null;
  #cancelTimer: (() => void) | null = null;

  constructor(clock: Clock, delayMs: number) {
    this.#clock = clock;
    this.#delayMs = delayMs;
  }

  /** Starts the time of a thing, anew if it is here already. `nowMs` is of the clock's `monotonicMs`. */
  add(timed: Timed, nowMs: number = this.#clock.monotonicMs()): void {
    timed.timeouts?.remove(timed);
    timed.timeouts = this;
    timed.timeoutDueMs = nowMs + this.#delayMs;
    timed.timeoutBefore = this.#last;
    if (this.#last === null) this.#first = timed;
    else this.#last.timeoutAfter = timed;
    this.#last = timed;
    if (this.#cancelTimer === null) this.#arm(this.#delayMs);
  }

  /** Does nothing for what is not here. The timer stays as it is: it finds out by itself that nothing is due. */
  remove(timed: Timed): void {
    if (timed.timeouts !== this) return;
    const { timeoutBefore: before, timeoutAfter: after } = timed;
    if (before === null) this.#first = after;
    else before.timeoutAfter = after;
    if (after === null) this.#last = before;
    else after.timeoutBefore = before;
    timed.timeouts = null;
    timed.timeoutBefore = null;
    timed.timeoutAfter = null;
  }

  /** What is here, the oldest first; it may be removed meanwhile. */
  *[Symbol.iterator](): Iterable<Timed> & Iterator<Timed, undefined> {
    for (let timed = this.#first; timed !== null;) {
      const next: Timed | null = timed.timeoutAfter;
      yield timed;
      timed = next;
    }
    return undefined;
  }

  /** Forgets everything; nothing times out any more. */
  close(): void {
    while (this.#first !== null) this.remove(this.#first);
    this.#cancelTimer?.();
    this.#cancelTimer = null;
  }

  #arm(delayMs: number): void {
    this.#cancelTimer = this.#clock.after(delayMs, () => this.#fire());
  }

  #fire(): void {
    this.#cancelTimer = null;
    const nowMs = this.#clock.monotonicMs();
    for (let timed = this.#first; timed !== null && timed.timeoutDueMs <= nowMs; timed = this.#first) {
      this.remove(timed);
      timed.timedOut();
    }
    // Somebody may have been added, and the timer set, while others timed out. A timer may fire a little before its time.
    if (this.#first !== null && this.#cancelTimer === null) this.#arm(Math.max(1, this.#first.timeoutDueMs - nowMs));
  }
}
