import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../core/clock.ts";
import { KoineError } from "../core/errors.ts";
import type { CloudEvent } from "../core/event.ts";
import { createScheduleKind, slotsToFire } from "./schedule.ts";
import { cronSlots, parseMoment, rateSlots, type Slots } from "./schedule/slots.ts";
import { Timeline } from "./schedule/timeline.ts";
import type { SourceHost } from "./trigger.ts";

const ms = Date.parse;
const iso = (time: number): string => new Date(time).toISOString().replace(".000Z", "Z");

function slots(of: Slots, after: string, count: number): readonly string[] {
  const found: string[] = [];
  for (let at: number | null = ms(after); found.length < count;) {
    at = of.next(at);
    if (at === null) break;
    found.push(iso(at));
  }
  return found;
}

test("cron has five, six or seven fields", () => {
  const after = "2026-05-01T10:00:07Z";
  assert.deepEqual(slots(cronSlots("*/15 * * * *", "UTC"), after, 2), ["2026-05-01T10:15:00Z", "2026-05-01T10:30:00Z"]);
  assert.deepEqual(slots(cronSlots("*/10 * * * * *", "UTC"), after, 2), [
    "2026-05-01T10:00:10Z",
    "2026-05-01T10:00:20Z",
  ]);
  assert.deepEqual(slots(cronSlots("0 0 9 1 1 * 2030", "UTC"), after, 2), ["2030-01-01T09:00:00Z"]);
  for (const bad of ["* * * *", "* * * * * * * *", "61 * * * *", "x * * * *"])
    assert.throws(
      () => cronSlots(bad, "UTC"),
      (error) => error instanceof KoineError && error.code === "invalid-trigger",
      bad,
    );
});

test("a slot is found once: the next after it is another, also when a clock has milliseconds", () => {
  const minute = cronSlots("* * * * *", "UTC");
  assert.equal(minute.next(ms("2026-05-01T10:00:00Z")), ms("2026-05-01T10:01:00Z"));
  assert.equal(minute.next(ms("2026-05-01T10:00:59.999Z")), ms("2026-05-01T10:01:00Z"));
  assert.equal(minute.next(ms("2026-05-01T09:59:59.999Z")), ms("2026-05-01T10:00:00Z"));
});

test("a time that daylight saving leaves out fires once, right after the gap", () => {
  assert.deepEqual(slots(cronSlots("30 2 * * *", "Europe/Berlin"), "2026-03-28T12:00:00Z", 2), [
    "2026-03-29T01:00:00Z",
    "2026-03-30T00:30:00Z",
  ]);
  assert.deepEqual(slots(cronSlots("30 2 * * *", "America/New_York"), "2026-03-07T12:00:00Z", 2), [
    "2026-03-08T07:00:00Z",
    "2026-03-09T06:30:00Z",
  ]);
});

test("a time that daylight saving has twice fires the first time only", () => {
  assert.deepEqual(slots(cronSlots("30 2 * * *", "Europe/Berlin"), "2026-10-24T12:00:00Z", 2), [
    "2026-10-25T00:30:00Z",
    "2026-10-26T01:30:00Z",
  ]);
  assert.deepEqual(slots(cronSlots("30 1 * * *", "America/New_York"), "2026-10-31T12:00:00Z", 2), [
    "2026-11-01T05:30:00Z",
    "2026-11-02T06:30:00Z",
  ]);
});

test("every half hour stays every half hour through both changes of the clock", () => {
  for (const begin of ["2026-03-28T23:00:00Z", "2026-10-24T22:00:00Z"]) {
    const found = slots(cronSlots("*/30 * * * *", "Europe/Berlin"), begin, 12).map(ms);
    for (const [index, time] of found.entries()) assert.equal(time, ms(begin) + (index + 1) * 1_800_000);
  }
});

test("a rate counts from its beginning", () => {
  const from = ms("2026-05-01T10:00:30Z");
  assert.deepEqual(slots(rateSlots("5 minutes", from), "2026-05-01T10:00:30Z", 2), [
    "2026-05-01T10:05:30Z",
    "2026-05-01T10:10:30Z",
  ]);
  assert.equal(rateSlots("rate(1 hour)", from).next(ms("2026-05-02T00:00:00Z")), ms("2026-05-02T00:00:30Z"));
  assert.deepEqual(rateSlots("90s", from).last(from + 400_000, 2), [from + 270_000, from + 360_000]);
  for (const bad of ["5", "0 minutes", "5 weeks", "-1 hour", "1 ms"])
    assert.throws(() => rateSlots(bad, 0), KoineError, bad);
});

