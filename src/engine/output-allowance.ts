import type { Limits } from "../core/limits.ts";

type OutputBounds = Pick<Limits, "outputBytesPerSecondMax" | "outputBurstBytesMax">;

const NOTICE_MS = 1_000;

/** How much one instance may print: so much at once, and so much per second. */
export class OutputAllowance {
  readonly #bounds: OutputBounds;
  #bytes: number;
  #filledAtMs: number;
  #droppedBytes = 0;
  #noticedAtMs = Number.NEGATIVE_INFINITY;

  constructor(bounds: OutputBounds, nowMs: number) {
    this.#bounds = bounds;
    this.#bytes = bounds.outputBurstBytesMax;
    this.#filledAtMs = nowMs;
  }

  /** How many of these bytes may pass; the others are counted. */
  take(bytes: number, nowMs: number): number {
    const { outputBurstBytesMax, outputBytesPerSecondMax } = this.#bounds;
    const filled = ((nowMs - this.#filledAtMs) / 1_000) * outputBytesPerSecondMax;
    this.#filledAtMs = Math.max(nowMs, this.#filledAtMs);
    this.#bytes = Math.min(outputBurstBytesMax, this.#bytes + Math.max(0, filled));
    const taken = Math.min(bytes, Math.floor(this.#bytes));
    this.#bytes -= taken;
    this.#droppedBytes += bytes - taken;
    return taken;
  }

  /** What is to be said of dropped output, now and then; null: nothing. */
  notice(nowMs: number): string | null {
    if (this.#droppedBytes === 0 || nowMs - this.#noticedAtMs < NOTICE_MS) return null;
    const notice = `${this.#droppedBytes} bytes of output were dropped: more than ${this.#bounds.outputBytesPerSecondMax} bytes per second`;
    this.#droppedBytes = 0;
    this.#noticedAtMs = nowMs;
    return notice;
  }
}
