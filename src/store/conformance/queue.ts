import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { limits } from "../../core/limits.ts";
import type { Lease, LeaseRequest, Queue, QueueItem } from "../store.ts";
import { queueKeepingConformance } from "./queue-keeping.ts";

const T0 = 1_700_000_000_000;
const LEASE_MS = 60_000;

type Open = (context: TestContext) => Promise<Queue>;

export function queueConformance(open: Open): void {
  claimTests(open);
  settlementTests(open);
  fairnessTests(open);
  stateTests(open);
  queueKeepingConformance(open);
}

function claimTests(open: Open): void {
  test("an item comes back byte for byte, with its attempt", async (context) => {
    const queue = await open(context);
    const whole = item("a", { payload: new Uint8Array([0, 255, 1]), dueAtMs: T0 - 5, enqueuedAtMs: T0 - 9 });
    const slice = item("b", { payload: Buffer.from("--empty--").subarray(2, 7), lane: "b" });
    await queue.enqueue([whole, slice]);
    const [first, second] = await lease(queue);
    assert.deepEqual(plain(first), { ...whole, payload: [0, 255, 1] });
    assert.deepEqual(plain(second), { ...slice, payload: [...Buffer.from("empty")] });
    assert.equal(first?.attempt, 1);
    assert.equal(first.receipt.id, "a");
  });

  test("an id that is there already is left as it is", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("a", { lane: "first" })]);
    await queue.enqueue([item("a", { lane: "second" }), item("b")]);
    const [held] = await lease(queue, { limit: 1 });
    assert.equal(held?.item.lane, "first");
    await queue.enqueue([item("a", { lane: "third" })]);
    assert.deepEqual(ids(await lease(queue)), ["b"]);
  });

  test("an item is not claimed before it is due", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("later", { dueAtMs: T0 + 1_000 }), item("now", { dueAtMs: T0 })]);
    assert.deepEqual(ids(await lease(queue, { nowMs: T0 - 1 })), []);
    assert.deepEqual(ids(await lease(queue)), ["now"]);
    assert.deepEqual(ids(await lease(queue, { nowMs: T0 + 1_000 })), ["later"]);
  });

  test("a claimed item is not given to another until the claim expires", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("a")]);
    const [first] = await lease(queue);
    assert.deepEqual(await lease(queue, { nowMs: T0 + LEASE_MS - 1 }), []);
    const [second] = await lease(queue, { nowMs: T0 + LEASE_MS });
    assert.equal(second?.item.id, "a");
    assert.equal(second.attempt, 2);
    assert.ok(second.receipt.epoch > (first?.receipt.epoch ?? 0));
    assert.equal(second.item.dueAtMs, T0);
  });

  test("concurrent claims never share an item", async (context) => {
    const queue = await open(context);
    await Promise.all(Array.from({ length: 100 }, (_, index) => queue.enqueue([item(`i${index}`)])));
    const claims = await Promise.all(Array.from({ length: 20 }, () => lease(queue, { limit: 7 })));
    const claimed = claims.flatMap(ids);
    assert.equal(claimed.length, 100);
    assert.equal(new Set(claimed).size, 100);
  });

  test("a prolonged claim lasts longer", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("a")]);
    const [held] = await lease(queue);
    assert.equal(await queue.extend(receiptOf(held), T0 + 3 * LEASE_MS), true);
    assert.deepEqual(await lease(queue, { nowMs: T0 + 2 * LEASE_MS }), []);
    assert.deepEqual(ids(await lease(queue, { nowMs: T0 + 3 * LEASE_MS })), ["a"]);
  });

  test("a claim that expired but was not taken over can still be prolonged and settled", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("a"), item("b")]);
    const [a, b] = await lease(queue);
    assert.equal(await queue.extend(receiptOf(a), T0 + 9 * LEASE_MS), true);
    assert.equal(await queue.settle(receiptOf(b), { kind: "done" }), true);
    assert.deepEqual(await lease(queue, { nowMs: T0 + 2 * LEASE_MS }), []);
  });
}

