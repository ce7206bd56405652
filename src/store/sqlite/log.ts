import type { DatabaseSync, SQLInputValue } from "node:sqlite";
import type { Activation, LogRecord, LogStream } from "../../core/invocation.ts";
import type { ActivationQuery, LogQuery, StoredLogRecord } from "../store.ts";
import { type PackedActivations, PackedReader, type Shape } from "./activation-rows.ts";
import { Blocks, byAge, type FunctionNumbers, type Pending } from "./blocks.ts";
import type { Counters } from "./counters.ts";
import { bytes, integer, Statements, text, type Row } from "./database.ts";
import { isTimedId, SeenIds, TIMED_ID_BYTES, writeTimedId } from "./timed-id.ts";

/**
 * Functions and namespaces are numbers here, so that a line costs little more than its text. Lines are indexed by sequence within function, namespace
 * and activation, with the time beside it: the newest of a function are read without sorting, and a time is compared without reading the line.
 */
export const logSchema = `
  CREATE TABLE functions (
    fn INTEGER PRIMARY KEY, space INTEGER NOT NULL, namespace TEXT NOT NULL, package TEXT NOT NULL, name TEXT NOT NULL,
    UNIQUE (namespace, package, name));
  CREATE TABLE activations (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, space INTEGER NOT NULL, fn INTEGER NOT NULL,
    startedAtMs INTEGER NOT NULL, state TEXT NOT NULL, version INTEGER NOT NULL, mode TEXT NOT NULL,
    attempt INTEGER NOT NULL, durationMs REAL NOT NULL, queuedMs REAL NOT NULL, startMs REAL NOT NULL,
    cold INTEGER NOT NULL, memoryBytes INTEGER NOT NULL, status INTEGER, error TEXT, instanceId TEXT NOT NULL);
  CREATE INDEX activations_by_space ON activations (space, startedAtMs);
  CREATE INDEX activations_by_function ON activations (fn, startedAtMs);
  CREATE INDEX activations_unsuccessful ON activations (space, startedAtMs) WHERE state <> 'succeeded';
  CREATE TABLE results (
    id TEXT PRIMARY KEY, atMs INTEGER NOT NULL, status INTEGER NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL);
  CREATE INDEX results_by_time ON results (atMs);
  CREATE TABLE lines (
    sequence INTEGER PRIMARY KEY, space INTEGER NOT NULL, fn INTEGER NOT NULL, version INTEGER NOT NULL,
    instanceId TEXT NOT NULL, activationId TEXT, timeMs INTEGER NOT NULL, stream INTEGER NOT NULL, line TEXT NOT NULL);
  CREATE INDEX lines_by_space ON lines (space, sequence, timeMs);
  CREATE INDEX lines_by_function ON lines (fn, sequence, timeMs);
  CREATE INDEX lines_by_activation ON lines (activationId) WHERE activationId IS NOT NULL`;

export interface StoredResult {
  readonly status: number;
  readonly headers: readonly string[];
  readonly body: Uint8Array;
}

const STREAMS: readonly LogStream[] = ["stdout", "stderr", "platform"];
const FUNCTION_COLUMNS = "f.namespace, f.package, f.name";

export class LogTable {
  readonly #statements: Statements;
  readonly #prepared: ReturnType<typeof prepare>;
  readonly #counters: Counters;
  readonly #blocks: Blocks;
  readonly #functions = new Map<string, FunctionNumbers>();
  /** Ids of synchronous activations; what is not among them is appended without a look for an earlier record. */
  readonly #seen: SeenIds;
  /** What an activation's place follows from: of the same millisecond, the one appended last comes first. */
  #nextRow = 0;

  constructor(database: DatabaseSync, counters: Counters) {
    this.#statements = new Statements(database);
    this.#prepared = prepare(database);
    this.#counters = counters;
    this.#blocks = new Blocks(database);
    this.#seen = new SeenIds(Date.now());
    this.reload();
  }

  /** After a rollback, and at first: functions that were numbered in it have no number. */
  reload(): void {
    this.#functions.clear();
    this.#nextRow = Math.max(this.#blocks.nextRow(), integer(this.#prepared.nextRow.get(), "next"));
  }

