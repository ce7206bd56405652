import { KEEP_ALIVE_SETTINGS, KeepAlive, type KeepAliveSettings } from "../../src/engine/keepalive.ts";
import type { Policy } from "./simulate.ts";

/** Keeps a function for so many minutes after its last call. */
export function fixedWindow(functions: number, windowMinutes: number): Policy {
  const last = new Int32Array(functions).fill(-1);
  return {
    begin: (minute) => Uint8Array.from(last, (at) => (at >= 0 && minute - at <= windowMinutes ? 1 : 0)),
    end: (minute, called) => markCalls(last, minute, called),
  };
}

const HYBRID = {
  histogramMinutes: 240,
  headShare: 0.05,
  tailShare: 0.99,
  /** How much earlier than the head it starts ahead, and how much longer than the tail it keeps. */
  margin: 0.1,
  gapsMin: 3,
  fallbackMinutes: 10,
};

/**
 * The hybrid histogram of "Serverless in the Wild": per function a histogram of idle times up to four hours; an instance is stopped at
 * once, started ahead shortly before the 5th percentile and kept until after the 99th. With too few idle times, or too many beyond
 * the histogram, a fixed window.
 */
export function hybridHistogram(functions: number): Policy {
  const last = new Int32Array(functions).fill(-1);
  const gaps = Array.from({ length: functions }, () => new Uint32Array(HYBRID.histogramMinutes + 1));
  const beyond = new Uint32Array(functions);
  const from = new Float64Array(functions);
  const to = new Float64Array(functions);
  return {
    begin: (minute) =>
      Uint8Array.from(last, (at, index) => {
        const idle = minute - at;
        return at >= 0 && idle >= (from[index] ?? 0) && idle <= (to[index] ?? 0) ? 1 : 0;
      }),
    end(minute, called) {
      for (let index = 0; index < functions; index++) {
        if (called[index] !== 1) continue;
        const histogram = gaps[index] ?? new Uint32Array();
        const idle = minute - (last[index] ?? 0);
        if (last[index] !== -1) {
          if (idle <= HYBRID.histogramMinutes) histogram[idle] = (histogram[idle] ?? 0) + 1;
          else beyond[index] = (beyond[index] ?? 0) + 1;
        }
        const window = hybridWindow(histogram, beyond[index] ?? 0);
        from[index] = window.from;
        to[index] = window.to;
      }
      markCalls(last, minute, called);
    },
  };
}

function hybridWindow(histogram: Uint32Array, beyond: number): { readonly from: number; readonly to: number } {
  const seen = histogram.reduce((sum, count) => sum + count, 0);
  if (seen < HYBRID.gapsMin || beyond > seen) return { from: 0, to: HYBRID.fallbackMinutes };
  const head = percentileOf(histogram, HYBRID.headShare * seen);
  const tail = percentileOf(histogram, HYBRID.tailShare * seen);
  return {
    from: Math.floor(head * (1 - HYBRID.margin)),
    to: Math.min(HYBRID.histogramMinutes, Math.ceil(tail * (1 + HYBRID.margin))),
  };
}

function percentileOf(histogram: Uint32Array, rank: number): number {
  let sum = 0;
  return histogram.findIndex((count) => (sum += count) >= rank && sum > 0);
}

/**
 * FaasCache's greedy-dual: so many functions stay resident; where another needs the place, the idle one of the lowest priority goes.
 * Priority is the clock at the last call plus the number of calls; the clock is the priority of what went last.
 */
export function greedyDual(functions: number, residentMax: number): Policy {
  const resident = new Uint8Array(functions);
  const priority = new Float64Array(functions);
  const frequency = new Float64Array(functions);
  let clock = 0;
  let residents = 0;
  const evict = (called: Uint8Array): void => {
    let victim = -1;
    for (let index = 0; index < functions; index++) {
      if (resident[index] !== 1 || called[index] === 1) continue;
      if (victim < 0 || (priority[index] ?? 0) < (priority[victim] ?? 0)) victim = index;
    }
    if (victim < 0) return;
    clock = priority[victim] ?? 0;
    resident[victim] = 0;
    residents--;
  };
  return {
    begin: () => resident,
    end(_, called) {
      for (let index = 0; index < functions; index++) {
        if (called[index] !== 1) continue;
        if (resident[index] !== 1) {
          if (residents >= residentMax) evict(called);
          resident[index] = 1;
          residents++;
        }
        frequency[index] = (frequency[index] ?? 0) + 1;
        priority[index] = clock + (frequency[index] ?? 0);
      }
    },
  };
}

/** Koine's own, as the engine runs it; a budget of so many idle functions. */
export function learnt(functions: number, idleMax: number, settings: Partial<KeepAliveSettings> = {}): Policy {
  const keepAlive = new KeepAlive<null>({ ...KEEP_ALIVE_SETTINGS, ...settings, idleBytesMax: idleMax });
  const habits = Array.from({ length: functions }, () => {
    const habit = keepAlive.add(null);
    habit.bytes = 1;
    return habit;
  });
  return {
    begin(minute) {
      const plan = keepAlive.plan(minute);
      while (plan.next().done !== true);
      return Uint8Array.from(habits, ({ verdict }) => (verdict === "keep" || verdict === "start" ? 1 : 0));
    },
    end(minute, called) {
      for (const [index, habit] of habits.entries()) {
        const present = called[index] === 1 || habit.verdict === "keep" || habit.verdict === "start";
        if (called[index] === 1) keepAlive.observe(habit, minute);
        habit.instances = present ? 1 : 0;
      }
    },
  };
}

function markCalls(last: Int32Array, minute: number, called: Uint8Array): void {
  for (let index = 0; index < last.length; index++) if (called[index] === 1) last[index] = minute;
}
