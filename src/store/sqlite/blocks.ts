import type { DatabaseSync } from "node:sqlite";
import { KoineError } from "../../core/errors.ts";
import type { Activation } from "../../core/invocation.ts";
import { type PackedReader, plainActivation, type Shape } from "./activation-rows.ts";
import { bytes, integer, Statements, text, type Row } from "./database.ts";
import { readTimedId, TIMED_ID_BYTES, timedIdBytes, timeOfId } from "./timed-id.ts";

/**
 * Plain activations of one function that came together, as one row: of the work that a call makes for the store, most would be its places in indexes.
 * `row` and the record's ordinal make the place that the activation would have among the rows of `activations`. Times and ids of a block
 * lie close together, so that those who look for one need not look at all.
 */
export const blockSchema = `
  CREATE TABLE blocks (
    block INTEGER PRIMARY KEY, space INTEGER NOT NULL, fn INTEGER NOT NULL, row INTEGER NOT NULL,
    count INTEGER NOT NULL, baseMs INTEGER NOT NULL, firstMs INTEGER NOT NULL, lastMs INTEGER NOT NULL,
    firstId BLOB NOT NULL, lastId BLOB NOT NULL, shapes TEXT NOT NULL, records BLOB NOT NULL);
  CREATE INDEX blocks_by_space ON blocks (space, lastMs);
  CREATE INDEX blocks_by_function ON blocks (fn, lastMs);
  CREATE INDEX blocks_by_id ON blocks (lastId, firstId)`;

/** Fewer are no cheaper as a block than as rows. */
const BLOCK_ROWS_MIN = 4;
/** Within a block neither the times of the ids nor those of the starts are further apart, in milliseconds. */
export const BLOCK_SPAN_MS = 10_000;

/** A record: id, start after the block's base in milliseconds, duration and queueing in microseconds, shape, ordinal, status. */
const STARTED_AT = TIMED_ID_BYTES;
const DURATION_AT = STARTED_AT + 4;
const QUEUED_AT = DURATION_AT + 4;
const SHAPE_AT = QUEUED_AT + 4;
const ORDINAL_AT = SHAPE_AT + 2;
const STATUS_AT = ORDINAL_AT + 2;
const RECORD_BYTES = STATUS_AT + 2;
/** What stands in the place of one that is not there any more. */
const GONE = Buffer.alloc(TIMED_ID_BYTES);

/** The function's names stand beside. */
type OwnShape = Omit<Shape, "namespace" | "package" | "name">;

/** Told of a range of ids in which activations went, and which. */
export type OnRemoved = (firstId: string, lastId: string, has: (id: string) => boolean) => void;

export interface FunctionNumbers {
  readonly fn: number;
  readonly space: number;
}

/** Plain activations of one function: where they stand among packed ones, and their ordinals. */
export interface Pending {
  readonly at: number[];
  readonly ordinals: number[];
}

/** Where a plain activation is kept. */
export interface Found {
  readonly block: number;
  readonly at: number;
  readonly startedAtMs: number;
  readonly row: number;
  readonly activation: () => Activation;
}

/** Bounds of a listing, as `ActivationQuery` has them; `before`: the place after which it goes on. */
export interface BlockQuery {
  readonly scope: { readonly column: "space" | "fn"; readonly number: number };
  readonly sinceMs: number;
  readonly beforeMs: number;
  readonly after: { readonly startedAtMs: number; readonly row: number } | null;
  readonly limit: number;
}

const FUNCTION_COLUMNS = "f.namespace, f.package, f.name";
const LAST_ID = Buffer.alloc(TIMED_ID_BYTES - 6, 0xff);

export class Blocks {
  readonly #prepared: ReturnType<typeof prepare>;
  readonly #statements: Statements;

  constructor(database: DatabaseSync) {
    this.#prepared = prepare(database);
    this.#statements = new Statements(database);
  }

