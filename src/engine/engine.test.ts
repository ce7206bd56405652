import assert from "node:assert/strict";
import { test } from "node:test";
import { KoineError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type { Specialised } from "../protocols/protocol.ts";
import { FakeMachine, fakeVersion } from "./fakes.ts";

test("the first call starts an instance and is cold; the next one finds it warm", async () => {
  const machine = new FakeMachine();
  const version = fakeVersion();
  const first = machine.invoke(version);
  await machine.settle();
  await machine.answer("one");
  assert.equal(first.result, "succeeded");
  assert.equal(first.text, "one");
  assert.equal(first.figures?.cold, true);

  const second = machine.invoke(version);
  await machine.answer();
  assert.equal(second.figures?.cold, false);
  assert.equal(machine.sandboxes.length, 1);
  assert.equal(machine.sandboxes[0]?.attached, null);
});

test("as many instances start as calls wait, and no more", async () => {
  const machine = new FakeMachine();
  const version = fakeVersion();
  const callers = Array.from({ length: 5 }, () => machine.invoke(version));
  await machine.settle();
  assert.equal(machine.alive.length, 5);
  for (const _ of callers) await machine.answer();
  assert.deepEqual(
    callers.map((caller) => caller.result),
    Array(5).fill("succeeded"),
  );
});

test("calls share an instance up to its concurrency", async () => {
  const machine = new FakeMachine();
  const version = fakeVersion({ instanceConcurrency: 4 });
  const callers = Array.from({ length: 6 }, () => machine.invoke(version));
  await machine.settle();
  assert.equal(machine.alive.length, 2);
  assert.equal(machine.waitingCalls.length, 6);
  for (const _ of callers) await machine.answer();
  assert.equal(machine.engine.inFlight, 0);
});

test("a function never holds more slots than it may, whatever its versions", async () => {
  const machine = new FakeMachine();
  const one = fakeVersion({ reservedConcurrency: 2 });
  const two = fakeVersion({ reservedConcurrency: 2 }, { number: 2 });
  const callers = [machine.invoke(one), machine.invoke(two), machine.invoke(one), machine.invoke(two)];
  await machine.settle();
  assert.equal(machine.waitingCalls.length, 2);
  await machine.answer();
  assert.equal(machine.waitingCalls.length, 2);
  for (let index = 0; index < 3; index++) await machine.answer();
  assert.deepEqual(
    callers.map((caller) => caller.result),
    Array(4).fill("succeeded"),
  );
});

test("what exceeds the wait queue is rejected at once, and who waits too long as well", async () => {
  const machine = new FakeMachine({ instancesMax: 1 });
  const version = fakeVersion({ timeoutMs: limits.timeoutMsMax });
  const running = machine.invoke(version);
  await machine.settle();
  const waiting = Array.from({ length: limits.waitQueueLengthMax }, () => machine.invoke(version));
  const refused = machine.invoke(version);
  assert.equal(refused.result, "too-many-requests");
  await machine.clock.advance(limits.waitQueueMsMax);
  assert.equal(waiting[0]?.result, "too-many-requests");
  assert.equal(running.result, null);
  await machine.answer();
  assert.equal(running.result, "succeeded");
});

test("an idle instance stops after its time, and an idle function has no process", async () => {
  const machine = new FakeMachine();
  const version = fakeVersion({ idleTimeoutMs: 10_000 });
  machine.invoke(version);
  await machine.settle();
  await machine.answer();
  await machine.clock.advance(9_000);
  assert.equal(machine.alive.length, 1);
  await machine.clock.advance(11_000);
  assert.equal(machine.alive.length, 0);
  assert.deepEqual(machine.engine.counts(), { starting: 0, idle: 0, busy: 0, frozen: 0 });
  const again = machine.invoke(version);
  await machine.settle();
  await machine.answer();
  assert.equal(again.figures?.cold, true);
});

test("an instance that dies fails its own calls with the reason, and the next call gets a new one", async () => {
  const machine = new FakeMachine();
  const version = fakeVersion();
  const victim = machine.invoke(version);
  const neighbour = machine.invoke(version);
  await machine.settle();
  machine.waitingCalls.shift()?.sandbox.end({ kind: "out-of-memory" });
  await machine.settle();
  assert.equal(victim.result, "out-of-memory");
  assert.equal(neighbour.result, null);
  await machine.answer();
  assert.equal(neighbour.result, "succeeded");
  assert.equal(machine.alive.length, 1);
});

test("a call that runs out of time is answered, and its instance does not serve again", async () => {
  const machine = new FakeMachine();
  const version = fakeVersion({ timeoutMs: 1_000 });
  const slow = machine.invoke(version);
  await machine.settle();
  await machine.clock.advance(1_000);
  assert.equal(slow.outcome?.kind, "timedOut");
  assert.equal(machine.alive.length, 0);
  machine.waitingCalls.length = 0;
  const next = machine.invoke(version);
  await machine.settle();
  await machine.answer();
  assert.equal(next.result, "succeeded");
});

test("when one of several calls on an instance runs out of time, the others may end there", async () => {
  const machine = new FakeMachine();
  const version = fakeVersion({ timeoutMs: 1_000, instanceConcurrency: 2 });
  const slow = machine.invoke(version);
  await machine.settle();
  await machine.clock.advance(500);
  const other = machine.invoke(version);
  await machine.clock.advance(500);
  assert.equal(slow.outcome?.kind, "timedOut");
  assert.equal(machine.alive.length, 1);
  const third = machine.invoke(version);
  await machine.settle();
  assert.equal(machine.alive.length, 2);
  machine.waitingCalls.shift();
  await machine.answer();
  assert.equal(other.result, "succeeded");
  await machine.answer();
  assert.equal(third.result, "succeeded");
});

/** A machine whose processes take a call with their specialisation, and load when they are let. */
function earlyMachine(): { readonly machine: FakeMachine; readonly loaded: PromiseWithResolvers<Specialised> } {
  const machine = new FakeMachine();
  const loaded = Promise.withResolvers<Specialised>();
  machine.invokesEarly = true;
  machine.load = () => loaded.promise;
  return { machine, loaded };
}

test("the first call is sent before its handler has loaded, and its time begins when it has", async () => {
  const { machine, loaded } = earlyMachine();
  const caller = machine.invoke(fakeVersion({ timeoutMs: 1_000 }));
  await machine.settle();
  assert.equal(machine.waitingCalls.length, 1);
  await machine.clock.advance(2_000);
  assert.equal(caller.result, null);
  loaded.resolve({ handlerModel: "web", loadMs: 2_000 });
  await machine.settle();
  await machine.clock.advance(500);
  await machine.answer();
  assert.equal(caller.result, "succeeded");
  assert.deepEqual(caller.figures, {
    ...caller.figures,
    cold: true,
    queuedMs: 2_000,
    startMs: 2_000,
    durationMs: 500,
  });
  const again = machine.invoke(fakeVersion({ timeoutMs: 1_000 }));
  await machine.answer();
  assert.equal(again.figures?.cold, false);
});

test("a call that was sent early runs out of time like any other", async () => {
  const { machine, loaded } = earlyMachine();
  const caller = machine.invoke(fakeVersion({ timeoutMs: 1_000 }));
  await machine.settle();
  loaded.resolve({ handlerModel: "web", loadMs: 1 });
  await machine.settle();
  await machine.clock.advance(1_001);
  assert.equal(caller.result, "function-timed-out");
});

test("where loading fails, the call that was sent early gets that error, once", async () => {
  const { machine, loaded } = earlyMachine();
  const callers = [machine.invoke(fakeVersion()), machine.invoke(fakeVersion())];
  await machine.settle();
  assert.equal(machine.waitingCalls.length, 2);
  loaded.reject(new KoineError("handler-load-failed", { handler: "index", detail: "x" }));
  await machine.settle();
  assert.deepEqual(
    callers.map(({ result }) => result),
    ["handler-load-failed", "handler-load-failed"],
  );
  assert.equal(machine.engine.inFlight, 0);
  assert.equal(machine.alive.length, 0);
});

test("a call that was sent early and then cancelled frees its slot when the instance has answered", async () => {
  const { machine, loaded } = earlyMachine();
  const caller = machine.invoke(fakeVersion());
  await machine.settle();
  caller.exchange?.cancel();
  assert.equal(machine.waitingCalls[0]?.cancelled, true);
  loaded.resolve({ handlerModel: "web", loadMs: 1 });
  await machine.settle();
  await machine.answer();
  assert.equal(caller.result, "client-closed-request");
  assert.equal(machine.engine.counts().idle, 1);
});

test("nothing is sent early where slots are counted, or where an instance may become free sooner", async () => {
  const counted = earlyMachine();
  counted.machine.invoke(fakeVersion({ reservedConcurrency: 1 }));
  await counted.machine.settle();
  assert.equal(counted.machine.waitingCalls.length, 0);

  const { machine, loaded } = earlyMachine();
  machine.invoke(fakeVersion());
  await machine.settle();
  loaded.resolve({ handlerModel: "web", loadMs: 1 });
  await machine.settle();
  machine.load = () => new Promise(() => {});
  const second = machine.invoke(fakeVersion());
  await machine.settle();
  assert.equal(machine.waitingCalls.length, 1);
  await machine.answer();
  await machine.answer();
  assert.equal(second.result, "succeeded");
});

test("a handler that cannot be loaded fails those who wait for it, and is not tried again for a while", async () => {
  const machine = new FakeMachine();
  let loads = 0;
  machine.load = async () => {
    loads++;
    throw new KoineError("handler-not-found", { handler: "index", detail: "no such file" });
  };
  const version = fakeVersion();
  for (let index = 0; index < limits.startFailuresMax; index++) {
    const caller = machine.invoke(version);
    await machine.settle();
    assert.equal(caller.result, "handler-not-found");
  }
  const refused = machine.invoke(version);
  await machine.settle();
  assert.equal(refused.result, "handler-not-found");
  assert.equal(loads, limits.startFailuresMax);
  assert.equal(machine.alive.length, 0);
  await machine.clock.advance(limits.startBackoffMsMax);
  machine.load = async () => ({ handlerModel: "web", loadMs: 1 });
  const later = machine.invoke(version);
  await machine.settle();
  await machine.answer();
  assert.equal(later.result, "succeeded");
});

test("a call that its caller gives up leaves the queue, or tells the instance", async () => {
  const machine = new FakeMachine({ instancesMax: 1 });
  const version = fakeVersion();
  const running = machine.invoke(version);
  await machine.settle();
  const waiting = machine.invoke(version);
  waiting.exchange?.cancel();
  assert.equal(waiting.result, "client-closed-request");
  running.exchange?.cancel();
  assert.equal(machine.waitingCalls[0]?.cancelled, true);
  await machine.answer();
  assert.equal(running.result, "client-closed-request");
  const next = machine.invoke(version);
  await machine.settle();
  await machine.answer();
  assert.equal(next.result, "succeeded");
});

test("when the node is full, an idle instance of another function makes room", async () => {
  const machine = new FakeMachine({ instancesMax: 1 });
  machine.invoke(fakeVersion({}, { name: "quiet" }));
  await machine.settle();
  await machine.answer();
  const caller = machine.invoke(fakeVersion({}, { name: "wanted" }));
  await machine.settle();
  await machine.answer();
  assert.equal(caller.result, "succeeded");
  assert.equal(machine.alive.length, 1);
});

test("when the node is full of busy instances, whoever waits is served when one ends", async () => {
  const machine = new FakeMachine({ instancesMax: 1 });
  const busy = machine.invoke(fakeVersion({}, { name: "busy" }));
  await machine.settle();
  const caller = machine.invoke(fakeVersion({}, { name: "wanted" }));
  await machine.settle();
  assert.equal(caller.result, null);
  await machine.answer();
  await machine.settle();
  assert.equal(busy.result, "succeeded");
  await machine.answer();
  assert.equal(caller.result, "succeeded");
});

test("a retired version stops idle instances at once and busy ones afterwards, without failing a call", async () => {
  const machine = new FakeMachine();
  const version = fakeVersion();
  const running = machine.invoke(version);
  machine.invoke(version);
  await machine.settle();
  const second = machine.waitingCalls.pop();
  second?.responder.succeeded();
  await machine.settle();
  assert.equal(machine.alive.length, 2);
  machine.engine.retire(version);
  await machine.settle();
  assert.equal(machine.alive.length, 1);
  await machine.answer();
  assert.equal(running.result, "succeeded");
  assert.equal(machine.alive.length, 0);
});

test("an idle instance is frozen after a while, and runs again for the next call", async () => {
  const machine = new FakeMachine({ idleTimeoutMs: 3_600_000 });
  machine.invoke(fakeVersion());
  await machine.settle();
  await machine.answer();
  const [sandbox] = machine.alive;
  await machine.clock.advance(limits.freezeAfterMs - 1);
  assert.equal(sandbox?.frozen, false);
  await machine.clock.advance(1);
  assert.equal(sandbox?.frozen, true);
  assert.deepEqual(machine.engine.counts(), { starting: 0, idle: 0, busy: 0, frozen: 1 });
  await machine.clock.advance(600_000);
  const caller = machine.invoke(fakeVersion());
  assert.equal(sandbox?.frozen, false);
  assert.equal(machine.waitingCalls[0]?.sandbox, sandbox);
  // Its time runs from now: what it slept does not count.
  await machine.clock.advance(2_999);
  await machine.answer();
  assert.equal(caller.result, "succeeded");
  assert.equal(caller.figures?.cold, false);
});

test("a frozen instance stops when it has been idle for its time, the time before it froze included", async () => {
  const machine = new FakeMachine();
  const version = fakeVersion({ idleTimeoutMs: 30_000 });
  machine.invoke(version);
  await machine.settle();
  await machine.answer();
  await machine.clock.advance(29_999);
  assert.deepEqual(
    machine.alive.map(({ frozen }) => frozen),
    [true],
  );
  await machine.clock.advance(1);
  assert.equal(machine.alive.length, 0);
});

test("a retired version's frozen instances stop at once", async () => {
  const machine = new FakeMachine({ idleTimeoutMs: 3_600_000 });
  machine.invoke(fakeVersion());
  await machine.settle();
  await machine.answer();
  await machine.clock.advance(limits.freezeAfterMs);
  machine.engine.retire(fakeVersion());
  assert.equal(machine.alive.length, 0);
});

test("a spare sandbox is used once, has the code attached, and is replaced", async () => {
  const machine = new FakeMachine({ sparesMin: 1, sparesMax: 2 });
  machine.engine.useRuntimes(new Set(["nodejs26.x"]));
  await machine.settle();
  assert.deepEqual(machine.engine.spares(), { "nodejs26.x": 1 });
  const [spare] = machine.alive;
  machine.invoke(fakeVersion());
  await machine.settle();
  assert.equal(machine.waitingCalls[0]?.sandbox, spare);
  assert.equal(spare?.attached, "/packages/sha256:0");
  await machine.answer();
  assert.deepEqual(machine.engine.spares(), { "nodejs26.x": 0 });
  await machine.clock.advance(20);
  assert.deepEqual(machine.engine.spares(), { "nodejs26.x": 1 });
  machine.engine.useRuntimes(new Set());
  await machine.settle();
  assert.deepEqual(machine.engine.spares(), { "nodejs26.x": 0 });
});

test("a spare sandbox is told that there is time to rehearse a while after its boot, and a second time later", async () => {
  const machine = new FakeMachine({ sparesMin: 2, sparesMax: 2 });
  machine.engine.useRuntimes(new Set(["nodejs26.x"]));
  await machine.settle();
  const pings = (): number[] => [...machine.alive].map((sandbox) => sandbox.pings);
  assert.deepEqual(pings(), [0, 0]);
  await machine.clock.advance(250);
  assert.deepEqual(pings(), [1, 1]);
  await machine.clock.advance(5_000);
  assert.deepEqual(pings(), [2, 2]);
  await machine.clock.advance(60_000);
  assert.deepEqual(pings(), [2, 2]);
});

test("spares do not rehearse while more are missing than boot at a time", async () => {
  const machine = new FakeMachine({ sparesMin: 4, sparesMax: 4 });
  machine.engine.useRuntimes(new Set(["nodejs26.x"]));
  await machine.settle();
  const left = [...machine.alive].at(-1);
  await machine.clock.advance(240);
  for (const name of ["a", "b", "c"]) machine.invoke(fakeVersion({}, { name }));
  await machine.settle();
  assert.deepEqual(machine.engine.spares(), { "nodejs26.x": 1 });
  await machine.clock.advance(10);
  assert.equal(left?.pings, 0);
  while (machine.waitingCalls.length > 0) await machine.answer();
  await machine.clock.advance(20);
  assert.deepEqual(machine.engine.spares(), { "nodejs26.x": 4 });
  await machine.clock.advance(250);
  assert.equal(left?.pings, 1);
});

test("draining lets running calls end and refuses new ones", async () => {
  const machine = new FakeMachine();
  const version = fakeVersion();
  const running = machine.invoke(version);
  await machine.settle();
  let drained = false;
  const draining = machine.engine.drain(new AbortController().signal).then(() => {
    drained = true;
  });
  const refused = machine.invoke(version);
  assert.equal(refused.result, "shutting-down");
  assert.equal(drained, false);
  await machine.answer();
  await draining;
  assert.equal(running.result, "succeeded");
  await machine.engine.close();
  assert.equal(machine.alive.length, 0);
  assert.deepEqual(machine.unsupervised, []);
});

test("every finished call leaves one activation and one count, whatever became of it", async () => {
  const machine = new FakeMachine();
  const version = fakeVersion({ timeoutMs: 1_000 });
  machine.invoke(version, "good");
  await machine.settle();
  await machine.answer();
  machine.invoke(version, "slow");
  await machine.clock.advance(1_000);
  assert.deepEqual(
    machine.activations.map(({ id, state, cold }) => ({ id, state, cold })),
    [
      { id: "good", state: "succeeded", cold: true },
      { id: "slow", state: "timedOut", cold: false },
    ],
  );
  const metrics = machine.telemetry.render();
  assert.match(metrics, /koine_invocations_total\{namespace="default",function="hello",outcome="succeeded"\} 1/);
  assert.match(
    metrics,
    /koine_errors_total\{namespace="default",function="hello",fault="function",code="function-timed-out"\} 1/,
  );
  assert.match(metrics, /koine_cold_starts_total\{namespace="default",function="hello"\} 1/);
});

test("provisioned instances are there before any call, outlive their idle time, and go when they are not wanted", async () => {
  const machine = new FakeMachine();
  const version = fakeVersion({ idleTimeoutMs: 1_000 });
  machine.engine.provision(version, 2);
  await machine.settle();
  assert.equal(machine.engine.provisioned(version).ready, 2);
  await machine.clock.advance(60_000);
  assert.equal(machine.engine.provisioned(version).ready, 2);
  const call = machine.invoke(version);
  await machine.answer();
  assert.equal(call.figures?.cold, false);
  machine.engine.provision(version, 0);
  await machine.clock.advance(60_000);
  assert.equal(machine.alive.length, 0);
});

test("a bound that is set for a function holds for all its versions from then on, whatever they say", async () => {
  const machine = new FakeMachine();
  const [one, two] = [fakeVersion({ reservedConcurrency: 5 }), fakeVersion({ reservedConcurrency: 5 }, { number: 2 })];
  machine.engine.limit(one, 1);
  const callers = [machine.invoke(one), machine.invoke(two)];
  await machine.settle();
  assert.equal(machine.waitingCalls.length, 1);
  machine.engine.limit(one, undefined);
  await machine.settle();
  assert.equal(machine.waitingCalls.length, 2);
  for (const _ of callers) await machine.answer();
  assert.deepEqual(
    callers.map((caller) => caller.result),
    ["succeeded", "succeeded"],
  );
});
