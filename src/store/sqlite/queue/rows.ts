import type { Attempt } from "../../../core/invocation.ts";
import { limits } from "../../../core/limits.ts";
import type { QueueItem } from "../../store.ts";
import { integer, text, type Row } from "../database.ts";

export function toItem(row: Row | undefined, payload: Uint8Array): QueueItem {
  const priority = integer(row, "priority");
  const orderingKey = row?.["orderingKey"];
  return {
    id: text(row, "id"),
    lane: text(row, "lane"),
    payload,
    dueAtMs: integer(row, "dueAtMs"),
    enqueuedAtMs: integer(row, "enqueuedAtMs"),
    ...(priority === 0 || priority === 2 ? { priority } : {}),
    ...(typeof orderingKey === "string" ? { orderingKey } : {}),
  };
}

export function historyOf(row: Row | undefined): readonly Attempt[] {
  return row === undefined || row["history"] === null ? [] : (JSON.parse(text(row, "history")) as readonly Attempt[]);
}

/** A row's history with one more attempt, as it is stored. */
export function appended(row: Row | undefined, attempt: Attempt): string {
  return JSON.stringify([...historyOf(row), attempt].slice(-limits.attemptsKept));
}
