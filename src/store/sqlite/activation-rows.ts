import { KoineError } from "../../core/errors.ts";
import type { Activation } from "../../core/invocation.ts";
import { readTimedId, TIMED_ID_BYTES, writeTimedId } from "./timed-id.ts";

/** Rows in one block, and the bytes that a block begins with and grows to. */
export const BLOCK_ROWS_MAX = 1_000;
const BLOCK_BYTES_FIRST = 8 * 1024;
const BLOCK_BYTES_MAX = 256 * 1024;

/** What is the same text in JSON, between quotation marks. */
const PLAIN_TEXT = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/;

const PLAIN = 1;
const FULL = 2;
/** Where the parts of a plain one stand, behind the byte that says its kind. */
const ID_AT = 1;
const STARTED_AT = ID_AT + TIMED_ID_BYTES;
const DURATION_AT = STARTED_AT + 8;
const QUEUED_AT = DURATION_AT + 4;
const SHAPE_AT = QUEUED_AT + 4;
const STATUS_AT = SHAPE_AT + 2;
const PLAIN_BYTES = STATUS_AT + 2;
const FULL_HEAD_BYTES = 1 + 4;
const UINT32_END = 2 ** 32;
const UINT16_END = 2 ** 16;

/** What plain activations of one instance have in common. */
export interface Shape {
  readonly namespace: string;
  readonly package: string;
  readonly name: string;
  readonly version: number;
  readonly memoryBytes: number;
  readonly instanceId: string;
}

/** Activations as they travel between the threads. */
export interface PackedActivations {
  readonly records: Uint8Array;
  /** JSON of the shapes, in the order of their numbers. */
  readonly shapes: string;
}

/**
 * Activations as bytes, written the moment they come: objects that wait would be copied by the garbage collector again and again, and encoding
 * many at once would hold up the thread that serves. Plain ones, which succeed at once on a warm instance and are most of all, take a few numbers;
 * of all others the row is JSON. Times have microseconds.
 */
