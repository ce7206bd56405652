import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import type { KoineError } from "../../core/errors.ts";
import type { Attempt } from "../../core/invocation.ts";
import { limits } from "../../core/limits.ts";
import type { Lease, NewQueueItem, Queue, QueueBounds, Settlement } from "../store.ts";

const T0 = 1_700_000_000_000;
const LEASE_MS = 60_000;
const WINDOW_MS = 1_000;

type Open = (context: TestContext) => Promise<Queue>;

/** What a queue keeps beside its items: order and idempotency keys, bounds, dead letters and histories. */
export function queueKeepingConformance(open: Open): void {
  orderingTests(open);
  idempotencyTests(open);
  boundsTests(open);
  deadLetterTests(open);
  historyTests(open);
}

function orderingTests(open: Open): void {
  test("items of one ordering key are claimed one after the other, in the order of their enqueueing", async (context) => {
    const queue = await open(context);
    const keyed = (id: string, dueAtMs: number): NewQueueItem => item(id, { orderingKey: "k", dueAtMs });
    await queue.enqueue([
      keyed("first", T0),
      keyed("second", T0 - 9),
      item("other", { orderingKey: "o" }),
      item("free"),
    ]);
    await queue.enqueue([keyed("third", T0 - 5)]);
    const [first] = await claim(queue, ["first", "free", "other"]);
    await claim(queue, []);
    await queue.settle(receiptOf(first), { kind: "done" });
    const [second] = await claim(queue, ["second"]);
    assert.equal(second?.item.orderingKey, "k");
    await queue.settle(second.receipt, { kind: "retry", dueAtMs: T0 + 500 });
    await claim(queue, []);
    const [again] = await claim(queue, ["second"], T0 + 500);
    await queue.settle(receiptOf(again), { kind: "dead", reason: "", atMs: T0 });
    await claim(queue, ["third"]);
  });

  test("an ordering key holds within its lane, through expired claims, and is freed by a cancellation", async (context) => {
    const queue = await open(context);
    const keyed = (id: string, lane: string): NewQueueItem => item(id, { orderingKey: "k", lane });
    await queue.enqueue([keyed("a1", "a"), keyed("a2", "a"), keyed("b1", "b"), keyed("b2", "b")]);
    await claim(queue, ["a1", "b1"]);
    await claim(queue, ["a1", "b1"], T0 + LEASE_MS);
    assert.equal(await queue.cancel("a1", T0 + 2 * LEASE_MS), "cancelled");
    await claim(queue, ["a2", "b1"], T0 + 2 * LEASE_MS);
    assert.equal((await queue.state(T0)).nextDueAtMs, T0 + 3 * LEASE_MS);
  });
}

function idempotencyTests(open: Open): void {
  const keyed = (id: string, atMs = T0, lane = "lane"): NewQueueItem =>
    item(id, { lane, enqueuedAtMs: atMs, idempotency: { key: "k", untilMs: atMs + WINDOW_MS } });

  test("an idempotency key is accepted once within its window, also after its item has gone", async (context) => {
    const queue = await open(context);
    assert.deepEqual(await queue.enqueue([keyed("a")]), [{ activationId: "a", duplicate: false }]);
    assert.deepEqual(await queue.enqueue([keyed("b"), item("c"), keyed("d", T0, "another lane")]), [
      { activationId: "a", duplicate: true },
      { activationId: "c", duplicate: false },
      { activationId: "d", duplicate: false },
    ]);
    const [held] = await lease(queue);
    await queue.settle(receiptOf(held), { kind: "done" });
    assert.deepEqual(await queue.enqueue([keyed("e", T0 + WINDOW_MS - 1)]), [{ activationId: "a", duplicate: true }]);
    assert.deepEqual(await queue.enqueue([keyed("f", T0 + WINDOW_MS)]), [{ activationId: "f", duplicate: false }]);
  });

  test("of two items with one key that come together the first is taken", async (context) => {
    const queue = await open(context);
    assert.deepEqual(await queue.enqueue([keyed("a"), keyed("b")]), [
      { activationId: "a", duplicate: false },
      { activationId: "a", duplicate: true },
    ]);
    assert.deepEqual(ids(await lease(queue)), ["a"]);
  });

  test("no more keys are remembered than may be, and none is forgotten for another", async (context) => {
    const queue = await open(context);
    const bounds = { ...unbounded, keysMax: 1 };
    await queue.enqueue([keyed("a")], bounds);
    await assert.rejects(
      queue.enqueue([keyed("b", T0, "another lane")], bounds),
      refused("queue-full", /idempotency keys/),
    );
    assert.deepEqual(await queue.enqueue([keyed("c")], bounds), [{ activationId: "a", duplicate: true }]);
    const later = { ...bounds, nowMs: T0 + WINDOW_MS };
    assert.deepEqual(await queue.enqueue([keyed("d", T0 + WINDOW_MS, "another lane")], later), [
      { activationId: "d", duplicate: false },
    ]);
  });
}

