import { Forecast, FORECAST_SETTINGS, type ForecastSettings } from "./forecast.ts";
import { type Habit, Habits, IDLE_MINUTES_MAX, type Verdict } from "./habit.ts";

export interface KeepAliveSettings extends ForecastSettings {
  /** Memory that may lie idle on the average, in bytes. */
  readonly idleBytesMax: number;
  /** The least worth at which something is kept, however much memory is free: the chance of a call of an average function. */
  readonly worthMin: number;
  /** An instance is started ahead only where a call within the minute has at least this chance: starting costs processor time. */
  readonly startChanceMin: number;
  /** How fast the price of memory follows its use: the share of the gap that one minute closes. */
  readonly priceStep: number;
}

export const KEEP_ALIVE_SETTINGS: Omit<KeepAliveSettings, "idleBytesMax"> = {
  ...FORECAST_SETTINGS,
  worthMin: 0.003,
  startChanceMin: 0.05,
  priceStep: 1 / 30,
};

/** Functions that are looked at between two yields of a plan: a fraction of a millisecond. */
const PLAN_STEP = 500;
const PRICE_MAX = 1;
/** How long a released instance must have been idle: a call just before a plan is no reason to let go just after it. */
const RELEASE_MS = 10_000;
/** The price falls no faster than with this share of the memory in use. */
const USED_MIN = 1 / 64;
/** No function counts for more than this many average ones, so that one slow start does not decide for hours. */
const DENSITY_MAX = 4;

/**
 * Decides minute by minute which functions should have an instance. Having one is worth
 *
 *     chance of a call within the minute × (cost of a cold start ÷ memory), relative to the average function
 *
 * and what is worth its price is kept. The price rises while more memory lies idle than may, and falls while less does. So one
 * rule keeps, lets go and starts ahead: a function whose minute is coming gains worth, one that is silent for longer than it ever
 * was loses it. Pure: time is the number of a minute that comes in, and nothing is started or stopped here.
 */
export class KeepAlive<Owner> {
  readonly #settings: KeepAliveSettings;
  readonly #habits = new Habits<Owner>();
  readonly #forecast: Forecast;
  /** Those that may be called again: the plan looks at no others. */
  readonly #live: Habit<Owner>[] = [];
  /** The least worth that is kept. */
  #price: number;
  /** Cold-start milliseconds per byte of the average live function. */
  #averageDensity: number | null = null;

  constructor(settings: KeepAliveSettings) {
    this.#settings = settings;
    this.#forecast = new Forecast(settings);
    this.#price = settings.worthMin;
  }

  get live(): number {
    return this.#live.length;
  }

  get price(): number {
    return this.#price;
  }

  add(owner: Owner): Habit<Owner> {
    return this.#habits.add(owner);
  }

