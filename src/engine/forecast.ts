import { type Habit, IDLE_MINUTES_MAX, OPINIONS } from "./habit.ts";

export interface ForecastSettings {
  /** How long a function is expected back while nothing is known about any, in minutes. */
  readonly idleMinutesDefault: number;
  /** How many observations of the function itself outweigh what is known of functions like it. */
  readonly priorWeight: number;
  /** How fast the weights of the opinions follow their success. */
  readonly learningRate: number;
}

export const FORECAST_SETTINGS: ForecastSettings = { idleMinutesDefault: 1, priorWeight: 4, learningRate: 0.0015 };

const RATE_CLASSES = 7;
const EVIDENCE_CLASSES = 6;
const IDLE_CLASSES = 5;
const WEIGHTS = OPINIONS + 1;
const CHANCE_MIN = 0.0005;
const CHANCE_MAX = 0.999;
/** A fourth opinion that is always the same, so that the mix as a whole can be too high or too low. */
const BIAS = -1;
/** Counts over all functions are halved at this, so that they follow a change of the traffic. */
const COUNT_MAX = 1_000_000;
/** Neighbouring idle times that are taken together, per factor e. */
const STEPS_PER_E = 2.5;

/** The class of each idle time: 1 to 5 by themselves, longer ones by their logarithm; and the classes' first and last. */
const CLASSES = Uint8Array.from({ length: IDLE_MINUTES_MAX + 1 }, (_, idle) =>
  idle < 6 ? idle : Math.round(Math.log(idle) * STEPS_PER_E) + 1,
);
const CLASS_COUNT = (CLASSES[IDLE_MINUTES_MAX] ?? 0) + 1;
const CLASS_FIRST = Uint8Array.from({ length: CLASS_COUNT }, (_, at) => CLASSES.indexOf(at));
const CLASS_LAST = Uint8Array.from({ length: CLASS_COUNT }, (_, at) => CLASSES.lastIndexOf(at));

/**
 * The chance that a function is called in a given minute, from what it did before and what others did in its place.
 *
 * Three opinions, each a count of "so often the call came, of so many times it could have":
 * - exact: of the times it was idle for this many minutes, how often did the call come just then (finds periods);
 * - rough: the same over neighbouring idle times (needs fewer observations, stands jitter);
 * - hour: how often was it called at this minute of the hour (finds timetables of several entries).
 * While a function has been seen little, each leans on what functions of a similar rate did at the same idle time; while those
 * have been seen little too, on the default idle time. The opinions are mixed as weighted log-odds; the weights are learnt from
 * the opinions' success with all functions, apart for little and much evidence and for short and long idle times.
 *
 * **Known caveats**: patterns longer than four hours, such as a nightly job, are not seen; nor are functions that follow each
 * other; a restart begins anew.
 */
export class Forecast {
  readonly #settings: ForecastSettings;
  /** Over all functions, pairs of minutes seen and calls seen: by idle time, and by its class and the rate. */
  readonly #byIdle = new Float64Array((IDLE_MINUTES_MAX + 1) * 2);
  readonly #byRate = new Float64Array(CLASS_COUNT * RATE_CLASSES * 2);
  readonly #weights = new Float64Array(EVIDENCE_CLASSES * IDLE_CLASSES * WEIGHTS);

  constructor(settings: ForecastSettings = FORECAST_SETTINGS) {
    this.#settings = settings;
    this.#weights.forEach((_, at) => (this.#weights[at] = at % WEIGHTS === OPINIONS ? 0 : 1 / OPINIONS));
  }