  /** The first row number that no block uses. */
  nextRow(): number {
    return integer(this.#prepared.nextRow.get(), "next");
  }

  /** Puts those that belong into one block there; answers the others. */
  put(numbers: FunctionNumbers, row: number, from: PackedReader, pending: Pending): Pending {
    if (pending.at.length < BLOCK_ROWS_MIN) return pending;
    const block = new BlockWriter(from, pending);
    const { count, baseMs, firstMs, lastMs, firstId, lastId, records, shapes } = block;
    const { space, fn } = numbers;
    const json = JSON.stringify(shapes);
    this.#prepared.put.run(space, fn, row, count, baseMs, firstMs, lastMs, firstId, lastId, json, records);
    return block.others;
  }

  find(id: string): Found | null {
    const wanted = timedIdBytes(id);
    const end = Buffer.concat([Buffer.alloc(6), LAST_ID]);
    end.writeUIntBE(Math.min(timeOfId(wanted, 0) + BLOCK_SPAN_MS, 2 ** 48 - 1), 0, 6);
    for (const { block } of this.#prepared.around.all(wanted, end, wanted)) {
      const row = this.#prepared.get.get(Number(block));
      const at = row === undefined ? -1 : indexOfId(recordsOf(row), wanted);
      if (row !== undefined && at >= 0) return new BlockReader(row).found(at);
    }
    return null;
  }

  /** The newest that match, newest first. */
  list(query: BlockQuery): readonly Found[] {
    const { scope, sinceMs, beforeMs, after, limit } = query;
    const untilMs = Math.min(beforeMs - 1, after?.startedAtMs ?? Number.MAX_SAFE_INTEGER);
    const candidates = this.#statements.iterate(
      `SELECT b.*, ${FUNCTION_COLUMNS} FROM blocks b CROSS JOIN functions f ON f.fn = b.fn
       WHERE b.${scope.column} = ? AND lastMs >= ? AND lastMs < ? AND firstMs <= ? ORDER BY lastMs DESC`,
      [scope.number, sinceMs, Math.min(untilMs + BLOCK_SPAN_MS + 1, Number.MAX_SAFE_INTEGER), untilMs],
    );
    let newest: { readonly reader: BlockReader; readonly at: number; startedAtMs: number; row: number }[] = [];
    for (const row of candidates) {
      const last = newest.length < limit ? undefined : newest[limit - 1];
      if (last !== undefined && integer(row, "lastMs") < last.startedAtMs) break;
      const reader = new BlockReader(row);
      for (const at of reader.places()) {
        const startedAtMs = reader.startedAtMs(at);
        const place = { startedAtMs, row: reader.row(at) };
        if (startedAtMs < sinceMs || startedAtMs > untilMs) continue;
        if (after !== null && byAge(place, after) <= 0) continue;
        newest.push({ reader, at, ...place });
      }
      if (newest.length >= limit) newest = newest.toSorted(byAge).slice(0, limit);
    }
    return newest
      .toSorted(byAge)
      .slice(0, limit)
      .map(({ reader, at }) => reader.found(at));
  }

  /** Takes one out, because another record of it takes its place. */
  remove({ block, at }: Found): void {
    const row = this.#prepared.get.get(block);
    if (row !== undefined) this.#removeFrom(row, (each) => each === at);
  }

  /** Removes what started before a time, of so many blocks; answers how many activations went, and whether there may be more. */
  removeOld(
    olderThanMs: number,
    blocksMax: number,
    removed: OnRemoved,
  ): { readonly activations: number; readonly more: boolean } {
    let activations = 0;
    const whole = this.#prepared.removeOld.all(olderThanMs, blocksMax);
    for (const row of whole) activations += told(row, removed);
    const partly = this.#prepared.partlyOld.all(olderThanMs, olderThanMs + BLOCK_SPAN_MS, olderThanMs);
    for (const { block } of partly) {
      const row = this.#prepared.get.get(Number(block));
      if (row === undefined) continue;
      const reader = new BlockReader(row);
      activations += this.#removeFrom(row, (at) => reader.startedAtMs(at) < olderThanMs, removed);
    }
    return { activations, more: whole.length === blocksMax };
  }

  /** The time up to which all of the oldest block has started; null: there is none. */
  firstEndMs(): number | null {
    const row = this.#prepared.first.get();
    return row === undefined ? null : integer(row, "lastMs");
  }

  /** Removes the oldest block if all of it started up to a time; answers how many activations went. */
  removeFirst(endMs: number, removed: OnRemoved): number {
    const row = this.#prepared.removeFirst.get(endMs);
    return row === undefined ? 0 : told(row, removed);
  }

  #removeFrom(row: Row, leaves: (at: number) => boolean, removed: OnRemoved = () => {}): number {
    const reader = new BlockReader(row);
    const leaving = [...reader.places()].filter(leaves);
    if (leaving.length === 0) return 0;
    const ids = new Set(leaving.map((at) => readTimedId(reader.records, at)));
    const ordered = [...ids].toSorted();
    removed(ordered[0] ?? "", ordered.at(-1) ?? "", (id) => ids.has(id));
    for (const at of leaving) GONE.copy(reader.records, at);
    const block = integer(row, "block");
    const startsMs = [...reader.places()].map((at) => reader.startedAtMs(at));
    if (startsMs.length === 0) this.#prepared.remove.run(block);
    else {
      const firstMs = Math.min(...startsMs);
      this.#prepared.update.run(startsMs.length, firstMs, Math.max(...startsMs), reader.records, block);
    }
    return leaving.length;
  }
}

