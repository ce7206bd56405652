import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../core/clock.ts";
import type { CloudEvent } from "../core/event.ts";
import { Batcher } from "./batch.ts";
import { Progress, Room } from "./progress.ts";

test("the position is that before the first which has not ended", async () => {
  const advanced: number[] = [];
  const progress = new Progress<number>((position) => advanced.push(position));
  const ends = [1, 2, 3, 4].map((position) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    void progress.track(position, promise);
    return resolve;
  });
  const end = async (position: number): Promise<void> => {
    ends[position - 1]?.();
    await new Promise((resolve) => setImmediate(resolve));
  };
  await end(2);
  assert.deepEqual(advanced, []);
  await end(1);
  await end(4);
  assert.deepEqual(advanced, [2]);
  await end(3);
  assert.deepEqual(advanced, [2, 4]);
  assert.equal(progress.pending, 0);
});

test("after a failure the position stays, whatever else succeeds", async () => {
  const advanced: number[] = [];
  const progress = new Progress<number>((position) => advanced.push(position));
  await progress.track(1, Promise.resolve());
  await assert.rejects(progress.track(2, Promise.reject(new Error("no"))));
  await progress.track(3, Promise.resolve());
  assert.deepEqual(advanced, [1]);
});

test("room is for so many, and a waiter stops with the signal", async () => {
  const room = new Room(2);
  const stop = new AbortController();
  await room.take(stop.signal);
  await room.take(stop.signal);
  let taken = false;
  const third = room.take(stop.signal).then(() => (taken = true));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(taken, false);
  room.give();
  await third;
  const fourth = room.take(stop.signal);
  stop.abort(new Error("stopped"));
  await assert.rejects(fourth, /stopped/);
});

test("a batch never grows beyond its bytes, and what is ordered fails behind what failed", async () => {
  const clock = new VirtualClock();
  const batches: string[] = [];
  const event = (id: string): CloudEvent => ({ specversion: "1.0", id, source: "/t", type: "t" });
  const batcher = new Batcher<number>(
    { size: 10, windowMs: 100, bytes: 100 },
    {
      clock,
      ordered: true,
      deliver: async (events) => {
        batches.push(events.map(({ id }) => id).join());
        if (events.some(({ id }) => id === "bad")) throw new Error("refused");
        return events.length;
      },
    },
  );
  const first = batcher.add(event("a"), "k", 60);
  const second = assert.rejects(batcher.add(event("bad"), "k", 60), /refused/);
  const third = assert.rejects(batcher.add(event("c"), "k", 60), /refused/);
  await clock.advance(100);
  assert.equal(await first, 1);
  await second;
  await third;
  assert.deepEqual(batches, ["a", "bad"]);
});
