import type { DatabaseSync } from "node:sqlite";
import type { Accepted } from "../../core/enqueue.ts";
import { KoineError } from "../../core/errors.ts";
import type { Attempt } from "../../core/invocation.ts";
import { limits } from "../../core/limits.ts";
import { decideAdmission, type Refusal } from "../admission.ts";
import type {
  Lease,
  NewQueueItem,
  QueueBounds,
  QueuedItem,
  QueueItem,
  QueueState,
  LaneState,
  Receipt,
  Settlement,
} from "../store.ts";
import type { Counters } from "./counters.ts";
import { bytes, integer, text, type Writes } from "./database.ts";
import { type Claimed, keyOf, priorityOf, toClaimed } from "./queue/claimed.ts";
import { appended, historyOf, toItem } from "./queue/rows.ts";
import { QUEUE_PRIORITIES, LaneTable, type Lane } from "./queue/lanes.ts";
import { BLOCKED_MS, prepareQueue, type QueueStatements } from "./queue/statements.ts";

/** How long what was found out of a lane's age is believed, in milliseconds. */
const AGE_BELIEVED_MS = 1_000;

/** What leaves the table. */
type Leaving = Pick<Claimed, "row" | "lane" | "orderingKey">;

/** The work that nobody has finished. */
export class QueueTable {
  readonly statements: QueueStatements;
  readonly lanes = new LaneTable();
  readonly #counters: Counters;
  /** By id. */
  readonly #claims = new Map<string, Claimed>();
  #keys = 0;
  #bounds: Omit<QueueBounds, "nowMs"> | null = null;

  constructor(database: DatabaseSync, writes: Writes, counters: Counters) {
    this.statements = prepareQueue(database, writes);
    this.#counters = counters;
    // Nobody else can hold a claim on a file that only this process can open: what was claimed when the last one ended is due again.
    database.exec("UPDATE items SET epoch = NULL, readyAtMs = dueAtMs WHERE epoch IS NOT NULL");
    this.reload();
  }

