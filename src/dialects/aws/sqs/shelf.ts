import type { Message, MessageState } from "./message.ts";

/** A message with its state, as a queue keeps it in memory: the body is read from disk when it is received. */
export interface Entry {
  readonly sequence: number;
  readonly id: string;
  readonly groupId: string | null;
  readonly sentAtMs: number;
  state: MessageState;
}

/** A time at which a message may become visible; what does not agree with its entry any more is passed over. */
interface Wait {
  readonly entry: Entry;
  readonly atMs: number;
}

/**
 * The order in which a queue's messages can be received, in memory and without a clock of its own. Those that wait (delayed or in flight) stand in a
 * heap by the time at which they become visible; the others in the order of their sequence, per group where there are groups.
 */
export class Shelf {
  readonly #fifo: boolean;
  readonly #entries = new Map<number, Entry>();
  /** Visible ones of a standard queue, oldest first; with holes where they were deleted. */
  #visible: Entry[] = [];
  #visibleFrom = 0;
  readonly #waiting: Wait[] = [];
  /** FIFO queues: the messages of each group in order, the visible and the waiting ones. */
  readonly #groups = new Map<string, Entry[]>();

  constructor(fifo: boolean) {
    this.#fifo = fifo;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(sequence: number): Entry | undefined {
    return this.#entries.get(sequence);
  }

  add(message: Pick<Message, "sequence" | "id" | "groupId" | "sentAtMs">, state: MessageState, nowMs: number): Entry {
    const { sequence, id, groupId, sentAtMs } = message;
    const entry: Entry = { sequence, id, groupId, sentAtMs, state };
    this.#entries.set(sequence, entry);
    if (this.#fifo) {
      const group = this.#groups.get(groupId ?? "");
      if (group === undefined) this.#groups.set(groupId ?? "", [entry]);
      else group.push(entry);
      if (state.visibleAtMs > nowMs) this.#wait(entry);
    } else if (state.visibleAtMs > nowMs) this.#wait(entry);
    else this.#visible.push(entry);
    return entry;
  }

  remove(entry: Entry): void {
    this.#entries.delete(entry.sequence);
    if (!this.#fifo) return;
    const key = entry.groupId ?? "";
    const group = this.#groups.get(key)?.filter((other) => other !== entry) ?? [];
    if (group.length === 0) this.#groups.delete(key);
    else this.#groups.set(key, group);
  }

  /** Gives an entry another time at which it becomes visible. */
  reschedule(entry: Entry, state: MessageState, nowMs: number): void {
    entry.state = state;
    if (state.visibleAtMs > nowMs) this.#wait(entry);
    else if (!this.#fifo) this.#visible.push(entry);
  }

  /** The next ones that may be received, oldest first; of a group only while none of it is in flight. They stay until they are rescheduled. */
  *receivable(nowMs: number): Generator<Entry> {
    this.#promote(nowMs);
    if (this.#fifo) yield* this.#inGroups(nowMs);
    else yield* this.#inOrder(nowMs);
  }

  /** When the next waiting one becomes visible; null: none waits. */
  nextVisibleAtMs(): number | null {
    for (let top = this.#waiting[0]; top !== undefined; top = this.#waiting[0]) {
      if (this.#isCurrent(top)) return top.atMs;
      this.#pop();
    }
    return null;
  }

  /** All entries, oldest first. */
  all(): Iterable<Entry> {
    return this.#entries.values();
  }

  counts(nowMs: number): { readonly visible: number; readonly inFlight: number; readonly delayed: number } {
    let inFlight = 0;
    let delayed = 0;
    for (const { state } of this.#entries.values()) {
      if (state.visibleAtMs <= nowMs) continue;
      if (state.receiveCount > 0) inFlight++;
      else delayed++;
    }
    return { visible: this.#entries.size - inFlight - delayed, inFlight, delayed };
  }

  *#inOrder(nowMs: number): Generator<Entry> {
    while (this.#visibleFrom < this.#visible.length) {
      const entry = this.#visible[this.#visibleFrom++];
      if (this.#visibleFrom > COMPACT_AT && this.#visibleFrom * 2 > this.#visible.length) {
        this.#visible = this.#visible.slice(this.#visibleFrom);
        this.#visibleFrom = 0;
      }
      if (entry === undefined || this.#entries.get(entry.sequence) !== entry || entry.state.visibleAtMs > nowMs)
        continue;
      yield entry;
    }
  }

  *#inGroups(nowMs: number): Generator<Entry> {
    for (const group of this.#groups.values()) {
      for (const entry of group) {
        if (entry.state.visibleAtMs > nowMs) break;
        yield entry;
        // Whoever took it goes on with the group; whoever left it gets the next group.
        if (entry.state.visibleAtMs <= nowMs && this.#entries.get(entry.sequence) === entry) break;
      }
    }
  }

  #promote(nowMs: number): void {
    for (let top = this.#waiting[0]; top !== undefined; top = this.#waiting[0]) {
      const current = this.#isCurrent(top);
      if (current && top.atMs > nowMs) return;
      this.#pop();
      if (current && !this.#fifo) this.#visible.push(top.entry);
    }
  }

  #isCurrent({ entry, atMs }: Wait): boolean {
    return this.#entries.get(entry.sequence) === entry && entry.state.visibleAtMs === atMs;
  }

  // A binary heap by time.

  #wait(entry: Entry): void {
    this.#waiting.push({ entry, atMs: entry.state.visibleAtMs });
    this.#rise(this.#waiting.length - 1);
  }

  #pop(): void {
    const last = this.#waiting.pop();
    if (last === undefined || this.#waiting.length === 0) return;
    this.#waiting[0] = last;
    this.#sink(0);
  }

  #rise(from: number): void {
    for (let at = from; at > 0;) {
      const above = (at - 1) >> 1;
      if (this.#timeAt(above) <= this.#timeAt(at)) return;
      this.#swap(above, at);
      at = above;
    }
  }

  #sink(from: number): void {
    for (let at = from; ;) {
      const left = at * 2 + 1;
      const next = left + 1 < this.#waiting.length && this.#timeAt(left + 1) < this.#timeAt(left) ? left + 1 : left;
      if (next >= this.#waiting.length || this.#timeAt(at) <= this.#timeAt(next)) return;
      this.#swap(at, next);
      at = next;
    }
  }

  #timeAt(index: number): number {
    return this.#waiting[index]?.atMs ?? Number.POSITIVE_INFINITY;
  }

  #swap(a: number, b: number): void {
    const first = this.#waiting[a];
    const second = this.#waiting[b];
    if (first === undefined || second === undefined) return;
    this.#waiting[a] = second;
    this.#waiting[b] = first;
  }
}

const COMPACT_AT = 1_024;
