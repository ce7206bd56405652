import assert from "node:assert/strict";
import { test } from "node:test";
import { KoineError } from "../core/errors.ts";
import type { Outcome } from "../core/invocation.ts";
import { decideRetry, defaultRetryPolicy } from "./retry.ts";

const T0 = 1_700_000_000_000;
const HOUR_MS = 3_600_000;
const MIDDLE = 0.5;

const failed: Outcome = {
  kind: "failed",
  fault: "function",
  error: new KoineError("handler-failed", { detail: "no" }).report(),
};
const refused: Outcome = {
  kind: "failed",
  fault: "caller",
  error: new KoineError("invalid-json", { detail: "no" }).report(),
};
const broken: Outcome = {
  kind: "failed",
  fault: "platform",
  error: new KoineError("sandbox-failed", { detail: "no" }).report(),
};
const timedOut: Outcome = { kind: "timedOut", error: new KoineError("function-timed-out", { timeoutMs: 1 }).report() };
const rejected: Outcome = {
  kind: "rejected",
  error: new KoineError("too-many-requests", { name: "f" }).report(),
  retryAfterMs: 5_000,
};

function decide(
  outcome: Outcome,
  parts: { attempt?: number; ageMs?: number; random?: number; retryable?: boolean; retryAfterMs?: number } = {},
) {
  const { attempt = 1, ageMs = 0, random = MIDDLE, retryable, retryAfterMs } = parts;
  const given = { attempt, outcome, enqueuedAtMs: T0 - ageMs, nowMs: T0, policy: defaultRetryPolicy, random };
  return decideRetry({ ...given, retryable, retryAfterMs });
}

test("what succeeded is done, at any attempt and age", () => {
  assert.deepEqual(decide({ kind: "succeeded" }), { kind: "done" });
  assert.deepEqual(decide({ kind: "succeeded" }, { attempt: 3, ageMs: 9 * HOUR_MS }), { kind: "done" });
});

test("a failure is tried again after one minute, then after two, then it is dead with its reason", () => {
  for (const outcome of [failed, timedOut]) {
    assert.deepEqual(decide(outcome), { kind: "retry", dueAtMs: T0 + 60_000 });
    assert.deepEqual(decide(outcome, { attempt: 2 }), { kind: "retry", dueAtMs: T0 + 120_000 });
  }
  assert.deepEqual(decide(failed, { attempt: 3 }), {
    kind: "dead",
    reason: "failed 3 times; the last time handler-failed: no",
    code: "handler-failed",
    atMs: T0,
  });
});

test("what is its caller's fault, or is said not to be worth it, is not tried again", () => {
  assert.equal(decide(refused).kind, "dead");
  assert.equal(decide(failed, { retryable: false }).kind, "dead");
  assert.equal(decide(broken, { retryable: false }).kind, "release");
});

test("a wait that was asked for is kept, also beyond the policy's own", () => {
  assert.deepEqual(decide(failed, { retryAfterMs: 90_000 }), { kind: "retry", dueAtMs: T0 + 90_000 });
  assert.deepEqual(decide(failed, { retryAfterMs: 1_000 }), { kind: "retry", dueAtMs: T0 + 60_000 });
});

test("items that failed together are not tried again together", () => {
  assert.deepEqual(decide(failed, { random: 0 }), { kind: "retry", dueAtMs: T0 + 48_000 });
  assert.deepEqual(decide(failed, { random: 1 }), { kind: "retry", dueAtMs: T0 + 72_000 });
});

test("what the platform could not run waits without counting, longer as it grows older", () => {
  assert.deepEqual(decide(rejected, { attempt: 3 }), { kind: "release", dueAtMs: T0 + 5_000 });
  assert.deepEqual(decide(broken, { attempt: 3 }), { kind: "release", dueAtMs: T0 + 1_000 });
  assert.deepEqual(decide(broken, { ageMs: 40_000 }), { kind: "release", dueAtMs: T0 + 10_000 });
  assert.deepEqual(decide(rejected, { ageMs: 3 * HOUR_MS }), { kind: "release", dueAtMs: T0 + 300_000 });
});

test("an item gets one last attempt at its greatest age, and is dead after it", () => {
  const ageMs = defaultRetryPolicy.ageMsMax - 10;
  assert.deepEqual(decide(rejected, { ageMs }), { kind: "release", dueAtMs: T0 + 10 });
  assert.deepEqual(decide(failed, { ageMs }), { kind: "retry", dueAtMs: T0 + 10 });
  for (const outcome of [rejected, failed, broken]) {
    assert.equal(decide(outcome, { ageMs: defaultRetryPolicy.ageMsMax }).kind, "dead");
  }
});

test("a policy of one attempt never retries, and one without delays does so at once", () => {
  const request = { outcome: failed, enqueuedAtMs: T0, nowMs: T0, random: MIDDLE };
  const policy = { attemptsMax: 1, ageMsMax: HOUR_MS, delaysMs: [] };
  assert.equal(decideRetry({ ...request, attempt: 1, policy }).kind, "dead");
  assert.deepEqual(decideRetry({ ...request, attempt: 1, policy: { ...policy, attemptsMax: 2 } }), {
    kind: "retry",
    dueAtMs: T0,
  });
});
