import type { DatabaseSync } from "node:sqlite";
import type { Writes } from "../database.ts";

/** When an item may be claimed that waits for another of its ordering key: never, until that one has gone. */
export const BLOCKED_MS = 9_000_000_000_000_000;

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

/** Priorities, ordering and idempotency keys, and the attempts that were made. `histories` are those of items that ended well after they had failed. */
export const queueSchema2 = `
  ALTER TABLE items ADD COLUMN priority INTEGER NOT NULL DEFAULT 1;
  ALTER TABLE items ADD COLUMN orderingKey TEXT;
  ALTER TABLE items ADD COLUMN history TEXT;
  DROP INDEX items_by_lane;
  CREATE INDEX items_by_lane ON items (lane, priority, readyAtMs);
  CREATE INDEX items_by_key ON items (lane, orderingKey, row) WHERE orderingKey IS NOT NULL;
  ALTER TABLE dead ADD COLUMN priority INTEGER NOT NULL DEFAULT 1;
  ALTER TABLE dead ADD COLUMN orderingKey TEXT;
  ALTER TABLE dead ADD COLUMN history TEXT;
  ALTER TABLE dead ADD COLUMN code TEXT NOT NULL DEFAULT '';
  CREATE TABLE idempotency (
    lane TEXT NOT NULL, key TEXT NOT NULL, id TEXT NOT NULL, untilMs INTEGER NOT NULL,
    PRIMARY KEY (lane, key)) WITHOUT ROWID;
  CREATE INDEX idempotency_by_time ON idempotency (untilMs);
  CREATE TABLE histories (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, atMs INTEGER NOT NULL, history TEXT NOT NULL)`;

/** When the next item falls due is found by lane: an index by time would be written with each claim. */
export const queueSchema3 = "DROP INDEX items_by_time";

const ROWS = "row IN (SELECT value FROM json_each(?))";
const KEPT = "id, lane, enqueuedAtMs, dueAtMs, attempts, priority, orderingKey";

export type QueueStatements = ReturnType<typeof prepareQueue>;

export function prepareQueue(database: DatabaseSync, writes: Writes) {
  return {
    lanes: database.prepare(
      "SELECT lane, priority, min(readyAtMs) AS readyAtMs, count(*) AS count FROM items GROUP BY lane, priority",
    ),
    claims: database.prepare(
      `SELECT row, id, lane, epoch, dueAtMs, readyAtMs, attempts, priority, orderingKey, history IS NOT NULL AS hasFailed
       FROM items WHERE epoch IS NOT NULL`,
    ),
    deadLanes: database.prepare("SELECT lane, count(*) AS count FROM dead GROUP BY lane"),
    insert: writes.prepare(
      `INSERT INTO items (id, lane, enqueuedAtMs, dueAtMs, readyAtMs, attempts, priority, orderingKey, history)
       VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
    ),
    insertPayload: writes.prepare("INSERT INTO payloads (row, payload) VALUES (?, ?)"),
    due: database.prepare(
      "SELECT row, readyAtMs FROM items WHERE lane = ? AND priority = ? AND readyAtMs <= ? ORDER BY readyAtMs, row LIMIT ?",
    ),
    head: database.prepare(
      "SELECT readyAtMs FROM items WHERE lane = ? AND priority = ? AND readyAtMs > ? ORDER BY readyAtMs LIMIT 1",
    ),
    ages: database.prepare(
      `SELECT min(enqueuedAtMs) AS oldest FROM
       (SELECT enqueuedAtMs, attempts FROM items WHERE lane = ? AND priority = ? AND readyAtMs < ${BLOCKED_MS}
        ORDER BY readyAtMs LIMIT 64) WHERE attempts = 0`,
    ),
    claim: writes.prepare(`UPDATE items SET readyAtMs = ?, epoch = ?, attempts = attempts + 1 WHERE ${ROWS}`),
    claimed: database.prepare(
      `SELECT row, id, lane, enqueuedAtMs, dueAtMs, attempts, priority, orderingKey, history IS NOT NULL AS hasFailed, payload
       FROM items JOIN payloads USING (row) WHERE ${ROWS}`,
    ),
    payload: database.prepare("SELECT payload FROM payloads WHERE row = ?"),
    replacePayload: writes.prepare("UPDATE payloads SET payload = ? WHERE row = ?"),
    extend: writes.prepare("UPDATE items SET readyAtMs = ? WHERE row = ?"),
    historyOf: database.prepare("SELECT history FROM items WHERE row = ?"),
    find: database.prepare("SELECT * FROM items WHERE id = ?"),
    again: writes.prepare(
      "UPDATE items SET dueAtMs = ?, readyAtMs = ?, attempts = ?, history = ?, epoch = NULL WHERE row = ?",
    ),
    remove: writes.prepare("DELETE FROM items WHERE row = ?"),
    removePayload: writes.prepare("DELETE FROM payloads WHERE row = ?"),
    firstOfKey: database.prepare(
      "SELECT row, dueAtMs, priority FROM items WHERE lane = ? AND orderingKey = ? ORDER BY row LIMIT 1",
    ),
    ready: writes.prepare("UPDATE items SET readyAtMs = ? WHERE row = ?"),
    bury: writes.prepare(
      `INSERT INTO dead (${KEPT}, reason, code, atMs, history, payload)
       SELECT ${KEPT}, ?, ?, ?, ?, payload FROM items JOIN payloads USING (row) WHERE row = ?`,
    ),
    letter: database.prepare("SELECT * FROM dead WHERE id = ?"),
    letterLane: database.prepare("SELECT row, lane FROM dead WHERE id = ?"),
    unbury: writes.prepare("DELETE FROM dead WHERE row = ?"),
    oldest: database.prepare("SELECT enqueuedAtMs FROM items ORDER BY row LIMIT 1"),
    key: database.prepare("SELECT id FROM idempotency WHERE lane = ? AND key = ? AND untilMs > ?"),
    keepKey: writes.prepare("INSERT OR REPLACE INTO idempotency (lane, key, id, untilMs) VALUES (?, ?, ?, ?)"),
    expireKeys: writes.prepare(
      `DELETE FROM idempotency WHERE (lane, key) IN
       (SELECT lane, key FROM idempotency WHERE untilMs <= ? ORDER BY untilMs LIMIT 64)`,
    ),
    countKeys: database.prepare("SELECT count(*) AS count FROM idempotency"),
    keepHistory: writes.prepare("INSERT OR REPLACE INTO histories (id, atMs, history) VALUES (?, ?, ?)"),
    expireHistories: writes.prepare(
      "DELETE FROM histories WHERE row IN (SELECT row FROM histories WHERE atMs < ? ORDER BY row LIMIT 8)",
    ),
    history: database.prepare("SELECT history FROM histories WHERE id = ?"),
  };
}
