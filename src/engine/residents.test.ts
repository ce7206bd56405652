import assert from "node:assert/strict";
import { test } from "node:test";
import type { Version } from "../core/function.ts";
import { FakeMachine, fakeVersion } from "./fakes.ts";

const MINUTE_MS = 60_000;
const MIB = 1024 * 1024;

/** A machine whose clock stands at a full minute. */
async function machineAtMinute(settings: ConstructorParameters<typeof FakeMachine>[0] = {}): Promise<FakeMachine> {
  const machine = new FakeMachine(settings);
  await machine.clock.advance(MINUTE_MS - (machine.clock.nowMs() % MINUTE_MS));
  return machine;
}

/** One call from beginning to end; whether it was cold. */
async function call(machine: FakeMachine, version: Version): Promise<boolean> {
  const caller = machine.invoke(version);
  await machine.settle();
  await machine.answer();
  assert.equal(caller.result, "succeeded");
  machine.activations.length = 0;
  return caller.figures?.cold ?? false;
}

/** Calls a version every so many minutes; how many of the last calls were cold. */
async function everyMinutes(
  machine: FakeMachine,
  version: Version,
  { minutes, times, last }: { minutes: number; times: number; last: number },
): Promise<number> {
  let cold = 0;
  for (let time = 1; time <= times; time++) {
    const wasCold = await call(machine, version);
    if (time > times - last && wasCold) cold++;
    if (time < times) await machine.clock.advance(minutes * MINUTE_MS);
  }
  return cold;
}

test("a function called every 15 minutes is warm at its minute, and has no process in between", async () => {
  const machine = await machineAtMinute();
  const version = fakeVersion();
  assert.equal(await everyMinutes(machine, version, { minutes: 15, times: 12, last: 4 }), 0);
  await machine.clock.advance(7 * MINUTE_MS);
  assert.equal(machine.alive.length, 0);
  await machine.clock.advance(8 * MINUTE_MS - 1_000);
  assert.equal(machine.alive.length, 1);
});

test("a burst and then silence: every process ends, and so do the timers' plans", async () => {
  const machine = await machineAtMinute();
  const version = fakeVersion();
  await everyMinutes(machine, version, { minutes: 1, times: 20, last: 0 });
  assert.equal(machine.alive.length, 1);
  await machine.clock.advance(10 * MINUTE_MS);
  assert.equal(machine.alive.length, 0);
  const begun = machine.sandboxes.length;
  await machine.clock.advance(6 * 60 * MINUTE_MS);
  assert.equal(machine.sandboxes.length, begun);
});

test("a new function stays for the default idle time", async () => {
  const machine = await machineAtMinute({ idleTimeoutMs: 5 * MINUTE_MS });
  await call(machine, fakeVersion());
  await machine.clock.advance(4 * MINUTE_MS);
  assert.equal(machine.alive.length, 1);
  await machine.clock.advance(3 * MINUTE_MS);
  assert.equal(machine.alive.length, 0);
});

test("an idle time in the spec is kept to, whatever was learnt, and nothing is started ahead then", async () => {
  const machine = await machineAtMinute();
  const version = fakeVersion({ idleTimeoutMs: 1_000 });
  await everyMinutes(machine, version, { minutes: 1, times: 20, last: 0 });
  await machine.clock.advance(10_000);
  assert.equal(machine.alive.length, 0);
  await machine.clock.advance(MINUTE_MS);
  assert.equal(machine.sandboxes.length, 20);
});

test("of several instances that a peak has left, one is kept for the function that is called every minute", async () => {
  const machine = await machineAtMinute();
  const version = fakeVersion();
  await everyMinutes(machine, version, { minutes: 1, times: 10, last: 0 });
  const peak = [machine.invoke(version), machine.invoke(version), machine.invoke(version)];
  await machine.settle();
  for (const _ of peak) await machine.answer();
  assert.equal(machine.alive.length, 3);
  await machine.clock.advance(MINUTE_MS);
  await call(machine, version);
  await machine.clock.advance(MINUTE_MS);
  assert.equal(await call(machine, version), false);
  assert.equal(machine.alive.length, 1);
});

test("the memory budget is never exceeded, and a call takes the place of what is kept", async () => {
  const memoryBudgetBytes = 4 * 64 * MIB;
  const machine = await machineAtMinute({ memoryBudgetBytes });
  const versions = Array.from({ length: 8 }, (_, index) => fakeVersion({}, { name: `job-${index}` }));
  for (let minute = 0; minute < 240; minute++) {
    for (const [index, version] of versions.entries()) {
      if ((minute + index) % (3 + index) === 0) await call(machine, version);
      assert.ok(machine.engine.memoryBytes <= memoryBudgetBytes);
      assert.ok(machine.alive.length <= 4);
    }
    await machine.clock.advance(MINUTE_MS);
    assert.ok(machine.engine.memoryBytes <= memoryBudgetBytes);
  }
});

test("a function that was only checked, or is retired or forgotten, is not started ahead", async () => {
  const machine = await machineAtMinute();
  await machine.engine.warm(fakeVersion({}, { name: "checked" }), new AbortController().signal);
  const [retired, forgotten] = [fakeVersion({}, { name: "retired" }), fakeVersion({}, { name: "forgotten" })];
  for (let time = 0; time < 12; time++) {
    await call(machine, retired);
    await call(machine, forgotten);
    await machine.clock.advance(10 * MINUTE_MS);
  }
  machine.engine.retire(retired);
  machine.engine.retire(forgotten);
  machine.engine.forget(forgotten);
  await machine.settle();
  const begun = machine.sandboxes.length;
  await machine.clock.advance(120 * MINUTE_MS);
  assert.equal(machine.sandboxes.length, begun);
  assert.equal(machine.alive.length, 0);
});

test("a function that cannot be started ahead is left alone until it is called", async () => {
  const machine = await machineAtMinute();
  const version = fakeVersion();
  await everyMinutes(machine, version, { minutes: 10, times: 12, last: 0 });
  const works = machine.load;
  machine.load = async () => {
    throw new Error("gone");
  };
  await machine.clock.advance(10 * MINUTE_MS);
  assert.deepEqual(machine.unsupervised, []);
  machine.load = works;
  await machine.clock.advance(MINUTE_MS);
  await call(machine, version);
});

test("closing ends the plans", async () => {
  const machine = await machineAtMinute();
  await call(machine, fakeVersion());
  await machine.engine.close();
  const begun = machine.sandboxes.length;
  await machine.clock.advance(60 * MINUTE_MS);
  assert.equal(machine.sandboxes.length, begun);
  assert.equal(machine.alive.length, 0);
});
