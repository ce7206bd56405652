import type { Runtime } from "../runtimes/runtime.ts";
import { isAttachable, isHurriable, type Sandbox } from "../sandbox/sandbox.ts";
import { BurstRate, decideSpares } from "./autoscale.ts";
import { boot } from "./boot.ts";
import type { Booted, EngineParts } from "./parts.ts";

/** A spare that has not booted yet. */
interface Boot {
  readonly result: Promise<Booted>;
  sandbox: Sandbox | null;
  /** Somebody waits for it: it is no spare any more. */
  claimed: boolean;
}

/** How long after a cold start spares are refilled: a spare costs the platform's thread a millisecond or two, which the answer needs. */
const REFILL_DELAY_MS = 20;
const REFILL_DELAYS_MAX = 25;
/** A spare that is taken at once need not rehearse. */
const REHEARSAL_DELAY_MS = 250;
/** Then what only some functions need: it takes longer. */
const REHEARSAL_LATER_MS = 5_000;
const REHEARSAL_ANSWER_MS_MAX = 10_000;
const REHEARSALS = 2;

/**
 * Sandboxes of one runtime that have booted and belong to no version yet. Each is used for one version, once. They boot in the
 * background, so that refilling takes no processor from those who serve.
 */
export class SparePool {
  readonly #parts: EngineParts;
  readonly #runtime: Runtime;
  readonly #isStarting: () => boolean;
  readonly #rate = new BurstRate();
  /** The oldest first: it has had the most time to rehearse. */
  readonly #ready: Booted[] = [];
  readonly #booting = new Set<Boot>();
  #used = false;
  #stopping: AbortController | null = new AbortController();
  #failures = 0;
  #attachable = true;
  #cancelRefill: (() => void) | null = null;
  #nextRehearsal: { readonly atMs: number; cancel(): void } | null = null;
  /** How many times each spare was told that there is time to rehearse. */
  readonly #rehearsed = new WeakMap<Booted, number>();

  /** @param isStarting whether somebody waits for an instance to start, of any runtime */
  constructor(parts: EngineParts, runtime: Runtime, isStarting: () => boolean) {
    this.#parts = parts;
    this.#runtime = runtime;
    this.#isStarting = isStarting;
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

  /** A booted sandbox, or one that is about to have booted, or null. Counts as a cold start in every case. */
  async take(): Promise<Booted | null> {
    this.#rate.add(this.#parts.clock.nowMs());
    this.#used = true;
    for (let spare = this.#ready.shift(); spare !== undefined; spare = this.#ready.shift()) {
      if (spare.closedReason === null) return spare;
    }
    for (const begun of this.#booting) {
      if (begun.claimed) continue;
      begun.claimed = true;
      if (begun.sandbox !== null && isHurriable(begun.sandbox)) begun.sandbox.hurry();
      return await begun.result.catch(() => null);
    }
    return null;
  }

  /** Brings the number of spares to what is wanted when those who wait have been served, or have waited long anyway. */
  refillSoon(delays: number = REFILL_DELAYS_MAX): void {
    this.#cancelRefill ??= this.#parts.clock.after(REFILL_DELAY_MS, () => {
      this.#cancelRefill = null;
      if (delays > 0 && this.#isStarting()) this.refillSoon(delays - 1);
      else this.refill();
    });
  }

