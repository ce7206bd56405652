import { access, constants, mkdir } from "node:fs/promises";
import type { Accepted } from "../core/enqueue.ts";
import { KoineError, toKoineError } from "../core/errors.ts";
import type { Attempt } from "../core/invocation.ts";
import type { Logger } from "../core/telemetry.ts";
import { openChannel, type Channel } from "./sqlite/channel.ts";
import type { DurableOperations, JournalOperations } from "./sqlite/formats.ts";
import { SqliteLog } from "./sqlite/journal.ts";
import type { StoredValue } from "./sqlite/values.ts";
import { refusalError, type Refusal } from "./admission.ts";
import type {
  DeadLetter,
  DeadLetterHead,
  DeadLetterQuery,
  LaneState,
  Lease,
  LeaseRequest,
  NewQueueItem,
  Queue,
  QueueBounds,
  QueuedItem,
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
  /** Told when a file cannot be used any more although nobody closed it; all calls fail from then on, so the process should end. */
  readonly onFailed?: (error: KoineError) => void;
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
    openChannel<DurableOperations>({ directory, format: "durable", pagesMax }, opening.onFailed),
    openChannel<JournalOperations>({ directory, format: "journal", pagesMax }, opening.onFailed),
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
  #bounds: Omit<QueueBounds, "nowMs"> | null = null;

  constructor(file: Channel<DurableOperations>) {
    this.#file = file;
  }

  async enqueue(items: readonly NewQueueItem[], bounds?: QueueBounds): Promise<readonly Accepted[]> {
    if (bounds !== undefined) this.#useBounds(bounds);
    const answer = accepted(await this.#file.call("enqueue", items, bounds?.nowMs ?? null));
    return answer ?? items.map(({ id }) => ({ activationId: id, duplicate: false }));
  }

  /** They travel when they are others than before, ahead of the call that they bound. */
  #useBounds({ lengthMax, ageMsMax, deadLettersMax, keysMax }: QueueBounds): void {
    const bounds = { lengthMax, ageMsMax, deadLettersMax, keysMax };
    const known = this.#bounds;
    if (
      known !== null &&
      known.lengthMax === lengthMax &&
      known.ageMsMax === ageMsMax &&
      known.deadLettersMax === deadLettersMax &&
      known.keysMax === keysMax
    )
      return;
    this.#bounds = bounds;
    // Its failure is that of the call that follows it.
    this.#file.call("setQueueBounds", bounds).catch(() => {});
  }

  async lease({ laneRoom = {}, roomPerLane, ...request }: LeaseRequest): Promise<readonly Lease[]> {
    return await this.#file.call("lease", { ...request, laneRoom, roomPerLane: roomPerLane ?? null });
  }

  async extend(receipt: Receipt, untilMs: number): Promise<boolean> {
    return await this.#file.call("extend", receipt, untilMs);
  }

  async settle(receipt: Receipt, settlement: Settlement): Promise<boolean> {
    return await this.#file.call("settle", receipt, settlement);
  }

  async cancel(id: string, nowMs: number): ReturnType<Queue["cancel"]> {
    return await this.#file.call("cancel", id, nowMs);
  }

  async find(id: string, nowMs: number): Promise<QueuedItem | null> {
    return await this.#file.call("queueFind", id, nowMs);
  }

  async attempts(id: string): Promise<readonly Attempt[]> {
    return await this.#file.call("queueAttempts", id);
  }

  async state(nowMs: number): Promise<QueueState> {
    return await this.#file.call("queueState", nowMs);
  }

  async lanes(limit: number): Promise<readonly LaneState[]> {
    return await this.#file.call("queueLanes", limit);
  }

  async deadLetters(query: DeadLetterQuery): Promise<readonly DeadLetterHead[]> {
    return await this.#file.call("deadLetters", query);
  }

  async deadLetter(id: string): Promise<DeadLetter | null> {
    return await this.#file.call("deadLetter", id);
  }

  async replay(ids: readonly string[], request: Parameters<Queue["replay"]>[1]): Promise<readonly string[]> {
    const { nowMs, spacingMs, bounds = null } = request;
    return accepted(await this.#file.call("replay", ids, { nowMs, spacingMs, bounds }));
  }

  async purge(ids: readonly string[]): Promise<number> {
    return await this.#file.call("purge", ids);
  }
}

function accepted<Answer>(answer: Answer | Refusal): Answer {
  if (isRefusal(answer)) throw refusalError(answer);
  return answer;
}

function isRefusal(answer: unknown): answer is Refusal {
  return typeof answer === "object" && answer !== null && "code" in answer;
}

function toEntry({ key, json, revision }: StoredValue): ValueEntry {
  return { key, value: JSON.parse(json), revision };
}