  /** After a rollback, and at first: reads from the tables what is kept in memory beside them. */
  reload(): void {
    const { lanes, claims, deadLanes, countKeys } = this.statements;
    this.lanes.clear();
    this.#claims.clear();
    for (const row of lanes.iterate()) {
      this.lanes.add(text(row, "lane"), integer(row, "count"));
      this.lanes.wakes(text(row, "lane"), priorityOf(row), integer(row, "readyAtMs"));
    }
    for (const row of deadLanes.iterate()) this.lanes.addDead(text(row, "lane"), integer(row, "count"));
    for (const row of claims.iterate())
      this.#claimed(
        text(row, "id"),
        toClaimed(row, { epoch: integer(row, "epoch"), untilMs: integer(row, "readyAtMs") }),
      );
    this.#keys = integer(countKeys.get(), "count");
  }

  /** What bounds later calls of `enqueue` that bring a time; they come with each, and are seldom others. */
  setBounds(bounds: Omit<QueueBounds, "nowMs">): void {
    this.#bounds = bounds;
  }

  /**
   * Bounds, which hold where there is a time, are checked before anything is written.
   * @returns null when all were accepted and none is a duplicate: an answer costs more than most of what leads to it
   */
  enqueue(items: readonly NewQueueItem[], nowMs: number | null): readonly Accepted[] | Refusal | null {
    const bounds = nowMs === null || this.#bounds === null ? null : { ...this.#bounds, nowMs };
    const keyed = items.some(({ idempotency }) => idempotency !== undefined);
    const keysMs = nowMs ?? items[0]?.enqueuedAtMs ?? 0;
    if (keyed) this.#expireKeys(keysMs);
    const earlier = keyed ? this.#duplicates(items, keysMs) : null;
    const refusal = bounds === null ? null : this.#refuses(items, earlier, bounds);
    if (refusal !== null) return refusal;
    let duplicates = false;
    const accepted = items.map((item, index): Accepted => {
      const activationId = earlier?.get(index) ?? item.id;
      const isNew = activationId === item.id && this.insert(item, null);
      if (!isNew) duplicates = true;
      else if (item.idempotency !== undefined) this.#keepKey(item, item.idempotency);
      return { activationId, duplicate: !isNew };
    });
    return duplicates ? accepted : null;
  }

  /** False when the id is there already. */
  insert(item: QueueItem, history: string | null): boolean {
    const { id, lane, enqueuedAtMs, dueAtMs, payload, priority = 1, orderingKey = null } = item;
    const { insert, insertPayload, firstOfKey } = this.statements;
    const waits = orderingKey !== null && firstOfKey.get(lane, orderingKey) !== undefined;
    const readyAtMs = waits ? BLOCKED_MS : dueAtMs;
    const inserted = insert.run(id, lane, enqueuedAtMs, dueAtMs, readyAtMs, priority, orderingKey, history);
    if (inserted.changes === 0) return false;
    insertPayload.run(inserted.lastInsertRowid, payload);
    this.lanes.added(lane, priority, readyAtMs);
    return true;
  }

  lease(request: {
    readonly limit: number;
    readonly nowMs: number;
    readonly leaseMs: number;
    readonly laneRoom: Readonly<Record<string, number>>;
    readonly roomPerLane: number | null;
  }): Lease[] {
    const { limit, nowMs, leaseMs, laneRoom, roomPerLane } = request;
    const untilMs = nowMs + leaseMs;
    const roomOf = (lane: string): number => laneRoom[lane] ?? roomPerLane ?? limit;
    const due = this.#due(limit, nowMs, roomOf);
    if (due.length === 0) return [];
    const epoch = this.#counters.next("epoch");
    const rows = JSON.stringify(due);
    this.statements.claim.run(untilMs, epoch, rows);
    const found = new Map(this.statements.claimed.all(rows).map((row) => [integer(row, "row"), row]));
    const leases = due.map((number): Lease => {
      const row = found.get(number);
      const item = toItem(row, bytes(row, "payload"));
      const claimed = toClaimed(row, { epoch, untilMs });
      this.#claimed(item.id, claimed);
      const lease = { item, receipt: { id: item.id, epoch }, attempt: claimed.attempts };
      return claimed.hasFailed ? { ...lease, hasFailed: true } : lease;
    });
    for (const lane of new Set(leases.map(({ item }) => item.lane))) this.#look(lane, nowMs);
    return leases;
  }

  extend(receipt: Receipt, untilMs: number): boolean {
    const held = this.#held(receipt);
    if (held === null) return false;
    this.statements.extend.run(untilMs, held.row);
    held.untilMs = untilMs;
    this.lanes.wakes(held.lane, held.priority, untilMs);
    return true;
  }

  settle(receipt: Receipt, settlement: Settlement): boolean {
    const held = this.#held(receipt);
    if (held === null) return false;
    this.#released(receipt.id);
    switch (settlement.kind) {
      case "done":
        this.#keepHistory(receipt.id, held, settlement.attempt);
        this.#remove(held);
        for (const item of settlement.followUps ?? []) this.insert(item, null);
        return true;
      case "retry":
        if (settlement.payload !== undefined) this.statements.replacePayload.run(settlement.payload, held.row);
        this.#again(held, settlement.dueAtMs, held.attempts, settlement.attempt);
        return true;
      case "release":
        this.#again(held, settlement.dueAtMs ?? held.dueAtMs, held.attempts - 1);
        return true;
      case "dead":
        this.#bury(held, settlement);
        for (const item of settlement.followUps ?? []) this.insert(item, null);
        return true;
      default:
        throw new KoineError("internal", { detail: `settlement ${settlement satisfies never}` });
    }
  }

  cancel(id: string, nowMs: number): "cancelled" | "leased" | "absent" {
    const found = this.statements.find.get(id);
    if (found === undefined) return "absent";
    if (found["epoch"] !== null && integer(found, "readyAtMs") > nowMs) return "leased";
    this.#released(id);
    this.#remove({ row: integer(found, "row"), lane: text(found, "lane"), orderingKey: keyOf(found) });
    return "cancelled";
  }

  find(id: string, nowMs: number): QueuedItem | null {
    const found = this.statements.find.get(id);
    if (found === undefined) return null;
    return {
      item: toItem(found, bytes(this.statements.payload.get(integer(found, "row")), "payload")),
      leased: found["epoch"] !== null && integer(found, "readyAtMs") > nowMs,
      attempts: integer(found, "attempts"),
      history: historyOf(found),
    };
  }

  attempts(id: string): readonly Attempt[] {
    const found = this.statements.history.get(id);
    return found === undefined ? [] : historyOf(found);
  }

  state(nowMs: number): QueueState {
    let leased = 0;
    for (const { untilMs } of this.#claims.values()) if (untilMs > nowMs) leased++;
    const oldest = this.statements.oldest.get();
    return {
      waiting: this.lanes.length - leased,
      leased,
      dead: this.lanes.dead,
      nextDueAtMs: this.#nextDueAtMs(nowMs),
      oldestEnqueuedAtMs: oldest === undefined ? null : integer(oldest, "enqueuedAtMs"),
    };
  }

  laneStates(limit: number): LaneState[] {
    return this.lanes.longest(limit).map((lane) => ({
      lane: lane.name,
      length: lane.length,
      dead: lane.dead,
      oldestEnqueuedAtMs: this.#oldest(lane.name),
    }));
  }

  #refuses(items: readonly NewQueueItem[], earlier: ReadonlyMap<number, string> | null, bounds: QueueBounds) {
    const added = earlier === null ? items : items.filter((_, index) => !earlier.has(index));
    const byLane = new Map<string, number>();
    for (const { lane } of added) byLane.set(lane, (byLane.get(lane) ?? 0) + 1);
    const addedKeys = earlier === null ? 0 : added.filter(({ idempotency }) => idempotency !== undefined).length;
    for (const [lane, addedToLane] of byLane) {
      const known = this.lanes.find(lane);
      const filling = {
        lane,
        laneLength: known?.length ?? 0,
        length: this.lanes.length,
        laneDead: known?.dead ?? 0,
        keys: this.#keys,
        addedToLane,
        added: added.length,
        addedKeys,
      };
      const refusal = decideAdmission(filling, bounds, () => this.#believedAge(known, bounds.nowMs));
      if (refusal !== null) return refusal;
    }
    return null;
  }

  /** Activation ids of items that were accepted before, by their place. */
  #duplicates(items: readonly NewQueueItem[], nowMs: number): ReadonlyMap<number, string> {
    const found = new Map<number, string>();
    const here = new Map<string, string>();
    for (const [index, { id, lane, idempotency }] of items.entries()) {
      if (idempotency === undefined) continue;
      const name = `${lane}\n${idempotency.key}`;
      const stored = this.statements.key.get(lane, idempotency.key, nowMs);
      const earlier = stored === undefined ? here.get(name) : text(stored, "id");
      if (earlier === undefined) here.set(name, id);
      else found.set(index, earlier);
    }
    return found;
  }

  #keepKey({ id, lane }: NewQueueItem, { key, untilMs }: NonNullable<NewQueueItem["idempotency"]>): void {
    this.statements.keepKey.run(lane, key, id, untilMs);
    this.#keys++;
  }

  #expireKeys(nowMs: number): void {
    const { changes } = this.statements.expireKeys.run(nowMs);
    this.#keys -= Number(changes);
  }

  #believedAge(lane: Lane | undefined, nowMs: number): number | null {
    if (lane === undefined) return null;
    if (lane.oldest === null || nowMs - lane.oldest.atMs >= AGE_BELIEVED_MS)
      lane.oldest = { atMs: nowMs, enqueuedAtMs: this.#oldest(lane.name) };
    return lane.oldest.enqueuedAtMs;
  }

  /** The earliest time after now at which something falls due; null: there is none. */
  #nextDueAtMs(nowMs: number): number | null {
    let earliest = BLOCKED_MS;
    for (const { lane, priority, atMs } of this.lanes.wakings()) {
      // In their order: what cannot come before what was found need not be looked at.
      if (atMs >= earliest) break;
      const next = this.statements.head.get(lane.name, priority, nowMs);
      const readyAtMs = next === undefined ? Infinity : integer(next, "readyAtMs");
      if (atMs > nowMs) lane.wakesAtMs[priority] = readyAtMs;
      earliest = Math.min(earliest, readyAtMs);
    }
    return earliest === BLOCKED_MS ? null : earliest;
  }

  /** Of what is next to be claimed, among which is nearly always what has waited the longest. */
  #oldest(lane: string): number | null {
    const ages = QUEUE_PRIORITIES.flatMap((priority) => {
      const found = this.statements.ages.get(lane, priority)?.["oldest"];
      return typeof found === "number" ? [found] : [];
    });
    return ages.length === 0 ? null : Math.min(...ages);
  }

  /** Rows to claim: from the lane with the fewest claims, then from the one that has the fewest with that, and so on. */
  #due(limit: number, nowMs: number, roomOf: (lane: string) => number): number[] {
    const found: { row: number; place: number; turn: number }[] = [];
    let turn = 0;
    for (const lane of this.lanes.awake(nowMs)) {
      // The lanes are in the order of their turns, so `limit` of them are enough.
      if (turn >= limit) break;
      const room = Math.min(roomOf(lane.name), limit);
      if (room <= 0) continue;
      const rows = this.#dueOf(lane, nowMs, room);
      for (const [index, row] of rows.entries()) found.push({ row, place: lane.leased + index, turn });
      if (rows.length > 0) turn++;
      else this.#look(lane.name, nowMs);
    }
    return found
      .toSorted((a, b) => a.place - b.place || a.turn - b.turn)
      .slice(0, limit)
      .map(({ row }) => row);
  }

  #dueOf(lane: Lane, nowMs: number, room: number): number[] {
    const awake = QUEUE_PRIORITIES.filter((priority) => lane.wakesAtMs[priority] <= nowMs);
    const found = awake.flatMap((priority) =>
      this.statements.due.all(lane.name, priority, nowMs, room).map((row) => ({
        row: integer(row, "row"),
        rankMs: integer(row, "readyAtMs") + priority * limits.priorityAgeMs,
      })),
    );
    if (awake.length > 1) found.sort((a, b) => a.rankMs - b.rankMs);
    return found.slice(0, room).map(({ row }) => row);
  }

  /** Finds out anew when a lane has something to claim, as far as it was believed to have something now. */
  #look(name: string, nowMs: number): void {
    const lane = this.lanes.find(name);
    if (lane === undefined) return;
    for (const priority of QUEUE_PRIORITIES) {
      if (lane.wakesAtMs[priority] > nowMs) continue;
      const next = this.statements.head.get(name, priority, Number.MIN_SAFE_INTEGER);
      lane.wakesAtMs[priority] = next === undefined ? Infinity : integer(next, "readyAtMs");
    }
  }

  #held({ id, epoch }: Receipt): Claimed | null {
    const claim = this.#claims.get(id);
    return claim?.epoch === epoch ? claim : null;
  }

  #claimed(id: string, claimed: Claimed): void {
    if (!this.#claims.has(id)) this.lanes.leased(claimed.lane, 1);
    this.#claims.set(id, claimed);
  }

  #released(id: string): void {
    const claim = this.#claims.get(id);
    if (claim === undefined) return;
    this.#claims.delete(id);
    this.lanes.leased(claim.lane, -1);
  }

  // oxlint-disable-next-line max-params -- a row and what changes of it
  #again(held: Claimed, dueAtMs: number, attempts: number, attempt?: Attempt): void {
    this.statements.again.run(dueAtMs, dueAtMs, attempts, this.#historyWith(held, attempt), held.row);
    this.lanes.wakes(held.lane, held.priority, dueAtMs);
  }

  /** The history of an item, with one more attempt if there is one, as it is stored. */
  #historyWith({ row, hasFailed }: Claimed, attempt: Attempt | undefined): string | null {
    const before = hasFailed ? this.statements.historyOf.get(row) : undefined;
    if (attempt !== undefined) return appended(before, attempt);
    return before === undefined ? null : text(before, "history");
  }

  /** Removes an item; what waited for it by its ordering key is next. */
  #remove({ row, lane, orderingKey }: Leaving): void {
    this.statements.remove.run(row);
    this.statements.removePayload.run(row);
    this.lanes.remove(lane);
    if (orderingKey === null) return;
    const next = this.statements.firstOfKey.get(lane, orderingKey);
    if (next === undefined) return;
    this.statements.ready.run(integer(next, "dueAtMs"), integer(next, "row"));
    this.lanes.wakes(lane, priorityOf(next), integer(next, "dueAtMs"));
  }

  #bury(held: Claimed, { reason, code = "", atMs, attempt, payload }: Extract<Settlement, { kind: "dead" }>): void {
    if (payload !== undefined) this.statements.replacePayload.run(payload, held.row);
    this.statements.bury.run(reason, code, atMs, this.#historyWith(held, attempt), held.row);
    this.#remove(held);
    this.lanes.addDead(held.lane, 1);
  }

  #keepHistory(id: string, held: Claimed, attempt: Attempt | undefined): void {
    if (!held.hasFailed || attempt === undefined) return;
    this.statements.keepHistory.run(id, attempt.endedAtMs, this.#historyWith(held, attempt));
    this.statements.expireHistories.run(attempt.endedAtMs - limits.activationRetentionMs);
  }
}
