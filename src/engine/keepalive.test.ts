import assert from "node:assert/strict";
import { test } from "node:test";
import type { Habit } from "./habit.ts";
import { decideEviction, decideIdle, idleDueMs, KEEP_ALIVE_SETTINGS, KeepAlive } from "./keepalive.ts";

/** Functions and their instances, moved by the minute. */
class Town {
  readonly plan: KeepAlive<string>;
  readonly habits = new Map<string, Habit<string>>();
  minute = 600;

  constructor(idleMax = 100) {
    this.plan = new KeepAlive({ ...KEEP_ALIVE_SETTINGS, idleBytesMax: idleMax });
  }

  of(name: string): Habit<string> {
    const known = this.habits.get(name);
    if (known !== undefined) return known;
    const habit = this.plan.add(name);
    habit.bytes = 1;
    this.habits.set(name, habit);
    return habit;
  }

  /** One minute with these calls; returns those of them that found no instance. */
  pass(calls: readonly string[]): readonly string[] {
    this.minute++;
    const plan = this.plan.plan(this.minute);
    while (plan.next().done !== true);
    for (const habit of this.habits.values()) habit.instances = isHad(habit) ? 1 : 0;
    const cold = calls.filter((name) => this.of(name).instances === 0);
    for (const name of calls) {
      this.plan.observe(this.of(name), this.minute);
      this.of(name).instances = 1;
    }
    return cold;
  }

  get idle(): number {
    return [...this.habits.values()].filter(isHad).length;
  }
}

function isHad({ verdict }: Habit<string>): boolean {
  return verdict === "keep" || verdict === "start";
}

test("a job of every 15 minutes has an instance at its minute, and few minutes besides", () => {
  const town = new Town();
  let [cold, idle] = [0, 0];
  for (let minute = 0; minute < 12 * 60; minute++) {
    const late = minute > 6 * 60;
    cold += town.pass(minute % 15 === 0 ? ["job"] : []).length * Number(late);
    idle += town.idle * Number(late && minute % 15 !== 0);
  }
  assert.equal(cold, 0);
  assert.ok(idle < 3 * 6 * 4, `${idle} idle minutes for 24 calls`);
});

test("a timetable of two entries an hour is learnt, although its gaps differ", () => {
  const town = new Town();
  let cold = 0;
  for (let minute = 0; minute < 24 * 60; minute++) {
    const isDue = minute % 60 === 5 || minute % 60 === 22;
    cold += town.pass(isDue ? ["job"] : []).length * Number(minute > 12 * 60);
  }
  assert.equal(cold, 0);
});

test("a burst and then silence: it is released within minutes, and forgotten by the plan after four hours", () => {
  const town = new Town();
  for (let minute = 0; minute < 30; minute++) town.pass(["shop"]);
  for (let minute = 0; minute < 5; minute++) town.pass([]);
  assert.equal(town.of("shop").verdict, "release");
  assert.equal(town.plan.live, 1);
  for (let minute = 0; minute < 240; minute++) town.pass([]);
  assert.equal(town.plan.live, 0);
});

test("while nothing is known, a new function is kept for the default idle time", () => {
  const plan = new KeepAlive<null>({ ...KEEP_ALIVE_SETTINGS, idleMinutesDefault: 5, idleBytesMax: 100 });
  const habit = plan.add(null);
  habit.instances = 1;
  habit.bytes = 1;
  plan.observe(habit, 100);
  assert.equal(habit.verdict, "pending");
  const verdicts = [101, 102, 103, 104, 105, 106].map((minute) => {
    plan.plan(minute).next();
    return habit.verdict;
  });
  assert.deepEqual(verdicts, ["keep", "keep", "keep", "keep", "keep", "release"]);
});

test("a new function is treated as others of its kind were", () => {
  const town = new Town();
  for (let minute = 0; minute < 600; minute++) {
    const others = Array.from({ length: 20 }, (_, index) => `other-${index}`);
    town.pass(others.filter((_, index) => (minute + index) % 6 === 0));
  }
  town.pass(["new"]);
  for (let minute = 1; minute < 6; minute++) town.pass([]);
  assert.ok(isHad(town.of("new")));
});

