import type { Version } from "../core/function.ts";
import type { Habit } from "./habit.ts";
import { KEEP_ALIVE_SETTINGS, KeepAlive } from "./keepalive.ts";
import type { EngineParts } from "./parts.ts";

/** A function that has been called. */
export interface Caller {
  readonly key: string;
  /** The version that was called last; null when that is not wanted any more. */
  version: Version | null;
}

export interface ResidentsOwner {
  /** The plan has judged every function anew: what it released may stop. */
  planned(): void;
  /** Starts an instance of a version if processor and memory are spare now; false: not now. */
  startAhead(version: Version): boolean;
}

const MINUTE_MS = 60_000;
/** Minutes begin this early, so that what is started for a minute is ready when the wall clock says it. */
const LEAD_MS = 5_000;
/** Share of the memory budget that may lie idle on the average; it yields to whoever needs it. */
const IDLE_SHARE = 0.5;
const IDLE_MINUTES_DEFAULT_MAX = 240;

/** Runs the keep-alive plan of this node: tells it of calls, asks it every minute, and has started what it wants started. */
export class Residents {
  readonly #parts: EngineParts;
  readonly #owner: ResidentsOwner;
  readonly #plan: KeepAlive<Caller>;
  readonly #habits = new Map<string, Habit<Caller>>();
  /** Those to start, the worthiest last. */
  #starts: Habit<Caller>[] = [];
  #cancel: (() => void) | null = null;

  constructor(parts: EngineParts, owner: ResidentsOwner) {
    this.#parts = parts;
    this.#owner = owner;
    this.#plan = new KeepAlive({
      ...KEEP_ALIVE_SETTINGS,
      idleMinutesDefault: Math.min(IDLE_MINUTES_DEFAULT_MAX, Math.ceil(parts.settings.idleTimeoutMs / MINUTE_MS)),
      idleBytesMax: parts.settings.memoryBudgetBytes * IDLE_SHARE,
    });
  }

  /** Functions that something is remembered of. */
  get size(): number {
    return this.#habits.size;
  }

  get(key: string): Habit<Caller> | null {
    return this.#habits.get(key) ?? null;
  }

  add(key: string): Habit<Caller> {
    const habit = this.#plan.add({ key, version: null });
    this.#habits.set(key, habit);
    return habit;
  }

  /** A call of a version. On the path of every invocation. */
  called(habit: Habit<Caller>, version: Version): void {
    habit.owner.version = version;
    const nowMs = this.#parts.clock.nowMs();
    this.#plan.observe(habit, minuteAt(nowMs));
    if (this.#cancel === null) this.#schedule(nowMs);
  }

  /** Nothing is started ahead for a version that is not wanted any more. */
  retire(key: string, version: Version): void {
    const owner = this.#habits.get(key)?.owner;
    if (owner?.version?.number === version.number) owner.version = null;
  }

  forget(key: string): void {
    const habit = this.#habits.get(key);
    if (habit === undefined) return;
    this.#habits.delete(key);
    habit.owner.version = null;
    this.#plan.remove(habit);
  }

  /** Starts the next of those that the plan wants, one at a time: to be called when a start has ended. */
  startNext(): void {
    for (let habit = this.#starts.at(-1); habit !== undefined; habit = this.#starts.at(-1)) {
      const { version } = habit.owner;
      if (habit.verdict === "start" && version !== null && !this.#owner.startAhead(version)) return;
      this.#starts.pop();
    }
  }

  close(): void {
    this.#starts = [];
    this.#cancel?.();
  }

  #schedule(nowMs: number): void {
    const nextMs = (minuteAt(nowMs) + 1) * MINUTE_MS - LEAD_MS;
    this.#cancel = this.#parts.clock.after(nextMs - nowMs, () => {
      this.#step(this.#plan.plan(minuteAt(this.#parts.clock.nowMs())));
    });
  }

  /** One slice of a plan per timer, so that calls are served in between. */
  #step(plan: ReturnType<KeepAlive<Caller>["plan"]>): void {
    const step = plan.next();
    if (step.done !== true) {
      this.#cancel = this.#parts.clock.after(0, () => this.#step(plan));
      return;
    }
    this.#cancel = null;
    this.#starts = step.value.toSorted((a, b) => a.worth - b.worth);
    if (this.#plan.live > 0) this.#schedule(this.#parts.clock.nowMs());
    this.#owner.planned();
    this.startNext();
  }
}

function minuteAt(nowMs: number): number {
  return Math.floor((nowMs + LEAD_MS) / MINUTE_MS);
}
