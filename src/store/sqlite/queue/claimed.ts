import type { QueuePriority } from "../../store.ts";
import { integer, text, type Row } from "../database.ts";

/** A claim and what it is of: kept in memory, so that its end reads nothing. */
export interface Claimed {
  readonly row: number;
  readonly epoch: number;
  untilMs: number;
  readonly lane: string;
  readonly dueAtMs: number;
  /** With this one. */
  readonly attempts: number;
  readonly priority: QueuePriority;
  readonly orderingKey: string | null;
  readonly hasFailed: boolean;
}

export function toClaimed(row: Row | undefined, claim: Pick<Claimed, "epoch" | "untilMs">): Claimed {
  return {
    row: integer(row, "row"),
    epoch: claim.epoch,
    untilMs: claim.untilMs,
    lane: text(row, "lane"),
    dueAtMs: integer(row, "dueAtMs"),
    attempts: integer(row, "attempts"),
    priority: priorityOf(row),
    orderingKey: keyOf(row),
    hasFailed: row?.["hasFailed"] === 1,
  };
}

export function keyOf(row: Row | undefined): string | null {
  const key = row?.["orderingKey"];
  return typeof key === "string" ? key : null;
}

export function priorityOf(row: Row | undefined): QueuePriority {
  const priority = integer(row, "priority");
  return priority === 0 || priority === 2 ? priority : 1;
}
