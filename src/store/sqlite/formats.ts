import type { DatabaseSync } from "node:sqlite";
import type { Receipt, QueueItem, Settlement, ActivationQuery, LogQuery } from "../store.ts";
import { Counters } from "./counters.ts";
import type { Durability } from "./database.ts";
import { LogTable, logSchema, type StoredResult } from "./log.ts";
import { QueueTable, queueSchema } from "./queue.ts";
import { retentionOperations } from "./retention.ts";
import { valuesOperations, valuesSchema } from "./values.ts";

/** One of the store's database files: how it is made, and what can be done with it. */
export interface Format {
  readonly fileName: string;
  /** From one format version to the next; never changed once released, only appended to. */
  readonly steps: readonly string[];
  open(database: DatabaseSync): OpenFile;
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
    steps: [[Counters.schema, valuesSchema, queueSchema].join(";")],
    open: openDurable,
  },
  journal: { fileName: "journal.db", steps: [[Counters.schema, logSchema].join(";")], open: openJournal },
};

function openDurable(database: DatabaseSync) {
  const counters = new Counters(database);
  const queue = new QueueTable(database, counters);
  return {
    operations: {
      ...valuesOperations(database, counters),
      enqueue: (items: readonly QueueItem[]) => queue.enqueue(items),
      lease: (limit: number, nowMs: number, leaseMs: number, laneRoom: Readonly<Record<string, number>>) =>
        queue.lease(limit, nowMs, leaseMs, laneRoom),
      extend: (receipt: Receipt, untilMs: number) => queue.extend(receipt, untilMs),
      settle: (receipt: Receipt, settlement: Settlement) => queue.settle(receipt, settlement),
      queueState: (nowMs: number) => queue.state(nowMs),
      deadLetters: (lane: string | null, after: string | null, limit: number) => queue.deadLetters(lane, after, limit),
    },
    reads: new Set(["valueGet", "valueList", "queueState", "deadLetters"]),
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
      append: (rows: Uint8Array | null, lines: string | null) => log.append(rows, lines),
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
