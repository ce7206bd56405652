import type { DatabaseSync, SQLInputValue, StatementResultingChanges, StatementSync } from "node:sqlite";
import { KoineError } from "../../../core/errors.ts";
import type { Row, Writes, WriteStatement } from "../database.ts";

const DEFINE = 1;
const RUN = 2;
const NULL = 0;
const NUMBER = 1;
const TEXT = 2;
const BLOB = 3;

/** Most bytes that a character of a text takes. */
const UTF8_BYTES_MAX = 3;
const FIRST_BYTES = 64 * 1024;
/** A buffer that had to grow beyond this is not kept. */
const KEPT_BYTES = 4 * 1024 * 1024;
/** Before any value: its kind, and its length or number. */
const VALUE_BYTES = 9;

/**
 * Writes down what changes a database as it happens: each statement with its values, the statement's text where it comes first. The same changes in the same
 * order lead from the same content to the same content.
 */
export class Recorder implements Writes {
  readonly #database: DatabaseSync;
  #bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
  #end = 0;
  #numbers = 0;
  /** Statements whose text was written down since the last `startAnew`. */
  readonly #defined = new Set<number>();
  /** Of these, those of the present record. */
  #fresh: number[] = [];

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  prepare(text: string): WriteStatement {
    const statement = this.#database.prepare(text);
    const number = this.#numbers++;
    return {
      run: (...values: SQLInputValue[]): StatementResultingChanges => {
        this.#record(number, text, values);
        return statement.run(...values);
      },
      get: (...values: SQLInputValue[]): Row | undefined => {
        this.#record(number, text, values);
        return statement.get(...values);
      },
    };
  }

  /** What was written down since the last call of this or of `forget`; a view that is good until the next statement. */
  get record(): Buffer {
    return this.#bytes.subarray(0, this.#end);
  }

  /** The record is kept by somebody else now. */
  next(): void {
    this.#fresh = [];
    this.#empty();
  }

  /** The record was undone. */
  forget(): void {
    for (const number of this.#fresh) this.#defined.delete(number);
    this.next();
  }

  /** What follows is read without what came before. */
  startAnew(): void {
    this.#defined.clear();
    this.next();
  }

  #empty(): void {
    this.#end = 0;
    if (this.#bytes.length > KEPT_BYTES) this.#bytes = Buffer.allocUnsafeSlow(FIRST_BYTES);
  }

  #record(number: number, text: string, values: readonly SQLInputValue[]): void {
    if (!this.#defined.has(number)) {
      this.#defined.add(number);
      this.#fresh.push(number);
      this.#reserve(3 + VALUE_BYTES + text.length * UTF8_BYTES_MAX);
      this.#head(DEFINE, number);
      this.#text(text);
    }
    this.#reserve(4);
    this.#head(RUN, number);
    this.#bytes[this.#end++] = values.length;
    for (const value of values) this.#value(value);
  }

  #head(kind: number, number: number): void {
    this.#bytes[this.#end] = kind;
    this.#bytes.writeUInt16LE(number, this.#end + 1);
    this.#end += 3;
  }

  #value(value: SQLInputValue): void {
    if (typeof value === "string") {
      this.#reserve(VALUE_BYTES + value.length * UTF8_BYTES_MAX);
      this.#text(value);
    } else if (value === null) {
      this.#reserve(1);
      this.#bytes[this.#end++] = NULL;
    } else if (typeof value === "number" || typeof value === "bigint") {
      this.#reserve(VALUE_BYTES);
      this.#bytes[this.#end] = NUMBER;
      this.#bytes.writeDoubleLE(Number(value), this.#end + 1);
      this.#end += VALUE_BYTES;
    } else this.#blob(value);
  }

  #text(text: string): void {
    const bytes = this.#bytes;
    bytes[this.#end] = TEXT;
    const length = bytes.write(text, this.#end + 5);
    bytes.writeUInt32LE(length, this.#end + 1);
    this.#end += 5 + length;
  }

  #blob(value: NodeJS.ArrayBufferView): void {
    const { buffer, byteOffset, byteLength } = value;
    this.#reserve(VALUE_BYTES + byteLength);
    this.#bytes[this.#end] = BLOB;
    this.#bytes.writeUInt32LE(byteLength, this.#end + 1);
    this.#bytes.set(new Uint8Array(buffer, byteOffset, byteLength), this.#end + 5);
    this.#end += 5 + byteLength;
  }

  #reserve(length: number): void {
    if (this.#end + length <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.#bytes.length * 2, this.#end + length));
    this.#bytes.copy(larger, 0, 0, this.#end);
    this.#bytes = larger;
  }
}

/** Does again what was written down. */
export class Replayer {
  readonly #database: DatabaseSync;
  readonly #statements = new Map<number, StatementSync>();

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  replay(record: Buffer): void {
    for (let at = 0; at < record.length;) {
      const kind = record[at];
      const number = record.readUInt16LE(at + 1);
      at += 3;
      if (kind === DEFINE) {
        const end = at + 5 + record.readUInt32LE(at + 1);
        this.#statements.set(number, this.#database.prepare(record.toString("utf8", at + 5, end)));
        at = end;
        continue;
      }
      const values: SQLInputValue[] = [];
      for (let left = record[at++] ?? 0; left > 0; left--) {
        const { value, end } = readValue(record, at);
        values.push(value);
        at = end;
      }
      const statement = this.#statements.get(number);
      if (statement === undefined) throw new KoineError("storage-failed", { detail: "a record names no statement" });
      statement.run(...values);
    }
  }
}

function readValue(record: Buffer, at: number): { readonly value: SQLInputValue; readonly end: number } {
  const kind = record[at];
  if (kind === NULL) return { value: null, end: at + 1 };
  if (kind === NUMBER) return { value: record.readDoubleLE(at + 1), end: at + VALUE_BYTES };
  const end = at + 5 + record.readUInt32LE(at + 1);
  return { value: kind === TEXT ? record.toString("utf8", at + 5, end) : record.subarray(at + 5, end), end };
}