  /** The chance of a call within this minute, before it begins; 0 for a function that is not expected any more. */
  predict(habit: Habit<unknown>, minute: number): number {
    const idle = minute - habit.lastMinute;
    habit.forecastMinute = -1;
    if (habit.lastMinute < 0 || idle > IDLE_MINUTES_MAX || idle < 1) return 0;
    const { priorWeight } = this.#settings;
    const prior = this.#prior(idle, habit.rateClass);

    const first = CLASS_FIRST[CLASSES[idle] ?? 0] ?? 0;
    const last = CLASS_LAST[CLASSES[idle] ?? 0] ?? 0;
    let reached = habit.gapsOf(0);
    for (let at = IDLE_MINUTES_MAX; at > last; at--) reached += habit.gapsOf(at);
    let [exactReached, roughCame, roughReached] = [0, 0, 0];
    for (let at = last; at >= first; at--) {
      reached += habit.gapsOf(at);
      roughCame += habit.gapsOf(at);
      roughReached += reached;
      if (at === idle) exactReached = reached;
    }
    // The present idle time has come through the class's shorter ones without a call.
    roughReached += idle - first;
    const exact = (habit.gapsOf(idle) + priorWeight * prior) / (exactReached + priorWeight);
    const rough = (roughCame + priorWeight * prior) / (roughReached + priorWeight);
    const hour = (habit.callsAt(minute) + 0.5 * priorWeight * exact) / (habit.hours(minute) + 0.5 * priorWeight);

    habit.setForecast(0, logOdds(exact));
    habit.setForecast(1, logOdds(rough));
    habit.setForecast(2, logOdds(hour));
    habit.forecastMinute = minute;
    habit.forecastIdle = idle;
    habit.forecastRateClass = habit.rateClass;
    habit.forecastGaps = habit.gaps;
    habit.called = false;
    return this.#mix(habit);
  }

  /** Compares the last forecast with what came. To be called when its minute is over, before the next forecast. */
  learn(habit: Habit<unknown>): void {
    if (habit.forecastMinute < 0) return;
    habit.forecastMinute = -1;
    const came = habit.called ? 1 : 0;
    count(this.#byIdle, habit.forecastIdle, came);
    count(this.#byRate, (CLASSES[habit.forecastIdle] ?? 0) * RATE_CLASSES + habit.forecastRateClass, came);
    const step = this.#settings.learningRate * (came - habit.forecast(OPINIONS));
    const at = weightsOf(habit);
    for (let index = 0; index < OPINIONS; index++)
      this.#weights[at + index] = (this.#weights[at + index] ?? 0) + step * habit.forecast(index);
    this.#weights[at + OPINIONS] = (this.#weights[at + OPINIONS] ?? 0) + step * BIAS;
  }

  #mix(habit: Habit<unknown>): number {
    const at = weightsOf(habit);
    let sum = (this.#weights[at + OPINIONS] ?? 0) * BIAS;
    for (let index = 0; index < OPINIONS; index++) sum += (this.#weights[at + index] ?? 0) * habit.forecast(index);
    const chance = 1 / (1 + Math.exp(-sum));
    habit.setForecast(OPINIONS, chance);
    return chance;
  }

  /** What other functions did after the same idle time: those of a similar rate, leaning on all, leaning on the default. */
  #prior(idle: number, rateClass: number): number {
    const { idleMinutesDefault, priorWeight } = this.#settings;
    const unknown = idle <= idleMinutesDefault ? 0.5 / idle : 0;
    const all = share(this.#byIdle, idle, { prior: unknown, weight: priorWeight });
    const cell = (CLASSES[idle] ?? 0) * RATE_CLASSES + rateClass;
    return share(this.#byRate, cell, { prior: all, weight: priorWeight });
  }
}

/** Which weights a forecast uses: by how much has been seen of the function, and by how long it has been idle. */
function weightsOf(habit: Habit<unknown>): number {
  const evidence = Math.min(EVIDENCE_CLASSES - 1, bits(habit.forecastGaps) >> 1);
  return (evidence * IDLE_CLASSES + (bits(habit.forecastIdle) >> 1)) * WEIGHTS;
}

function bits(value: number): number {
  return 32 - Math.clz32(value);
}

function count(cells: Float64Array, cell: number, came: number): void {
  const seen = (cells[cell * 2] ?? 0) + 1;
  const calls = (cells[cell * 2 + 1] ?? 0) + came;
  const scale = seen >= COUNT_MAX ? 0.5 : 1;
  cells[cell * 2] = seen * scale;
  cells[cell * 2 + 1] = calls * scale;
}

function share(cells: Float64Array, cell: number, { prior, weight }: { prior: number; weight: number }): number {
  return ((cells[cell * 2 + 1] ?? 0) + weight * prior) / ((cells[cell * 2] ?? 0) + weight);
}

function logOdds(chance: number): number {
  const bounded = Math.min(CHANCE_MAX, Math.max(CHANCE_MIN, chance));
  return Math.log(bounded / (1 - bounded));
}