function boundsTests(open: Open): void {
  test("a lane may fill half of the queue, the next one half of the rest; a batch is taken whole or not at all", async (context) => {
    const queue = await open(context);
    const bounds = { ...unbounded, lengthMax: 8 };
    const of = (lane: string, count: number): NewQueueItem[] =>
      Array.from({ length: count }, (_, index) => item(`${lane}${index}`, { lane }));
    await assert.rejects(queue.enqueue(of("a", 9), bounds), refused("queue-full"));
    assert.equal((await queue.state(T0)).waiting, 0);
    await queue.enqueue(of("a", 4), bounds);
    await assert.rejects(queue.enqueue([item("a9", { lane: "a" })], bounds), refused("queue-full"));
    await assert.rejects(
      queue.enqueue([item("b9", { lane: "b" }), item("a9", { lane: "a" })], bounds),
      refused("queue-full"),
    );
    await queue.enqueue(of("b", 2), bounds);
    await assert.rejects(queue.enqueue([item("b9", { lane: "b" })], bounds), refused("queue-full"));
    await queue.enqueue([item("c", { lane: "c" })], bounds);
    assert.equal((await queue.state(T0)).waiting, 7);
    const held = await lease(queue, T0);
    await queue.settle(receiptOf(held.find(({ item: { lane } }) => lane === "a")), { kind: "done" });
    await queue.enqueue([item("b9", { lane: "b" })], { ...bounds, lengthMax: 10 });
  });

  test("a lane whose oldest work has waited too long takes no more, others do", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("a", { lane: "a", enqueuedAtMs: T0 - 10 })]);
    const bounds = { ...unbounded, ageMsMax: 10 };
    await queue.enqueue([item("b", { lane: "a" })], bounds);
    const later = { ...bounds, nowMs: T0 + 5_000 };
    await assert.rejects(queue.enqueue([item("c", { lane: "a" })], later), refused("queue-full", /waited/));
    await queue.enqueue([item("d", { lane: "b" })], later);
    for (const held of await lease(queue)) await queue.settle(held.receipt, { kind: "done" });
    await queue.enqueue([item("c", { lane: "a" })], { ...later, nowMs: T0 + 9_000 });
  });

  test("at its most dead letters a lane takes no more, and those that come all the same are kept", async (context) => {
    const queue = await open(context);
    await queue.enqueue(["a", "b", "c"].map((id) => item(id)));
    for (const held of await lease(queue)) await queue.settle(held.receipt, dead());
    const bounds = { ...unbounded, deadLettersMax: 2 };
    await assert.rejects(queue.enqueue([item("d")], bounds), refused("dead-letters-full", /3 dead letters/));
    await queue.enqueue([item("e", { lane: "other" })], bounds);
    assert.equal((await queue.deadLetters({ limit: 10 })).length, 3);
    assert.equal(await queue.purge(["a", "b", "none"]), 2);
    await queue.enqueue([item("d")], bounds);
  });

  test("the lanes tell what they hold, the longest first", async (context) => {
    const queue = await open(context);
    await queue.enqueue([
      item("a", { lane: "a" }),
      item("b", { lane: "b", enqueuedAtMs: T0 - 3 }),
      item("c", { lane: "b" }),
    ]);
    const [held] = await lease(queue, T0, { a: 1, b: 0 });
    await queue.settle(receiptOf(held), dead());
    assert.deepEqual(await queue.lanes(9), [
      { lane: "b", length: 2, dead: 0, oldestEnqueuedAtMs: T0 - 3 },
      { lane: "a", length: 0, dead: 1, oldestEnqueuedAtMs: null },
    ]);
    assert.equal((await queue.lanes(1)).length, 1);
  });
}

