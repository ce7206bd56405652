import type { Clock } from "../../core/clock.ts";

interface Measured {
  memory(): { readonly currentBytes: number } | null;
}

const INTERVAL_MS = 100;

/**
 * Ends sandboxes that take too much memory, for where no cgroup does: looks at all of them every 100 ms. What takes memory faster
 * than that can exceed its limit for a moment.
 */
export class MemoryWatch {
  readonly #clock: Clock;
  readonly #watched = new Map<Measured, { limitBytes: number; readonly exceeded: () => void }>();
  #cancel: (() => void) | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(sandbox: Measured, limitBytes: number, exceeded: () => void): void {
    this.#watched.set(sandbox, { limitBytes, exceeded });
    this.#cancel ??= this.#clock.after(INTERVAL_MS, () => this.#look());
  }

  setLimit(sandbox: Measured, limitBytes: number): void {
    const entry = this.#watched.get(sandbox);
    if (entry !== undefined) entry.limitBytes = limitBytes;
  }

  remove(sandbox: Measured): void {
    this.#watched.delete(sandbox);
    if (this.#watched.size > 0) return;
    this.#cancel?.();
    this.#cancel = null;
  }

  #look(): void {
    for (const [sandbox, { limitBytes, exceeded }] of this.#watched) {
      if ((sandbox.memory()?.currentBytes ?? 0) > limitBytes) exceeded();
    }
    this.#cancel = this.#watched.size === 0 ? null : this.#clock.after(INTERVAL_MS, () => this.#look());
  }
}
