import type { Clock } from "../core/clock.ts";
import type { CloudEvent } from "../core/event.ts";

export interface BatchRules {
  /** Most events of one batch. */
  readonly size: number;
  /** How long the first event of a batch waits for others, in milliseconds; 0: as long as this turn of the event loop. */
  readonly windowMs: number;
  /** Most bytes of one batch, by the sizes that `add` is told. */
  readonly bytes: number;
}

interface Open<Answer> {
  readonly events: CloudEvent[];
  readonly waiting: PromiseWithResolvers<Answer>[];
  bytes: number;
  cancelTimer: () => void;
}

/**
 * Gathers events into batches per key: a batch is handed over when it is full, or its window has passed. Batches of one key are handed over one after the
 * other, in order; those of different keys at the same time. Each `add` ends as the batch it became part of.
 */
export class Batcher<Answer> {
  readonly #rules: BatchRules;
  readonly #clock: Clock;
  readonly #deliver: (events: readonly CloudEvent[], key: string) => Promise<Answer>;
  readonly #open = new Map<string, Open<Answer>>();
  /** The end of what was handed over last, by key. */
  readonly #last = new Map<string, Promise<unknown>>();
  readonly #ordered: boolean;

  constructor(
    rules: BatchRules,
    parts: {
      readonly clock: Clock;
      /** Whether batches of one key wait for each other. */
      readonly ordered: boolean;
      readonly deliver: (events: readonly CloudEvent[], key: string) => Promise<Answer>;
    },
  ) {
    this.#rules = rules;
    this.#clock = parts.clock;
    this.#ordered = parts.ordered;
    this.#deliver = parts.deliver;
  }

  add(event: CloudEvent, key: string, bytes: number): Promise<Answer> {
    let open = this.#open.get(key);
    if (open !== undefined && open.bytes + bytes > this.#rules.bytes) {
      this.#close(key, open);
      open = undefined;
    }
    open ??= this.#begin(key);
    const waiting = Promise.withResolvers<Answer>();
    open.events.push(event);
    open.waiting.push(waiting);
    open.bytes += bytes;
    if (open.events.length >= this.#rules.size) this.#close(key, open);
    return waiting.promise;
  }

  /** Hands over what waits now, full or not. */
  flush(): void {
    for (const [key, open] of this.#open) this.#close(key, open);
  }

  #begin(key: string): Open<Answer> {
    const open: Open<Answer> = { events: [], waiting: [], bytes: 0, cancelTimer: () => {} };
    this.#open.set(key, open);
    if (this.#rules.size > 1)
      open.cancelTimer = this.#clock.after(this.#rules.windowMs, () => {
        if (this.#open.get(key) === open) this.#close(key, open);
      });
    return open;
  }

  #close(key: string, open: Open<Answer>): void {
    this.#open.delete(key);
    open.cancelTimer();
    const before = this.#ordered ? this.#last.get(key) : undefined;
    const delivered =
      before === undefined ? this.#deliver(open.events, key) : before.then(() => this.#deliver(open.events, key));
    if (this.#ordered) {
      // What comes after one that failed fails too, until the source begins again at its checkpoint: order would be lost otherwise.
      this.#last.set(key, delivered);
      const forget = (): void => {
        if (this.#last.get(key) === delivered) this.#last.delete(key);
      };
      delivered.then(forget, () => {});
    }
    delivered.then(
      (answer) => {
        for (const { resolve } of open.waiting) resolve(answer);
      },
      (reason: unknown) => {
        for (const { reject } of open.waiting) reject(reason);
      },
    );
  }
}
