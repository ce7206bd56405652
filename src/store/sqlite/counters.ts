import type { DatabaseSync } from "node:sqlite";
import { integer, text, type Writes, type WriteStatement } from "./database.ts";

/** Numbers that only grow and are never given twice, not even after what they were given to was deleted. Saved with the transaction that used them. */
export class Counters {
  readonly #database: DatabaseSync;
  readonly #save: WriteStatement;
  readonly #values = new Map<string, number>();
  readonly #changed = new Set<string>();

  static readonly schema = "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID";

  constructor(database: DatabaseSync, writes: Writes = database) {
    this.#database = database;
    this.#save = writes.prepare("INSERT OR REPLACE INTO counters (name, value) VALUES (?, ?)");
    this.reload();
  }

  next(name: string): number {
    const value = (this.#values.get(name) ?? 0) + 1;
    this.#values.set(name, value);
    this.#changed.add(name);
    return value;
  }

  beforeCommit(): void {
    for (const name of this.#changed) this.#save.run(name, this.#values.get(name) ?? 0);
    this.#changed.clear();
  }

  /** After a rollback: what was not saved was not given. */
  reload(): void {
    this.#values.clear();
    this.#changed.clear();
    for (const row of this.#database.prepare("SELECT name, value FROM counters").all()) {
      this.#values.set(text(row, "name"), integer(row, "value"));
    }
  }
}
