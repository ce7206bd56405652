import type { DatabaseSync, SQLInputValue } from "node:sqlite";
import type { Activation, LogRecord, LogStream } from "../../core/invocation.ts";
import type { ActivationQuery, LogQuery, StoredLogRecord } from "../store.ts";
import { readRows } from "./activation-rows.ts";
import type { Counters } from "./counters.ts";
import { bytes, integer, Statements, text, type Row } from "./database.ts";

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
  readonly #functions = new Map<string, { readonly fn: number; readonly space: number }>();

  constructor(database: DatabaseSync, counters: Counters) {
    this.#statements = new Statements(database);
    this.#prepared = prepare(database);
    this.#counters = counters;
  }

  /** After a rollback: functions that were numbered in it have no number. */
  reload(): void {
    this.#functions.clear();
  }

  /** As text, which costs the sender less than a structured clone: rows of activations, and lines as JSON. */
  append(rows: Uint8Array | null, lines: string | null): void {
    for (const activation of rows === null ? [] : readRows(rows)) {
      const { fn, space } = this.#function(activation);
      this.#prepared.putActivation.run(
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
    return row === undefined ? null : toActivation(row);
  }

  listActivations(query: ActivationQuery): Activation[] {
    const filter = new Filter();
    if (query.sinceMs !== undefined) filter.and("startedAtMs >= ?", query.sinceMs);
    if (query.beforeMs !== undefined) filter.and("startedAtMs < ?", query.beforeMs);
    // The constant is what lets SQLite take the index of the unsuccessful.
    if (query.state !== undefined && query.state !== "succeeded") filter.and("state <> 'succeeded'");
    if (query.state !== undefined) filter.and("state = ?", query.state);
    if (query.after !== undefined) {
      const after = this.#prepared.place.get(query.after);
      if (after === undefined) return [];
      filter.and("(startedAtMs, row) < (?, ?)", integer(after, "startedAtMs"), integer(after, "row"));
    }
    const rows = this.#scopes(query).flatMap((scope) =>
      this.#statements.all(
        `SELECT a.*, ${FUNCTION_COLUMNS} FROM activations a CROSS JOIN functions f ON f.fn = a.fn
         WHERE a.${scope.column} = ? ${filter.text} ORDER BY startedAtMs DESC, row DESC LIMIT ?`,
        [scope.number, ...filter.values, query.limit],
      ),
    );
    return rows
      .toSorted(
        (a, b) => integer(b, "startedAtMs") - integer(a, "startedAtMs") || integer(b, "row") - integer(a, "row"),
      )
      .slice(0, query.limit)
      .map(toActivation);
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

  #function(names: Pick<LogRecord, "namespace" | "package" | "name">): { readonly fn: number; readonly space: number } {
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
      `INSERT INTO activations (id, space, fn, startedAtMs, state, version, mode, attempt, durationMs, queuedMs, startMs,
         cold, memoryBytes, status, error, instanceId) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET (space, fn, startedAtMs, state, version, mode, attempt, durationMs, queuedMs, startMs,
         cold, memoryBytes, status, error, instanceId) = (excluded.space, excluded.fn, excluded.startedAtMs,
         excluded.state, excluded.version, excluded.mode, excluded.attempt, excluded.durationMs, excluded.queuedMs,
         excluded.startMs, excluded.cold, excluded.memoryBytes, excluded.status, excluded.error, excluded.instanceId)`,
    ),
    getActivation: database.prepare(
      `SELECT a.*, ${FUNCTION_COLUMNS} FROM activations a CROSS JOIN functions f ON f.fn = a.fn WHERE id = ?`,
    ),
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
