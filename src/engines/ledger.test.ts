import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../core/clock.ts";
import { Allowances, type ShareAnswer, type ShareRequest } from "../engine/allowance.ts";
import { Ledger } from "./ledger.ts";

/** An engine with calls of one function, and messages that take their time to it and from it. */
class TestEngine {
  taken = 0;
  waiting = 0;
  served = 0;
  readonly toLedger: ShareRequest[] = [];
  readonly toEngine: ShareAnswer[] = [];
  readonly #allowances: Allowances;
  #allowance: ReturnType<Allowances["open"]> | null = null;
  readonly #max: number;

  constructor(clock: VirtualClock, max: number) {
    this.#max = max;
    this.#allowances = new Allowances(clock, (request) => this.toLedger.push(request));
  }

  call(): void {
    this.waiting++;
    this.#pump();
  }

  release(): void {
    this.taken--;
    this.#allowance?.settle();
    this.#pump();
  }

  giveUp(): void {
    this.waiting--;
    this.#allowance?.settle();
  }

  /** Nothing of the function is left here. */
  close(): void {
    this.#allowance?.close();
    this.#allowance = null;
  }

  hear(answer: ShareAnswer): void {
    this.#allowances.answered(answer);
  }

  #pump(): void {
    this.#allowance ??= this.#allowances.open("slots f", {
      max: this.#max,
      use: {
        used: () => this.taken,
        starving: () => this.waiting > 0,
        changed: (_, grew) => {
          if (grew) this.#pump();
        },
      },
    });
    while (this.waiting > 0 && this.taken < this.#allowance.granted) {
      this.waiting--;
      this.taken++;
      this.served++;
    }
    if (this.waiting > 0) this.#allowance.need(this.taken + this.waiting);
    this.#allowance.settle();
  }
}

class Story {
  readonly clock = new VirtualClock();
  readonly engines: readonly TestEngine[];
  readonly ledger: Ledger;

  constructor(engines: number, max: number) {
    this.engines = Array.from({ length: engines }, () => new TestEngine(this.clock, max));
    this.ledger = new Ledger((engine, answer) => this.engine(engine).toEngine.push(answer));
  }

  engine(index: number): TestEngine {
    const engine = this.engines[index];
    assert.ok(engine !== undefined);
    return engine;
  }

  get taken(): number {
    return this.engines.reduce((sum, { taken }) => sum + taken, 0);
  }

  /** Delivers one message, if there is one. */
  deliver(index: number, direction: "up" | "down"): void {
    const engine = this.engine(index);
    if (direction === "up") {
      const request = engine.toLedger.shift();
      if (request !== undefined) this.ledger.asked(index, request);
    } else {
      const answer = engine.toEngine.shift();
      if (answer !== undefined) engine.hear(answer);
    }
  }

  /** Delivers everything, and lets turns pass. */
  async calm(): Promise<void> {
    for (let round = 0; round < 50; round++) {
      for (const index of this.engines.keys()) {
        while (this.engine(index).toLedger.length > 0) this.deliver(index, "up");
        while (this.engine(index).toEngine.length > 0) this.deliver(index, "down");
      }
      await this.clock.advance(1);
    }
  }
}

test("an idle engine's slot goes to the one that needs it", async () => {
  const story = new Story(2, 1);
  const [first, second] = [story.engine(0), story.engine(1)];
  first.call();
  await story.calm();
  assert.equal(first.taken, 1);
  second.call();
  await story.calm();
  assert.equal(second.taken, 0, "the slot is in use");
  first.release();
  await story.calm();
  assert.deepEqual([first.taken, second.taken], [0, 1]);
});

test("two engines with many calls of a function that has one slot take turns", async () => {
  const story = new Story(2, 1);
  for (let call = 0; call < 200; call++) for (const engine of story.engines) engine.call();
  await story.calm();
  for (let step = 0; step < 100; step++) {
    assert.ok(story.taken <= 1);
    for (const engine of story.engines) if (engine.taken > 0) engine.release();
    await story.calm();
  }
  assert.ok(Math.abs(story.engine(0).served - story.engine(1).served) <= 2);
});

test("engines that both want everything get half each, and all of it when the other has had enough", async () => {
  const story = new Story(2, 10);
  const [first, second] = [story.engine(0), story.engine(1)];
  for (let call = 0; call < 30; call++) first.call();
  await story.calm();
  assert.equal(first.taken, 10);
  for (let call = 0; call < 10; call++) second.call();
  await story.calm();
  for (let released = 0; released < 10; released++) {
    first.release();
    await story.calm();
  }
  assert.deepEqual([first.taken, second.taken], [5, 5]);
  while (second.waiting > 0) second.giveUp();
  while (second.taken > 0) second.release();
  await story.calm();
  assert.deepEqual([first.taken, second.taken], [10, 0]);
});

test("what an engine held is free when it is gone", async () => {
  const story = new Story(2, 3);
  for (let call = 0; call < 3; call++) story.engine(0).call();
  await story.calm();
  story.engine(1).call();
  await story.calm();
  assert.equal(story.engine(1).taken, 0);
  story.ledger.left(0);
  await story.calm();
  assert.equal(story.engine(1).taken, 1);
});

test("a grant that comes when the function is gone from the engine goes back", async () => {
  const story = new Story(2, 2);
  const [first, second] = [story.engine(0), story.engine(1)];
  first.call();
  story.deliver(0, "up");
  first.giveUp();
  first.close();
  await story.calm();
  second.call();
  second.call();
  await story.calm();
  assert.equal(second.taken, 2);
  for (const engine of [first, second]) {
    while (engine.taken > 0) engine.release();
    engine.close();
  }
  await story.calm();
  assert.equal(story.ledger.size, 0);
});

test("whatever happens in whatever order, no more slots are taken than there are, and nobody waits for ever", async () => {
  for (let seed = 1; seed <= 150; seed++) {
    const random = generator(seed);
    const pick = (below: number): number => Math.floor(random() * below);
    const max = 1 + pick(6);
    const story = new Story(1 + pick(4), max);
    for (let step = 0; step < 400; step++) {
      const index = pick(story.engines.length);
      const engine = story.engine(index);
      const action = pick(7);
      if (action === 0) engine.call();
      else if (action === 1 && engine.taken > 0) engine.release();
      else if (action === 2 && engine.waiting > 0) engine.giveUp();
      else if (action === 3) await story.clock.advance(pick(8));
      else if (action === 4 && engine.taken === 0 && engine.waiting === 0) engine.close();
      else story.deliver(index, action === 5 ? "up" : "down");
      assert.ok(story.taken <= max, `seed ${seed}: ${story.taken} of ${max} slots`);
    }
    for (let rounds = 0; story.engines.some((engine) => engine.waiting > 0 || engine.taken > 0); rounds++) {
      assert.ok(rounds < 500, `seed ${seed}: somebody waits for ever`);
      await story.calm();
      assert.ok(story.taken <= max, `seed ${seed}`);
      for (const engine of story.engines) if (engine.taken > 0) engine.release();
    }
  }
});

/** The same numbers for the same seed. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
