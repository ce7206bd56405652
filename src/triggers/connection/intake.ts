import type { CloudEvent } from "../../core/event.ts";
import { limits } from "../../core/limits.ts";
import type { Emit } from "../trigger.ts";

const ACKNOWLEDGED_AT_ONCE_MAX = 1_000;

/**
 * Emits what a source reads, several at a time within the bounds of triggers, and acknowledges what was accepted, several with one call. For sources that
 * acknowledge each message by itself; where only a position can be told, `Progress` is what is needed.
 */
export class Intake<Receipt> {
  readonly #emit: Emit;
  readonly #acknowledge: (receipts: readonly Receipt[]) => Promise<void>;
  readonly #failed = new AbortController();
  /** Aborts when the source is to end, or when something cannot be acknowledged: what waits for messages must stop then. */
  readonly signal: AbortSignal;
  #pending = 0;
  #pendingBytes = 0;
  #accepted: Receipt[] = [];
  #acknowledging: Promise<void> | null = null;
  #changed: PromiseWithResolvers<void> | null = null;

  constructor(parts: {
    readonly emit: Emit;
    readonly signal: AbortSignal;
    /** One call at a time. Its rejection ends the run. */
    readonly acknowledge: (receipts: readonly Receipt[]) => Promise<void>;
  }) {
    this.#emit = parts.emit;
    this.#acknowledge = parts.acknowledge;
    this.signal = AbortSignal.any([parts.signal, this.#failed.signal]);
    this.signal.addEventListener("abort", () => this.#wake(), { once: true });
  }

  /** Waits until more may be read; answers how many. @throws the signal's reason */
  async room(): Promise<number> {
    for (;;) {
      this.signal.throwIfAborted();
      const free = limits.triggerInFlightMax - this.#pending;
      if (free > 0 && this.#pendingBytes < limits.triggerInFlightBytesMax) return free;
      await this.#change();
    }
  }

  /** Hands events over, in this order; the receipt is acknowledged when all of them are accepted. */
  take(events: readonly CloudEvent[], receipt: Receipt, bytes: number): void {
    this.#pending++;
    this.#pendingBytes += bytes;
    void Promise.all(events.map((event) => this.#emit(event)))
      .then(
        () => this.#accept(receipt),
        // The host ends the run: this one comes again then.
        () => {},
      )
      .finally(() => {
        this.#pending--;
        this.#pendingBytes -= bytes;
        this.#wake();
      });
  }

  /** Resolves when nothing is on its way any more and what was accepted is acknowledged, as far as that is possible. */
  async end(): Promise<void> {
    while (this.#pending > 0) await this.#change();
    await this.#acknowledging;
  }

  #accept(receipt: Receipt): void {
    this.#accepted.push(receipt);
    this.#acknowledging ??= this.#acknowledgeAll();
  }

  async #acknowledgeAll(): Promise<void> {
    // What is accepted in the same commit is told of within one turn.
    await new Promise((resolve) => setImmediate(resolve));
    try {
      while (this.#accepted.length > 0) await this.#acknowledge(this.#accepted.splice(0, ACKNOWLEDGED_AT_ONCE_MAX));
    } catch (thrown) {
      this.#failed.abort(thrown);
    } finally {
      this.#acknowledging = null;
    }
  }

  #wake(): void {
    this.#changed?.resolve();
    this.#changed = null;
  }

  async #change(): Promise<void> {
    this.#changed ??= Promise.withResolvers<void>();
    await this.#changed.promise;
  }
}
