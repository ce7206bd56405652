import type { Activation, LogRecord } from "../../core/invocation.ts";
import { toKoineError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import type { Logger } from "../../core/telemetry.ts";
import type {
  ActivationLog,
  ActivationQuery,
  LogQuery,
  PackedRecords,
  StoredLogRecord,
  TakesPacked,
} from "../store.ts";
import { BLOCK_ROWS_MAX, type PackedActivations } from "./activation-rows.ts";
import { Backlog, type BacklogBounds } from "./backlog.ts";
import { PackedBacklog } from "./packed-backlog.ts";
import type { Channel } from "./channel.ts";
import type { JournalOperations } from "./formats.ts";
import type { StoredResult } from "./log.ts";

/** Records of each kind per message, so that what the sender spends on it at a time stays small. */
const CHUNK_RECORDS = BLOCK_ROWS_MAX;
/** How long records wait for others to share their transaction. */
const GATHER_MS = 25;
/** How long to wait before writing again what could not be written. */
const RETRY_MS = 1_000;

const defaultBounds: BacklogBounds = {
  recordsMax: limits.appendBacklogRecordsMax,
  bytesMax: limits.appendBacklogBytesMax,
};

/** The log's side on the caller's thread: gathers what is appended and hands it over in chunks, one at a time, so that the backlog stays here and bounded. */
export class SqliteLog implements ActivationLog, TakesPacked {
  readonly #file: Channel<JournalOperations>;
  readonly #logger: Logger | undefined;
  readonly #backlog: Backlog;
  readonly #packed: PackedBacklog;
  #timer: NodeJS.Timeout | null = null;
  #writing: Promise<void> | null = null;
  #failing = false;
  /** Taken from what waits, and not yet written. */
  #chunksOnTheirWay = 0;

  constructor(file: Channel<JournalOperations>, logger?: Logger, bounds: BacklogBounds = defaultBounds) {
    this.#file = file;
    this.#logger = logger;
    this.#backlog = new Backlog(bounds);
    this.#packed = new PackedBacklog(bounds);
  }

  append(activations: readonly Activation[], logs: readonly LogRecord[]): void {
    this.#backlog.add({ activations, logs });
    if (this.#backlog.records < CHUNK_RECORDS || this.#failing) this.#schedule(GATHER_MS);
    else this.#write();
  }

  appendPacked(records: PackedRecords): void {
    this.#packed.add(records);
    if (this.#packed.records < CHUNK_RECORDS || this.#failing) this.#schedule(GATHER_MS);
    else this.#write();
  }

  async putResult(activationId: string, result: StoredResult): Promise<void> {
    // What waits goes ahead of it in the same message, so that they share a transaction and its sync.
    const ahead: Promise<number>[] = [];
    while (this.#waiting > 0) ahead.push(this.#writeChunk());
    const kept = this.#file.call("putResult", activationId, Date.now(), result);
    await Promise.all([...ahead, kept]);
  }

  async getResult(activationId: string): Promise<StoredResult | null> {
    return await this.#file.call("getResult", activationId);
  }

  async get(activationId: string): Promise<Activation | null> {
    return await this.#file.call("getActivation", activationId);
  }

  async list(query: ActivationQuery): Promise<readonly Activation[]> {
    return await this.#file.call("listActivations", query);
  }

  async logs(query: LogQuery): Promise<readonly StoredLogRecord[]> {
    return await this.#file.call("listLines", query);
  }

  /** @throws KoineError `storage-full` when something must wait for room, `storage-failed` when something was lost and counted as dropped */
  async flush(): Promise<void> {
    await this.#writing;
    // What is appended meanwhile is not waited for: there may be no end of it.
    let left = this.#waiting;
    while (left > 0 && this.#waiting > 0) left -= await this.#writeChunk();
    // Others have taken the rest, or all before this began. Calls are done in order: when this one is, so are theirs.
    if (left > 0 || this.#chunksOnTheirWay > 0) await this.#file.call("append", null, null);
  }

  async retain(bounds: { readonly olderThanMs: number; readonly bytesMax: number }): Promise<{
    readonly activations: number;
    readonly lines: number;
  }> {
    const old = await untilDone(() => this.#file.call("removeOld", bounds.olderThanMs));
    const excess = await untilDone(() => this.#file.call("removeExcess", bounds.bytesMax));
    return { activations: old.activations + excess.activations, lines: old.lines + excess.lines };
  }

  dropped(): number {
    return this.#backlog.dropped + this.#packed.dropped;
  }

  /** Writes what waits, as far as that is possible; nothing may be appended afterwards. */
  async end(): Promise<void> {
    try {
      await this.flush();
    } catch (error) {
      this.#logger?.log("error", "activations and log lines were lost at the end", {
        records: this.#waiting,
        error: String(error),
      });
    }
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  #schedule(delayMs: number): void {
    if (this.#timer !== null || this.#writing !== null) return;
    this.#timer = setTimeout(() => this.#write(), delayMs);
    this.#timer.unref();
  }

  #write(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#writing !== null) return;
    this.#writing = this.#writeAll().finally(() => {
      this.#writing = null;
      if (this.#waiting > 0) this.#schedule(this.#failing ? RETRY_MS : GATHER_MS);
    });
  }

  /** Never rejects: a failure is told once to the platform's log. */
  async #writeAll(): Promise<void> {
    try {
      do await this.#writeChunk();
      while (this.#backlog.records >= CHUNK_RECORDS || this.#packed.records >= CHUNK_RECORDS);
      if (this.#failing) this.#logger?.log("info", "activations and log lines are written again");
      this.#failing = false;
    } catch (error) {
      if (!this.#failing) {
        this.#logger?.log("error", "activations and log lines cannot be written", { error: String(error) });
      }
      this.#failing = true;
    }
  }

  get #waiting(): number {
    return this.#backlog.records + this.#packed.records;
  }

  async #writePacked(records: PackedRecords): Promise<number> {
    try {
      await this.#file.call("append", packedOf(records), records.lines);
      return records.count;
    } catch (error) {
      if (toKoineError(error).code === "storage-full") this.#packed.putBack(records);
      else this.#packed.giveUp(records);
      throw error;
    }
  }

  /** Answers how many records it has written. */
  async #writeChunk(): Promise<number> {
    const calls = this.#packed.takeAll().map((records) => this.#writePacked(records));
    if (this.#backlog.records > 0) calls.push(this.#writeOwn());
    this.#chunksOnTheirWay++;
    // In one turn, so that they share a transaction.
    const settled = await Promise.allSettled(calls);
    this.#chunksOnTheirWay--;
    let written = 0;
    for (const each of settled) {
      if (each.status === "rejected") throw each.reason;
      written += each.value;
    }
    return written;
  }

  async #writeOwn(): Promise<number> {
    const chunk = this.#backlog.take(CHUNK_RECORDS);
    try {
      const lines = chunk.logs.length === 0 ? null : JSON.stringify(chunk.logs);
      await this.#file.call("append", chunk.activations?.pack() ?? null, lines);
      return (chunk.activations?.length ?? 0) + chunk.logs.length;
    } catch (error) {
      // Room may come back; a record that cannot be written never can be, and must not stop those behind it.
      if (toKoineError(error).code === "storage-full") this.#backlog.putBack(chunk);
      else this.#backlog.giveUp(chunk);
      throw error;
    }
  }
}

function packedOf({ activations, shapes }: PackedRecords): PackedActivations | null {
  return activations === null ? null : { records: activations, shapes };
}

async function untilDone(
  remove: () => Promise<{ readonly activations: number; readonly lines: number; readonly more: boolean }>,
): Promise<{ readonly activations: number; readonly lines: number }> {
  const gone = { activations: 0, lines: 0 };
  for (;;) {
    const { activations, lines, more } = await remove();
    gone.activations += activations;
    gone.lines += lines;
    if (!more) return gone;
  }
}
