/** How many spare sandboxes of one runtime should wait. */
export interface SpareView {
  /** Cold starts of the runtime within the last minute. */
  readonly coldStartsLastMinute: number;
  /** Whether any deployed function uses the runtime. */
  readonly used: boolean;
}

export interface SpareBounds {
  readonly sparesMin: number;
  readonly sparesMax: number;
}

/** One spare per two cold starts a minute on top of the minimum; none for a runtime that nothing uses. */
export function decideSpares(view: SpareView, bounds: SpareBounds): number {
  if (!view.used) return 0;
  return Math.min(bounds.sparesMax, bounds.sparesMin + Math.ceil(view.coldStartsLastMinute / 2));
}

/** Counts events of the last minute in one-second buckets, in constant memory. */
export class MinuteRate {
  readonly #buckets = new Uint32Array(60);
  #second = 0;

  add(nowMs: number): void {
    this.#advance(nowMs);
    const index = this.#second % 60;
    this.#buckets[index] = (this.#buckets[index] ?? 0) + 1;
  }

  count(nowMs: number): number {
    this.#advance(nowMs);
    return this.#buckets.reduce((sum, count) => sum + count, 0);
  }

  #advance(nowMs: number): void {
    const second = Math.floor(nowMs / 1000);
    const steps = Math.min(second - this.#second, 60);
    for (let step = 1; step <= steps; step++) this.#buckets[(second - steps + step) % 60] = 0;
    if (second > this.#second) this.#second = second;
  }
}