  /** As bytes and text, which cost the sender less than a structured clone: packed activations, and lines as JSON. */
  append(activations: PackedActivations | null, lines: string | null): void {
    if (activations !== null) this.#appendActivations(activations);
    const records: readonly LogRecord[] = lines === null ? [] : JSON.parse(lines);
    for (const { activationId, instanceId, line, stream, timeMs, version, ...names } of records) {
      const { fn, space } = this.#function(names);
      const sequence = this.#counters.next("sequence");
      const streamNumber = STREAMS.indexOf(stream);
      this.#prepared.putLine.run(sequence, space, fn, version, instanceId, activationId, timeMs, streamNumber, line);
    }
  }

  putResult(id: string, atMs: number, { status, headers, body }: StoredResult): void {
    this.#prepared.putResult.run(id, atMs, status, JSON.stringify(headers), body);
  }

  getResult(id: string): StoredResult | null {
    const row = this.#prepared.getResult.get(id);
    if (row === undefined) return null;
    return { status: integer(row, "status"), headers: JSON.parse(text(row, "headers")), body: bytes(row, "body") };
  }

  getActivation(id: string): Activation | null {
    const row = this.#prepared.getActivation.get(id);
    if (row !== undefined) return toActivation(row);
    return isTimedId(id) ? (this.#blocks.find(id)?.activation() ?? null) : null;
  }

  listActivations(query: ActivationQuery): Activation[] {
    const filter = new Filter();
    if (query.sinceMs !== undefined) filter.and("startedAtMs >= ?", query.sinceMs);
    if (query.beforeMs !== undefined) filter.and("startedAtMs < ?", query.beforeMs);
    // The constant is what lets SQLite take the index of the unsuccessful.
    if (query.state !== undefined && query.state !== "succeeded") filter.and("state <> 'succeeded'");
    if (query.state !== undefined) filter.and("state = ?", query.state);
    const after = query.after === undefined ? null : this.#place(query.after);
    if (query.after !== undefined && after === null) return [];
    if (after !== null) filter.and("(startedAtMs, row) < (?, ?)", after.startedAtMs, after.row);
    const { sinceMs = Number.MIN_SAFE_INTEGER, beforeMs = Number.MAX_SAFE_INTEGER, limit } = query;
    const hasPlain = query.state === undefined || query.state === "succeeded";
    return this.#scopes(query)
      .flatMap((scope) => {
        const rows = this.#statements.all(
          `SELECT a.*, ${FUNCTION_COLUMNS} FROM activations a CROSS JOIN functions f ON f.fn = a.fn
           WHERE a.${scope.column} = ? ${filter.text} ORDER BY startedAtMs DESC, row DESC LIMIT ?`,
          [scope.number, ...filter.values, limit],
        );
        const placed = rows.map((row) => ({
          startedAtMs: integer(row, "startedAtMs"),
          row: integer(row, "row"),
          activation: () => toActivation(row),
        }));
        return hasPlain ? [...placed, ...this.#blocks.list({ scope, sinceMs, beforeMs, after, limit })] : placed;
      })
      .toSorted(byAge)
      .slice(0, limit)
      .map(({ activation }) => activation());
  }

  listLines(query: LogQuery): StoredLogRecord[] {
    const filter = new Filter();
    if (query.afterSequence !== undefined) filter.and("sequence > ?", query.afterSequence);
    if (query.sinceMs !== undefined) filter.and("timeMs >= ?", query.sinceMs);
    if (query.beforeMs !== undefined) filter.and("timeMs < ?", query.beforeMs);
    if (query.version !== undefined) filter.and("version = ?", query.version);
    if (query.activationId !== undefined) filter.and("activationId = ?", query.activationId);
    const index = query.activationId === undefined ? "" : "INDEXED BY lines_by_activation";
    const rows = this.#scopes(query).flatMap((scope) =>
      this.#statements.all(
        `SELECT l.*, ${FUNCTION_COLUMNS} FROM lines l ${index} CROSS JOIN functions f ON f.fn = l.fn
         WHERE l.${scope.column} = ? ${filter.text} ORDER BY sequence DESC LIMIT ?`,
        [scope.number, ...filter.values, query.limit],
      ),
    );
    return rows
      .toSorted((a, b) => integer(a, "sequence") - integer(b, "sequence"))
      .slice(-query.limit)
      .map(toLine);
  }

  /** Plain ones gather by function and become blocks; every other one is a row. */
  #appendActivations(packed: PackedActivations): void {
    const reader = new PackedReader(packed);
    const firstRow = this.#nextRow;
    const pending = new Map<FunctionNumbers, Pending>();
    const settle = (): void => {
      for (const [numbers, plain] of pending) {
        const others = this.#blocks.put(numbers, firstRow, reader, plain);
        others.at.forEach((at, index) => this.#putRow(reader.activation(at), firstRow + (others.ordinals[index] ?? 0)));
      }
      pending.clear();
    };
    const gather = (shape: Shape): Pending => {
      const numbers = this.#function(shape);
      const plain = pending.get(numbers) ?? { at: [], ordinals: [] };
      pending.set(numbers, plain);
      return plain;
    };
    let last: Shape | null = null;
    let plain: Pending = { at: [], ordinals: [] };
    let ordinal = 0;
    for (; reader.advance(); ordinal++) {
      if (reader.isPlain && this.#isNew(reader.bytes, reader.idAt())) {
        const shape = reader.shape();
        if (shape !== last) plain = gather(shape);
        last = shape;
        plain.at.push(reader.at);
        plain.ordinals.push(ordinal);
        continue;
      }
      const activation = reader.activation();
      if (this.#mayReplace(reader, activation)) {
        // What it replaces may be among those that gather.
        settle();
        last = null;
        this.#putLater(activation, firstRow + ordinal);
      } else this.#putRow(activation, firstRow + ordinal);
    }
    settle();
    this.#nextRow = firstRow + ordinal;
  }

  /** Whether there may be an earlier record in a block. Of an asynchronous activation there is none, whatever is said of it. */
  #mayReplace(reader: PackedReader, activation: Activation): boolean {
    // One that was seen already, or it would not come here.
    if (reader.isPlain) return true;
    const { mode, id } = activation;
    return mode === "sync" && writeTimedId(id, this.#idBytes, 0) && !this.#isNew(this.#idBytes, 0);
  }

  /** A row in the place of an earlier record, if there is one. */
  #putLater(activation: Activation, row: number): void {
    const earlier = this.#blocks.find(activation.id);
    if (earlier !== null) this.#blocks.remove(earlier);
    this.#putRow(activation, earlier?.row ?? row);
  }

  readonly #idBytes = Buffer.alloc(TIMED_ID_BYTES);

  /** Whether there is no earlier record of a synchronous activation for sure; from now on there is one. */
  #isNew(bytes: Buffer, at: number): boolean {
    const isNew = !this.#seen.maybe(bytes, at);
    this.#seen.add(bytes, at);
    return isNew;
  }

  #putRow(activation: Activation, row: number): void {
    const { fn, space } = this.#function(activation);
    this.#prepared.putActivation.run(
      row,
      activation.id,
      space,
      fn,
      activation.startedAtMs,
      activation.state,
      activation.version,
      activation.mode,
      activation.attempt,
      activation.durationMs,
      activation.queuedMs,
      activation.startMs,
      activation.cold ? 1 : 0,
      activation.memoryBytes,
      activation.status,
      activation.error === null ? null : JSON.stringify(activation.error),
      activation.instanceId,
    );
  }

  #place(id: string): { readonly startedAtMs: number; readonly row: number } | null {
    const row = this.#prepared.place.get(id);
    if (row !== undefined) return { startedAtMs: integer(row, "startedAtMs"), row: integer(row, "row") };
    return isTimedId(id) ? this.#blocks.find(id) : null;
  }

  /** The namespace as one, or each function that the query names: one index range per scope, so that none has to be sorted whole. */
  #scopes(query: { readonly namespace: string; readonly package?: string; readonly name?: string }): {
    readonly column: "space" | "fn";
    readonly number: number;
  }[] {
    const filter = new Filter();
    if (query.package !== undefined) filter.and("package = ?", query.package);
    if (query.name !== undefined) filter.and("name = ?", query.name);
    const column = filter.values.length === 0 ? "space" : "fn";
    return this.#statements
      .all(`SELECT DISTINCT ${column} AS number FROM functions WHERE namespace = ? ${filter.text}`, [
        query.namespace,
        ...filter.values,
      ])
      .map((row) => ({ column, number: integer(row, "number") }));
  }

  #function(names: Pick<LogRecord, "namespace" | "package" | "name">): FunctionNumbers {
    const key = `${names.namespace}/${names.package}/${names.name}`;
    const known = this.#functions.get(key);
    if (known !== undefined) return known;
    this.#prepared.addFunction.run(names.namespace, names.namespace, names.package, names.name);
    const row = this.#prepared.getFunction.get(names.namespace, names.package, names.name);
    const numbers = { fn: integer(row, "fn"), space: integer(row, "space") };
    this.#functions.set(key, numbers);
    return numbers;
  }
}

