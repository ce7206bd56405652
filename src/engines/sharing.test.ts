import assert from "node:assert/strict";
import { test } from "node:test";
import type { VirtualClock } from "../core/clock.ts";
import { Allowances } from "../engine/allowance.ts";
import { MEMORY_KEY } from "../engine/engine.ts";
import { FakeMachine, fakeVersion } from "../engine/fakes.ts";
import type { Sharing } from "../engine/parts.ts";
import { Ledger } from "./ledger.ts";

const MIB = 1024 * 1024;
/** What an instance of a version that nothing is known of is counted with. */
const INSTANCE_BYTES = 64 * MIB;

/** Engines that share what there is, as in one platform. */
class Pair {
  readonly machines: readonly [FakeMachine, FakeMachine];

  constructor(memoryBudgetBytes = 16 * 1024 * MIB) {
    const allowances: Allowances[] = [];
    const ledger = new Ledger((engine, answer) => queueMicrotask(() => allowances[engine]?.answered(answer)));
    const machine = (engine: number): FakeMachine => {
      const sharing = (clock: VirtualClock): Sharing => {
        const own = new Allowances(clock, (request) => queueMicrotask(() => ledger.asked(engine, request)));
        allowances[engine] = own;
        return { allowances: own, memoryBudgetBytes };
      };
      const made = new FakeMachine({ memoryBudgetBytes: memoryBudgetBytes / 2 }, sharing);
      ledger.hold(engine, { key: MEMORY_KEY, max: memoryBudgetBytes, amount: memoryBudgetBytes / 2 });
      return made;
    };
    this.machines = [machine(0), machine(1)];
  }

  async settle(): Promise<void> {
    for (let round = 0; round < 10; round++) for (const machine of this.machines) await machine.clock.advance(1);
  }

  get running(): number {
    return this.machines.reduce((sum, machine) => sum + machine.waitingCalls.length, 0);
  }

  get memoryBytes(): number {
    return this.machines.reduce((sum, machine) => sum + machine.engine.memoryBytes, 0);
  }
}

test("a function holds no more slots than it may over both engines, and all its calls are served", async () => {
  const pair = new Pair();
  const version = fakeVersion({ reservedConcurrency: 2 });
  const callers = pair.machines.flatMap((machine) => Array.from({ length: 4 }, () => machine.invoke(version)));
  await pair.settle();
  for (let answered = 0; answered < callers.length; answered++) {
    assert.ok(pair.running >= 1 && pair.running <= 2, `${pair.running} run`);
    await pair.machines.find((machine) => machine.waitingCalls.length > 0)?.answer();
    await pair.settle();
  }
  assert.deepEqual(
    callers.map((caller) => caller.result),
    Array(callers.length).fill("succeeded"),
  );
});

test("a call that gives up waiting leaves its slot to the other engine", async () => {
  const pair = new Pair();
  const [here, there] = pair.machines;
  const version = fakeVersion({ reservedConcurrency: 1 });
  here.load = () => new Promise(() => {});
  const waiting = here.invoke(version);
  await pair.settle();
  const other = there.invoke(version);
  waiting.exchange?.cancel();
  await pair.settle();
  await there.answer();
  assert.equal(other.result, "succeeded");
});

test("an engine starts instances in memory that the other has to spare", async () => {
  const pair = new Pair(4 * INSTANCE_BYTES);
  const [here] = pair.machines;
  for (let calls = 0; calls < 3; calls++) here.invoke(fakeVersion());
  await pair.settle();
  assert.equal(here.waitingCalls.length, 3);
});

test("idle instances of one engine make room for those that the other needs", async () => {
  const pair = new Pair(4 * INSTANCE_BYTES);
  const [here, there] = pair.machines;
  for (let calls = 0; calls < 4; calls++) here.invoke(fakeVersion());
  await pair.settle();
  const callers = [there.invoke(fakeVersion()), there.invoke(fakeVersion())];
  await pair.settle();
  assert.equal(there.waitingCalls.length, 0, "everything is in use");
  for (let answered = 0; answered < 4; answered++) await here.answer();
  await pair.settle();
  assert.equal(there.waitingCalls.length, 2);
  assert.ok(pair.memoryBytes <= 4 * INSTANCE_BYTES);
  for (const _ of callers) await there.answer();
  assert.deepEqual(
    callers.map((caller) => caller.result),
    ["succeeded", "succeeded"],
  );
});
