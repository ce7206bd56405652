import type { Runtime } from "../runtimes/runtime.ts";
import { isAttachable } from "../sandbox/sandbox.ts";
import { decideSpares, MinuteRate } from "./autoscale.ts";
import { boot } from "./boot.ts";
import type { Booted, EngineParts } from "./parts.ts";

/**
 * Sandboxes of one runtime that have booted and belong to no version yet. Each is used for one version, once. They are refilled one
 * at a time, and not while somebody waits for an instance, so that refilling never takes the processor from a cold start.
 */
export class SparePool {
  readonly #parts: EngineParts;
  readonly #runtime: Runtime;
  readonly #rate = new MinuteRate();
  readonly #ready: Booted[] = [];
  #used = false;
  #filling = false;
  #stopping: AbortController | null = new AbortController();
  #failures = 0;
  #attachable = true;

  constructor(parts: EngineParts, runtime: Runtime) {
    this.#parts = parts;
    this.#runtime = runtime;
  }

  get length(): number {
    return this.#ready.length;
  }

  /** Says whether any function uses the runtime; the first use begins to fill. */
  setUsed(used: boolean): void {
    this.#used = used;
    if (used) this.refill();
    else this.#shrink(0);
  }

  /** A booted sandbox, or null when none is ready. Counts as a cold start either way. */
  take(): Booted | null {
    this.#rate.add(this.#parts.clock.nowMs());
    this.#used = true;
    for (;;) {
      const spare = this.#ready.pop();
      if (spare === undefined) return null;
      if (spare.closedReason === null) return spare;
    }
  }

  /** Brings the number of spares to what is wanted now. Called when a cold start is over, and by the engine's sweep. */
  refill(): void {
    const wanted = this.#wanted();
    this.#shrink(wanted);
    if (this.#filling || this.#stopping === null || !this.#attachable || this.#ready.length >= wanted) return;
    this.#filling = true;
    this.#parts.supervise("refill spare sandboxes", this.#fill(this.#stopping.signal));
  }

  async close(): Promise<void> {
    this.#stopping?.abort();
    this.#stopping = null;
    await Promise.all(this.#ready.splice(0).map((spare) => spare.sandbox.stop(0)));
  }

  #wanted(): number {
    const { sparesMin, sparesMax } = this.#parts.settings;
    const coldStartsLastMinute = this.#rate.count(this.#parts.clock.nowMs());
    return decideSpares({ coldStartsLastMinute, used: this.#used }, { sparesMin, sparesMax });
  }

  #shrink(to: number): void {
    while (this.#ready.length > to) {
      const spare = this.#ready.shift();
      if (spare !== undefined) this.#parts.supervise("stop a spare sandbox", spare.sandbox.stop(0));
    }
  }

  async #fill(signal: AbortSignal): Promise<void> {
    try {
      while (this.#ready.length < this.#wanted() && !signal.aborted) {
        const spare = await boot(
          this.#parts,
          {
            runtime: this.#runtime,
            memoryBytesMax: this.#parts.limits.memoryBytesDefault,
            mounts: [],
            attachable: true,
          },
          signal,
        );
        if (!isAttachable(spare.sandbox) || signal.aborted) {
          this.#attachable = isAttachable(spare.sandbox);
          await spare.sandbox.stop(0);
          return;
        }
        this.#failures = 0;
        this.#ready.push(spare);
      }
    } catch (thrown) {
      if (signal.aborted) return;
      this.#failures++;
      this.#parts.logger.log("warn", "a spare sandbox could not be booted", {
        runtime: this.#runtime.name,
        error: String(thrown),
      });
      this.#parts.clock.after(Math.min(60_000, 1_000 * 2 ** this.#failures), () => this.refill());
    } finally {
      this.#filling = false;
    }
  }
}