test("a moment has an offset or is local to the time zone", () => {
  assert.equal(parseMoment("2026-05-01T10:00:00+02:00", "UTC"), ms("2026-05-01T08:00:00Z"));
  assert.equal(parseMoment("2026-07-01T10:00", "Europe/Berlin"), ms("2026-07-01T08:00:00Z"));
  for (const bad of ["tomorrow", "2026-13-01T00:00:00Z"]) assert.throws(() => parseMoment(bad, "UTC"), KoineError, bad);
  assert.throws(() => parseMoment("2026-05-01T10:00", "Mars/Base"), /no time zone 'Mars\/Base'/);
});

test("what was missed fires not at all, once, or every time", () => {
  const now = ms("2026-05-01T12:00:30Z");
  const due = [10, 11, 12].map((hour) => ms(`2026-05-01T${hour}:00:00Z`));
  const rules = { jitterMs: 0, at: undefined };
  assert.deepEqual(slotsToFire(due, now, { ...rules, catchUp: "none" }), []);
  assert.deepEqual(slotsToFire(due, now, { ...rules, catchUp: "one" }), [due[2]]);
  assert.deepEqual(slotsToFire(due, now, { ...rules, catchUp: "all" }), due);
  assert.deepEqual(slotsToFire([now - 5], now, { ...rules, catchUp: "none" }), [now - 5], "on time is not missed");
});

test("the timeline calls in order of time, whatever the order of asking, and not what was cancelled", async () => {
  const clock = new VirtualClock(1_000_000);
  const timeline = new Timeline(clock);
  const called: number[] = [];
  const times = Array.from({ length: 500 }, (_, index) => 1_000_000 + ((index * 7919) % 500) * 10);
  const cancels = times.map((time) => timeline.at(time, () => called.push(time)));
  for (const [index, cancel] of cancels.entries()) if (index % 5 === 0) cancel();
  await clock.advance(10_000);
  assert.deepEqual(
    called,
    times.filter((_, index) => index % 5 !== 0).sort((a, b) => a - b),
  );
});

test("a schedule fires at its slots and is not fired again by another start", async () => {
  const story = tell({ cron: "*/10 * * * *" });
  await story.runFor(25 * 60_000);
  assert.deepEqual(story.fired, ["2026-05-01T10:10:00.000Z", "2026-05-01T10:20:00.000Z"]);
  await story.runFor(10 * 60_000);
  assert.equal(story.fired.length, 3);
});

test("after a downtime the newest missed slot fires once", async () => {
  const story = tell({ cron: "*/10 * * * *" });
  await story.runFor(60_000);
  await story.clock.advance(3_600_000);
  await story.runFor(1_000);
  assert.deepEqual(story.fired, ["2026-05-01T11:00:00.000Z"]);
});

test("with catch-up 'all' every slot of a downtime fires, with 'none' nothing does", async () => {
  const all = tell({ cron: "*/10 * * * *", catchUp: "all" });
  await all.runFor(1);
  await all.clock.advance(3_600_000);
  await all.runFor(1_000);
  assert.equal(all.fired.length, 6);
  const none = tell({ cron: "*/10 * * * *", catchUp: "none" });
  await none.runFor(1);
  await none.clock.advance(3_600_000 + 120_000);
  await none.runFor(1_000);
  assert.deepEqual(none.fired, []);
  await none.runFor(10 * 60_000);
  assert.equal(none.fired.length, 1);
});

test("a year of missed seconds is looked at in a moment and made up for within the bound", async () => {
  const story = tell({ cron: "* * * * * *", catchUp: "all" });
  await story.runFor(1);
  await story.clock.advance(365 * 86_400_000);
  await story.runFor(1);
  assert.equal(story.fired.length, 1_000);
});

