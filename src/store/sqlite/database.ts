import { DatabaseSync, type SQLInputValue, type StatementResultingChanges, type StatementSync } from "node:sqlite";
import { KoineError } from "../../core/errors.ts";

export interface DatabaseOpening {
  readonly directory: string;
  readonly file: string;
  /** Statements that lead from one format version to the next; the number of steps is the version this koine knows. */
  readonly steps: readonly string[];
  /** Completes what the last process had no time to write into the file, in the format that it has. */
  readonly recover?: (database: DatabaseSync) => void;
  /** Most pages of 4 KiB the file may have; null: as many as the disk has. */
  readonly pagesMax: number | null;
}

/** `full`: a commit is on disk before it returns. `normal`: it survives the process, but a power cut may take the newest ones. */
export type Durability = "full" | "normal";

/** 32 MiB: each checkpoint holds up those who wait for a commit, so there are few of them. */
const CHECKPOINT_PAGES = 8_000;
const WAL_BYTES_KEPT = 64 * 1024 * 1024;
const CACHE_KIB = 32_768;

/**
 * Opens a database file for this process alone and brings it to the known format; its commits are fully durable.
 * @throws KoineError `data-directory-in-use`, `data-directory-unusable`, `data-version-newer`, `storage-full`, `storage-failed`
 */
export function openDatabase(opening: DatabaseOpening): DatabaseSync {
  const { directory, file } = opening;
  let database: DatabaseSync | null = null;
  try {
    database = new DatabaseSync(file);
    // The lock is the operating system's, so it goes with the process however that ends. Taking it by a transaction first means that of two
    // processes which start together one gets it, instead of both failing when they want to write.
    // The vacuum's mode must be said before, for the transaction makes the file's first page.
    database.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA auto_vacuum = INCREMENTAL; BEGIN EXCLUSIVE; COMMIT");
    refuseNewer(database, opening);
    database.exec(`
      PRAGMA journal_mode = WAL;
      PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES};
      PRAGMA journal_size_limit = ${WAL_BYTES_KEPT};
      PRAGMA cache_size = -${CACHE_KIB};
      PRAGMA temp_store = MEMORY;
      PRAGMA synchronous = FULL`);
    opening.recover?.(database);
    migrate(database, opening.steps);
    if (opening.pagesMax !== null) database.exec(`PRAGMA max_page_count = ${opening.pagesMax}`);
    return database;
  } catch (thrown) {
    database?.close();
    throw toOpeningError(thrown, directory);
  }
}

export function setDurability(database: DatabaseSync, durability: Durability): void {
  database.exec(`PRAGMA synchronous = ${durability === "full" ? "FULL" : "NORMAL"}`);
}

/** Prepared statements by their text, for queries whose text depends on what is asked. */
export class Statements {
  readonly #database: DatabaseSync;
  readonly #prepared = new Map<string, StatementSync>();

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  all(text: string, values: readonly SQLInputValue[]): Row[] {
    return this.#statement(text).all(...values);
  }

  /** Row by row, for those who may stop early; one at a time of the same text. */
  iterate(text: string, values: readonly SQLInputValue[]): Iterable<Row> {
    return this.#statement(text).iterate(...values);
  }

  #statement(text: string): StatementSync {
    const prepared = this.#prepared.get(text) ?? this.#database.prepare(text);
    this.#prepared.set(text, prepared);
    return prepared;
  }
}

export type Row = Record<string, unknown>;

/** A statement that changes the database. */
export interface WriteStatement {
  run(...values: SQLInputValue[]): StatementResultingChanges;
  get(...values: SQLInputValue[]): Row | undefined;
}

/** Where statements that change the database are prepared. */
export interface Writes {
  prepare(text: string): WriteStatement;
}

/** Column readers: a file that does not hold what was written into it is damaged, and says so. */
export function integer(row: Row | undefined, column: string): number {
  const value = row?.[column];
  if (typeof value !== "number") throw new KoineError("storage-failed", { detail: `column ${column} is no number` });
  return value;
}

export function text(row: Row | undefined, column: string): string {
  const value = row?.[column];
  if (typeof value !== "string") throw new KoineError("storage-failed", { detail: `column ${column} is no text` });
  return value;
}

export function bytes(row: Row | undefined, column: string): Uint8Array {
  const value = row?.[column];
  if (!(value instanceof Uint8Array)) throw new KoineError("storage-failed", { detail: `column ${column} is no blob` });
  return value;
}

/** What SQLite threw, as the error of the platform that it means for a running store. */
export function toStoreError(thrown: unknown): KoineError {
  if (thrown instanceof KoineError) return thrown;
  if (isFull(thrown)) return new KoineError("storage-full", {}, { cause: thrown });
  return new KoineError("storage-failed", { detail: messageOf(thrown) }, { cause: thrown });
}

const BUSY = 5;
const LOCKED = 6;
const FULL = 13;

function toOpeningError(thrown: unknown, directory: string): KoineError {
  if (thrown instanceof KoineError) return thrown;
  if (isFull(thrown)) return new KoineError("storage-full", {}, { cause: thrown });
  switch (resultCode(thrown)) {
    case BUSY:
    case LOCKED:
      return new KoineError("data-directory-in-use", { directory }, { cause: thrown });
    default:
      return new KoineError("data-directory-unusable", { directory, detail: messageOf(thrown) }, { cause: thrown });
  }
}

/** As SQLite says it, or the system. */
function isFull(thrown: unknown): boolean {
  if (resultCode(thrown) === FULL) return true;
  return thrown instanceof Error && "code" in thrown && (thrown.code === "ENOSPC" || thrown.code === "EDQUOT");
}

/** SQLite's primary result code; 0 for what is no error of SQLite. */
function resultCode(thrown: unknown): number {
  const extended = thrown instanceof Error && "errcode" in thrown ? thrown.errcode : 0;
  return typeof extended === "number" ? extended & 0xff : 0;
}

function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

function refuseNewer(database: DatabaseSync, { directory, steps }: DatabaseOpening): void {
  const found = formatVersion(database);
  if (found > steps.length) throw new KoineError("data-version-newer", { directory, found, known: steps.length });
}

function migrate(database: DatabaseSync, steps: readonly string[]): void {
  for (let version = formatVersion(database); version < steps.length; version++) {
    database.exec(`BEGIN; ${steps[version]}; PRAGMA user_version = ${version + 1}; COMMIT`);
  }
}

function formatVersion(database: DatabaseSync): number {
  return integer(database.prepare("PRAGMA user_version").get(), "user_version");
}