function told(row: Row, removed: OnRemoved): number {
  const records = recordsOf(row);
  const first = readTimedId(Buffer.from(bytes(row, "firstId")), 0);
  const last = readTimedId(Buffer.from(bytes(row, "lastId")), 0);
  removed(first, last, (id) => indexOfId(records, timedIdBytes(id)) >= 0);
  return integer(row, "count");
}

/** Newest first; of the same millisecond, the one appended last. */
export function byAge(
  a: { readonly startedAtMs: number; readonly row: number },
  b: { readonly startedAtMs: number; readonly row: number },
): number {
  return b.startedAtMs - a.startedAtMs || b.row - a.row;
}

function recordsOf(row: Row): Buffer {
  const records = bytes(row, "records");
  return Buffer.from(records.buffer, records.byteOffset, records.byteLength);
}

function indexOfId(records: Buffer, id: Buffer): number {
  for (let at = records.indexOf(id); at >= 0; at = records.indexOf(id, at + 1)) {
    if (at % RECORD_BYTES === 0) return at;
  }
  return -1;
}

class BlockReader {
  readonly records: Buffer;
  readonly #columns: Row;
  readonly #baseMs: number;
  readonly #row: number;
  #shapes: readonly OwnShape[] | null = null;

  constructor(columns: Row) {
    this.#columns = columns;
    this.records = recordsOf(columns);
    this.#baseMs = integer(columns, "baseMs");
    this.#row = integer(columns, "row");
  }

  /** Where those stand that are there. */
  *places(): Iterable<number> {
    for (let at = 0; at < this.records.length; at += RECORD_BYTES) if (timeOfId(this.records, at) > 0) yield at;
  }

  startedAtMs(at: number): number {
    return this.#baseMs + this.records.readInt32LE(at + STARTED_AT);
  }

  row(at: number): number {
    return this.#row + this.records.readUInt16LE(at + ORDINAL_AT);
  }

  found(at: number): Found {
    const place = { startedAtMs: this.startedAtMs(at), row: this.row(at) };
    return { block: integer(this.#columns, "block"), at, ...place, activation: () => this.#activation(at) };
  }

  #activation(at: number): Activation {
    const columns = this.#columns;
    this.#shapes ??= JSON.parse(text(columns, "shapes")) as readonly OwnShape[];
    const own = this.#shapes[this.records.readUInt16LE(at + SHAPE_AT)];
    if (own === undefined) throw new KoineError("storage-failed", { detail: "an activation has no shape" });
    const names = {
      namespace: text(columns, "namespace"),
      package: text(columns, "package"),
      name: text(columns, "name"),
    };
    const figures = {
      id: readTimedId(this.records, at),
      startedAtMs: this.startedAtMs(at),
      durationUs: this.records.readUInt32LE(at + DURATION_AT),
      queuedUs: this.records.readUInt32LE(at + QUEUED_AT),
      status: this.records.readUInt16LE(at + STATUS_AT),
    };
    return plainActivation(figures, { ...own, ...names });
  }
}

/** Makes the bytes of a block; what lies too far from its first in time is left to others. */
class BlockWriter {
  readonly others: Pending = { at: [], ordinals: [] };
  readonly shapes: OwnShape[] = [];
  readonly baseMs: number;
  firstMs = Number.POSITIVE_INFINITY;
  lastMs = Number.NEGATIVE_INFINITY;
  count = 0;
  readonly #from: PackedReader;
  readonly #bytes: Buffer;
  readonly #numbers = new Map<Shape, number>();
  readonly #idBaseMs: number;
  #firstAt = 0;
  #lastAt = 0;

  constructor(from: PackedReader, { at, ordinals }: Pending) {
    const [first = 0] = at;
    this.#from = from;
    this.#bytes = Buffer.allocUnsafe(at.length * RECORD_BYTES);
    this.baseMs = from.startedAtMs(first);
    this.#idBaseMs = timeOfId(from.bytes, from.idAt(first));
    for (let index = 0; index < at.length; index++) this.#add(at[index] ?? 0, ordinals[index] ?? 0);
  }

