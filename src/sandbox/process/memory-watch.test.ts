import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../../core/clock.ts";
import { MemoryWatch } from "./memory-watch.ts";

test("a sandbox that takes more than its limit is reported, and again no more once it is removed", async () => {
  const clock = new VirtualClock();
  const watch = new MemoryWatch(clock);
  let currentBytes = 50;
  let reports = 0;
  const sandbox = { memory: () => ({ currentBytes }) };
  watch.add(sandbox, 100, () => {
    reports++;
    watch.remove(sandbox);
  });
  await clock.advance(1_000);
  assert.equal(reports, 0);
  currentBytes = 101;
  await clock.advance(1_000);
  assert.equal(reports, 1);
});

test("a limit that is changed later counts", async () => {
  const clock = new VirtualClock();
  const watch = new MemoryWatch(clock);
  const sandbox = { memory: () => ({ currentBytes: 150 }) };
  let reported = false;
  watch.add(sandbox, 100, () => {
    reported = true;
  });
  watch.setLimit(sandbox, 200);
  await clock.advance(1_000);
  assert.equal(reported, false);
  watch.setLimit(sandbox, 120);
  await clock.advance(100);
  assert.equal(reported, true);
});
