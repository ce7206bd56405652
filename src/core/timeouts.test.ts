import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "./clock.ts";
import { Timed, Timeouts } from "./timeouts.ts";

class Named extends Timed {
  readonly name: string;
  readonly #said: string[];

  constructor(name: string, said: string[]) {
    super();
    this.name = name;
    this.#said = said;
  }

  override timedOut(): void {
    this.#said.push(this.name);
  }
}

test("things time out in the order in which they were added, each after its own time", async () => {
  const clock = new VirtualClock();
  const timeouts = new Timeouts(clock, 100);
  const said: string[] = [];
  timeouts.add(new Named("a", said));
  await clock.advance(60);
  timeouts.add(new Named("b", said));
  await clock.advance(39);
  assert.deepEqual(said, []);
  await clock.advance(1);
  assert.deepEqual(said, ["a"]);
  await clock.advance(60);
  assert.deepEqual(said, ["a", "b"]);
});

test("what is removed never times out, wherever it stands, and what is added again begins anew", async () => {
  const clock = new VirtualClock();
  const timeouts = new Timeouts(clock, 100);
  const said: string[] = [];
  const [a, b, c, d] = ["a", "b", "c", "d"].map((name) => new Named(name, said)) as [Named, Named, Named, Named];
  for (const timed of [a, b, c, d]) timeouts.add(timed);
  timeouts.remove(b);
  timeouts.remove(b);
  await clock.advance(50);
  timeouts.add(a);
  timeouts.remove(d);
  assert.deepEqual([...timeouts], [c, a]);
  await clock.advance(50);
  assert.deepEqual(said, ["c"]);
  await clock.advance(50);
  assert.deepEqual(said, ["c", "a"]);
  timeouts.add(b);
  await clock.advance(100);
  assert.deepEqual(said, ["c", "a", "b"]);
});

test("a thing is in one list at a time", async () => {
  const clock = new VirtualClock();
  const said: string[] = [];
  const [short, long] = [new Timeouts(clock, 10), new Timeouts(clock, 1_000)];
  const timed = new Named("a", said);
  short.add(timed);
  long.add(timed);
  await clock.advance(999);
  assert.deepEqual(said, []);
  await clock.advance(1);
  assert.deepEqual(said, ["a"]);
  short.add(timed);
  short.close();
  await clock.advance(1_000);
  assert.deepEqual(said, ["a"]);
});

test("what times out may add and remove others", async () => {
  const clock = new VirtualClock();
  const timeouts = new Timeouts(clock, 10);
  const said: string[] = [];
  const b = new Named("b", said);
  const a = new (class extends Timed {
    override timedOut(): void {
      said.push("a");
      timeouts.remove(b);
      timeouts.add(this);
    }
  })();
  timeouts.add(a);
  timeouts.add(b);
  await clock.advance(10);
  assert.deepEqual(said, ["a"]);
  await clock.advance(10);
  assert.deepEqual(said, ["a", "a"]);
});
