import { access, constants, mkdir } from "node:fs/promises";
import { KoineError, toKoineError } from "../core/errors.ts";
import type { Logger } from "../core/telemetry.ts";
import { openChannel, type Channel } from "./sqlite/channel.ts";
import type { DurableOperations, JournalOperations } from "./sqlite/formats.ts";
import { SqliteLog } from "./sqlite/journal.ts";
import type { StoredValue } from "./sqlite/values.ts";
import type {
  DeadLetter,
  Lease,
  Queue,
  QueueItem,
  QueueState,
  Receipt,
  Settlement,
  Store,
  ValueChange,
  ValueEntry,
  Values,
} from "./store.ts";

export interface SqliteOpening {
  /** Made when it is not there. */
  readonly directory: string;
  readonly logger?: Logger;
  /** Most pages of 4 KiB each of the two files may have; absent: as many as the disk has. */
  readonly pagesMax?: number;
}

/**
 * Values and queue in one SQLite file, activations and log lines in another, each on a thread of its own. What resolves is on disk; calls that
 * arrive while a transaction commits share the next one, so throughput grows with concurrency.
 * @throws KoineError `data-directory-unusable`, `data-directory-in-use`, `data-version-newer`, `storage-full`
 */
export async function openSqliteStore(opening: SqliteOpening): Promise<Omit<Store, "blobs">> {
  const { directory, pagesMax = null } = opening;
  await prepareDirectory(directory);
  const [durable, journal] = await Promise.allSettled([
    openChannel<DurableOperations>({ directory, format: "durable", pagesMax }),
    openChannel<JournalOperations>({ directory, format: "journal", pagesMax }),
  ]);
  if (durable.status === "rejected" || journal.status === "rejected") {
    if (durable.status === "fulfilled") await durable.value.close();
    if (journal.status === "fulfilled") await journal.value.close();
    throw durable.status === "rejected"
      ? durable.reason
      : toKoineError(journal.status === "rejected" && journal.reason);
  }
  const log = new SqliteLog(journal.value, opening.logger);
  return {
    values: new SqliteValues(durable.value),
    queue: new SqliteQueue(durable.value),
    log,
    close: async () => {
      await log.end();
      await Promise.all([durable.value.close(), journal.value.close()]);
    },
  };
}

async function prepareDirectory(directory: string): Promise<void> {
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await access(directory, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (thrown) {
    const error = toKoineError(thrown);
    if (error.code === "storage-full") throw error;
    const detail = thrown instanceof Error ? thrown.message : String(thrown);
    throw new KoineError("data-directory-unusable", { directory, detail }, { cause: thrown });
  }
}

class SqliteValues implements Values {
  readonly #file: Channel<DurableOperations>;

  constructor(file: Channel<DurableOperations>) {
    this.#file = file;
  }

  async get(collection: string, key: string): Promise<ValueEntry | null> {
    const stored = await this.#file.call("valueGet", collection, key);
    return stored === null ? null : toEntry(stored);
  }

  async list(
    collection: string,
    query: { readonly prefix?: string; readonly after?: string; readonly limit: number },
  ): Promise<readonly ValueEntry[]> {
    const { prefix = "", after = null, limit } = query;
    const stored = await this.#file.call("valueList", collection, prefix, after, limit);
    return stored.map(toEntry);
  }

  async commit(changes: readonly ValueChange[]): Promise<readonly number[]> {
    const stored = changes.map(({ collection, key, value, expect }) => {
      const json = value === null ? null : JSON.stringify(value);
      return { collection, key, json, expect };
    });
    return await this.#file.call("valueCommit", stored);
  }
}

class SqliteQueue implements Queue {
  readonly #file: Channel<DurableOperations>;

  constructor(file: Channel<DurableOperations>) {
    this.#file = file;
  }

  async enqueue(items: readonly QueueItem[]): Promise<void> {
    // A message carries the whole memory behind a view, so a payload that was cut out of a larger buffer goes as a copy.
    await this.#file.call(
      "enqueue",
      items.map((item) => ({ ...item, payload: new Uint8Array(item.payload) })),
    );
  }

  async lease(request: Parameters<Queue["lease"]>[0]): Promise<readonly Lease[]> {
    const { limit, nowMs, leaseMs, laneRoom = {} } = request;
    return await this.#file.call("lease", limit, nowMs, leaseMs, laneRoom);
  }

  async extend(receipt: Receipt, untilMs: number): Promise<boolean> {
    return await this.#file.call("extend", receipt, untilMs);
  }

  async settle(receipt: Receipt, settlement: Settlement): Promise<boolean> {
    return await this.#file.call("settle", receipt, settlement);
  }

  async state(nowMs: number): Promise<QueueState> {
    return await this.#file.call("queueState", nowMs);
  }

  async deadLetters(query: {
    readonly lane?: string;
    readonly after?: string;
    readonly limit: number;
  }): Promise<readonly DeadLetter[]> {
    return await this.#file.call("deadLetters", query.lane ?? null, query.after ?? null, query.limit);
  }
}

function toEntry({ key, json, revision }: StoredValue): ValueEntry {
  return { key, value: JSON.parse(json), revision };
}
