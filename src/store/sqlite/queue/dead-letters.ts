import type { DatabaseSync, SQLInputValue } from "node:sqlite";
import type { Refusal } from "../../admission.ts";
import { decideAdmission } from "../../admission.ts";
import type { DeadLetter, DeadLetterHead, DeadLetterQuery, QueueBounds } from "../../store.ts";
import { bytes, integer, Statements, text, type Row } from "../database.ts";
import type { QueueTable } from "../queue.ts";
import { historyOf, toItem } from "./rows.ts";

/** What ran out of attempts and waits to be looked at. */
export class DeadLetterTable {
  readonly #queue: QueueTable;
  readonly #statements: Statements;

  constructor(database: DatabaseSync, queue: QueueTable) {
    this.#queue = queue;
    this.#statements = new Statements(database);
  }

  list(query: DeadLetterQuery): DeadLetterHead[] {
    const { lanes, prefix, code, sinceMs, beforeMs, after = "", limit } = query;
    const conditions = ["id > ?"];
    const values: SQLInputValue[] = [after];
    const where = (condition: string, ...given: readonly SQLInputValue[]): void => {
      conditions.push(condition);
      values.push(...given);
    };
    if (lanes !== undefined) where(`lane IN (${lanes.map(() => "?").join(", ")})`, ...lanes);
    if (prefix !== undefined) where("substr(lane, 1, ?) = ?", prefix.length, prefix);
    if (code !== undefined) where("code = ?", code);
    if (sinceMs !== undefined) where("atMs >= ?", sinceMs);
    if (beforeMs !== undefined) where("atMs < ?", beforeMs);
    const rows = this.#statements.all(
      `SELECT id, lane, enqueuedAtMs, attempts, reason, code, atMs FROM dead
       WHERE ${conditions.join(" AND ")} ORDER BY id LIMIT ?`,
      [...values, limit],
    );
    return rows.map(toHead);
  }

  get(id: string): DeadLetter | null {
    const row = this.#queue.statements.letter.get(id);
    return row === undefined ? null : { ...toHead(row), payload: bytes(row, "payload"), history: historyOf(row) };
  }

  replay(
    ids: readonly string[],
    { nowMs, spacingMs, bounds }: { nowMs: number; spacingMs: number; bounds: QueueBounds | null },
  ): readonly string[] | Refusal {
    const found = [...new Set(ids)].flatMap((id): Row[] => {
      const row = this.#queue.statements.letter.get(id);
      return row === undefined ? [] : [row];
    });
    const refusal = bounds === null ? null : this.#refuses(found, bounds);
    if (refusal !== null) return refusal;
    return found.map((row, index) => {
      const dueAtMs = Math.round(nowMs + index * spacingMs);
      const item = toItem(row, bytes(row, "payload"));
      const history = row["history"];
      this.#queue.insert({ ...item, dueAtMs, enqueuedAtMs: dueAtMs }, typeof history === "string" ? history : null);
      this.#remove(row);
      return item.id;
    });
  }

  purge(ids: readonly string[]): number {
    let gone = 0;
    for (const id of ids) {
      const row = this.#queue.statements.letterLane.get(id);
      if (row === undefined) continue;
      this.#remove(row);
      gone++;
    }
    return gone;
  }

  #remove(row: Row): void {
    this.#queue.statements.unbury.run(integer(row, "row"));
    this.#queue.lanes.addDead(text(row, "lane"), -1);
  }

  /** A replay makes room among the dead letters, so their number does not stop it; nor does the age of what waits. */
  #refuses(rows: readonly Row[], bounds: QueueBounds): Refusal | null {
    const { lanes } = this.#queue;
    for (const [lane, own] of Map.groupBy(rows, (row) => text(row, "lane"))) {
      const laneLength = lanes.find(lane)?.length ?? 0;
      const filling = { lane, laneLength, length: lanes.length, laneDead: 0, keys: 0, addedKeys: 0 };
      const added = { addedToLane: own.length, added: rows.length };
      const refusal = decideAdmission({ ...filling, ...added }, bounds, () => null);
      if (refusal !== null) return refusal;
    }
    return null;
  }
}

function toHead(row: Row): DeadLetterHead {
  return {
    id: text(row, "id"),
    lane: text(row, "lane"),
    enqueuedAtMs: integer(row, "enqueuedAtMs"),
    attempts: integer(row, "attempts"),
    reason: text(row, "reason"),
    code: text(row, "code"),
    atMs: integer(row, "atMs"),
  };
}