test("what lies idle stays within the memory that may, on the average", () => {
  const town = new Town(20);
  const random = randomNumbers(7);
  let idle = 0;
  for (let minute = 0; minute < 600; minute++) {
    const calls = Array.from({ length: 200 }, (_, index) => `function-${index}`).filter(() => random() < 0.08);
    town.pass(calls);
    if (minute >= 240) idle += town.idle;
  }
  assert.ok(idle / 360 <= 25, `${idle / 360} idle on the average`);
});

test("of two functions alike, the one that starts slowly finds an instance more often", () => {
  const town = new Town(0.8);
  town.of("slow").coldMs = 1_000;
  town.of("quick").coldMs = 100;
  const random = randomNumbers(3);
  const cold: string[] = [];
  for (let minute = 0; minute < 1_200; minute++)
    cold.push(...town.pass(["slow", "quick"].filter(() => random() < 0.15)));
  const count = (name: string): number => cold.filter((one) => one === name).length;
  assert.ok(count("slow") * 3 < count("quick"), `${count("slow")} and ${count("quick")}`);
});

test("nothing is started for a function that was never called", () => {
  const town = new Town();
  town.of("never");
  for (let minute = 0; minute < 120; minute++) town.pass(minute % 5 === 0 ? ["other"] : []);
  assert.equal(town.of("never").verdict, "release");
});

test("a function that was removed leaves nothing to one that takes its place", () => {
  const town = new Town();
  for (let minute = 0; minute < 300; minute++) town.pass(minute % 10 === 0 ? ["old", "neighbour"] : []);
  town.plan.remove(town.of("old"));
  town.habits.delete("old");
  const { gaps, lastMinute } = town.of("new");
  assert.deepEqual({ gaps, lastMinute, counted: town.of("new").gapsOf(10) }, { gaps: 0, lastMinute: -1, counted: 0 });
  assert.equal(town.plan.live, 1);
  assert.deepEqual(town.pass(["neighbour"]), []);
});

test("a function of many years is still counted right", () => {
  const town = new Town();
  for (let minute = 0; minute < 6_000; minute++) town.pass(minute % 4 === 0 ? ["job"] : []);
  assert.ok(town.of("job").gapsOf(4) > 100);
  assert.ok(town.of("job").hours(town.minute) <= 96);
  assert.deepEqual(town.pass(["job"]), []);
});

test("the spec's idle time comes before the plan's verdict", () => {
  const idleSinceMs = 1_000;
  const due = (specMs: number | null, verdict: "pending" | "keep" | "release"): number | null =>
    idleDueMs({ idleSinceMs, specMs, defaultMs: 60_000, verdict });
  assert.equal(due(5_000, "keep"), 6_000);
  assert.equal(due(null, "keep"), null);
  assert.equal(due(null, "pending"), 61_000);
  assert.equal(due(null, "release"), 11_000);
});

test("what is due stops, and the next time to look is when the next is due", () => {
  const idle = [
    { key: "due", idleSinceMs: 0, dueMs: 10, worth: 0 },
    { key: "later", idleSinceMs: 0, dueMs: 30, worth: 0 },
    { key: "kept", idleSinceMs: 0, dueMs: null, worth: 0 },
  ];
  assert.deepEqual(decideIdle(idle, 20), { stop: ["due"], nextAtMs: 30 });
});

test("under pressure the least worthy goes, and among equals what has been idle longest", () => {
  const view = (key: string, idleSinceMs: number, worth: number) => ({ key, idleSinceMs, dueMs: null, worth });
  assert.equal(decideEviction([view("dear", 1, 0.5), view("young", 9, 0.1), view("old", 2, 0.1)]), "old");
  assert.equal(decideEviction([]), null);
});

function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