test("a single moment fires once, also when it passed while nothing ran, and then the source has finished", async () => {
  const story = tell({ at: "2026-05-01T10:30:00Z" });
  await story.runFor(60_000);
  await story.clock.advance(3_600_000);
  await story.runFor(1_000);
  assert.deepEqual(story.fired, ["2026-05-01T10:30:00.000Z"]);
  assert.equal(story.finished, true);
  await story.runFor(1_000);
  assert.equal(story.fired.length, 1);
});

test("with overlap 'skip' a slot does not fire while the run before it has not ended", async () => {
  const story = tell({ rate: "1 minute", overlap: "skip" });
  story.over = false;
  await story.runFor(3.5 * 60_000);
  assert.equal(story.fired.length, 1);
  story.over = true;
  await story.runFor(60_000);
  assert.equal(story.fired.length, 2);
});

test("jitter moves a slot by the same time at every start, and not its name", async () => {
  const one = tell({ cron: "0 * * * *", jitterMs: 600_000 });
  const other = tell({ cron: "0 * * * *", jitterMs: 600_000 });
  await one.runFor(5 * 3_600_000);
  await other.runFor(5 * 3_600_000);
  assert.deepEqual(one.firedAtMs, other.firedAtMs);
  assert.equal(one.fired[0], "2026-05-01T11:00:00.000Z");
  assert.ok(new Set(one.firedAtMs.map((at) => at % 3_600_000)).size > 1);
});

test("changed settings begin anew instead of making up for slots that were never theirs", async () => {
  const story = tell({ cron: "0 0 1 1 *", catchUp: "all" });
  await story.runFor(86_400_000);
  story.settings = { cron: "*/10 * * * *", catchUp: "all" };
  await story.runFor(1_000);
  assert.deepEqual(story.fired, []);
});

test("settings that cannot be meant are refused in words", () => {
  const kind = createScheduleKind(new VirtualClock());
  const refusals: readonly (readonly [unknown, RegExp])[] = [
    [{}, /exactly one of cron, rate and at/],
    [{ cron: "* * * * *", rate: "1m" }, /exactly one/],
    [{ cron: "* * * *" }, /has 4 fields/],
    [{ cron: "* * * * *", timezone: "Nowhere" }, /no time zone 'Nowhere'/],
    [{ cron: "0 0 31 2 *" }, /never fires again/],
    [{ rate: "often" }, /rate 'often'/],
    [{ cron: "* * * * *", jitter: 5 }, /jitter/],
    [{ cron: "* * * * *", overlap: "maybe" }, /overlap/],
  ];
  for (const [settings, says] of refusals)
    assert.throws(
      () => kind.parse(settings),
      (error) => error instanceof KoineError && error.code === "invalid-trigger" && says.test(error.message),
      String(says),
    );
});

/** A schedule that can be run for a while, again and again, on one checkpoint. */
function tell(settings: Readonly<Record<string, unknown>>) {
  const clock = new VirtualClock(ms("2026-05-01T10:00:00Z"));
  const story = {
    clock,
    settings,
    fired: [] as string[],
    firedAtMs: [] as number[],
    over: true,
    finished: false,
    async runFor(byMs: number): Promise<void> {
      const kind = createScheduleKind(clock);
      const stop = new AbortController();
      const emit = async (event: CloudEvent): Promise<{ activationId: string }> => {
        story.fired.push(event.id);
        story.firedAtMs.push(clock.nowMs());
        return { activationId: event.id };
      };
      const source = kind.open(kind.parse(story.settings), host);
      const run = source.run(emit, stop.signal).then(
        () => (story.finished = true),
        () => {},
      );
      // The source begins before time goes on.
      await clock.advance(0);
      await clock.advance(byMs);
      stop.abort(new Error("stopped"));
      await run;
    },
  };
  let stored: string | null = null;
  const host: SourceHost = {
    trigger: { id: "019d0000-0000-7000-8000-000000000000", namespace: "default", name: "tick" },
    clock,
    logger: { log: () => {} },
    checkpoint: {
      read: () => Promise.resolve(stored),
      write: (position) => {
        stored = position;
        return Promise.resolve();
      },
    },
    secret: () => "",
    report: () => {},
    isOver: () => Promise.resolve(story.over),
    random: () => 0.5,
  };
  return story;
}
