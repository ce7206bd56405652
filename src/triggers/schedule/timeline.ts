import type { Clock } from "../../core/clock.ts";

interface Entry {
  readonly dueMs: number;
  readonly order: number;
  readonly call: () => void;
  cancelled: boolean;
}

/** Between two looks at the wall clock, which may be set at any time. */
const LOOK_MS_MAX = 1_000;

/** Calls back at times of the wall clock: one timer for any number of them, on a binary heap. */
export class Timeline {
  readonly #clock: Clock;
  readonly #heap: Entry[] = [];
  #order = 0;
  #armedForMs = Number.POSITIVE_INFINITY;
  #cancelTimer = (): void => {};

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls back once at or after that time; the returned function cancels. Calls of the same time come in the order in which they were asked for. */
  at(dueMs: number, call: () => void): () => void {
    const entry: Entry = { dueMs, order: this.#order++, call, cancelled: false };
    this.#push(entry);
    if (this.#heap[0] === entry) this.#arm();
    return () => {
      entry.cancelled = true;
    };
  }

  /** Resolves at that time; rejects as soon as the signal aborts. */
  async until(dueMs: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const cancel = this.at(dueMs, resolve);
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

  #arm(): void {
    const next = this.#heap[0];
    if (next === undefined) return;
    const nowMs = this.#clock.nowMs();
    const wakeMs = Math.min(next.dueMs, nowMs + LOOK_MS_MAX);
    if (wakeMs >= this.#armedForMs && this.#armedForMs >= nowMs) return;
    this.#cancelTimer();
    this.#armedForMs = wakeMs;
    this.#cancelTimer = this.#clock.after(Math.max(0, wakeMs - nowMs), () => {
      this.#armedForMs = Number.POSITIVE_INFINITY;
      this.#fire();
    });
  }

  #fire(): void {
    const nowMs = this.#clock.nowMs();
    for (;;) {
      const next = this.#heap[0];
      if (next === undefined || (next.dueMs > nowMs && !next.cancelled)) break;
      this.#pop();
      if (!next.cancelled) next.call();
    }
    this.#arm();
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(entry);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent];
      if (above === undefined || !isBefore(entry, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      const left = heap[child];
      if (left === undefined) break;
      const right = heap[child + 1];
      const smaller = right !== undefined && isBefore(right, left) ? right : left;
      if (smaller === right) child++;
      if (!isBefore(smaller, last)) break;
      heap[at] = smaller;
      at = child;
    }
    heap[at] = last;
  }
}

function isBefore(a: Entry, b: Entry): boolean {
  return a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.order < b.order);
}
