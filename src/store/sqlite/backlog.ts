import type { Activation, LogRecord } from "../../core/invocation.ts";
import { ActivationRows } from "./activation-rows.ts";

export interface BacklogBounds {
  readonly recordsMax: number;
  readonly bytesMax: number;
}

/** What was taken from a backlog, to be written. */
export interface Taken {
  /** Null: there were none. */
  readonly activations: ActivationRows | null;
  readonly logs: readonly LogRecord[];
}

/** What was appended and waits to be written. Beyond its bounds the oldest lines go first, then the oldest activations. */
export class Backlog {
  readonly #bounds: BacklogBounds;
  readonly #lines = new Line<LogRecord>();
  /** The last one still has room. */
  #activations: ActivationRows[] = [];
  #activationCount = 0;
  #bytes = 0;
  #dropped = 0;

  constructor(bounds: BacklogBounds) {
    this.#bounds = bounds;
  }

  get records(): number {
    return this.#lines.length + this.#activationCount;
  }

  get dropped(): number {
    return this.#dropped;
  }

  add({
    activations,
    logs,
  }: {
    readonly activations: readonly Activation[];
    readonly logs: readonly LogRecord[];
  }): void {
    for (const activation of activations) this.#addActivation(activation);
    for (const record of logs) {
      this.#lines.push(record);
      this.#bytes += bytesOf(record);
    }
    this.#enforce();
  }

  /** The oldest: a block of activations, and so many lines. */
  take(linesMax: number): Taken {
    const activations = this.#activations.shift() ?? null;
    const logs = this.#lines.take(linesMax);
    this.#count({ activations, logs }, -1);
    return { activations, logs };
  }

  /** Counts what was taken and will never be written. */
  giveUp({ activations, logs }: Taken): void {
    this.#dropped += (activations?.length ?? 0) + logs.length;
  }

  /** Gives back what was taken and could not be written; it is the oldest again. */
  putBack(taken: Taken): void {
    if (taken.activations !== null) this.#activations.unshift(taken.activations);
    this.#lines.putBack(taken.logs);
    this.#count(taken, 1);
    this.#enforce();
  }

  #addActivation(activation: Activation): void {
    let rows = this.#activations.at(-1);
    const before = rows?.byteLength ?? 0;
    if (rows === undefined || !rows.add(activation)) {
      rows = new ActivationRows();
      rows.add(activation);
      this.#activations.push(rows);
      this.#bytes += rows.byteLength;
    } else this.#bytes += rows.byteLength - before;
    this.#activationCount++;
  }

  #count({ activations, logs }: Taken, sign: 1 | -1): void {
    this.#activationCount += sign * (activations?.length ?? 0);
    this.#bytes += sign * ((activations?.byteLength ?? 0) + logs.reduce((sum, record) => sum + bytesOf(record), 0));
  }

  #enforce(): void {
    while (this.records > this.#bounds.recordsMax || this.#bytes > this.#bounds.bytesMax) {
      const [oldest] = this.#lines.take(1);
      if (oldest === undefined) this.#dropActivation();
      else this.#bytes -= bytesOf(oldest);
      this.#dropped++;
    }
  }

  #dropActivation(): void {
    const [oldest] = this.#activations;
    if (oldest === undefined) return;
    const before = oldest.byteLength;
    oldest.dropFirst();
    this.#bytes -= before - oldest.byteLength;
    this.#activationCount--;
    if (oldest.length === 0) this.#activations.shift();
  }
}

/** What a line takes in memory beside its text, about. */
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
