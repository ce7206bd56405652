import type { Clock } from "../../../core/clock.ts";
import type { Logger } from "../../../core/telemetry.ts";
import { md5, md5OfAttributes } from "../sqs/message.ts";
import { systemAttributes } from "../sqs/operations/messages.ts";
import type { MessageQueue, Received } from "../sqs/queue.ts";
import type { Mapping } from "./records.ts";

/** How a batch went: which of its messages must come again. */
export type BatchResult =
  | { readonly kind: "succeeded"; readonly failedIds: readonly string[] }
  | { readonly kind: "failed"; readonly reason: string }
  /** The function had no room: nothing was tried. */
  | { readonly kind: "throttled" };

export interface PollerParts {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly region: string;
  /** The queue; null while there is none of that ARN. */
  queue(): Promise<MessageQueue | null>;
  /** Whether a record is one of those that the mapping wants. */
  wants(record: Record<string, unknown>): boolean;
  invoke(records: readonly Record<string, unknown>[], signal: AbortSignal): Promise<BatchResult>;
  onResult(text: string): void;
}

const RECEIVE_MAX = 10;
const WAIT_MS = 20_000;
const BATCH_BYTES_MAX = 6 * 1024 * 1024 - 64 * 1024;
const PAUSE_MS_MIN = 200;
const PAUSE_MS_MAX = 10_000;
/** Batches at a time where the mapping says nothing. */
const CONCURRENCY_DEFAULT = 5;

/**
 * Hands a queue's messages to a function, in batches, until it is stopped. What the function has processed is deleted; what failed becomes visible again
 * when its time is over, until the queue's redrive policy takes it.
 */
export class Poller {
  readonly #mapping: Mapping;
  readonly #parts: PollerParts;
  readonly #stopping = new AbortController();
  readonly #ended: Promise<unknown>;

  constructor(mapping: Mapping, parts: PollerParts) {
    this.#mapping = mapping;
    this.#parts = parts;
    const lanes = mapping.settings.maximumConcurrency ?? CONCURRENCY_DEFAULT;
    this.#ended = Promise.all(Array.from({ length: lanes }, () => this.#run()));
  }

  /** Takes no more messages; resolves when the batches that run have ended. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#ended;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    let failures = 0;
    while (!signal.aborted) {
      try {
        const queue = await this.#parts.queue();
        const went = queue === null ? "pause" : await this.#batch(queue, signal);
        failures = went === "pause" ? failures + 1 : 0;
        if (queue === null) this.#parts.onResult("PROBLEM: the queue does not exist");
      } catch (thrown) {
        failures++;
        this.#parts.logger.log("error", "an event source mapping could not go on", {
          uuid: this.#mapping.uuid,
          error: String(thrown),
        });
      }
      if (failures > 0) await this.#pause(Math.min(PAUSE_MS_MAX, PAUSE_MS_MIN * 2 ** Math.min(failures, 10)));
    }
  }

  async #batch(queue: MessageQueue, signal: AbortSignal): Promise<"on" | "pause"> {
    const received = await this.#gather(queue, signal);
    if (received.length === 0) return "on";
    const records = received.map((each) => ({ each, record: this.#recordOf(each) }));
    const wanted = records.filter(({ record }) => this.#parts.wants(record));
    for (const { each } of records.filter((one) => !wanted.includes(one))) await queue.delete(each.receiptHandle);
    if (wanted.length === 0) return "on";
    const result = await this.#parts.invoke(
      wanted.map(({ record }) => record),
      signal,
    );
    switch (result.kind) {
      case "succeeded": {
        const failed = new Set(result.failedIds);
        const done = wanted.filter(({ each }) => !failed.has(each.message.id));
        await Promise.all(done.map(({ each }) => queue.delete(each.receiptHandle)));
        this.#parts.onResult(failed.size === 0 ? "OK" : `PROBLEM: ${failed.size} of ${wanted.length} records failed`);
        return "on";
      }
      case "failed":
        this.#parts.onResult(`PROBLEM: Function call failed: ${result.reason}`);
        return "on";
      case "throttled":
        // Their turn was not used: they may come again at once.
        await Promise.all(wanted.map(({ each }) => queue.changeVisibility(each.receiptHandle, 0)));
        return "pause";
      default:
        return result satisfies never;
    }
  }

  /** Up to a batch of messages: what is there, or what comes within the window. Of FIFO queues only what one receive gives, whose order holds. */
  async #gather(queue: MessageQueue, signal: AbortSignal): Promise<readonly Received[]> {
    const { batchSize, windowSeconds } = this.#mapping.settings;
    const { clock } = this.#parts;
    const visibilityMs = queue.settings.visibilitySeconds * 1_000;
    const receive = async (limit: number, waitMs: number): Promise<readonly Received[]> =>
      await queue.receive({ limit: Math.min(limit, RECEIVE_MAX), visibilityMs, waitMs, signal });
    const gathered = [...(await receive(batchSize, WAIT_MS))];
    if (gathered.length === 0 || queue.settings.fifo) return gathered;
    const untilMs = clock.nowMs() + windowSeconds * 1_000;
    let bytes = sizeOf(gathered);
    while (gathered.length < batchSize && bytes < BATCH_BYTES_MAX && !signal.aborted) {
      const more = await receive(batchSize - gathered.length, Math.max(0, untilMs - clock.nowMs()));
      if (more.length === 0) break;
      gathered.push(...more);
      bytes += sizeOf(more);
    }
    return gathered;
  }

  #recordOf(received: Received): Record<string, unknown> {
    const { message, receiptHandle } = received;
    const digest = md5OfAttributes(message.attributes);
    return {
      messageId: message.id,
      receiptHandle,
      body: message.body,
      attributes: systemAttributes(received),
      messageAttributes: Object.fromEntries(
        Object.entries(message.attributes).map(([name, { DataType, StringValue, BinaryValue }]) => [
          name,
          {
            ...(StringValue === undefined ? {} : { stringValue: StringValue }),
            ...(BinaryValue === undefined ? {} : { binaryValue: BinaryValue }),
            stringListValues: [],
            binaryListValues: [],
            dataType: DataType,
          },
        ]),
      ),
      ...(digest === null ? {} : { md5OfMessageAttributes: digest }),
      md5OfBody: md5(message.body),
      eventSource: "aws:sqs",
      eventSourceARN: this.#mapping.eventSourceArn,
      awsRegion: this.#parts.region,
    };
  }

  async #pause(ms: number): Promise<void> {
    const { signal } = this.#stopping;
    await new Promise<void>((resolve) => {
      const cancel = this.#parts.clock.after(ms, resolve);
      signal.addEventListener(
        "abort",
        () => {
          cancel();
          resolve();
        },
        { once: true },
      );
    });
  }
}

function sizeOf(received: readonly Received[]): number {
  return received.reduce((sum, { message }) => sum + Buffer.byteLength(message.body), 0);
}
