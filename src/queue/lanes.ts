import type { Lease } from "../store/store.ts";

/** Lanes without running items that are remembered at most. */
const QUIET_LANES_MAX = 1_000;

/** Counts what runs per lane, and tells the queue which lanes have less room than is asked for. */
export class Lanes {
  readonly #limitOf: (lane: string) => number;
  readonly #running = new Map<string, number>();

  constructor(limitOf: (lane: string) => number) {
    this.#limitOf = limitOf;
  }

  /** Takes a place in a lane; false: it is full. The lane is known from then on. */
  enter(lane: string): boolean {
    const running = this.#running.get(lane) ?? 0;
    const entered = running < this.#limitOf(lane);
    this.#running.set(lane, entered ? running + 1 : running);
    return entered;
  }

  leave(lane: string): void {
    this.#running.set(lane, Math.max(0, (this.#running.get(lane) ?? 0) - 1));
  }

  /** Free places of the known lanes that have fewer than `limit`. */
  room(limit: number): Record<string, number> {
    const room: Record<string, number> = {};
    for (const [lane, running] of this.#running) {
      const free = Math.max(0, this.#limitOf(lane) - running);
      if (free < limit) room[lane] = free;
    }
    return room;
  }

  /**
   * After a claim with this room: a lane that runs nothing and gave nothing has nothing to give. It stays known while it gives, so that its limit is not
   * found out anew with each claim.
   */
  forgetQuiet(room: Readonly<Record<string, number>>, leases: readonly Lease[]): void {
    const gave = new Set(leases.map(({ item }) => item.lane));
    let quiet = 0;
    for (const [lane, running] of this.#running) {
      if (running > 0 || gave.has(lane)) continue;
      quiet++;
      if (room[lane] !== 0 || quiet > QUIET_LANES_MAX) this.#running.delete(lane);
    }
  }
}