function prepare(database: DatabaseSync) {
  return {
    // A namespace's number is that of its first function.
    addFunction: database.prepare(
      `INSERT INTO functions (space, namespace, package, name) VALUES (
         coalesce((SELECT space FROM functions WHERE namespace = ? LIMIT 1),
                  (SELECT coalesce(max(space), 0) + 1 FROM functions)), ?, ?, ?) ON CONFLICT DO NOTHING`,
    ),
    getFunction: database.prepare("SELECT fn, space FROM functions WHERE namespace = ? AND package = ? AND name = ?"),
    putActivation: database.prepare(
      `INSERT INTO activations (row, id, space, fn, startedAtMs, state, version, mode, attempt, durationMs, queuedMs,
         startMs, cold, memoryBytes, status, error, instanceId) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET (space, fn, startedAtMs, state, version, mode, attempt, durationMs, queuedMs, startMs,
         cold, memoryBytes, status, error, instanceId) = (excluded.space, excluded.fn, excluded.startedAtMs,
         excluded.state, excluded.version, excluded.mode, excluded.attempt, excluded.durationMs, excluded.queuedMs,
         excluded.startMs, excluded.cold, excluded.memoryBytes, excluded.status, excluded.error, excluded.instanceId)`,
    ),
    getActivation: database.prepare(
      `SELECT a.*, ${FUNCTION_COLUMNS} FROM activations a CROSS JOIN functions f ON f.fn = a.fn WHERE id = ?`,
    ),
    nextRow: database.prepare("SELECT coalesce(max(row), 0) + 1 AS next FROM activations"),
    place: database.prepare("SELECT startedAtMs, row FROM activations WHERE id = ?"),
    putLine: database.prepare(
      `INSERT INTO lines (sequence, space, fn, version, instanceId, activationId, timeMs, stream, line)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    ),
    putResult: database.prepare(
      "INSERT OR REPLACE INTO results (id, atMs, status, headers, body) VALUES (?, ?, ?, ?, ?)",
    ),
    getResult: database.prepare("SELECT status, headers, body FROM results WHERE id = ?"),
  };
}

/** Conditions of a query with their values, in order. */
class Filter {
  text = "";
  readonly values: SQLInputValue[] = [];

  and(condition: string, ...values: readonly SQLInputValue[]): void {
    this.text += ` AND ${condition}`;
    this.values.push(...values);
  }
}

function toActivation(row: Row): Activation {
  const error = row["error"];
  return {
    id: text(row, "id"),
    namespace: text(row, "namespace"),
    package: text(row, "package"),
    name: text(row, "name"),
    version: integer(row, "version"),
    mode: text(row, "mode") as Activation["mode"],
    attempt: integer(row, "attempt"),
    state: text(row, "state") as Activation["state"],
    startedAtMs: integer(row, "startedAtMs"),
    durationMs: integer(row, "durationMs"),
    queuedMs: integer(row, "queuedMs"),
    startMs: integer(row, "startMs"),
    cold: integer(row, "cold") === 1,
    memoryBytes: integer(row, "memoryBytes"),
    status: row["status"] === null ? null : integer(row, "status"),
    error: typeof error === "string" ? JSON.parse(error) : null,
    instanceId: text(row, "instanceId"),
  };
}

function toLine(row: Row): StoredLogRecord {
  return {
    sequence: integer(row, "sequence"),
    namespace: text(row, "namespace"),
    package: text(row, "package"),
    name: text(row, "name"),
    version: integer(row, "version"),
    instanceId: text(row, "instanceId"),
    activationId: row["activationId"] === null ? null : text(row, "activationId"),
    timeMs: integer(row, "timeMs"),
    stream: STREAMS[integer(row, "stream")] ?? "platform",
    line: text(row, "line"),
  };
}