  /** Forgets a function. */
  remove(habit: Habit<Owner>): void {
    this.#leave(habit);
    habit.release(this.#habits);
  }

  /** A call in this minute. Costs a comparison unless it is the first of the minute. */
  observe(habit: Habit<Owner>, minute: number): void {
    if (habit.lastMinute === minute) return;
    habit.observe(minute);
    habit.verdict = "pending";
    habit.worth = this.#worth(habit, 1);
    if (habit.place >= 0) return;
    habit.place = this.#live.length;
    this.#live.push(habit);
  }

  /**
   * Judges every live function for a minute that begins; once for each minute. Yields now and then, to let others run. Returns those
   * to start.
   */
  *plan(minute: number): Generator<undefined, Habit<Owner>[]> {
    const starts: Habit<Owner>[] = [];
    let [looked, idleBytes, density] = [0, 0, 0];
    for (let at = 0; at < this.#live.length;) {
      const habit = this.#live[at];
      if (habit === undefined) break;
      this.#forecast.learn(habit);
      if (habit.lastMinute < minute) this.#judge(habit, minute);
      if (habit.verdict === "keep" || habit.verdict === "start") idleBytes += habit.bytes * (1 - habit.chance);
      if (habit.verdict === "start") starts.push(habit);
      density += habit.coldMs / habit.bytes;
      // Another takes the place of one that leaves.
      if (minute - habit.lastMinute > IDLE_MINUTES_MAX) this.#leave(habit);
      else at++;
      if (++looked % PLAN_STEP === 0) yield;
    }
    if (looked === 0) return starts;
    this.#averageDensity = density / looked;
    const { priceStep, idleBytesMax, worthMin } = this.#settings;
    const used = Math.max(idleBytes / idleBytesMax, USED_MIN);
    this.#price = Math.min(PRICE_MAX, Math.max(worthMin, this.#price * used ** priceStep));
    return starts;
  }

  #judge(habit: Habit<Owner>, minute: number): void {
    habit.chance = this.#forecast.predict(habit, minute);
    habit.worth = this.#worth(habit, habit.chance);
    if (habit.worth < this.#price) habit.verdict = "release";
    else if (habit.instances > 0) habit.verdict = "keep";
    else habit.verdict = habit.chance >= this.#settings.startChanceMin ? "start" : "release";
  }

  #worth(habit: Habit<Owner>, chance: number): number {
    if (this.#averageDensity === null) return chance;
    const density = habit.coldMs / habit.bytes / this.#averageDensity;
    return chance * Math.min(DENSITY_MAX, Math.max(1 / DENSITY_MAX, density));
  }

  #leave(habit: Habit<Owner>): void {
    habit.verdict = "release";
    habit.worth = 0;
    if (habit.place < 0) return;
    const last = this.#live.pop();
    if (last !== undefined && last !== habit) {
      last.place = habit.place;
      this.#live[habit.place] = last;
    }
    habit.place = -1;
  }
}

/** An idle instance as the eviction sees it. */
export interface IdleView<Key> {
  readonly key: Key;
  readonly idleSinceMs: number;
  /** When it is to stop, unless it is used before; null: not before the next plan. */
  readonly dueMs: number | null;
  /** What keeping it is worth; 0 for more instances than one. */
  readonly worth: number;
}

export interface IdleDecision<Key> {
  readonly stop: readonly Key[];
  /** When to decide again; null: nothing is due. */
  readonly nextAtMs: number | null;
}

export interface IdleTimes {
  readonly idleSinceMs: number;
  /** What the function's spec asks for; null: nothing. */
  readonly specMs: number | null;
  readonly defaultMs: number;
  /** The plan's, for the instance that it may keep; `pending` for any other. */
  readonly verdict: Verdict;
}

/** When an idle instance is to stop; null: not before the next plan. What the spec says comes first. */
export function idleDueMs({ idleSinceMs, specMs, defaultMs, verdict }: IdleTimes): number | null {
  if (specMs !== null) return idleSinceMs + specMs;
  switch (verdict) {
    case "pending":
      return idleSinceMs + defaultMs;
    case "keep":
    case "start":
      return null;
    case "release":
      return idleSinceMs + Math.min(defaultMs, RELEASE_MS);
    default:
      return verdict satisfies never;
  }
}

/** Stops what is due; one pass, no order needed. */
export function decideIdle<Key>(idle: Iterable<IdleView<Key>>, nowMs: number): IdleDecision<Key> {
  const stop: Key[] = [];
  let nextAtMs: number | null = null;
  for (const { key, dueMs } of idle) {
    if (dueMs === null) continue;
    if (dueMs <= nowMs) stop.push(key);
    else if (nextAtMs === null || dueMs < nextAtMs) nextAtMs = dueMs;
  }
  return { stop, nextAtMs };
}

/** The instance whose loss hurts least: of the least worth, and among equals idle for longest; null when none is idle. */
export function decideEviction<Key>(idle: Iterable<IdleView<Key>>): Key | null {
  let victim: IdleView<Key> | null = null;
  for (const view of idle) {
    if (
      victim === null ||
      view.worth < victim.worth ||
      (view.worth === victim.worth && view.idleSinceMs < victim.idleSinceMs)
    )
      victim = view;
  }
  return victim === null ? null : victim.key;
}
