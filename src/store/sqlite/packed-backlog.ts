import type { PackedRecords } from "../store.ts";
import type { BacklogBounds } from "./backlog.ts";

/** What other processes have packed and waits to be written. Beyond its bounds the oldest go first, a pack at a time. */
export class PackedBacklog {
  readonly #bounds: BacklogBounds;
  #waiting: PackedRecords[] = [];
  #records = 0;
  #bytes = 0;
  #dropped = 0;

  constructor(bounds: BacklogBounds) {
    this.#bounds = bounds;
  }

  get records(): number {
    return this.#records;
  }

  get dropped(): number {
    return this.#dropped;
  }

  add(records: PackedRecords): void {
    this.#waiting.push(records);
    this.#count(records, 1);
    this.#enforce();
  }

  /** The oldest; null when nothing waits. */
  take(): PackedRecords | null {
    const records = this.#waiting.shift() ?? null;
    if (records !== null) this.#count(records, -1);
    return records;
  }

  /** Everything, the oldest first. */
  takeAll(): readonly PackedRecords[] {
    const all = this.#waiting;
    this.#waiting = [];
    for (const records of all) this.#count(records, -1);
    return all;
  }

  /** Gives back what could not be written; it is the oldest again. */
  putBack(records: PackedRecords): void {
    this.#waiting.unshift(records);
    this.#count(records, 1);
    this.#enforce();
  }

  /** Counts what was taken and will never be written. */
  giveUp(records: PackedRecords): void {
    this.#dropped += records.count;
  }

  #count({ count, activations, lines }: PackedRecords, sign: 1 | -1): void {
    this.#records += sign * count;
    this.#bytes += sign * ((activations?.length ?? 0) + (lines?.length ?? 0));
  }

  #enforce(): void {
    while (this.#records > this.#bounds.recordsMax || this.#bytes > this.#bounds.bytesMax) {
      const oldest = this.take();
      if (oldest === null) return;
      this.giveUp(oldest);
    }
  }
}
