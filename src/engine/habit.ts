/** Idle times up to this are told apart, in minutes; a function that has been idle for longer is not expected. */
export const IDLE_MINUTES_MAX = 240;
/** Opinions of a forecast; see forecast.ts. */
export const OPINIONS = 3;

/** Cell 0 counts longer idle times, 1 to 240 those of that many minutes, and the rest calls by minute of the hour. */
const HOUR_CELL = IDLE_MINUTES_MAX + 1;
const CELLS = HOUR_CELL + 60;
const CELL_MAX = 255;
const GAPS_MAX = 0xffff;
/** After this many hours the counts by minute of the hour are halved, so that an old timetable is forgotten within days. */
const HOURS_MAX = 96;
const RATE_FIRST = 0.05;
/** What a minute leaves of the rate: it looks back about an hour. */
const RATE_KEPT = 0.98;
const HABITS_PER_CHUNK = 256;

/** `pending`: called since the last plan, which is yet to judge it; `start`: keep, and there is none yet. */
export type Verdict = "pending" | "keep" | "start" | "release";

interface Chunk {
  readonly cells: Uint8Array;
  /** Per habit: the opinions of its last forecast as log-odds, and the forecast itself. */
  readonly forecasts: Float32Array;
}

/** What is remembered of the calls of one function: about half a kilobyte, whatever its traffic. Time is counted in minutes. */
export class Habit<Owner> {
  owner: Owner;
  /** Minute of the last call; -1 before the first. */
  lastMinute = -1;
  /** Idle times seen. */
  gaps = 0;
  /** Share of minutes with a call, by powers of two: 1 is one in 32, 6 is nearly all. */
  rateClass = 0;
  /** What an instance takes, in bytes, and what a cold start costs, in milliseconds. */
  bytes = 64 * 1024 * 1024;
  coldMs = 100;
  /** Instances it has, starting ones included; told by whoever has them. */
  instances = 0;

  /** What the plan made of it for the present minute: the chance of a call, what an instance is worth, and what follows. */
  chance = 0;
  worth = 0;
  verdict: Verdict = "release";
  /** Its place among those the plan looks at; -1: not among them. */
  place = -1;

  /** The minute of the last forecast; -1: none. The others belong to it. */
  forecastMinute = -1;
  forecastIdle = 0;
  forecastRateClass = 0;
  forecastGaps = 0;
  /** Whether a call came in the forecast's minute. */
  called = false;

  #sinceMinute = 0;
  #rate = RATE_FIRST;
  readonly #chunk: Chunk;
  readonly #slot: number;

  constructor(owner: Owner, chunk: Chunk, slot: number) {
    this.owner = owner;
    this.#chunk = chunk;
    this.#slot = slot;
  }

  /** The first call of a minute. Later ones of the same minute say nothing new and need not be told. */
  observe(minute: number): void {
    if (minute === this.lastMinute) return;
    if (this.lastMinute < 0) this.#sinceMinute = minute;
    else this.#countGap(Math.max(1, minute - this.lastMinute));
    if (this.hours(minute) >= HOURS_MAX) this.#halveHours(minute);
    this.#add(HOUR_CELL + (minute % 60));
    this.rateClass = Math.max(0, 6 + Math.round(Math.log2(this.#rate)));
    if (this.forecastMinute === minute) this.called = true;
    this.lastMinute = minute;
  }

  /** How often the next call came after this many minutes; `0` counts those that came later than can be told. */
  gapsOf(idle: number): number {
    return this.#chunk.cells[this.#slot * CELLS + idle] ?? 0;
  }

  /** In how many hours it was called at this minute of the hour. */
  callsAt(minute: number): number {
    return this.gapsOf(HOUR_CELL + (minute % 60));
  }

  /** In how many hours it could have been. */
  hours(minute: number): number {
    return (minute - this.#sinceMinute) / 60;
  }

  /** Opinion 0 to 2 of the last forecast, or, as 3, what was made of them. */
  forecast(index: number): number {
    return this.#chunk.forecasts[this.#slot * (OPINIONS + 1) + index] ?? 0;
  }

  setForecast(index: number, value: number): void {
    this.#chunk.forecasts[this.#slot * (OPINIONS + 1) + index] = value;
  }

  /** Forgets everything and gives its place back; it must not be used afterwards. */
  release(habits: Habits<Owner>): void {
    this.#chunk.cells.fill(0, this.#slot * CELLS, (this.#slot + 1) * CELLS);
    habits.takeBack(this.#chunk, this.#slot);
  }

  #countGap(gap: number): void {
    const cell = gap > IDLE_MINUTES_MAX ? 0 : gap;
    if (this.gapsOf(cell) === CELL_MAX) this.#halve(0, HOUR_CELL);
    this.#add(cell);
    this.gaps = Math.min(this.gaps + 1, GAPS_MAX);
    this.#rate = this.#rate * RATE_KEPT ** gap + (1 - RATE_KEPT);
  }

  #halveHours(minute: number): void {
    this.#halve(HOUR_CELL, CELLS);
    this.#sinceMinute = minute - (HOURS_MAX * 60) / 2;
  }

  #add(cell: number): void {
    this.#chunk.cells[this.#slot * CELLS + cell] = Math.min(CELL_MAX, this.gapsOf(cell) + 1);
  }

  /** Rounds up: what was seen once stays possible. */
  #halve(from: number, to: number): void {
    const { cells } = this.#chunk;
    const base = this.#slot * CELLS;
    for (let at = base + from; at < base + to; at++) cells[at] = ((cells[at] ?? 0) + 1) >> 1;
  }
}

/** Gives out habits. Their counts lie together: many small arrays would cost more than what they hold. */
export class Habits<Owner> {
  readonly #places: { readonly chunk: Chunk; readonly slot: number }[] = [];

  add(owner: Owner): Habit<Owner> {
    const { chunk, slot } = this.#places.pop() ?? this.#grow();
    return new Habit(owner, chunk, slot);
  }

  takeBack(chunk: Chunk, slot: number): void {
    this.#places.push({ chunk, slot });
  }

  #grow(): { readonly chunk: Chunk; readonly slot: number } {
    const chunk = {
      cells: new Uint8Array(HABITS_PER_CHUNK * CELLS),
      forecasts: new Float32Array(HABITS_PER_CHUNK * (OPINIONS + 1)),
    };
    for (let slot = HABITS_PER_CHUNK - 1; slot > 0; slot--) this.#places.push({ chunk, slot });
    return { chunk, slot: 0 };
  }
}