function settlementTests(open: Open): void {
  test("a lease that was lost cannot settle or be prolonged", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("a")]);
    const [lost] = await lease(queue);
    const [current] = await lease(queue, { nowMs: T0 + LEASE_MS });
    const stale = receiptOf(lost);
    assert.equal(await queue.extend(stale, T0 + 9 * LEASE_MS), false);
    assert.equal(await queue.settle(stale, { kind: "done" }), false);
    assert.equal(await queue.settle(stale, { kind: "retry", dueAtMs: T0 }), false);
    assert.equal(await queue.settle(stale, { kind: "release" }), false);
    assert.equal(await queue.settle(stale, { kind: "dead", reason: "x", atMs: T0 }), false);
    assert.deepEqual(await queue.deadLetters({ limit: 10 }), []);
    assert.equal(await queue.settle(receiptOf(current), { kind: "done" }), true);
    assert.deepEqual(await lease(queue, { nowMs: T0 + 99 * LEASE_MS }), []);
  });

  test("a claim settles once", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("done"), item("again", { dueAtMs: T0 + 1 })]);
    const [done, again] = await lease(queue, { nowMs: T0 + 1 });
    assert.equal(await queue.settle(receiptOf(done), { kind: "done" }), true);
    assert.equal(await queue.settle(receiptOf(done), { kind: "done" }), false);
    assert.equal(await queue.settle(receiptOf(again), { kind: "retry", dueAtMs: T0 + 2 }), true);
    assert.equal(await queue.settle(receiptOf(again), { kind: "done" }), false);
    assert.deepEqual(ids(await lease(queue, { nowMs: T0 + 2 })), ["again"]);
  });

  test("a receipt of an item that was done does not fit a later item of the same id", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("a")]);
    const [old] = await lease(queue);
    await queue.settle(receiptOf(old), { kind: "done" });
    await queue.enqueue([item("a")]);
    await lease(queue);
    assert.equal(await queue.settle(receiptOf(old), { kind: "done" }), false);
  });

  test("a retried item falls due at its new time and counts the attempt", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("a")]);
    const [first] = await lease(queue);
    await queue.settle(receiptOf(first), { kind: "retry", dueAtMs: T0 + 500 });
    assert.deepEqual(await lease(queue, { nowMs: T0 + 499 }), []);
    const [second] = await lease(queue, { nowMs: T0 + 500 });
    assert.equal(second?.attempt, 2);
    assert.equal(second.item.dueAtMs, T0 + 500);
    assert.equal(second.item.enqueuedAtMs, T0);
  });

  test("a released item is as if it had never been claimed, or due at another time", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("a")]);
    const [first] = await lease(queue);
    await queue.settle(receiptOf(first), { kind: "release" });
    const [second] = await lease(queue);
    assert.equal(second?.attempt, 1);
    assert.equal(second.item.dueAtMs, T0);
    await queue.settle(second.receipt, { kind: "release", dueAtMs: T0 + 700 });
    assert.deepEqual(await lease(queue, { nowMs: T0 + 699 }), []);
    assert.equal((await lease(queue, { nowMs: T0 + 700 }))[0]?.attempt, 1);
  });
}

