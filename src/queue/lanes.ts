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

  /**
   * Free places of the known lanes that have fewer than a lane that runs nothing, and the places of such a one. A lane may run as many as there are
   * places left for others, so that one which is slow never holds all of them.
   * @param free places in all
   */
  room(free: number): { readonly laneRoom: Record<string, number>; readonly roomPerLane: number } {
    const roomPerLane = shareOf(free, 0);
    const laneRoom: Record<string, number> = {};
    for (const [lane, running] of this.#running) {
      const room = Math.max(0, Math.min(this.#limitOf(lane) - running, shareOf(free, running)));
      if (room < roomPerLane) laneRoom[lane] = room;
    }
    return { laneRoom, roomPerLane };
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

function shareOf(free: number, running: number): number {
  return Math.ceil((free - running) / 2);
}
