import type { DatabaseSync } from "node:sqlite";
import { KoineError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import type { DeadLetter, Lease, QueueItem, QueueState, Receipt, Settlement } from "../store.ts";
import type { Counters } from "./counters.ts";
import { bytes, integer, Statements, text, type Row } from "./database.ts";

/** `readyAtMs` is when an item may be claimed: its due time, or the end of its claim. Payloads lie apart, so that a claim does not rewrite them. */
export const queueSchema = `
  CREATE TABLE items (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, lane TEXT NOT NULL, enqueuedAtMs INTEGER NOT NULL,
    dueAtMs INTEGER NOT NULL, readyAtMs INTEGER NOT NULL, attempts INTEGER NOT NULL, epoch INTEGER);
  CREATE INDEX items_by_lane ON items (lane, readyAtMs);
  CREATE INDEX items_by_time ON items (readyAtMs);
  CREATE TABLE payloads (row INTEGER PRIMARY KEY, payload BLOB NOT NULL);
  CREATE TABLE dead (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, lane TEXT NOT NULL, enqueuedAtMs INTEGER NOT NULL,
    dueAtMs INTEGER NOT NULL, attempts INTEGER NOT NULL, reason TEXT NOT NULL, atMs INTEGER NOT NULL,
    payload BLOB NOT NULL);
  CREATE INDEX dead_by_lane ON dead (lane, id)`;

export class QueueTable {
  readonly #statements: Statements;
  readonly #prepared: ReturnType<typeof prepare>;
  readonly #counters: Counters;
  /** A time before which a lane has nothing to claim, so that claiming need not look at lanes that sleep. */
  readonly #lanes = new Map<string, number>();
  /** Ends of the claims by row. */
  readonly #claims = new Map<number, number>();
  #items = 0;
  #dead = 0;

  constructor(database: DatabaseSync, counters: Counters) {
    this.#statements = new Statements(database);
    this.#prepared = prepare(database);
    this.#counters = counters;
    // Nobody else can hold a claim on a file that only this process can open: what was claimed when the last one ended is due again.
    database.exec("UPDATE items SET epoch = NULL, readyAtMs = dueAtMs WHERE epoch IS NOT NULL");
    this.reload();
  }

  /** After a rollback, and at first: reads from the tables what is kept in memory beside them. */
  reload(): void {
    this.#lanes.clear();
    this.#claims.clear();
    for (const row of this.#prepared.lanes.iterate()) this.#lanes.set(text(row, "lane"), integer(row, "readyAtMs"));
    for (const row of this.#prepared.claims.iterate()) this.#claims.set(integer(row, "row"), integer(row, "readyAtMs"));
    this.#items = integer(this.#prepared.count.get(), "count");
    this.#dead = integer(this.#prepared.countDead.get(), "count");
  }

  enqueue(items: readonly QueueItem[]): void {
    for (const { id, lane, enqueuedAtMs, dueAtMs, payload } of items) {
      const inserted = this.#prepared.insert.run(id, lane, enqueuedAtMs, dueAtMs, dueAtMs);
      if (inserted.changes === 0) continue;
      this.#prepared.insertPayload.run(inserted.lastInsertRowid, payload);
      this.#items++;
      this.#wakes(lane, dueAtMs);
    }
  }

  lease(limit: number, nowMs: number, leaseMs: number, laneRoom: Readonly<Record<string, number>>): Lease[] {
    const untilMs = nowMs + leaseMs;
    const leases = this.#due(limit, nowMs, laneRoom).map((row) => {
      const epoch = this.#counters.next("epoch");
      const claimed = this.#prepared.claim.get(untilMs, epoch, row);
      this.#claims.set(row, untilMs);
      const item = toItem(claimed, bytes(this.#prepared.payload.get(row), "payload"));
      return { item, receipt: { id: item.id, epoch }, attempt: integer(claimed, "attempts") };
    });
    for (const lane of new Set(leases.map(({ item }) => item.lane))) this.#look(lane);
    return leases;
  }

  extend(receipt: Receipt, untilMs: number): boolean {
    const held = this.#prepared.extend.get(untilMs, receipt.id, receipt.epoch);
    if (held === undefined) return false;
    this.#claims.set(integer(held, "row"), untilMs);
    this.#wakes(text(held, "lane"), untilMs);
    return true;
  }

  settle(receipt: Receipt, settlement: Settlement): boolean {
    const held = this.#prepared.held.get(receipt.id, receipt.epoch);
    if (held === undefined) return false;
    const row = integer(held, "row");
    this.#claims.delete(row);
    switch (settlement.kind) {
      case "done":
        this.#remove(row);
        return true;
      case "retry":
        this.#again(held, { dueAtMs: settlement.dueAtMs, attempts: integer(held, "attempts") });
        return true;
      case "release":
        this.#again(held, {
          dueAtMs: settlement.dueAtMs ?? integer(held, "dueAtMs"),
          attempts: integer(held, "attempts") - 1,
        });
        return true;
      case "dead":
        this.#bury(row, settlement);
        return true;
      default:
        throw new KoineError("internal", { detail: `settlement ${settlement satisfies never}` });
    }
  }

  state(nowMs: number): QueueState {
    let leased = 0;
    for (const untilMs of this.#claims.values()) if (untilMs > nowMs) leased++;
    const next = this.#prepared.next.get(nowMs);
    const oldest = this.#prepared.oldest.get();
    return {
      waiting: this.#items - leased,
      leased,
      dead: this.#dead,
      nextDueAtMs: next === undefined ? null : integer(next, "readyAtMs"),
      oldestEnqueuedAtMs: oldest === undefined ? null : integer(oldest, "enqueuedAtMs"),
    };
  }

  deadLetters(lane: string | null, after: string | null, limit: number): DeadLetter[] {
    const rows = this.#statements.all(
      `SELECT * FROM dead WHERE id > ? ${lane === null ? "" : "AND lane = ?"} ORDER BY id LIMIT ?`,
      [after ?? "", ...(lane === null ? [] : [lane]), limit],
    );
    return rows.map((row) => ({
      item: toItem(row, bytes(row, "payload")),
      attempts: integer(row, "attempts"),
      reason: text(row, "reason"),
      atMs: integer(row, "atMs"),
    }));
  }

  /** Rows to claim: the oldest of each lane, then the second of each, and so on. */
  #due(limit: number, nowMs: number, laneRoom: Readonly<Record<string, number>>): number[] {
    const found: { row: number; readyAtMs: number; place: number }[] = [];
    let lanes = 0;
    const awake = [...this.#lanes].filter(([, wakesAtMs]) => wakesAtMs <= nowMs).toSorted(([, a], [, b]) => a - b);
    for (const [lane] of awake) {
      // The lanes are in the order of their oldest items, so `limit` of them are enough.
      if (lanes >= limit) break;
      const room = Math.min(laneRoom[lane] ?? limit, limit - lanes);
      if (room <= 0) continue;
      const rows = this.#prepared.due.all(lane, nowMs, room);
      rows.forEach((row, place) =>
        found.push({ row: integer(row, "row"), readyAtMs: integer(row, "readyAtMs"), place }),
      );
      if (rows.length > 0) lanes++;
      else this.#look(lane);
    }
    return found
      .toSorted((a, b) => a.place - b.place || a.readyAtMs - b.readyAtMs)
      .slice(0, limit)
      .map(({ row }) => row);
  }

  #look(lane: string): void {
    const next = this.#prepared.head.get(lane);
    if (next === undefined) this.#lanes.delete(lane);
    else this.#lanes.set(lane, integer(next, "readyAtMs"));
  }

  #wakes(lane: string, atMs: number): void {
    const known = this.#lanes.get(lane);
    if (known === undefined || atMs < known) this.#lanes.set(lane, atMs);
  }

  #again(held: Row, { dueAtMs, attempts }: { readonly dueAtMs: number; readonly attempts: number }): void {
    this.#prepared.again.run(dueAtMs, dueAtMs, attempts, integer(held, "row"));
    this.#wakes(text(held, "lane"), dueAtMs);
  }

  #remove(row: number): void {
    this.#prepared.remove.run(row);
    this.#prepared.removePayload.run(row);
    this.#items--;
  }

  #bury(row: number, { reason, atMs }: { readonly reason: string; readonly atMs: number }): void {
    this.#prepared.bury.run(reason, atMs, row);
    this.#remove(row);
    this.#dead = integer(this.#prepared.countDead.get(), "count");
    if (this.#dead <= limits.deadLettersMax) return;
    this.#prepared.forgetDead.run(this.#dead - limits.deadLettersMax);
    this.#dead = limits.deadLettersMax;
  }
}

