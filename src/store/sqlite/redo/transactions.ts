import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { KoineError } from "../../../core/errors.ts";
import { integer } from "../database.ts";
import type { Transactions } from "../transactions.ts";
import { RedoFile } from "./file.ts";
import { type Recorder, Replayer } from "./recorder.ts";

export const redoSchema = `
  CREATE TABLE redo (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL, salt INTEGER NOT NULL);
  INSERT INTO redo VALUES (1, 0, abs(random() % 4294967296))`;

/** Records beyond which the database commits: few enough that those who wait meanwhile hardly notice. */
const COMMIT_BYTES = 1024 * 1024;
/** Records that are kept when the database cannot commit, which is tried again; beyond, it is full. */
const KEPT_BYTES_MAX = 64 * 1024 * 1024;

/** What is beside a database file until it has committed. */
export function redoPath(databasePath: string): string {
  return `${databasePath}-redo`;
}

/**
 * One transaction of the database holds many of ours: each is a record in a file of its own, which costs one write where the database would write a page for each place that
 * was touched. The database commits now and then; if it has no time to, opening the file does again what was recorded since. Decision 16.
 */
export class RedoTransactions implements Transactions {
  readonly #database: DatabaseSync;
  readonly #recorder: Recorder;
  readonly #file: RedoFile;
  readonly #undone: () => void;
  readonly #statements: Readonly<Record<"begin" | "save" | "keep" | "undo" | "commit" | "place", StatementSync>>;
  #salt: number;
  /** The newest of our transactions, and the newest that the database has committed. */
  #number: number;
  #committed: number;
  /** Set while what others keep in memory beside the database is of no use. */
  #isStale = false;

  /**
   * @param undone called when a transaction has been undone: what is kept in memory beside the tables must be read again
   */
  constructor(parts: {
    readonly database: DatabaseSync;
    readonly databasePath: string;
    readonly recorder: Recorder;
    readonly undone: () => void;
  }) {
    const { database, databasePath, recorder, undone } = parts;
    this.#database = database;
    this.#recorder = recorder;
    this.#undone = undone;
    const state = stateOf(database);
    this.#salt = state.salt;
    this.#number = state.number;
    this.#committed = state.number;
    this.#file = new RedoFile(redoPath(databasePath));
    this.#file.startAnew(state.salt);
    this.#statements = {
      begin: database.prepare("BEGIN"),
      save: database.prepare("SAVEPOINT ours"),
      keep: database.prepare("RELEASE ours"),
      undo: database.prepare("ROLLBACK TO ours"),
      commit: database.prepare("COMMIT"),
      place: database.prepare("UPDATE redo SET number = ?, salt = ?"),
    };
  }

  /** Always fully durable. */
  run<Result>(_: unknown, work: () => Result): Result {
    this.#begin();
    this.#statements.save.run();
    let result: Result;
    try {
      result = work();
      this.#append();
    } catch (thrown) {
      this.#undo();
      throw thrown;
    }
    this.#statements.keep.run();
    if (this.#file.length >= COMMIT_BYTES) this.#tryCommit();
    return result;
  }

  settle(): void {
    this.#tryCommit();
    if (this.#number === this.#committed) this.#file.shrink();
  }

  end(): void {
    this.settle();
    if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
    if (this.#number === this.#committed) this.#file.remove();
    else this.#file.close();
  }

  #tryCommit(): void {
    if (this.#number === this.#committed) return;
    try {
      this.#commit();
    } catch {
      // All of it is in the records, which are kept until it works.
    }
  }

  /** Opens the database's transaction unless it is; one that the database has ended by itself begins again with all that it held. */
  #begin(): void {
    if (!this.#database.isTransaction) {
      this.#statements.begin.run();
      if (this.#number > this.#committed) this.#replay();
    }
    if (!this.#isStale) return;
    this.#undone();
    this.#isStale = false;
  }

  #append(): void {
    const { record } = this.#recorder;
    if (record.length === 0) return;
    if (this.#file.length + record.length > KEPT_BYTES_MAX && this.#file.length > 0)
      throw new KoineError("storage-full");
    this.#file.append(this.#number + 1, record);
    this.#number++;
    this.#recorder.next();
  }

  #undo(): void {
    this.#recorder.forget();
    this.#isStale = true;
    try {
      if (this.#database.isTransaction) {
        this.#statements.undo.run();
        this.#statements.keep.run();
      }
      this.#begin();
    } catch {
      // The next call tries again, and fails with the reason.
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
    }
  }

  #commit(): void {
    this.#begin();
    const salt = randomBytes(4).readUInt32LE();
    try {
      this.#statements.place.run(this.#number, salt);
      this.#statements.commit.run();
    } catch (thrown) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw thrown;
    }
    this.#salt = salt;
    this.#committed = this.#number;
    this.#file.startAnew(salt);
    this.#recorder.startAnew();
  }

  #replay(): void {
    try {
      const replayer = new Replayer(this.#database);
      let last = this.#committed;
      for (const { number, record } of this.#file.read(this.#salt, this.#committed)) {
        if (number > this.#number) break;
        replayer.replay(record);
        last = number;
      }
      if (last < this.#number) throw new KoineError("storage-failed", { detail: "records of the redo file are gone" });
    } catch (thrown) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw thrown;
    }
  }
}

/** Does again what a process had no time to commit that was killed; before anything else is done with the file. */
export function recover(database: DatabaseSync, databasePath: string): void {
  if (!existsSync(redoPath(databasePath)) || !hasState(database)) return;
  const { salt, number: before } = stateOf(database);
  const file = new RedoFile(redoPath(databasePath));
  try {
    const replayer = new Replayer(database);
    database.exec("BEGIN");
    let last = before;
    for (const { number, record } of file.read(salt, before)) {
      replayer.replay(record);
      last = number;
    }
    database.prepare("UPDATE redo SET number = ?, salt = ?").run(last, randomBytes(4).readUInt32LE());
    database.exec("COMMIT");
  } finally {
    if (database.isTransaction) database.exec("ROLLBACK");
    file.close();
  }
}

function hasState(database: DatabaseSync): boolean {
  return database.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'redo'").get() !== undefined;
}

function stateOf(database: DatabaseSync): { readonly number: number; readonly salt: number } {
  const row = database.prepare("SELECT number, salt FROM redo").get();
  return { number: integer(row, "number"), salt: integer(row, "salt") };
}
