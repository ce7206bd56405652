import type { DatabaseSync } from "node:sqlite";
import type {
  Receipt,
  NewQueueItem,
  QueueBounds,
  Settlement,
  ActivationQuery,
  DeadLetterQuery,
  LogQuery,
} from "../store.ts";
import type { PackedActivations } from "./activation-rows.ts";
import { blockSchema } from "./blocks.ts";
import { Counters } from "./counters.ts";
import type { Durability, Writes } from "./database.ts";
import { LogTable, logSchema, type StoredResult } from "./log.ts";
import { QueueTable } from "./queue.ts";
import { DeadLetterTable } from "./queue/dead-letters.ts";
import { queueSchema, queueSchema2, queueSchema3 } from "./queue/statements.ts";
import { redoSchema } from "./redo/transactions.ts";
import { retentionOperations } from "./retention.ts";
import { valuesOperations, valuesSchema } from "./values.ts";

/** One of the store's database files: how it is made, and what can be done with it. */
export interface Format {
  readonly fileName: string;
  /** From one format version to the next; never changed once released, only appended to. */
  readonly steps: readonly string[];
  /** Whether changes are recorded beside the file and come into it later, many at a time; for what somebody waits for. */
  readonly redo: boolean;
  open(database: DatabaseSync, writes: Writes): OpenFile;
}

export interface OpenFile {
  readonly operations: Operations;
  /** Operations that write nothing, and so can be done on a full disk. */
  readonly reads: ReadonlySet<string>;
  /** How durable a transaction must be that holds these operations. */
  durabilityOf(operation: string): Durability;
  beforeCommit(): void;
  afterRollback(): void;
}

export type Operations = Readonly<Record<string, (...args: never[]) => unknown>>;

export type FormatName = "durable" | "journal";
export type DurableOperations = ReturnType<typeof openDurable>["operations"];
export type JournalOperations = ReturnType<typeof openJournal>["operations"];

/** Two files, so that the volume of activations and log lines never delays what somebody waits for. */
export const formats: Readonly<Record<FormatName, Format>> = {
  durable: {
    fileName: "koine.db",
    steps: [[Counters.schema, valuesSchema, queueSchema].join(";"), queueSchema2, [redoSchema, queueSchema3].join(";")],
    redo: true,
    open: openDurable,
  },
  journal: {
    fileName: "journal.db",
    steps: [[Counters.schema, logSchema].join(";"), blockSchema],
    redo: false,
    open: openJournal,
  },
};

function openDurable(database: DatabaseSync, writes: Writes) {
  const counters = new Counters(database, writes);
  const queue = new QueueTable(database, writes, counters);
  const letters = new DeadLetterTable(database, queue);
  return {
    operations: {
      ...valuesOperations(database, writes, counters),
      setQueueBounds: (bounds: Omit<QueueBounds, "nowMs">) => queue.setBounds(bounds),
      enqueue: (items: readonly NewQueueItem[], nowMs: number | null = null) => queue.enqueue(items, nowMs),
      lease: (request: Parameters<QueueTable["lease"]>[0]) => queue.lease(request),
      extend: (receipt: Receipt, untilMs: number) => queue.extend(receipt, untilMs),
      settle: (receipt: Receipt, settlement: Settlement) => queue.settle(receipt, settlement),
      cancel: (id: string, nowMs: number) => queue.cancel(id, nowMs),
      queueFind: (id: string, nowMs: number) => queue.find(id, nowMs),
      queueAttempts: (id: string) => queue.attempts(id),
      queueState: (nowMs: number) => queue.state(nowMs),
      queueLanes: (limit: number) => queue.laneStates(limit),
      deadLetters: (query: DeadLetterQuery) => letters.list(query),
      deadLetter: (id: string) => letters.get(id),
      replay: (ids: readonly string[], request: Parameters<DeadLetterTable["replay"]>[1]) =>
        letters.replay(ids, request),
      purge: (ids: readonly string[]) => letters.purge(ids),
    },
    reads: new Set([
      "valueGet",
      "valueList",
      "setQueueBounds",
      "queueFind",
      "queueAttempts",
      "queueState",
      "queueLanes",
      "deadLetters",
      "deadLetter",
    ]),
    durabilityOf: () => "full" as const,
    beforeCommit: () => counters.beforeCommit(),
    afterRollback: () => {
      counters.reload();
      queue.reload();
    },
  };
}

function openJournal(database: DatabaseSync) {
  const counters = new Counters(database);
  const log = new LogTable(database, counters);
  return {
    operations: {
      ...retentionOperations(database),
      append: (activations: PackedActivations | null, lines: string | null) => log.append(activations, lines),
      putResult: (id: string, atMs: number, result: StoredResult) => log.putResult(id, atMs, result),
      getResult: (id: string) => log.getResult(id),
      getActivation: (id: string) => log.getActivation(id),
      listActivations: (query: ActivationQuery) => log.listActivations(query),
      listLines: (query: LogQuery) => log.listLines(query),
    },
    reads: new Set(["getResult", "getActivation", "listActivations", "listLines"]),
    durabilityOf: (operation: string): Durability => (operation === "putResult" ? "full" : "normal"),
    beforeCommit: () => counters.beforeCommit(),
    afterRollback: () => {
      counters.reload();
      log.reload();
    },
  };
}
