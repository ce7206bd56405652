import type { Activation } from "../../core/invocation.ts";

/** Rows in one block, and the bytes that a block begins with and grows to. */
export const BLOCK_ROWS_MAX = 1_000;
const BLOCK_BYTES_FIRST = 8 * 1024;
const BLOCK_BYTES_MAX = 256 * 1024;

/** What is the same text in JSON, between quotation marks. */
const PLAIN = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/;

type Row = readonly [
  id: string,
  namespace: string,
  packageName: string,
  name: string,
  version: number,
  mode: Activation["mode"],
  attempt: number,
  state: Activation["state"],
  startedAtMs: number,
  durationUs: number,
  queuedUs: number,
  startUs: number,
  cold: 0 | 1,
  memoryBytes: number,
  status: number | null,
  error: Activation["error"],
  instanceId: string,
];

/**
 * Activations as text, written the moment they come: objects that wait would be copied by the garbage collector again and again, and encoding
 * many at once would hold up the thread that serves. Times have microseconds.
 */
export class ActivationRows {
  #bytes = Buffer.allocUnsafeSlow(BLOCK_BYTES_FIRST);
  #end = 0;
  /** Where rows begin, those that were dropped too. */
  readonly #starts: number[] = [];
  #first = 0;

  get length(): number {
    return this.#starts.length - this.#first;
  }

  /** What it takes in memory. */
  get byteLength(): number {
    return this.#end - (this.#starts[this.#first] ?? this.#end);
  }

  /** Answers false when there is no room. */
  add(activation: Activation): boolean {
    if (this.#starts.length === BLOCK_ROWS_MAX) return false;
    const text = rowText(activation);
    // Three bytes for each unit of UTF-16 is the most that UTF-8 takes.
    if (!this.#makeRoom(this.#end + text.length * 3 + 1)) return false;
    this.#starts.push(this.#end);
    this.#end += this.#bytes.write(text, this.#end, "utf8");
    this.#bytes[this.#end++] = COMMA;
    return true;
  }

  dropFirst(): void {
    this.#first++;
  }

  /** For `readRows`, on another thread. */
  text(): Uint8Array {
    const from = this.#starts[this.#first] ?? this.#end;
    return Uint8Array.prototype.slice.call(this.#bytes, from, Math.max(from, this.#end - 1));
  }

  #makeRoom(bytesNeeded: number): boolean {
    if (bytesNeeded <= this.#bytes.length) return true;
    // One row has always room.
    if (bytesNeeded > BLOCK_BYTES_MAX && this.#starts.length > 0) return false;
    const larger = Buffer.allocUnsafeSlow(Math.max(bytesNeeded, Math.min(this.#bytes.length * 2, BLOCK_BYTES_MAX)));
    this.#bytes.copy(larger, 0, 0, this.#end);
    this.#bytes = larger;
    return true;
  }
}

const COMMA = 0x2c;

function rowText(activation: Activation): string {
  const { mode, attempt, state, startedAtMs, error, status, memoryBytes } = activation;
  return (
    `[${quoted(activation.id)},${quoted(activation.namespace)},${quoted(activation.package)},${quoted(activation.name)},` +
    `${activation.version},"${mode}",${attempt},"${state}",${startedAtMs},${micros(activation.durationMs)},` +
    `${micros(activation.queuedMs)},${micros(activation.startMs)},${activation.cold ? 1 : 0},${memoryBytes},` +
    `${status ?? "null"},${error === null ? "null" : JSON.stringify(error)},${quoted(activation.instanceId)}]`
  );
}

function micros(ms: number): number {
  return Math.round(ms * 1_000);
}

function quoted(text: string): string {
  return PLAIN.test(text) ? `"${text}"` : JSON.stringify(text);
}

export function readRows(text: Uint8Array): readonly Activation[] {
  const bytes = Buffer.from(text.buffer, text.byteOffset, text.byteLength);
  const rows = JSON.parse(`[${bytes.toString("utf8")}]`) as readonly Row[];
  return rows.map((row) => ({
    id: row[0],
    namespace: row[1],
    package: row[2],
    name: row[3],
    version: row[4],
    mode: row[5],
    attempt: row[6],
    state: row[7],
    startedAtMs: row[8],
    durationMs: row[9] / 1_000,
    queuedMs: row[10] / 1_000,
    startMs: row[11] / 1_000,
    cold: row[12] === 1,
    memoryBytes: row[13],
    status: row[14],
    error: row[15],
    instanceId: row[16],
  }));
}
