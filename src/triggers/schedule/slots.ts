import { Cron } from "croner";
import { KoineError } from "../../core/errors.ts";

/** The times at which a schedule fires, in milliseconds since the epoch. */
export interface Slots {
  /** The first slot after a time; null: there is none. */
  next(afterMs: number): number | null;
  /** The newest slots at or before a time, oldest first; at most so many. */
  last(untilMs: number, count: number): readonly number[];
}

const UNITS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const RATE = /^(?:rate\(\s*)?(\d{1,9})\s*(s|m|h|d|seconds?|minutes?|hours?|days?)\s*\)?$/i;
const OFFSET = /(?:[Zz]|[+-]\d\d:\d\d)$/;
const LOCAL_TIME = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?$/;

/**
 * Slots of a cron expression of five fields (minute, hour, day of the month, month, day of the week), six (seconds before them) or seven (and a year behind
 * them), in a time zone. Ranges, steps, lists, names, `L`, `W` and `#` are possible; when both days are restricted, either of them is enough.
 *
 * Daylight saving: a time that does not exist fires once, at the first moment after the gap; a time that exists twice fires the first time only. Expressions
 * whose hour is `*` or a step follow real time: they neither skip nor double an interval.
 * @throws KoineError `invalid-trigger`
 */
export function cronSlots(expression: string, timezone: string): Slots {
  const fields = expression.trim().split(/\s+/).length;
  if (fields < 5 || fields > 7)
    throw wrong(`cron '${expression}' has ${fields} fields; five, six or seven are possible`);
  checkTimezone(timezone);
  let cron: Cron;
  try {
    cron = new Cron(expression.trim(), { timezone, paused: true });
  } catch (thrown) {
    throw wrong(
      `cron '${expression}' cannot be used: ${thrown instanceof Error ? thrown.message.replace(/^CronPattern: /, "") : String(thrown)}`,
    );
  }
  return {
    next(afterMs) {
      // Croner looks at whole seconds and begins behind the one it is given.
      const found = cron.nextRun(new Date(Math.floor(afterMs / 1_000) * 1_000));
      return found === null ? null : found.getTime();
    },
    last(untilMs, count) {
      const before = cron.previousRuns(count, new Date((Math.floor(untilMs / 1_000) + 1) * 1_000));
      return before.map((date) => date.getTime()).toReversed();
    },
  };
}

/** Slots of `5 minutes`, `90s`, `rate(1 day)`: every so long, counted from a moment. @throws KoineError `invalid-trigger` */
export function rateSlots(text: string, fromMs: number): Slots {
  const everyMs = rateMs(text);
  return {
    next: (afterMs) => fromMs + (Math.max(Math.floor((afterMs - fromMs) / everyMs), 0) + 1) * everyMs,
    last(untilMs, count) {
      const newest = Math.floor((untilMs - fromMs) / everyMs);
      const oldest = Math.max(1, newest - count + 1);
      return Array.from(
        { length: Math.max(0, newest - oldest + 1) },
        (_, index) => fromMs + (oldest + index) * everyMs,
      );
    },
  };
}

/** @throws KoineError `invalid-trigger` */
export function rateMs(text: string): number {
  const [, count = "", unit = ""] = RATE.exec(text.trim()) ?? [];
  const ms = Number(count) * (UNITS[unit.charAt(0).toLowerCase()] ?? 0);
  if (!(ms >= 1_000) || ms > 3_660 * 86_400_000)
    throw wrong(`rate '${text}' is not a time from one second on such as '30s', '5 minutes', '1 day'`);
  return ms;
}

/** The one slot of a moment. */
export function momentSlots(atMs: number): Slots {
  return { next: (afterMs) => (afterMs < atMs ? atMs : null), last: (untilMs) => (atMs <= untilMs ? [atMs] : []) };
}

/** A time with an offset, or a local time in a time zone, as milliseconds since the epoch. @throws KoineError `invalid-trigger` */
export function parseMoment(text: string, timezone: string): number {
  checkTimezone(timezone);
  const atMs = OFFSET.test(text)
    ? Date.parse(text)
    : LOCAL_TIME.test(text)
      ? (new Cron(text.replace(" ", "T"), { timezone, paused: true }).nextRun(new Date(0))?.getTime() ?? Number.NaN)
      : Number.NaN;
  if (Number.isNaN(atMs))
    throw wrong(`'${text}' is not a time such as 2030-01-31T09:00:00Z, or 2030-01-31T09:00 with a time zone`);
  return atMs;
}

function checkTimezone(timezone: string): void {
  try {
    Intl.DateTimeFormat("en", { timeZone: timezone });
  } catch (thrown) {
    throw new KoineError(
      "invalid-trigger",
      { kind: "schedule", detail: `there is no time zone '${timezone}'; names are like Europe/Berlin` },
      { cause: thrown },
    );
  }
}

function wrong(detail: string): KoineError {
  return new KoineError("invalid-trigger", { kind: "schedule", detail });
}