  /** Brings the number of spares to what is wanted now. */
  refill(): void {
    this.#cancelRefill?.();
    this.#cancelRefill = null;
    const wanted = this.#wanted();
    this.#shrink(wanted);
    const { settings, supervise } = this.#parts;
    let unclaimed = [...this.#booting].filter((begun) => !begun.claimed).length;
    while (
      this.#stopping !== null &&
      this.#attachable &&
      this.#ready.length + unclaimed < wanted &&
      this.#booting.size < settings.sparesBootingMax
    ) {
      unclaimed++;
      supervise("boot a spare sandbox", this.#bootOne(this.#stopping.signal));
    }
  }

  async close(): Promise<void> {
    this.#cancelRefill?.();
    this.#nextRehearsal?.cancel();
    this.#stopping?.abort();
    this.#stopping = null;
    await Promise.all(this.#ready.splice(0).map((spare) => spare.sandbox.stop(0)));
  }

  #wanted(): number {
    const { sparesMin, sparesMax } = this.#parts.settings;
    const coldStartsTogether = this.#rate.together(this.#parts.clock.nowMs());
    return decideSpares({ coldStartsTogether, used: this.#used }, { sparesMin, sparesMax });
  }

  #shrink(to: number): void {
    while (this.#ready.length > to) {
      const spare = this.#ready.shift();
      if (spare !== undefined) this.#parts.supervise("stop a spare sandbox", spare.sandbox.stop(0));
    }
  }

  async #bootOne(signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<Booted>();
    const begun: Boot = { result: promise, sandbox: null, claimed: false };
    // Whoever claims it hears of a failure; else it is logged here.
    promise.catch(() => {});
    this.#booting.add(begun);
    try {
      const spare = await this.#boot(begun, signal);
      this.#failures = 0;
      this.#booting.delete(begun);
      resolve(spare);
      if (!begun.claimed) this.#keep(spare);
      this.refill();
    } catch (thrown) {
      this.#booting.delete(begun);
      reject(thrown);
      if (!signal.aborted) this.#failed(thrown);
    }
  }

  #keep(spare: Booted): void {
    this.#ready.push(spare);
    this.#rehearseIn(REHEARSAL_DELAY_MS);
  }

  #rehearseIn(delayMs: number): void {
    const { clock, supervise } = this.#parts;
    const atMs = clock.monotonicMs() + delayMs;
    if (this.#nextRehearsal !== null && this.#nextRehearsal.atMs <= atMs) return;
    this.#nextRehearsal?.cancel();
    const cancel = clock.after(delayMs, () => {
      this.#nextRehearsal = null;
      supervise("rehearse", this.#rehearse());
    });
    this.#nextRehearsal = { atMs, cancel };
  }

  /**
   * As many at a time as boot at a time, the next to be taken first. Leaves off while more are missing than boot: then they are taken faster than they
   * come, and what rehearsing takes of the processor boots others. It begins anew after each boot.
   */
  async #rehearse(): Promise<void> {
    for (let times = 0; times < REHEARSALS; times++) {
      const due = (): Booted[] => this.#ready.filter((spare) => (this.#rehearsed.get(spare) ?? 0) === times);
      const isFirst = times === 0 && due().length > 0;
      for (let next = due(); next.length > 0; next = due()) {
        const { sparesBootingMax } = this.#parts.settings;
        const missing = this.#wanted() - this.#ready.length;
        if (this.#stopping === null || missing > sparesBootingMax || this.#nextRehearsal !== null) return;
        const together = next.slice(0, sparesBootingMax);
        for (const spare of together) this.#rehearsed.set(spare, times + 1);
        await Promise.all(together.map((spare) => spare.link.ping(REHEARSAL_ANSWER_MS_MAX)));
      }
      if (isFirst) return this.#rehearseIn(REHEARSAL_LATER_MS);
    }
  }

  async #boot(begun: Boot, signal: AbortSignal): Promise<Booted> {
    const spare = await boot(
      this.#parts,
      {
        runtime: this.#runtime,
        share: { memoryBytesMax: this.#parts.limits.memoryBytesDefault },
        mounts: [],
        spare: true,
        onCreated: (sandbox) => {
          begun.sandbox = sandbox;
          if (begun.claimed && isHurriable(sandbox)) sandbox.hurry();
        },
      },
      signal,
    );
    if (isAttachable(spare.sandbox) && !signal.aborted) return spare;
    this.#attachable = isAttachable(spare.sandbox);
    await spare.sandbox.stop(0);
    throw new Error("nothing can be attached to a running sandbox here");
  }

  #failed(thrown: unknown): void {
    if (!this.#attachable) return;
    this.#failures++;
    this.#parts.logger.log("warn", "a spare sandbox could not be booted", {
      runtime: this.#runtime.name,
      error: String(thrown),
    });
    this.#parts.clock.after(Math.min(60_000, 1_000 * 2 ** this.#failures), () => this.refill());
  }
}