function fairnessTests(open: Open): void {
  test("a lane with much work does not keep others waiting", async (context) => {
    const queue = await open(context);
    const flood = Array.from({ length: 100 }, (_, index) =>
      item(`a${String(index).padStart(2, "0")}`, { lane: "flood", dueAtMs: T0 - 1_000 + index }),
    );
    await queue.enqueue([...flood, item("b1", { lane: "b" }), item("b2", { lane: "b" }), item("c1", { lane: "c" })]);
    assert.deepEqual(ids(await lease(queue, { limit: 6 })), ["a00", "b1", "c1", "a01", "b2", "a02"]);
    assert.deepEqual(ids(await lease(queue, { limit: 2 })), ["a03", "a04"]);
  });

  test("within a lane and between lanes the oldest due comes first", async (context) => {
    const queue = await open(context);
    await queue.enqueue([
      item("x2", { lane: "x", dueAtMs: T0 - 1 }),
      item("x1", { lane: "x", dueAtMs: T0 - 2 }),
      item("y1", { lane: "y", dueAtMs: T0 - 3 }),
      item("z1", { lane: "z", dueAtMs: T0 }),
    ]);
    assert.deepEqual(ids(await lease(queue, { limit: 2 })), ["y1", "x1"]);
    assert.deepEqual(ids(await lease(queue, { limit: 2 })), ["z1", "x2"]);
  });

  test("a lane gives no more than its room", async (context) => {
    const queue = await open(context);
    await queue.enqueue(["a1", "a2", "a3", "b1", "b2", "c1"].map((id) => item(id, { lane: id.slice(0, 1) })));
    assert.deepEqual(ids(await lease(queue, { laneRoom: { a: 2, b: 0, none: 1 } })), ["a1", "c1", "a2"]);
    assert.deepEqual(ids(await lease(queue, { laneRoom: { b: 1 } })), ["b1", "a3"]);
    assert.deepEqual(ids(await lease(queue)), ["b2"]);
  });

  test("lanes without a room of their own give no more than others may", async (context) => {
    const queue = await open(context);
    await queue.enqueue(["a1", "a2", "a3", "b1", "b2"].map((id) => item(id, { lane: id.slice(0, 1) })));
    assert.deepEqual(ids(await lease(queue, { roomPerLane: 1, laneRoom: { a: 2 } })), ["a1", "b1", "a2"]);
  });

  test("a place that falls free goes to a lane that has fewer claims, however old the work of others", async (context) => {
    const queue = await open(context);
    const old = Array.from({ length: 9 }, (_, index) => item(`a${index}`, { lane: "a", dueAtMs: T0 - 5_000 + index }));
    await queue.enqueue([...old, item("b0", { lane: "b" }), item("b1", { lane: "b" })]);
    assert.deepEqual(ids(await lease(queue, { limit: 3 })), ["a0", "b0", "a1"]);
    assert.deepEqual(ids(await lease(queue, { limit: 1 })), ["b1"]);
  });

  test("lanes with as many claims take turns, also when each claims one at a time", async (context) => {
    const queue = await open(context);
    const old = Array.from({ length: 3 }, (_, index) => item(`a${index}`, { lane: "a", dueAtMs: T0 - 5_000 + index }));
    await queue.enqueue([...old, ...["b0", "b1", "b2"].map((id) => item(id, { lane: "b" }))]);
    const order: string[] = [];
    for (let turn = 0; turn < 6; turn++) {
      const [held] = await lease(queue, { limit: 1 });
      order.push(held?.item.id ?? "");
      await queue.settle(receiptOf(held), { kind: "done" });
    }
    assert.deepEqual(order, ["a0", "b0", "a1", "b1", "a2", "b2"]);
  });

  test("a higher priority goes first within its lane, but a lower one does not wait for ever", async (context) => {
    const queue = await open(context);
    const apart = limits.priorityAgeMs;
    await queue.enqueue([
      item("low", { priority: 2, dueAtMs: T0 - 1 }),
      item("normal", { dueAtMs: T0 - 1 }),
      item("high", { priority: 0 }),
      item("old low", { priority: 2, dueAtMs: T0 - 2 * apart - 1 }),
    ]);
    assert.deepEqual(ids(await lease(queue)), ["old low", "high", "normal", "low"]);
  });
}

function stateTests(open: Open): void {
  test("the state counts and says when the next item falls due", async (context) => {
    const queue = await open(context);
    const empty = { waiting: 0, leased: 0, dead: 0, nextDueAtMs: null, oldestEnqueuedAtMs: null };
    assert.deepEqual(await queue.state(T0), empty);
    await queue.enqueue([
      item("a", { enqueuedAtMs: T0 - 7 }),
      item("b", { dueAtMs: T0 + 50 }),
      item("c", { dueAtMs: T0 + 70_000 }),
    ]);
    const state = { ...empty, waiting: 3, nextDueAtMs: T0 + 50, oldestEnqueuedAtMs: T0 - 7 };
    assert.deepEqual(await queue.state(T0), state);
    const [held] = await lease(queue);
    assert.deepEqual(await queue.state(T0), { ...state, waiting: 2, leased: 1 });
    assert.equal((await queue.state(T0 + 50)).nextDueAtMs, T0 + LEASE_MS);
    assert.deepEqual(await queue.state(T0 + LEASE_MS), { ...state, nextDueAtMs: T0 + 70_000 });
    await queue.settle(receiptOf(held), { kind: "dead", reason: "", atMs: T0 });
    assert.deepEqual(await queue.state(T0 + 70_000), {
      waiting: 2,
      leased: 0,
      dead: 1,
      nextDueAtMs: null,
      oldestEnqueuedAtMs: T0,
    });
  });
}

function item(id: string, parts: Partial<QueueItem> = {}): QueueItem {
  return { id, lane: "lane", payload: Buffer.from(`payload of ${id}`), dueAtMs: T0, enqueuedAtMs: T0, ...parts };
}

async function lease(queue: Queue, parts: Partial<LeaseRequest> = {}): Promise<readonly Lease[]> {
  return await queue.lease({ limit: 100, nowMs: T0, leaseMs: LEASE_MS, ...parts });
}

function ids(held: readonly { readonly item: QueueItem }[]): string[] {
  return held.map(({ item }) => item.id);
}

function plain(held: { readonly item: QueueItem } | undefined): unknown {
  return held === undefined ? null : { ...held.item, payload: [...held.item.payload] };
}

function receiptOf(held: Lease | undefined): Lease["receipt"] {
  assert.ok(held !== undefined);
  return held.receipt;
}