function deadLetterTests(open: Open): void {
  test("a dead letter keeps event, attempts, last outcome and time", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("a")]);
    const [first] = await lease(queue);
    await queue.settle(receiptOf(first), {
      kind: "retry",
      dueAtMs: T0,
      attempt: attempt(1),
      payload: Buffer.from("less"),
    });
    const [second] = await lease(queue);
    assert.equal(Buffer.from(second?.item.payload ?? []).toString(), "less");
    await queue.settle(
      receiptOf(second),
      dead({ reason: "no", code: "handler-failed", atMs: T0 + 3, attempt: attempt(2) }),
    );
    const letter = await queue.deadLetter("a");
    assert.deepEqual(
      { ...letter, payload: Buffer.from(letter?.payload ?? []).toString() },
      {
        id: "a",
        lane: "lane",
        enqueuedAtMs: T0,
        attempts: 2,
        reason: "no",
        code: "handler-failed",
        atMs: T0 + 3,
        payload: "less",
        history: [attempt(1), attempt(2)],
      },
    );
    assert.equal(await queue.deadLetter("b"), null);
    assert.equal(await queue.find("a", T0), null);
  });

  test("dead letters are listed by lane, beginning of the lane, code and time, in pages", async (context) => {
    const queue = await open(context);
    await queue.enqueue(["d", "a", "b", "c"].map((id) => item(id, { lane: id === "b" ? "n/other" : "n/main" })));
    for (const [index, held] of (await lease(queue)).entries()) {
      const code = held.item.id === "c" ? "special" : "usual";
      await queue.settle(held.receipt, dead({ code, atMs: T0 + index }));
    }
    const found = async (query: Partial<Parameters<Queue["deadLetters"]>[0]>): Promise<string> =>
      (await queue.deadLetters({ limit: 10, ...query })).map(({ id }) => id).join("");
    const [head] = await queue.deadLetters({ limit: 1 });
    assert.deepEqual(Object.keys(head ?? {}).toSorted(), [
      "atMs",
      "attempts",
      "code",
      "enqueuedAtMs",
      "id",
      "lane",
      "reason",
    ]);
    assert.equal(await found({}), "abcd");
    assert.equal(await found({ lanes: ["n/main", "none"] }), "acd");
    assert.equal(await found({ prefix: "n/" }), "abcd");
    assert.equal(await found({ prefix: "n/m" }), "acd");
    assert.equal(await found({ code: "special" }), "c");
    assert.equal(await found({ after: "a", limit: 2 }), "bc");
    const all = await queue.deadLetters({ limit: 10 });
    const early = all.filter(({ atMs }) => atMs < T0 + 2).map(({ id }) => id);
    assert.equal(await found({ beforeMs: T0 + 2 }), early.join(""));
    assert.equal(await found({ sinceMs: T0 + 2 }), all.flatMap(({ id }) => (early.includes(id) ? [] : id)).join(""));
  });

  test("a replay makes items of dead letters once, spaced, with their attempts counted anew and their history kept", async (context) => {
    const queue = await open(context);
    await queue.enqueue(["a", "b", "c"].map((id) => item(id, { priority: 0, orderingKey: id })));
    for (const held of await lease(queue)) await queue.settle(held.receipt, dead({ attempt: attempt(1) }));
    assert.deepEqual(await queue.replay(["b", "none", "a", "b"], { nowMs: T0 + 9, spacingMs: 100 }), ["b", "a"]);
    assert.deepEqual(await queue.replay(["b", "a"], { nowMs: T0 + 9, spacingMs: 100 }), []);
    assert.deepEqual(
      (await queue.deadLetters({ limit: 10 })).map(({ id }) => id),
      ["c"],
    );
    const [b] = await claim(queue, ["b"], T0 + 9);
    assert.deepEqual([b?.attempt, b?.item.enqueuedAtMs, b?.item.orderingKey, b?.item.priority], [1, T0 + 9, "b", 0]);
    assert.equal(Buffer.from(b?.item.payload ?? []).toString(), "payload of b");
    await claim(queue, ["a"], T0 + 109);
    await queue.settle(receiptOf(b), dead({ attempt: attempt(1) }));
    assert.equal((await queue.deadLetter("b"))?.history.length, 2);
  });

  test("a replay keeps to the length of the queue, but not to the number of dead letters", async (context) => {
    const queue = await open(context);
    await queue.enqueue(["a", "b"].map((id) => item(id)));
    for (const held of await lease(queue)) await queue.settle(held.receipt, dead());
    const bounds = { ...unbounded, lengthMax: 2, deadLettersMax: 1 };
    await assert.rejects(queue.replay(["a", "b"], { nowMs: T0, spacingMs: 0, bounds }), refused("queue-full"));
    assert.deepEqual(await queue.replay(["a"], { nowMs: T0, spacingMs: 0, bounds }), ["a"]);
    assert.deepEqual(
      (await queue.deadLetters({ limit: 10 })).map(({ id }) => id),
      ["b"],
    );
  });
}

