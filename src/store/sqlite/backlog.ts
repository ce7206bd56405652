import type { Activation, LogRecord } from "../../core/invocation.ts";
import type { Appended } from "./log.ts";

export interface BacklogBounds {
  readonly recordsMax: number;
  readonly bytesMax: number;
}

/** What was appended and waits to be written. Beyond its bounds the oldest lines go first, then the oldest activations. */
export class Backlog {
  readonly #bounds: BacklogBounds;
  readonly #lines = new Line<LogRecord>();
  readonly #activations = new Line<Activation>();
  #bytes = 0;
  #dropped = 0;

  constructor(bounds: BacklogBounds) {
    this.#bounds = bounds;
  }

  get records(): number {
    return this.#lines.length + this.#activations.length;
  }

  get dropped(): number {
    return this.#dropped;
  }

  add({ activations, logs }: Appended): void {
    for (const activation of activations) {
      this.#activations.push(activation);
      this.#bytes += ACTIVATION_BYTES;
    }
    for (const record of logs) {
      this.#lines.push(record);
      this.#bytes += bytesOf(record);
    }
    this.#enforce();
  }

  /** The oldest, up to so many of each. */
  take(recordsMax: number): Appended {
    const activations = this.#activations.take(recordsMax);
    const logs = this.#lines.take(recordsMax);
    this.#bytes -= activations.length * ACTIVATION_BYTES + logs.reduce((sum, record) => sum + bytesOf(record), 0);
    return { activations, logs };
  }

  /** Counts what was taken and will never be written. */
  giveUp({ activations, logs }: Appended): void {
    this.#dropped += activations.length + logs.length;
  }

  /** Gives back what was taken and could not be written; it is the oldest again. */
  putBack({ activations, logs }: Appended): void {
    this.#activations.putBack(activations);
    this.#lines.putBack(logs);
    this.#bytes += activations.length * ACTIVATION_BYTES + logs.reduce((sum, record) => sum + bytesOf(record), 0);
    this.#enforce();
  }

  #enforce(): void {
    while (this.records > this.#bounds.recordsMax || this.#bytes > this.#bounds.bytesMax) {
      const [oldest] = this.#lines.take(1);
      if (oldest === undefined) this.#activations.take(1);
      this.#bytes -= oldest === undefined ? ACTIVATION_BYTES : bytesOf(oldest);
      this.#dropped++;
    }
  }
}

/** What a record takes in memory, about. */
const ACTIVATION_BYTES = 600;
const LINE_BYTES = 200;

function bytesOf(record: LogRecord): number {
  return LINE_BYTES + record.line.length;
}

/** First in, first out, without moving all the others for each that leaves. */
class Line<Waiting> {
  #waiting: Waiting[] = [];
  #first = 0;

  get length(): number {
    return this.#waiting.length - this.#first;
  }

  push(waiting: Waiting): void {
    this.#waiting.push(waiting);
  }

  putBack(taken: readonly Waiting[]): void {
    this.#waiting = [...taken, ...this.#waiting.slice(this.#first)];
    this.#first = 0;
  }

  take(countMax: number): Waiting[] {
    const taken = this.#waiting.slice(this.#first, this.#first + countMax);
    this.#first += taken.length;
    if (this.#first * 2 > this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#first);
      this.#first = 0;
    }
    return taken;
  }
}
