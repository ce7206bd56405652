import { join } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { KoineError } from "../../core/errors.ts";
import { openDatabase, setDurability, toStoreError, type Durability } from "./database.ts";
import { formats, type OpenFile } from "./formats.ts";
import { toWire, type Request, type Response, type ThreadOpening } from "./wire.ts";

/** One database file on the thread that serves it. */
export class DatabaseFile {
  readonly #database: DatabaseSync;
  readonly #open: OpenFile;
  #durability: Durability = "full";

  /** @throws KoineError as `openDatabase` */
  constructor({ directory, format: name, pagesMax }: ThreadOpening) {
    const format = formats[name];
    this.#database = openDatabase({
      directory,
      file: join(directory, format.fileName),
      steps: format.steps,
      pagesMax,
    });
    try {
      this.#open = format.open(this.#database);
    } catch (thrown) {
      this.#database.close();
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

  close(): void {
    this.#database.close();
  }

  #inTransaction(requests: readonly Request[]): readonly Response[] {
    const isFull = requests.some(([, operation]) => this.#open.durabilityOf(operation) === "full");
    this.#switchDurability(isFull ? "full" : "normal");
    try {
      this.#database.exec("BEGIN");
      const responses = requests.map((request) => this.#run(request));
      this.#open.beforeCommit();
      this.#database.exec("COMMIT");
      return responses;
    } catch (thrown) {
      // SQLite ends the transaction itself after some errors, such as a full disk.
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      this.#open.afterRollback();
      throw thrown;
    }
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

  #switchDurability(durability: Durability): void {
    if (this.#durability === durability) return;
    setDurability(this.#database, durability);
    this.#durability = durability;
  }
}