function historyTests(open: Open): void {
  test("what follows from an end is there as soon as that is settled, and not when the claim was lost", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("a"), item("b"), item("c")]);
    const [a, b, c] = await lease(queue);
    await queue.settle(receiptOf(a), { kind: "done", followUps: [item("a then", { lane: "next" })] });
    await queue.settle(receiptOf(b), dead({ followUps: [item("b then", { lane: "next" })] }));
    await lease(queue, T0 + LEASE_MS);
    assert.equal(await queue.settle(receiptOf(c), { kind: "done", followUps: [item("c then")] }), false);
    await claim(queue, [], T0 + LEASE_MS);
    assert.equal((await queue.find("a then", T0))?.item.lane, "next");
    assert.equal((await queue.find("b then", T0))?.item.lane, "next");
    assert.equal(await queue.find("c then", T0), null);
  });

  test("the attempts of what ended well after failing can be read, those of others are none", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("a"), item("b")]);
    const [a, b] = await lease(queue);
    await queue.settle(receiptOf(b), { kind: "done", attempt: attempt(1) });
    await queue.settle(receiptOf(a), { kind: "retry", dueAtMs: T0, attempt: attempt(1) });
    assert.deepEqual((await queue.find("a", T0))?.history, [attempt(1)]);
    const [again] = await lease(queue);
    await queue.settle(receiptOf(again), { kind: "done", attempt: attempt(2) });
    assert.deepEqual(await queue.attempts("a"), [attempt(1), attempt(2)]);
    assert.deepEqual(await queue.attempts("b"), []);
  });

  test("only the newest attempts are kept", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("a")]);
    for (let number = 1; number <= limits.attemptsKept + 2; number++) {
      const [held] = await lease(queue);
      await queue.settle(receiptOf(held), { kind: "retry", dueAtMs: T0, attempt: attempt(number) });
    }
    const { history = [] } = (await queue.find("a", T0)) ?? {};
    assert.equal(history.length, limits.attemptsKept);
    assert.equal(history.at(-1)?.number, limits.attemptsKept + 2);
  });

  test("what nobody holds can be cancelled, and then it is gone", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("a"), item("b", { dueAtMs: T0 + 9 * LEASE_MS })]);
    const [held] = await lease(queue);
    assert.equal(await queue.cancel("a", T0), "leased");
    assert.equal(await queue.cancel("b", T0), "cancelled");
    assert.equal(await queue.cancel("b", T0), "absent");
    assert.equal(await queue.cancel("a", T0 + LEASE_MS), "cancelled");
    assert.equal(await queue.settle(receiptOf(held), { kind: "done" }), false);
    assert.deepEqual(await queue.state(T0 + 99 * LEASE_MS), {
      waiting: 0,
      leased: 0,
      dead: 0,
      nextDueAtMs: null,
      oldestEnqueuedAtMs: null,
    });
  });

  test("an item can be looked at while it waits and while it is held", async (context) => {
    const queue = await open(context);
    await queue.enqueue([item("a", { priority: 2 })]);
    assert.deepEqual(plain(await queue.find("a", T0)), { leased: false, attempts: 0, priority: 2 });
    await lease(queue);
    assert.deepEqual(plain(await queue.find("a", T0)), { leased: true, attempts: 1, priority: 2 });
    assert.deepEqual(plain(await queue.find("a", T0 + LEASE_MS)), { leased: false, attempts: 1, priority: 2 });
  });
}

const unbounded: QueueBounds = {
  nowMs: T0,
  lengthMax: 1_000,
  ageMsMax: 1_000_000,
  deadLettersMax: 1_000,
  keysMax: 1_000,
};

function item(id: string, parts: Partial<NewQueueItem> = {}): NewQueueItem {
  return { id, lane: "lane", payload: Buffer.from(`payload of ${id}`), dueAtMs: T0, enqueuedAtMs: T0, ...parts };
}

function attempt(number: number): Attempt {
  return { number, startedAtMs: T0 + number, endedAtMs: T0 + number + 1, outcome: "failed", error: null };
}

function dead(parts: Partial<Extract<Settlement, { kind: "dead" }>> = {}): Settlement {
  return { kind: "dead", reason: "", atMs: T0, ...parts };
}

async function lease(queue: Queue, nowMs = T0, laneRoom: Record<string, number> = {}): Promise<readonly Lease[]> {
  return await queue.lease({ limit: 100, nowMs, leaseMs: LEASE_MS, laneRoom });
}

/** Claims what is due and expects just this, in any order; answers it in order of the ids. */
async function claim(queue: Queue, expected: readonly string[], nowMs = T0): Promise<readonly Lease[]> {
  const held = (await lease(queue, nowMs)).toSorted((a, b) => (a.item.id < b.item.id ? -1 : 1));
  assert.deepEqual(ids(held), expected);
  return held;
}

function ids(held: readonly Lease[]): string[] {
  return held.map((one) => one.item.id);
}

function plain(found: Awaited<ReturnType<Queue["find"]>>): unknown {
  return found === null ? null : { leased: found.leased, attempts: found.attempts, priority: found.item.priority };
}

function receiptOf(held: Lease | undefined): Lease["receipt"] {
  assert.ok(held !== undefined);
  return held.receipt;
}

function refused(code: KoineError["code"], text = /./): (thrown: KoineError) => boolean {
  return (thrown) => thrown.code === code && text.test(thrown.message);
}
