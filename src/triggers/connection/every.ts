import type { Clock } from "../../core/clock.ts";

/** Something that is to be done again and again, when whoever runs a loop comes by. */
export class Every {
  readonly #clock: Clock;
  readonly #everyMs: number;
  #dueMs: number;

  constructor(clock: Clock, everyMs: number) {
    this.#clock = clock;
    this.#everyMs = everyMs;
    this.#dueMs = clock.monotonicMs();
  }

  /** Whether it is time; the next time is counted from now on. */
  isDue(): boolean {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs < this.#dueMs) return false;
    this.#dueMs = nowMs + this.#everyMs;
    return true;
  }
}
