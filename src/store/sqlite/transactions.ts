import type { DatabaseSync } from "node:sqlite";
import { type Durability, setDurability } from "./database.ts";

/** How the changes of a file come to be on disk. */
export interface Transactions {
  /** Does work whole or not at all: what it changed is as durable as asked for when this returns, and undone when it throws. */
  run<Result>(durability: Durability, work: () => Result): Result;
  /** Does what was put off, to be called when nothing else is to be done; a failure is left to those who write next. */
  settle(): void;
  /** Does all that was put off; nothing may be called afterwards. */
  end(): void;
}

/** Each a transaction of the database. */
export class DirectTransactions implements Transactions {
  readonly #database: DatabaseSync;
  readonly #undone: () => void;
  #durability: Durability = "full";

  /** @param undone called when a transaction has been rolled back */
  constructor(database: DatabaseSync, undone: () => void) {
    this.#database = database;
    this.#undone = undone;
  }

  run<Result>(durability: Durability, work: () => Result): Result {
    this.#switchDurability(durability);
    try {
      this.#database.exec("BEGIN");
      const result = work();
      this.#database.exec("COMMIT");
      return result;
    } catch (thrown) {
      // SQLite ends the transaction itself after some errors, such as a full disk.
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      this.#undone();
      throw thrown;
    }
  }

  settle(): void {}

  end(): void {}

  #switchDurability(durability: Durability): void {
    if (this.#durability === durability) return;
    setDurability(this.#database, durability);
    this.#durability = durability;
  }
}
