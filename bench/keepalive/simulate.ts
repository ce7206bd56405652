import type { Trace } from "./trace.ts";

/** A keep-alive policy as the simulator runs it: it sees the past only. */
export interface Policy {
  /** Which functions have an instance in this minute, called or not: 1 by function. */
  begin(minute: number): Uint8Array;
  /** Which functions were called in it. Each has an instance by its end. */
  end(minute: number, called: Uint8Array): void;
}

export interface Simulated {
  /** Minutes in which some function was called and had no instance, as a share of those in which it was called. */
  readonly coldShare: number;
  /** Instances of functions that were not called, mean over the minutes, and the most in one. */
  readonly idleMean: number;
  readonly idleMax: number;
  /** Instances that were started without a call, and how many of them were called in that minute. */
  readonly startedAhead: number;
  readonly startedAheadUsed: number;
}

/** Runs a day through a policy, minute by minute; all functions have the same size and cost. */
export function simulate(trace: Trace, policy: Policy): Simulated {
  const functions = trace.active.length;
  const called = new Uint8Array(functions);
  let before = new Uint8Array(functions);
  let [calls, cold, idle, idleMax, startedAhead, startedAheadUsed] = [0, 0, 0, 0, 0, 0];
  for (let minute = 0; minute < trace.minutes; minute++) {
    const present = Uint8Array.from(policy.begin(minute));
    let idleNow = 0;
    for (let index = 0; index < functions; index++) {
      called[index] = trace.active[index]?.[minute] ?? 0;
      if (present[index] === 1 && before[index] === 0) {
        startedAhead++;
        startedAheadUsed += called[index] ?? 0;
      }
      if (called[index] === 1) {
        calls++;
        if (present[index] === 0) cold++;
        present[index] = 1;
      } else idleNow += present[index] ?? 0;
    }
    idle += idleNow;
    idleMax = Math.max(idleMax, idleNow);
    before = present;
    policy.end(minute, called);
  }
  return { coldShare: cold / calls, idleMean: idle / trace.minutes, idleMax, startedAhead, startedAheadUsed };
}
