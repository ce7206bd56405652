import type { Activation, LogRecord } from "../core/invocation.ts";
import { KoineError } from "../core/errors.ts";
import type { Limits } from "../core/limits.ts";
import {
  type ActivationLog,
  type LogQuery,
  type PackedRecords,
  type StoredLogRecord,
  takesPacked,
} from "../store/store.ts";

const FOLLOW_PAGE = 1_000;
const GATHER_MS = 40;

/**
 * Activations and log lines on their way to the store: lines are gathered per loop turn, nothing is awaited by an invocation; followers are woken
 * and read the store, so that nothing is shown twice or left out.
 */
export class Journal {
  readonly #log: ActivationLog;
  readonly #limits: Limits;
  #lines: LogRecord[] = [];
  #scheduled = false;
  readonly #followers = new Set<() => void>();

  constructor(log: ActivationLog, limits: Limits) {
    this.#log = log;
    this.#limits = limits;
  }

  activation(activation: Activation): void {
    // The log packs it at once; keeping it until the end of the turn would only cost memory.
    this.#log.append([activation], []);
  }

  line(record: LogRecord): void {
    this.#lines.push(record);
    this.#schedule();
  }

  /** Records that another engine has packed. */
  packed(records: PackedRecords): void {
    if (!takesPacked(this.#log)) throw new KoineError("internal", { detail: "this log takes no packed records" });
    this.#log.appendPacked(records);
    if (records.lines !== null) for (const notify of this.#followers) notify();
  }

  /** Keeps the result of an activation, and all that was told before it, durably. @throws KoineError `storage-full`, `storage-failed` */
  async result(activationId: string, result: Parameters<ActivationLog["putResult"]>[1]): Promise<void> {
    this.#handOver();
    await this.#log.putResult(activationId, result);
  }

  /** Hands over what was gathered and waits until it is written. @throws KoineError `storage-full`, `storage-failed` */
  async flush(): Promise<void> {
    this.#handOver();
    await this.#log.flush();
  }

  /** As `flush`, for readers: when the newest cannot be written, which the store tells by itself, they see what was written before. */
  async catchUp(): Promise<void> {
    await this.flush().catch(() => {});
  }

  /**
   * Lines as they come, from the newest `query.limit` on, until the signal aborts.
   * @throws KoineError `too-many-requests` when too many follow already
   */
  async *follow(query: LogQuery, signal: AbortSignal): AsyncIterable<readonly StoredLogRecord[]> {
    if (this.#followers.size >= this.#limits.logFollowersMax)
      throw new KoineError("too-many-requests", { name: "logs" });
    let wake = (): void => {};
    let pending = false;
    const notify = (): void => {
      pending = true;
      wake();
    };
    this.#followers.add(notify);
    signal.addEventListener("abort", notify, { once: true });
    try {
      await this.catchUp();
      let batch = await this.#log.logs(query);
      let afterSequence = batch.at(-1)?.sequence ?? query.afterSequence ?? (await this.#newest(query));
      if (batch.length > 0) yield batch;
      while (!signal.aborted) {
        if (!pending) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
        pending = false;
        if (signal.aborted) return;
        await new Promise((resolve) => setTimeout(resolve, GATHER_MS));
        await this.catchUp();
        const { sinceMs: _, ...rest } = query;
        batch = await this.#log.logs({ ...rest, afterSequence, limit: FOLLOW_PAGE });
        afterSequence = batch.at(-1)?.sequence ?? afterSequence;
        if (batch.length > 0) yield batch;
      }
    } finally {
      this.#followers.delete(notify);
    }
  }

  /** Sequence of the newest line of the function, whatever its time: following begins behind it. */
  async #newest(query: LogQuery): Promise<number> {
    const { sinceMs: _, ...rest } = query;
    return (await this.#log.logs({ ...rest, limit: 1 })).at(-1)?.sequence ?? 0;
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#handOver());
  }

  #handOver(): void {
    this.#scheduled = false;
    if (this.#lines.length === 0) return;
    this.#log.append([], this.#lines);
    this.#lines = [];
    for (const notify of this.#followers) notify();
  }
}
