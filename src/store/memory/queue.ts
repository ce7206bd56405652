import type { Accepted } from "../../core/enqueue.ts";
import type { Attempt } from "../../core/invocation.ts";
import { limits } from "../../core/limits.ts";
import { decideAdmission, refusalError } from "../admission.ts";
import type {
  DeadLetter,
  DeadLetterHead,
  DeadLetterQuery,
  LaneState,
  Lease,
  LeaseRequest,
  NewQueueItem,
  Queue,
  QueueBounds,
  QueuedItem,
  QueueItem,
  QueueState,
  Receipt,
  Settlement,
} from "../store.ts";

interface StoredItem {
  readonly item: QueueItem;
  readonly claim: { readonly epoch: number; readonly untilMs: number } | null;
  readonly attempts: number;
  readonly history: readonly Attempt[];
}

interface StoredLetter extends DeadLetter {
  readonly item: QueueItem;
}

/** Work that is forgotten at the end: the specification of the others. */
export class MemoryQueue implements Queue {
  /** In the order in which they came. */
  readonly #items = new Map<string, StoredItem>();
  readonly #dead = new Map<string, StoredLetter>();
  readonly #keys = new Map<string, { readonly id: string; readonly untilMs: number }>();
  readonly #histories = new Map<string, readonly Attempt[]>();
  /** When a lane was last claimed from, as the epoch of that claim. */
  readonly #served = new Map<string, number>();
  #epoch = 0;