export class ActivationRows {
  #bytes = Buffer.allocUnsafeSlow(BLOCK_BYTES_FIRST);
  #view = new DataView(this.#bytes.buffer);
  #end = 0;
  /** Where rows begin, those that were dropped too. */
  readonly #starts: number[] = [];
  #first = 0;
  readonly #shapes: Shape[] = [];
  readonly #shapeOfInstance = new Map<string, number>();

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
    if (!isPlain(activation)) return this.#addFull(activation);
    if (!this.#makeRoom(this.#end + PLAIN_BYTES)) return false;
    // Who calls may give its invocations ids of another kind.
    if (!writeTimedId(activation.id, this.#bytes, this.#end + ID_AT)) return this.#addFull(activation);
    this.#addPlain(activation);
    return true;
  }

  dropFirst(): void {
    this.#first++;
  }

  /** For `unpack`, on another thread. */
  pack(): PackedActivations {
    const from = this.#starts[this.#first] ?? this.#end;
    return {
      records: Uint8Array.prototype.slice.call(this.#bytes, from, this.#end),
      shapes: JSON.stringify(this.#shapes),
    };
  }

  /** Behind its id, which is there. */
  #addPlain(activation: Activation): void {
    const at = this.#end;
    const view = this.#view;
    this.#starts.push(at);
    this.#end = at + PLAIN_BYTES;
    view.setUint8(at, PLAIN);
    view.setFloat64(at + STARTED_AT, activation.startedAtMs);
    view.setUint32(at + DURATION_AT, micros(activation.durationMs));
    view.setUint32(at + QUEUED_AT, micros(activation.queuedMs));
    view.setUint16(at + SHAPE_AT, this.#shapeNumber(activation));
    view.setUint16(at + STATUS_AT, activation.status ?? 0);
  }

  #addFull(activation: Activation): boolean {
    const text = rowText(activation);
    // Three bytes for each unit of UTF-16 is the most that UTF-8 takes.
    if (!this.#makeRoom(this.#end + FULL_HEAD_BYTES + text.length * 3)) return false;
    const at = this.#end;
    this.#starts.push(at);
    const length = this.#bytes.write(text, at + FULL_HEAD_BYTES, "utf8");
    this.#view.setUint8(at, FULL);
    this.#view.setUint32(at + 1, length);
    this.#end = at + FULL_HEAD_BYTES + length;
    return true;
  }

  #shapeNumber(activation: Activation): number {
    const known = this.#shapeOfInstance.get(activation.instanceId);
    if (known !== undefined && isOfShape(activation, this.#shapes[known])) return known;
    const { namespace, name, version, memoryBytes, instanceId } = activation;
    const number = this.#shapes.length;
    this.#shapes.push({ namespace, package: activation.package, name, version, memoryBytes, instanceId });
    this.#shapeOfInstance.set(instanceId, number);
    return number;
  }

  #makeRoom(bytesNeeded: number): boolean {
    if (bytesNeeded <= this.#bytes.length) return true;
    // One row has always room.
    if (bytesNeeded > BLOCK_BYTES_MAX && this.#starts.length > 0) return false;
    const larger = Buffer.allocUnsafeSlow(Math.max(bytesNeeded, Math.min(this.#bytes.length * 2, BLOCK_BYTES_MAX)));
    this.#bytes.copy(larger, 0, 0, this.#end);
    this.#bytes = larger;
    this.#view = new DataView(larger.buffer);
    return true;
  }
}

/** Whether its place in time, its shape and three numbers are all there is to say. */
function isPlain(activation: Activation): boolean {
  const { durationMs, queuedMs, status } = activation;
  return (
    activation.mode === "sync" &&
    activation.state === "succeeded" &&
    activation.error === null &&
    !activation.cold &&
    activation.startMs === 0 &&
    activation.attempt === 1 &&
    Number.isInteger(activation.startedAtMs) &&
    durationMs >= 0 &&
    durationMs * 1_000 < UINT32_END - 1 &&
    queuedMs >= 0 &&
    queuedMs * 1_000 < UINT32_END - 1 &&
    (status === null || (status > 0 && status < UINT16_END))
  );
}

function isOfShape(activation: Activation, shape: Shape | undefined): boolean {
  return (
    shape !== undefined &&
    shape.memoryBytes === activation.memoryBytes &&
    shape.version === activation.version &&
    shape.name === activation.name &&
    shape.package === activation.package &&
    shape.namespace === activation.namespace
  );
}

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
  return PLAIN_TEXT.test(text) ? `"${text}"` : JSON.stringify(text);
}

/** Reads packed activations one after the other; of a plain one, numbers are all that is made. */
export class PackedReader {
  /** Whether the one it stands at is a plain one. */
  isPlain = false;
  /** Where that one begins. */
  at = 0;
  readonly bytes: Buffer;
  readonly #view: DataView;
  readonly #shapes: readonly Shape[];
  #next = 0;

  constructor({ records, shapes }: PackedActivations) {
    this.bytes = Buffer.from(records.buffer, records.byteOffset, records.byteLength);
    this.#view = new DataView(records.buffer, records.byteOffset, records.byteLength);
    this.#shapes = JSON.parse(shapes) as readonly Shape[];
  }

  /** Goes to the next one; false when there is none. */
  advance(): boolean {
    const at = this.#next;
    if (at >= this.bytes.length) return false;
    this.at = at;
    this.isPlain = this.#view.getUint8(at) === PLAIN;
    this.#next = at + (this.isPlain ? PLAIN_BYTES : FULL_HEAD_BYTES + this.#view.getUint32(at + 1));
    return true;
  }

  /** The activation that begins at a place. */
  activation(at: number = this.at): Activation {
    if (this.#view.getUint8(at) === PLAIN) {
      const figures = {
        id: readTimedId(this.bytes, this.idAt(at)),
        startedAtMs: this.startedAtMs(at),
        durationUs: this.durationUs(at),
        queuedUs: this.queuedUs(at),
        status: this.status(at),
      };
      return plainActivation(figures, this.shape(at));
    }
    const textAt = at + FULL_HEAD_BYTES;
    return fromRow(JSON.parse(this.bytes.toString("utf8", textAt, textAt + this.#view.getUint32(at + 1))) as Row);
  }

  // Of a plain one

  idAt(at: number = this.at): number {
    return at + ID_AT;
  }

  startedAtMs(at: number): number {
    return this.#view.getFloat64(at + STARTED_AT);
  }

  durationUs(at: number): number {
    return this.#view.getUint32(at + DURATION_AT);
  }

  queuedUs(at: number): number {
    return this.#view.getUint32(at + QUEUED_AT);
  }

  /** 0: there was no answer. */
  status(at: number): number {
    return this.#view.getUint16(at + STATUS_AT);
  }

  shape(at: number = this.at): Shape {
    const shape = this.#shapes[this.#view.getUint16(at + SHAPE_AT)];
    if (shape === undefined) throw new KoineError("storage-failed", { detail: "an activation has no shape" });
    return shape;
  }
}

/** What is left of a plain activation beside its shape. Times in microseconds; status 0: there was no answer. */
export interface PlainFigures {
  readonly id: string;
  readonly startedAtMs: number;
  readonly durationUs: number;
  readonly queuedUs: number;
  readonly status: number;
}

export function plainActivation(figures: PlainFigures, shape: Shape): Activation {
  return {
    id: figures.id,
    namespace: shape.namespace,
    package: shape.package,
    name: shape.name,
    version: shape.version,
    mode: "sync",
    attempt: 1,
    state: "succeeded",
    startedAtMs: figures.startedAtMs,
    durationMs: figures.durationUs / 1_000,
    queuedMs: figures.queuedUs / 1_000,
    startMs: 0,
    cold: false,
    memoryBytes: shape.memoryBytes,
    status: figures.status === 0 ? null : figures.status,
    error: null,
    instanceId: shape.instanceId,
  };
}

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

function fromRow(row: Row): Activation {
  return {
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
  };
}
