import type { CloudEvent } from "../../../core/event.ts";
import { newId } from "../../../core/ids.ts";
import type { Outcome } from "../../../core/invocation.ts";
import { compilePattern } from "../../../platform/event-pattern.ts";
import { type LambdaFunctions, refOf } from "../lambda/functions.ts";
import { chooseVersion, runEvent } from "../lambda/operations/invoke.ts";
import { parseArn } from "../account.ts";
import type { Queues } from "../sqs/queues.ts";
import { type BatchResult, Poller } from "./poller.ts";
import type { Mapping, Mappings } from "./records.ts";

/** Runs a poller for every enabled mapping, and keeps that so when mappings change. */
export class Pollers {
  readonly #mappings: Mappings;
  readonly #queues: Queues;
  readonly #functions: LambdaFunctions;
  readonly #running = new Map<string, Poller>();
  /** Changes of one mapping come one after the other. */
  #turn: Promise<void> = Promise.resolve();

  constructor(mappings: Mappings, queues: Queues, functions: LambdaFunctions) {
    this.#mappings = mappings;
    this.#queues = queues;
    this.#functions = functions;
  }

  start(): void {
    this.#mappings.onChanged = (uuid, mapping) => {
      this.#turn = this.#turn.then(() => this.#replace(uuid, mapping));
    };
    for (const mapping of this.#mappings.all()) this.#begin(mapping);
  }

  /** Stops all of them; resolves when the batches that run have ended. */
  async close(): Promise<void> {
    this.#mappings.onChanged = () => {};
    await this.#turn;
    await Promise.all([...this.#running.values()].map((poller) => poller.stop()));
    this.#running.clear();
  }

  async #replace(uuid: string, mapping: Mapping | null): Promise<void> {
    await this.#running.get(uuid)?.stop();
    this.#running.delete(uuid);
    if (mapping !== null) this.#begin(mapping);
  }

  #begin(mapping: Mapping): void {
    if (!mapping.settings.enabled) return;
    const { clock, logger } = this.#functions.platform.parts;
    const filters = mapping.settings.patterns.map((pattern) =>
      compilePattern({ data: JSON.parse(pattern) as unknown }),
    );
    const poller = new Poller(mapping, {
      clock,
      logger,
      region: parseArn(mapping.eventSourceArn)?.region ?? "us-east-1",
      queue: async () => {
        const record = this.#queues.findByArn(mapping.namespace, mapping.eventSourceArn);
        return record === null ? null : await this.#queues.messages(record);
      },
      wants: (record) => filters.length === 0 || filters.some((matches) => matches(asEvent(record))),
      invoke: async (records, signal) => await this.#invoke(mapping, records, signal),
      onResult: (text) => this.#mappings.note(mapping.uuid, text),
    });
    this.#running.set(mapping.uuid, poller);
  }

  async #invoke(
    mapping: Mapping,
    records: readonly Record<string, unknown>[],
    signal: AbortSignal,
  ): Promise<BatchResult> {
    const { namespace, functionName: name, qualifier } = mapping;
    const region = parseArn(mapping.eventSourceArn)?.region ?? "us-east-1";
    const found = await this.#functions.find({ namespace, name, qualifier }, { region }).catch(() => null);
    if (found === null) return { kind: "failed", reason: "the function does not exist" };
    const chosen = chooseVersion(found, Math.random());
    const isLatest = chosen.number === found.record.latest.number;
    const { outcome, body } = await runEvent(this.#functions.platform, {
      id: newId(),
      ref: { ...refOf(found.name), ...(isLatest ? {} : { qualifier: String(chosen.number) }) },
      payload: Buffer.from(JSON.stringify({ Records: records })),
      context: { functionVersion: chosen.version, logGroupName: `/aws/lambda/${name}` },
      signal,
    });
    return resultOf(outcome, body, mapping.settings.reportBatchItemFailures);
  }
}

/** A record where a pattern's fields begin. A body that is JSON is seen as what it says. */
function asEvent(record: Record<string, unknown>): CloudEvent {
  let body = record["body"];
  try {
    if (typeof body === "string") body = JSON.parse(body);
  } catch {
    // It is text.
  }
  return {
    specversion: "1.0",
    id: "record",
    source: "aws:sqs",
    type: "record",
    data: { ...record, body },
  };
}

function resultOf(outcome: Outcome, body: Buffer, partial: boolean): BatchResult {
  switch (outcome.kind) {
    case "succeeded":
      return partial ? partialResult(body) : { kind: "succeeded", failedIds: [] };
    case "rejected":
      return { kind: "throttled" };
    case "failed":
    case "timedOut":
      return { kind: "failed", reason: outcome.error.message };
    default:
      return outcome satisfies never;
  }
}

/** What the function says of its batch: nothing and an empty list mean that all went well, anything that cannot be read that all of it failed. */
function partialResult(body: Buffer): BatchResult {
  const invalid: BatchResult = { kind: "failed", reason: "its batchItemFailures cannot be read" };
  try {
    const answer = JSON.parse(body.toString("utf8") || "null") as { batchItemFailures?: unknown } | null;
    const failures = answer?.batchItemFailures;
    if (failures === undefined || failures === null) return { kind: "succeeded", failedIds: [] };
    if (!Array.isArray(failures)) return invalid;
    const ids = failures.map((failure: unknown) => (failure as { itemIdentifier?: unknown } | null)?.itemIdentifier);
    return ids.every((id) => typeof id === "string" && id !== "")
      ? { kind: "succeeded", failedIds: ids as string[] }
      : invalid;
  } catch {
    return invalid;
  }
}
