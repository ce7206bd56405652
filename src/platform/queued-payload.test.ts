import assert from "node:assert/strict";
import { test } from "node:test";
import type { EnqueueOptions } from "../core/enqueue.ts";
import type { Invocation } from "../core/invocation.ts";
import { limits } from "../core/limits.ts";
import { policyOf } from "./async-invocation.ts";
import { decodePayload, deliveriesLane, encodeQueued, functionOfLane, toInvocation } from "./queued-payload.ts";

const T0 = 1_700_000_000_000;
const ref = { namespace: "default", package: "tools", name: "f" };
const invocation: Invocation = {
  id: "id",
  ref,
  call: { kind: "event", contentType: "application/json" },
  mode: "async",
  attempt: 1,
  receivedAtMs: T0,
  body: Buffer.from([0, 255, 1]),
  bodyComplete: true,
};

const encoded = (options?: EnqueueOptions) => encodeQueued({ invocation, options }, { limits, nowMs: T0 });

test("an invocation comes out of the queue as it went in", () => {
  const item = encoded();
  const { head, body } = decodePayload(item.payload);
  assert.ok(head.kind === undefined);
  assert.deepEqual(toInvocation(item, head, { body, attempt: 2 }), { ...invocation, attempt: 2 });
  assert.deepEqual([item.lane, item.dueAtMs, item.enqueuedAtMs], ["default/tools/f", T0, T0]);
  assert.deepEqual(Object.keys(item), ["id", "lane", "payload", "dueAtMs", "enqueuedAtMs"]);
});

test("options become what the queue knows; the age of what is put off counts from when it falls due", () => {
  const retry = { attemptsMax: 7 };
  const item = encoded({ dueAtMs: T0 + 5, orderingKey: "o", idempotencyKey: "i", priority: "high", retry });
  assert.deepEqual([item.dueAtMs, item.enqueuedAtMs, item.orderingKey, item.priority], [T0 + 5, T0 + 5, "o", 0]);
  assert.deepEqual(item.idempotency, { key: "i", untilMs: T0 + limits.idempotencyWindowMs });
  const { head } = decodePayload(item.payload);
  assert.deepEqual(head.kind === undefined ? head.retry : null, retry);
  assert.equal(encoded({ priority: "low" }).priority, 2);
  assert.equal(encoded({ dueAtMs: T0 - 5 }).enqueuedAtMs, T0);
});

test("what is too large, too late or too long is refused", () => {
  const large = { ...invocation, body: Buffer.alloc(limits.asyncBodyBytesMax + 1) };
  assert.throws(() => encodeQueued({ invocation: large }, { limits, nowMs: T0 }), { code: "payload-too-large" });
  for (const dueAtMs of [T0 + limits.delayMsMax + 1, Number.NaN, Infinity])
    assert.throws(() => encoded({ dueAtMs }), { code: "limit-exceeded" });
  assert.throws(() => encoded({ orderingKey: "x".repeat(limits.queueKeyLengthMax + 1) }), { code: "limit-exceeded" });
  assert.throws(() => encoded({ idempotencyKey: "" }), { code: "invalid-request" });
});

test("the lane of a function's deliveries is none of a function", () => {
  assert.deepEqual(functionOfLane(deliveriesLane(ref)), { key: "default/tools/f", deliveries: true });
  assert.deepEqual(functionOfLane("default/tools/f"), { key: "default/tools/f", deliveries: false });
});

test("a policy is that of the call, then of the function, then of the platform", () => {
  assert.deepEqual(policyOf(undefined, undefined, limits), {
    attemptsMax: 3,
    ageMsMax: 6 * 3_600_000,
    delaysMs: policyOf(undefined, undefined, limits).delaysMs,
  });
  assert.deepEqual(policyOf(undefined, undefined, limits).delaysMs.slice(0, 3), [60_000, 120_000, 240_000]);
  const spec = { retry: { attemptsMax: 5, delayMs: 10 } } as Parameters<typeof policyOf>[0];
  const policy = policyOf(spec, { attemptsMax: 1 }, limits);
  assert.deepEqual([policy.attemptsMax, policy.delaysMs.slice(0, 3)], [1, [10, 20, 40]]);
  assert.ok(policy.delaysMs.every((delayMs) => delayMs <= limits.retryDelayMsMax));
  assert.deepEqual(policyOf({ retry: { delayMs: 0 } } as typeof spec, undefined, limits).delaysMs, [0]);
});