  async enqueue(items: readonly NewQueueItem[], bounds?: QueueBounds): Promise<readonly Accepted[]> {
    const nowMs = bounds?.nowMs ?? items[0]?.enqueuedAtMs ?? 0;
    for (const [key, { untilMs }] of this.#keys) if (untilMs <= nowMs) this.#keys.delete(key);
    const taken = new Map<string, string>();
    const duplicateOf = items.map(({ id, lane, idempotency }) => {
      if (idempotency === undefined) return undefined;
      const key = `${lane}\n${idempotency.key}`;
      const earlier = this.#keys.get(key)?.id ?? taken.get(key);
      if (earlier === undefined) taken.set(key, id);
      return earlier;
    });
    if (bounds !== undefined) {
      const added = items.filter((_, index) => duplicateOf[index] === undefined);
      this.#admit(added, { bounds, addedKeys: taken.size });
    }
    return items.map((item, index) => {
      const earlier = duplicateOf[index];
      if (earlier !== undefined) return { activationId: earlier, duplicate: true };
      if (this.#items.has(item.id)) return { activationId: item.id, duplicate: true };
      const { idempotency, ...rest } = item;
      this.#insert(rest, []);
      if (idempotency !== undefined)
        this.#keys.set(`${item.lane}\n${idempotency.key}`, { id: item.id, untilMs: idempotency.untilMs });
      return { activationId: item.id, duplicate: false };
    });
  }

  async lease(request: LeaseRequest): Promise<readonly Lease[]> {
    const { limit, nowMs, leaseMs, laneRoom = {}, roomPerLane = limit } = request;
    const due = [...this.#items.values()].filter((stored) => this.#readyAtMs(stored) <= nowMs);
    const lanes = [...Map.groupBy(due, ({ item }) => item.lane)].map(([name, stored]) => ({
      leased: this.#leased(name, nowMs),
      served: this.#served.get(name) ?? 0,
      oldestMs: Math.min(...stored.map((one) => this.#readyAtMs(one))),
      stored: stored.toSorted((a, b) => this.#rankMs(a) - this.#rankMs(b)).slice(0, laneRoom[name] ?? roomPerLane),
    }));
    return lanes
      .toSorted((a, b) => a.leased - b.leased || a.served - b.served || a.oldestMs - b.oldestMs)
      .flatMap(({ stored, leased }, turn) => stored.map((one, index) => ({ one, place: leased + index, turn })))
      .toSorted((a, b) => a.place - b.place || a.turn - b.turn)
      .slice(0, limit)
      .map(({ one }) => this.#claim(one, nowMs + leaseMs));
  }

  async extend(receipt: Receipt, untilMs: number): Promise<boolean> {
    const held = this.#held(receipt);
    if (held === null) return false;
    this.#items.set(receipt.id, { ...held, claim: { epoch: receipt.epoch, untilMs } });
    return true;
  }

  async settle(receipt: Receipt, settlement: Settlement): Promise<boolean> {
    const held = this.#held(receipt);
    if (held === null) return false;
    const { item, attempts } = held;
    const attempt = "attempt" in settlement ? settlement.attempt : undefined;
    const history = attempt === undefined ? held.history : [...held.history, attempt].slice(-limits.attemptsKept);
    switch (settlement.kind) {
      case "done":
        this.#items.delete(item.id);
        if (history.length > 1) this.#histories.set(item.id, history);
        break;
      case "retry": {
        const { dueAtMs, payload = item.payload } = settlement;
        this.#items.set(item.id, { item: { ...item, dueAtMs, payload }, claim: null, attempts, history });
        break;
      }
      case "release": {
        const { dueAtMs = item.dueAtMs } = settlement;
        this.#items.set(item.id, { item: { ...item, dueAtMs }, claim: null, attempts: attempts - 1, history });
        break;
      }
      case "dead": {
        const { id, lane, enqueuedAtMs } = item;
        const { reason, code = "", atMs, payload = item.payload } = settlement;
        this.#items.delete(id);
        this.#dead.set(id, { id, lane, enqueuedAtMs, attempts, reason, code, atMs, payload, history, item });
        break;
      }
      default:
        return settlement satisfies never;
    }
    if ("followUps" in settlement) for (const next of settlement.followUps ?? []) this.#insert(next, []);
    return true;
  }

  async cancel(id: string, nowMs: number): Promise<"cancelled" | "leased" | "absent"> {
    const stored = this.#items.get(id);
    if (stored === undefined) return "absent";
    if (isLeased(stored, nowMs)) return "leased";
    this.#items.delete(id);
    return "cancelled";
  }

  async find(id: string, nowMs: number): Promise<QueuedItem | null> {
    const stored = this.#items.get(id);
    if (stored === undefined) return null;
    const { item, attempts, history } = stored;
    return { item, leased: isLeased(stored, nowMs), attempts, history };
  }

  async attempts(id: string): Promise<readonly Attempt[]> {
    return this.#histories.get(id) ?? [];
  }

  async state(nowMs: number): Promise<QueueState> {
    const all = [...this.#items.values()];
    const leased = all.filter((stored) => isLeased(stored, nowMs)).length;
    return {
      waiting: all.length - leased,
      leased,
      dead: this.#dead.size,
      nextDueAtMs: least(
        all.map((stored) => this.#readyAtMs(stored)).filter((atMs) => atMs > nowMs && atMs < Infinity),
      ),
      oldestEnqueuedAtMs: least(all.map(({ item }) => item.enqueuedAtMs)),
    };
  }

  async lanes(limit: number): Promise<readonly LaneState[]> {
    const names = new Set([...this.#items.values(), ...this.#dead.values()].map(({ item }) => item.lane));
    return [...names]
      .map((lane) => {
        const own = this.#ofLane(lane);
        return { lane, length: own.length, dead: this.#deadOf(lane), oldestEnqueuedAtMs: this.#oldest(own) };
      })
      .toSorted((a, b) => b.length - a.length || b.dead - a.dead)
      .slice(0, limit);
  }

  async deadLetters(query: DeadLetterQuery): Promise<readonly DeadLetterHead[]> {
    const { lanes, prefix = "", code, sinceMs = -Infinity, beforeMs = Infinity, after = "", limit } = query;
    return [...this.#dead.values()]
      .filter(({ lane }) => lane.startsWith(prefix) && (lanes === undefined || lanes.includes(lane)))
      .filter((letter) => code === undefined || letter.code === code)
      .filter(({ atMs, id }) => atMs >= sinceMs && atMs < beforeMs && id > after)
      .toSorted((a, b) => (a.id < b.id ? -1 : 1))
      .slice(0, limit)
      .map(({ id, lane, enqueuedAtMs, attempts, reason, code: lastCode, atMs }) => {
        return { id, lane, enqueuedAtMs, attempts, reason, code: lastCode, atMs };
      });
  }

  async deadLetter(id: string): Promise<DeadLetter | null> {
    const letter = this.#dead.get(id);
    if (letter === undefined) return null;
    const { item: _, ...rest } = letter;
    return rest;
  }

  async replay(
    ids: readonly string[],
    { nowMs, spacingMs, bounds }: { nowMs: number; spacingMs: number; bounds?: QueueBounds },
  ): Promise<readonly string[]> {
    const found = [...new Set(ids)].flatMap((id) => this.#dead.get(id) ?? []);
    const items = found.map(({ item, payload }, index) => {
      const dueAtMs = Math.round(nowMs + index * spacingMs);
      return { ...item, payload, dueAtMs, enqueuedAtMs: dueAtMs };
    });
    if (bounds !== undefined)
      this.#admit(items, { bounds: { ...bounds, deadLettersMax: Infinity, ageMsMax: Infinity }, addedKeys: 0 });
    for (const [index, item] of items.entries()) {
      this.#dead.delete(item.id);
      this.#insert(item, found[index]?.history ?? []);
    }
    return items.map(({ id }) => id);
  }

  async purge(ids: readonly string[]): Promise<number> {
    return ids.filter((id) => this.#dead.delete(id)).length;
  }

  #admit(
    added: readonly NewQueueItem[],
    { bounds, addedKeys }: { readonly bounds: QueueBounds; readonly addedKeys: number },
  ): void {
    for (const [lane, items] of Map.groupBy(added, (item) => item.lane)) {
      const own = this.#ofLane(lane);
      const filling = {
        lane,
        laneLength: own.length,
        length: this.#items.size,
        laneDead: this.#deadOf(lane),
        keys: this.#keys.size,
        addedToLane: items.length,
        added: added.length,
        addedKeys,
      };
      const refusal = decideAdmission(filling, bounds, () => this.#oldest(own));
      if (refusal !== null) throw refusalError(refusal);
    }
  }

  #oldest(own: readonly StoredItem[]): number | null {
    const untried = own.filter((stored) => stored.attempts === 0 && this.#readyAtMs(stored) < Infinity);
    return least(untried.map(({ item }) => item.enqueuedAtMs));
  }

  #insert(item: QueueItem, history: readonly Attempt[]): void {
    if (this.#items.has(item.id)) return;
    const copy = { ...item, payload: Uint8Array.from(item.payload) };
    this.#items.set(item.id, { item: copy, claim: null, attempts: 0, history });
  }

  #claim({ item, attempts, history }: StoredItem, untilMs: number): Lease {
    const epoch = ++this.#epoch;
    this.#served.set(item.lane, epoch);
    this.#items.set(item.id, { item, claim: { epoch, untilMs }, attempts: attempts + 1, history });
    const hasFailed = history.length > 0 ? { hasFailed: true } : {};
    return { item, receipt: { id: item.id, epoch }, attempt: attempts + 1, ...hasFailed };
  }

  #held(receipt: Receipt): StoredItem | null {
    const stored = this.#items.get(receipt.id);
    return stored?.claim?.epoch === receipt.epoch ? stored : null;
  }

  #ofLane(lane: string): readonly StoredItem[] {
    return [...this.#items.values()].filter(({ item }) => item.lane === lane);
  }

  #deadOf(lane: string): number {
    return [...this.#dead.values()].filter((letter) => letter.lane === lane).length;
  }

  #leased(lane: string, nowMs: number): number {
    return this.#ofLane(lane).filter((stored) => isLeased(stored, nowMs)).length;
  }

  /** When it may be claimed: never, while an earlier one of its ordering key is there. */
  #readyAtMs({ item, claim }: StoredItem): number {
    if (item.orderingKey !== undefined) {
      const first = this.#ofLane(item.lane).find((other) => other.item.orderingKey === item.orderingKey);
      if (first?.item.id !== item.id) return Infinity;
    }
    return claim === null ? item.dueAtMs : claim.untilMs;
  }

  #rankMs(stored: StoredItem): number {
    return this.#readyAtMs(stored) + (stored.item.priority ?? 1) * limits.priorityAgeMs;
  }
}

function isLeased({ claim }: StoredItem, nowMs: number): boolean {
  return claim !== null && claim.untilMs > nowMs;
}

function least(times: readonly number[]): number | null {
  return times.length === 0 ? null : times.reduce((a, b) => Math.min(a, b));
}
