import { setTimeout as sleep } from "node:timers/promises";
import { Histogram } from "../measure/histogram.ts";
import { Connection } from "./connection.ts";
import type { LoadJob, LoadResult } from "./job.ts";

const TICK_MS = 1;
const DRAIN_MS_MAX = 35_000;
const BACKLOG_MAX = 1_000_000;

/**
 * Requests fall due at a fixed rate, whether or not earlier ones are answered. One that is due while every connection is busy waits in
 * a queue with its clock running: a server that stalls is charged for all who came meanwhile (no coordinated omission).
 * The clock of a request begins when the generator first sees that it is due; how much later than planned that was is told apart,
 * since it is the generator's fault and, on timers of a millisecond, never zero.
 */
export async function openLoop(job: LoadJob): Promise<LoadResult> {
  const connections = await Promise.all(Array.from({ length: job.connections }, () => Connection.open(job.address)));
  const loop = new OpenLoop(job, connections);
  await loop.run();
  for (const connection of connections) connection.close();
  return loop.result();
}

class OpenLoop {
  readonly #job: LoadJob;
  readonly #request: Buffer;
  readonly #free: Connection[];
  readonly #latency = new Histogram();
  readonly #ownDelay = new Histogram();
  readonly #statuses: Record<string, number> = {};
  /** Times at which those fell due that no connection was free for; from `#head` on. */
  #queue: number[] = [];
  #head = 0;
  #issued = 0;
  #inFlight = 0;
  #failures = 0;
  #succeeded = 0;
  #unanswered = 0;
  /** Shorter than asked for when the server fell so far behind that going on made no sense. */
  #lastedMs = 0;
  #endMs = Number.POSITIVE_INFINITY;

  constructor(job: LoadJob, connections: readonly Connection[]) {
    this.#job = job;
    this.#request = Buffer.from(job.request);
    this.#free = [...connections];
  }

  async run(): Promise<void> {
    const { durationMs, ratePerSecond } = this.#job;
    const perMs = (ratePerSecond ?? 1) / 1000;
    const total = Math.floor(durationMs * perMs);
    const begunMs = performance.now();
    this.#endMs = begunMs + durationMs;
    while (this.#issued < total && this.#queue.length < BACKLOG_MAX) {
      const nowMs = performance.now();
      const due = Math.min(total, Math.floor((nowMs - begunMs) * perMs) + 1);
      for (; this.#issued < due; this.#issued++) {
        this.#ownDelay.record(nowMs - begunMs - this.#issued / perMs);
        this.#queue.push(nowMs);
      }
      this.#send();
      await sleep(TICK_MS);
    }
    this.#lastedMs = performance.now() - begunMs;
    const deadlineMs = performance.now() + DRAIN_MS_MAX;
    while ((this.#inFlight > 0 || this.#head < this.#queue.length) && performance.now() < deadlineMs) {
      if (this.#free.length === 0 && this.#inFlight === 0) break;
      await sleep(10);
    }
    this.#unanswered = this.#inFlight + this.#queue.length - this.#head;
  }

  result(): LoadResult {
    return {
      statuses: this.#statuses,
      failures: this.#failures,
      unanswered: this.#unanswered,
      seconds: Math.min(this.#lastedMs, this.#job.durationMs) / 1000,
      succeeded: this.#succeeded,
      latency: this.#latency.toJSON(),
      ownDelayP99Ms: this.#ownDelay.percentileMs(0.99),
    };
  }

  #send(): void {
    while (this.#head < this.#queue.length) {
      const connection = this.#free.pop();
      if (connection === undefined) return;
      if (connection.closed) continue;
      this.#sendOn(connection, this.#queue[this.#head++] ?? 0);
      if (this.#head > 4_096 && this.#head * 2 > this.#queue.length) {
        this.#queue = this.#queue.slice(this.#head);
        this.#head = 0;
      }
    }
  }

  #sendOn(connection: Connection, dueMs: number): void {
    this.#inFlight++;
    const answered = (status: number): void => {
      this.#inFlight--;
      this.#statuses[status] = (this.#statuses[status] ?? 0) + 1;
      if (status < 300) {
        const nowMs = performance.now();
        if (nowMs <= this.#endMs) this.#succeeded++;
        this.#latency.record(nowMs - dueMs);
      }
      this.#free.push(connection);
      this.#send();
    };
    const failed = (): void => {
      this.#inFlight--;
      this.#failures++;
      this.#reopen();
    };
    connection.send(this.#request, answered, failed);
  }

  #reopen(): void {
    Connection.open(this.#job.address).then(
      (connection) => {
        this.#free.push(connection);
        this.#send();
      },
      () => {},
    );
  }
}
