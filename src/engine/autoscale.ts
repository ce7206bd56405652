/** How many spare sandboxes of one runtime should wait. */
export interface SpareView {
  /** Most cold starts of the runtime that fell into one second or two, lately. */
  readonly coldStartsTogether: number;
  /** Whether any deployed function uses the runtime. */
  readonly used: boolean;
}

export interface SpareBounds {
  readonly sparesMin: number;
  readonly sparesMax: number;
}

/** As many as were wanted together lately: that is less time than it takes to boot more. None for a runtime that nothing uses. */
export function decideSpares(view: SpareView, bounds: SpareBounds): number {
  if (!view.used) return 0;
  return Math.min(bounds.sparesMax, Math.max(bounds.sparesMin, view.coldStartsTogether));
}

const WINDOW_SECONDS = 600;

/** Counts events of the last ten minutes in one-second buckets, in constant memory. */
export class BurstRate {
  readonly #buckets = new Uint16Array(WINDOW_SECONDS);
  #second = 0;

  add(nowMs: number): void {
    this.#advance(nowMs);
    const index = this.#second % WINDOW_SECONDS;
    this.#buckets[index] = Math.min((this.#buckets[index] ?? 0) + 1, 0xffff);
  }

  /** The most that fell into two seconds in a row: a burst does not begin with a second. */
  together(nowMs: number): number {
    this.#advance(nowMs);
    let most = 0;
    let before = 0;
    for (let step = 1; step <= WINDOW_SECONDS; step++) {
      const count = this.#buckets[(this.#second + step) % WINDOW_SECONDS] ?? 0;
      most = Math.max(most, before + count);
      before = count;
    }
    return most;
  }

  #advance(nowMs: number): void {
    const second = Math.floor(nowMs / 1000);
    const steps = Math.min(second - this.#second, WINDOW_SECONDS);
    for (let step = 1; step <= steps; step++) this.#buckets[(second - steps + step) % WINDOW_SECONDS] = 0;
    if (second > this.#second) this.#second = second;
  }
}