function prepare(database: DatabaseSync) {
  const columns = "id, lane, enqueuedAtMs, dueAtMs, attempts";
  return {
    lanes: database.prepare("SELECT lane, min(readyAtMs) AS readyAtMs FROM items GROUP BY lane"),
    claims: database.prepare("SELECT row, readyAtMs FROM items WHERE epoch IS NOT NULL"),
    count: database.prepare("SELECT count(*) AS count FROM items"),
    countDead: database.prepare("SELECT count(*) AS count FROM dead"),
    insert: database.prepare(
      `INSERT INTO items (id, lane, enqueuedAtMs, dueAtMs, readyAtMs, attempts) VALUES (?, ?, ?, ?, ?, 0)
       ON CONFLICT (id) DO NOTHING`,
    ),
    insertPayload: database.prepare("INSERT INTO payloads (row, payload) VALUES (?, ?)"),
    due: database.prepare(
      "SELECT row, readyAtMs FROM items WHERE lane = ? AND readyAtMs <= ? ORDER BY readyAtMs, row LIMIT ?",
    ),
    head: database.prepare("SELECT readyAtMs FROM items WHERE lane = ? ORDER BY readyAtMs LIMIT 1"),
    claim: database.prepare(
      `UPDATE items SET readyAtMs = ?, epoch = ?, attempts = attempts + 1 WHERE row = ? RETURNING ${columns}`,
    ),
    payload: database.prepare("SELECT payload FROM payloads WHERE row = ?"),
    extend: database.prepare("UPDATE items SET readyAtMs = ? WHERE id = ? AND epoch = ? RETURNING row, lane"),
    held: database.prepare("SELECT row, lane, dueAtMs, attempts FROM items WHERE id = ? AND epoch = ?"),
    again: database.prepare("UPDATE items SET dueAtMs = ?, readyAtMs = ?, attempts = ?, epoch = NULL WHERE row = ?"),
    remove: database.prepare("DELETE FROM items WHERE row = ?"),
    removePayload: database.prepare("DELETE FROM payloads WHERE row = ?"),
    bury: database.prepare(
      `INSERT OR REPLACE INTO dead (${columns}, reason, atMs, payload)
       SELECT ${columns}, ?, ?, payload FROM items JOIN payloads USING (row) WHERE row = ?`,
    ),
    forgetDead: database.prepare("DELETE FROM dead WHERE row IN (SELECT row FROM dead ORDER BY row LIMIT ?)"),
    next: database.prepare("SELECT readyAtMs FROM items WHERE readyAtMs > ? ORDER BY readyAtMs LIMIT 1"),
    oldest: database.prepare("SELECT enqueuedAtMs FROM items ORDER BY row LIMIT 1"),
  };
}

function toItem(row: Row | undefined, payload: Uint8Array): QueueItem {
  return {
    id: text(row, "id"),
    lane: text(row, "lane"),
    payload,
    dueAtMs: integer(row, "dueAtMs"),
    enqueuedAtMs: integer(row, "enqueuedAtMs"),
  };
}