  get records(): Buffer {
    return this.#bytes.subarray(0, this.count * RECORD_BYTES);
  }

  get firstId(): Buffer {
    return this.#from.bytes.subarray(this.#firstAt, this.#firstAt + TIMED_ID_BYTES);
  }

  get lastId(): Buffer {
    return this.#from.bytes.subarray(this.#lastAt, this.#lastAt + TIMED_ID_BYTES);
  }

  #add(place: number, ordinal: number): void {
    const from = this.#from;
    const idAt = from.idAt(place);
    const startedAtMs = from.startedAtMs(place);
    const startedMs = startedAtMs - this.baseMs;
    const idMs = timeOfId(from.bytes, idAt);
    if (Math.abs(idMs - this.#idBaseMs) > BLOCK_SPAN_MS / 2 || Math.abs(startedMs) > BLOCK_SPAN_MS / 2) {
      this.others.at.push(place);
      this.others.ordinals.push(ordinal);
      return;
    }
    const out = this.#bytes;
    const at = this.count++ * RECORD_BYTES;
    for (let index = 0; index < TIMED_ID_BYTES; index++) out[at + index] = from.bytes[idAt + index] ?? 0;
    out.writeInt32LE(startedMs, at + STARTED_AT);
    out.writeUInt32LE(from.durationUs(place), at + DURATION_AT);
    out.writeUInt32LE(from.queuedUs(place), at + QUEUED_AT);
    out.writeUInt16LE(this.#shapeNumber(from.shape(place)), at + SHAPE_AT);
    out.writeUInt16LE(ordinal, at + ORDINAL_AT);
    out.writeUInt16LE(from.status(place), at + STATUS_AT);
    this.firstMs = Math.min(this.firstMs, startedAtMs);
    this.lastMs = Math.max(this.lastMs, startedAtMs);
    if (this.count === 1 || compareIds(from.bytes, idAt, this.#firstAt) < 0) this.#firstAt = idAt;
    if (this.count === 1 || compareIds(from.bytes, idAt, this.#lastAt) > 0) this.#lastAt = idAt;
  }

  #shapeNumber(shape: Shape): number {
    const known = this.#numbers.get(shape);
    if (known !== undefined) return known;
    const { version, memoryBytes, instanceId } = shape;
    const number = this.shapes.length;
    this.shapes.push({ version, memoryBytes, instanceId });
    this.#numbers.set(shape, number);
    return number;
  }
}

function compareIds(bytes: Buffer, a: number, b: number): number {
  for (let index = 0; index < TIMED_ID_BYTES; index++) {
    const difference = (bytes[a + index] ?? 0) - (bytes[b + index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

function prepare(database: DatabaseSync) {
  const spaces = "(SELECT DISTINCT space FROM functions) s CROSS JOIN blocks b";
  return {
    nextRow: database.prepare("SELECT coalesce(max(row), 0) + 65536 AS next FROM blocks"),
    put: database.prepare(
      `INSERT INTO blocks (space, fn, row, count, baseMs, firstMs, lastMs, firstId, lastId, shapes, records)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    ),
    get: database.prepare(
      `SELECT b.*, ${FUNCTION_COLUMNS} FROM blocks b CROSS JOIN functions f ON f.fn = b.fn WHERE b.block = ?`,
    ),
    around: database.prepare(
      "SELECT block FROM blocks INDEXED BY blocks_by_id WHERE lastId >= ? AND lastId <= ? AND firstId <= ?",
    ),
    update: database.prepare("UPDATE blocks SET count = ?, firstMs = ?, lastMs = ?, records = ? WHERE block = ?"),
    remove: database.prepare("DELETE FROM blocks WHERE block = ?"),
    removeOld: database.prepare(
      `DELETE FROM blocks WHERE block IN (SELECT b.block FROM ${spaces} WHERE b.space = s.space AND b.lastMs < ? LIMIT ?)
       RETURNING count, firstId, lastId, records`,
    ),
    partlyOld: database.prepare(
      `SELECT b.block FROM ${spaces} WHERE b.space = s.space AND b.lastMs >= ? AND b.lastMs < ? AND b.firstMs < ?`,
    ),
    first: database.prepare("SELECT lastMs FROM blocks ORDER BY block LIMIT 1"),
    removeFirst: database.prepare(
      `DELETE FROM blocks WHERE block = (SELECT min(block) FROM blocks) AND lastMs <= ?
       RETURNING count, firstId, lastId, records`,
    ),
  };
}
