import { join } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { KoineError } from "../../core/errors.ts";
import { openDatabase, toStoreError } from "./database.ts";
import { formats, type OpenFile } from "./formats.ts";
import { Recorder } from "./redo/recorder.ts";
import { recover, RedoTransactions } from "./redo/transactions.ts";
import { DirectTransactions, type Transactions } from "./transactions.ts";
import { toWire, type Request, type Response, type ThreadOpening } from "./wire.ts";

/** One database file on the thread that serves it. */
export class DatabaseFile {
  readonly #database: DatabaseSync;
  readonly #open: OpenFile;
  readonly #transactions: Transactions;

  /** @throws KoineError as `openDatabase` */
  constructor({ directory, format: name, pagesMax }: ThreadOpening) {
    const format = formats[name];
    const path = join(directory, format.fileName);
    const opening = { directory, file: path, steps: format.steps, pagesMax };
    this.#database = openDatabase(
      format.redo ? { ...opening, recover: (database) => recover(database, path) } : opening,
    );
    const database = this.#database;
    const undone = (): void => this.#open.afterRollback();
    try {
      if (format.redo) {
        const recorder = new Recorder(database);
        this.#open = format.open(database, recorder);
        this.#transactions = new RedoTransactions({ database, databasePath: path, recorder, undone });
      } else {
        this.#open = format.open(database, database);
        this.#transactions = new DirectTransactions(database, undone);
      }
    } catch (thrown) {
      database.close();
      throw toStoreError(thrown);
    }
  }

  /** Runs calls in one transaction. If that fails, each runs in one of its own, so that the one that cannot be done fails alone. */
  answer(requests: readonly Request[]): readonly Response[] {
    try {
      return this.#inTransaction(requests);
    } catch (thrown) {
      const error = toStoreError(thrown);
      // A full disk refuses all who write, and trying each again would only hold up those who read.
      const refused = requests.filter(
        ([, operation]) => requests.length === 1 || (error.code === "storage-full" && !this.#open.reads.has(operation)),
      );
      const others = requests.filter((request) => !refused.includes(request));
      return [
        ...refused.map(([number]): Response => [number, false, toWire(error)]),
        ...others.flatMap((request) => this.answer([request])),
      ];
    }
  }

  /** Does what was put off, while there is nothing else to do. */
  settle(): void {
    this.#transactions.settle();
  }

  close(): void {
    this.#transactions.end();
    this.#database.close();
  }

  #inTransaction(requests: readonly Request[]): readonly Response[] {
    const isFull = requests.some(([, operation]) => this.#open.durabilityOf(operation) === "full");
    return this.#transactions.run(isFull ? "full" : "normal", () => {
      const responses = requests.map((request) => this.#run(request));
      this.#open.beforeCommit();
      return responses;
    });
  }

  /** A conflict is found before anything is written and is an answer like others; any other error ends the transaction. */
  #run([number, operation, args]: Request): Response {
    try {
      const run = this.#open.operations[operation];
      if (run === undefined) throw new KoineError("internal", { detail: `the store has no operation ${operation}` });
      return [number, true, run(...(args as never[]))];
    } catch (thrown) {
      if (!(thrown instanceof KoineError) || thrown.code !== "conflict") throw thrown;
      return [number, false, toWire(thrown)];
    }
  }
}
