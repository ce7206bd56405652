import assert from "node:assert/strict";
import { test } from "node:test";
import { OutputAllowance } from "./output-allowance.ts";

const bounds = { outputBytesPerSecondMax: 100, outputBurstBytesMax: 1_000 };

test("a burst passes, then as much per second as is allowed", () => {
  const allowance = new OutputAllowance(bounds, 0);
  assert.deepEqual([allowance.take(900, 0), allowance.take(900, 0), allowance.take(900, 0)], [900, 100, 0]);
  assert.equal(allowance.take(900, 1_000), 100);
  assert.equal(allowance.take(900, 61_000), 900);
});

test("what was dropped is told once a second", () => {
  const allowance = new OutputAllowance(bounds, 0);
  assert.equal(allowance.notice(0), null);
  allowance.take(1_500, 0);
  assert.match(allowance.notice(0) ?? "", /^500 bytes of output were dropped/);
  allowance.take(50, 10);
  assert.equal(allowance.notice(10), null);
  assert.match(allowance.notice(1_010) ?? "", /^49 bytes|^50 bytes/);
});

test("a clock that goes back gives nothing", () => {
  const allowance = new OutputAllowance(bounds, 1_000);
  allowance.take(1_000, 1_000);
  assert.equal(allowance.take(1, 0), 0);
});
