import type { QueuePriority } from "../../store.ts";

export const QUEUE_PRIORITIES: readonly QueuePriority[] = [0, 1, 2];

/** What is kept in memory of a lane beside the tables. */
export interface Lane {
  readonly name: string;
  length: number;
  /** Of `length`, those that are claimed. */
  leased: number;
  dead: number;
  /** When it was last claimed from, as a number that grows. */
  served: number;
  /** By priority: a time before which there is nothing to claim, so that claiming need not look at lanes that sleep. */
  readonly wakesAtMs: [number, number, number];
  /** Found out now and then, because it costs a query. */
  oldest: { readonly atMs: number; readonly enqueuedAtMs: number | null } | null;
}

/** The lanes that hold anything. */
export class LaneTable {
  readonly #lanes = new Map<string, Lane>();
  #length = 0;
  #dead = 0;
  #served = 0;

  clear(): void {
    this.#lanes.clear();
    this.#length = 0;
    this.#dead = 0;
  }

  get length(): number {
    return this.#length;
  }

  get dead(): number {
    return this.#dead;
  }

  find(name: string): Lane | undefined {
    return this.#lanes.get(name);
  }

  add(name: string, count: number): Lane {
    const lane = this.#of(name);
    lane.length += count;
    this.#length += count;
    return lane;
  }

  added(name: string, priority: QueuePriority, atMs: number): void {
    const { wakesAtMs } = this.add(name, 1);
    if (atMs < wakesAtMs[priority]) wakesAtMs[priority] = atMs;
  }

  remove(name: string): void {
    const lane = this.#of(name);
    lane.length--;
    this.#length--;
    this.#forget(lane);
  }

  addDead(name: string, count: number): void {
    const lane = this.#of(name);
    lane.dead += count;
    this.#dead += count;
    this.#forget(lane);
  }

  leased(name: string, by: 1 | -1): void {
    const lane = this.#of(name);
    lane.leased = Math.max(0, lane.leased + by);
    if (by > 0) lane.served = ++this.#served;
    this.#forget(lane);
  }

  wakes(name: string, priority: QueuePriority, atMs: number): void {
    const { wakesAtMs } = this.#of(name);
    if (atMs < wakesAtMs[priority]) wakesAtMs[priority] = atMs;
  }

  /** Lanes that may have something to claim, in the order in which they are to be asked. */
  awake(nowMs: number): readonly Lane[] {
    return [...this.#lanes.values()]
      .filter((lane) => wakeOf(lane) <= nowMs)
      .toSorted((a, b) => a.leased - b.leased || a.served - b.served || wakeOf(a) - wakeOf(b));
  }

  /** By lane and priority: the times before which there is nothing to claim, as far as there is anything at all; the earliest first. */
  wakings(): readonly { readonly lane: Lane; readonly priority: QueuePriority; readonly atMs: number }[] {
    return [...this.#lanes.values()]
      .flatMap((lane) => QUEUE_PRIORITIES.map((priority) => ({ lane, priority, atMs: lane.wakesAtMs[priority] })))
      .filter(({ atMs }) => atMs < Infinity)
      .toSorted((a, b) => a.atMs - b.atMs);
  }

  longest(limit: number): readonly Lane[] {
    return [...this.#lanes.values()].toSorted((a, b) => b.length - a.length || b.dead - a.dead).slice(0, limit);
  }

  #of(name: string): Lane {
    const known = this.#lanes.get(name);
    if (known !== undefined) return known;
    const wakesAtMs: [number, number, number] = [Infinity, Infinity, Infinity];
    const lane: Lane = { name, length: 0, leased: 0, dead: 0, served: 0, wakesAtMs, oldest: null };
    this.#lanes.set(name, lane);
    return lane;
  }

  #forget({ name, length, dead }: Lane): void {
    if (length === 0 && dead === 0) this.#lanes.delete(name);
  }
}

function wakeOf({ wakesAtMs: [high, normal, low] }: Lane): number {
  return Math.min(high, normal, low);
}
