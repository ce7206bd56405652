import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../core/clock.ts";
import { KoineError } from "../core/errors.ts";
import type { Outcome } from "../core/invocation.ts";
import { openMemoryStore } from "../store/memory.ts";
import type { Lease, Queue } from "../store/store.ts";
import { Dispatcher, type DispatcherOptions, type Ended } from "./dispatcher.ts";
import { defaultRetryPolicy } from "./retry.ts";

const LEASE_MS = 60_000;
const succeeded: Outcome = { kind: "succeeded" };
const failed: Outcome = {
  kind: "failed",
  fault: "function",
  error: new KoineError("handler-failed", { detail: "no" }).report(),
};
const rejected: Outcome = {
  kind: "rejected",
  error: new KoineError("too-many-requests", { name: "f" }).report(),
  retryAfterMs: 2_000,
};

test("work is done as soon as it is enqueued, and then the queue is empty", async () => {
  const { clock, enqueue, runs, dispatcher, queue } = setUp();
  dispatcher.start();
  await clock.advance(0);
  await enqueue("a", "b");
  await clock.advance(0);
  assert.deepEqual(runs, ["a 1", "b 1"]);
  assert.equal((await queue.state(clock.nowMs())).waiting, 0);
  assert.equal(dispatcher.inFlight, 0);
});

test("work waits until it is due, however far away that is", async () => {
  const { clock, enqueueAt, runs, dispatcher } = setUp();
  dispatcher.start();
  await enqueueAt(clock.nowMs() + 25_000, "later");
  await clock.advance(24_999);
  assert.deepEqual(runs, []);
  await clock.advance(1);
  assert.deepEqual(runs, ["later 1"]);
});

test("what others enqueue without a word is found before long", async () => {
  const { clock, queue, runs, dispatcher } = setUp();
  dispatcher.start();
  await clock.advance(1);
  const nowMs = clock.nowMs();
  await queue.enqueue([{ id: "silent", lane: "l", payload: new Uint8Array(), dueAtMs: nowMs, enqueuedAtMs: nowMs }]);
  await clock.advance(10_000);
  assert.deepEqual(runs, ["silent 1"]);
});

test("a failing item is tried three times over three minutes and ends as a dead letter", async () => {
  const { clock, enqueue, runs, dispatcher, queue } = setUp({ outcomes: () => failed });
  dispatcher.start();
  await enqueue("a");
  await clock.advance(59_999);
  assert.deepEqual(runs, ["a 1"]);
  await clock.advance(1);
  assert.deepEqual(runs, ["a 1", "a 2"]);
  await clock.advance(120_000);
  assert.deepEqual(runs, ["a 1", "a 2", "a 3"]);
  const letter = await queue.deadLetter("a");
  assert.equal(letter?.attempts, 3);
  assert.match(letter.reason, /failed 3 times.*handler-failed/);
  await clock.advance(24 * 3_600_000);
  assert.equal(runs.length, 3);
});

test("a rejected item comes again without counting, until it runs", async () => {
  let rejections = 0;
  const { clock, enqueue, runs, dispatcher } = setUp({ outcomes: () => (rejections++ < 5 ? rejected : succeeded) });
  dispatcher.start();
  await enqueue("a");
  await clock.advance(60_000);
  assert.deepEqual(runs, ["a 1", "a 1", "a 1", "a 1", "a 1", "a 1"]);
});

test("an invocation that throws is the platform's fault and comes again", async () => {
  let calls = 0;
  const { clock, enqueue, runs, dispatcher } = setUp({
    outcomes: () => {
      if (calls++ === 0) throw new Error("engine broke");
      return succeeded;
    },
  });
  dispatcher.start();
  await enqueue("a");
  await clock.advance(1_000);
  assert.deepEqual(runs, ["a 1", "a 1"]);
});

test("no more runs at a time than may, in all and per lane, and each end makes room", async () => {
  const { clock, enqueueIn, held, dispatcher } = setUp({ inFlightMax: 5, laneLimit: 2, hold: true });
  dispatcher.start();
  await enqueueIn("x", "x1", "x2", "x3", "x4");
  await enqueueIn("y", "y1", "y2", "y3");
  await clock.advance(0);
  assert.deepEqual([...held.keys()], ["x1", "x2", "y1", "y2"]);
  held.get("x2")?.(succeeded);
  await clock.advance(0);
  assert.deepEqual([...held.keys()], ["x1", "y1", "y2", "x3"]);
  await enqueueIn("z", "z1", "z2");
  await clock.advance(0);
  assert.deepEqual([...held.keys()], ["x1", "y1", "y2", "x3", "z1"]);
  for (let ends = 0; ends < 9; ends++) {
    assert.ok(dispatcher.inFlight <= 5);
    [...held.values()][0]?.(succeeded);
    await clock.advance(0);
  }
  assert.equal(dispatcher.inFlight, 0);
});

test("a lane with a limit of one is not claimed over and over while it is full", async () => {
  const { clock, enqueueIn, held, dispatcher, calls } = setUp({ laneLimit: 1, hold: true });
  dispatcher.start();
  await enqueueIn("x", ...Array.from({ length: 40 }, (_, index) => `x${index}`));
  await clock.advance(0);
  const released = (): number => calls.filter((call) => call === "settle release").length;
  const first = released();
  for (let done = 0; done < 39; done++) {
    assert.equal(held.size, 1);
    [...held.values()][0]?.(succeeded);
    await clock.advance(0);
  }
  assert.equal(released(), first);
});

test("a long run keeps its claim: nobody else gets the item", async () => {
  const { clock, enqueue, held, dispatcher, queue, runs } = setUp({ hold: true });
  dispatcher.start();
  await enqueue("long");
  await clock.advance(0);
  for (let minute = 0; minute < 60; minute++) {
    await clock.advance(60_000);
    assert.deepEqual(await queue.lease({ limit: 1, nowMs: clock.nowMs(), leaseMs: LEASE_MS }), []);
  }
  held.get("long")?.(succeeded);
  await clock.advance(0);
  assert.deepEqual(runs, ["long 1"]);
  assert.deepEqual(await queue.state(clock.nowMs()), {
    waiting: 0,
    leased: 0,
    dead: 0,
    nextDueAtMs: null,
    oldestEnqueuedAtMs: null,
  });
});

test("a run whose claim another has taken is stopped, and its end changes nothing", async () => {
  const { clock, enqueue, held, signals, dispatcher, queue } = setUp({ hold: true });
  dispatcher.start();
  await enqueue("a");
  await clock.advance(0);
  const [other] = await queue.lease({ limit: 1, nowMs: clock.nowMs() + LEASE_MS, leaseMs: LEASE_MS });
  assert.ok(other !== undefined);
  await clock.advance(LEASE_MS / 2);
  assert.equal(signals.get("a")?.aborted, true);
  held.get("a")?.(failed);
  await clock.advance(0);
  assert.equal(dispatcher.inFlight, 0);
  assert.equal(await queue.settle(other.receipt, { kind: "done" }), true);
});

test("a clock that jumps ahead over the end of a claim does not run again what runs still", async () => {
  const { clock, jump, enqueue, held, runs, dispatcher, queue, messages } = setUp({ hold: true });
  dispatcher.start();
  await enqueue("a", "b");
  jump(24 * 3_600_000);
  await enqueue("c");
  held.get("a")?.(succeeded);
  await clock.advance(LEASE_MS / 2);
  held.get("b")?.(succeeded);
  held.get("c")?.(succeeded);
  await clock.advance(0);
  assert.deepEqual(runs, ["a 1", "b 1", "c 1"]);
  assert.equal((await queue.state(clock.nowMs())).nextDueAtMs, null);
  assert.equal(dispatcher.inFlight, 0);
  assert.deepEqual(messages, []);
});

test("while the store fails the dispatcher asks less and less often, and goes on when it is back", async () => {
  const { clock, enqueue, runs, dispatcher, store, calls, messages } = setUp();
  store.broken = true;
  dispatcher.start();
  await clock.advance(60_000);
  assert.ok(calls.length < 15, `${calls.length} calls in a minute`);
  await enqueue("a");
  store.broken = false;
  await clock.advance(10_000);
  assert.deepEqual(runs, ["a 1"]);
  assert.deepEqual(messages, ["the queue cannot be read", "the queue can be read again"]);
});

test("what has ended while the store fails is settled when it is back, and does not run twice", async () => {
  const { clock, enqueue, held, runs, dispatcher, store, queue } = setUp({ hold: true });
  dispatcher.start();
  await enqueue("a");
  await clock.advance(0);
  store.broken = true;
  held.get("a")?.(succeeded);
  await clock.advance(45_000);
  assert.equal(dispatcher.inFlight, 1);
  store.broken = false;
  await clock.advance(10_000);
  assert.equal(dispatcher.inFlight, 0);
  assert.deepEqual(runs, ["a 1"]);
  assert.equal((await queue.state(clock.nowMs())).waiting, 0);
});

test("draining takes nothing new and waits for what runs", async () => {
  const { clock, enqueue, held, runs, dispatcher, queue } = setUp({ hold: true });
  dispatcher.start();
  await enqueue("a");
  await clock.advance(0);
  let drained = false;
  const draining = dispatcher.drain(new AbortController().signal).then(() => (drained = true));
  await enqueue("b");
  await clock.advance(5_000);
  assert.equal(drained, false);
  held.get("a")?.(succeeded);
  await draining;
  assert.deepEqual(runs, ["a 1"]);
  const { waiting, leased } = await queue.state(clock.nowMs());
  assert.deepEqual({ waiting, leased }, { waiting: 1, leased: 0 });
});

test("a drain that must end stops what runs and gives it back as if it had not been tried", async () => {
  const { clock, enqueue, held, signals, dispatcher, queue } = setUp({ hold: true });
  dispatcher.start();
  await enqueue("done", "stuck");
  await clock.advance(0);
  const patience = new AbortController();
  const draining = dispatcher.drain(patience.signal);
  held.get("done")?.(succeeded);
  await clock.advance(30_000);
  patience.abort();
  await draining;
  assert.equal(signals.get("stuck")?.aborted, true);
  held.get("stuck")?.(failed);
  await clock.advance(0);
  const [again, ...others] = await queue.lease({ limit: 10, nowMs: clock.nowMs(), leaseMs: LEASE_MS });
  assert.equal(again?.item.id, "stuck");
  assert.equal(again.attempt, 1);
  assert.deepEqual(others, []);
});

test("a slow lane never holds all the places: others find room", async () => {
  const { clock, enqueueIn, held, dispatcher } = setUp({ inFlightMax: 8, hold: true });
  dispatcher.start();
  await enqueueIn("slow", ...Array.from({ length: 50 }, (_, index) => `s${index}`));
  await clock.advance(0);
  assert.deepEqual([...held.keys()], ["s0", "s1", "s2", "s3"]);
  await enqueueIn("quick", "q0", "q1", "q2");
  assert.deepEqual([...held.keys()].slice(4), ["q0", "q1"]);
  await enqueueIn("third", "t0", "t1");
  assert.deepEqual([...held.keys()].slice(6), ["t0"]);
  held.get("q0")?.(succeeded);
  await clock.advance(0);
  assert.ok(held.has("q2"), "the place of a quick one goes to a quick one");
});

test("what will not succeed at another attempt is dead after the first", async () => {
  const { clock, enqueue, runs, dispatcher, queue } = setUp({ outcomes: () => failed, ending: { retryable: false } });
  dispatcher.start();
  await enqueue("a");
  await clock.advance(24 * 3_600_000);
  assert.deepEqual(runs, ["a 1"]);
  const letter = await queue.deadLetter("a");
  assert.equal(letter?.code, "handler-failed");
  assert.match(letter.reason, /cannot succeed/);
});

test("every attempt is kept with its times, outcome and error", async () => {
  const { clock, enqueue, dispatcher, queue } = setUp({ outcomes: () => failed });
  dispatcher.start();
  const startMs = clock.nowMs();
  await enqueue("a");
  await clock.advance(180_000);
  const history = (await queue.deadLetter("a"))?.history ?? [];
  assert.deepEqual(
    history.map(({ number, startedAtMs, outcome, error }) => [number, startedAtMs - startMs, outcome, error?.code]),
    [
      [1, 0, "failed", "handler-failed"],
      [2, 60_000, "failed", "handler-failed"],
      [3, 180_000, "failed", "handler-failed"],
    ],
  );
});

test("only what is left of a batch is tried again, and kept when it dies", async () => {
  const payloads: string[] = [];
  const { clock, enqueue, dispatcher, queue } = setUp({
    outcomes: ({ item }) => {
      payloads.push(Buffer.from(item.payload).toString());
      return failed;
    },
    ending: { remaining: Buffer.from("left") },
  });
  dispatcher.start();
  await enqueue("a");
  await clock.advance(180_000);
  assert.deepEqual(payloads, ["", "left", "left"]);
  assert.equal(Buffer.from((await queue.deadLetter("a"))?.payload ?? []).toString(), "left");
});

test("what follows from an end is enqueued with it, by how it ended, and not after a retry", async () => {
  const next = { id: "next", lane: "next", payload: new Uint8Array(), dueAtMs: 0, enqueuedAtMs: 0 };
  const asked: string[] = [];
  const { clock, enqueue, runs, dispatcher } = setUp({
    outcomes: ({ item, attempt }) => (item.id === "a" && attempt < 3 ? failed : succeeded),
    ending: {
      followUps: ({ kind }) => {
        asked.push(kind);
        return asked.length === 1 ? [next] : [];
      },
    },
  });
  dispatcher.start();
  await enqueue("a");
  await clock.advance(240_000);
  assert.deepEqual(runs, ["a 1", "a 2", "a 3", "next 1"]);
  assert.deepEqual(asked, ["done", "done"]);
});

test("what is cancelled while it runs is stopped and does not come again", async () => {
  const { clock, enqueue, held, signals, dispatcher, queue, runs } = setUp({ hold: true });
  dispatcher.start();
  await enqueue("a");
  await clock.advance(0);
  assert.equal(await dispatcher.cancel("none"), false);
  assert.equal(await dispatcher.cancel("a"), true);
  assert.equal(signals.get("a")?.reason.code, "cancelled");
  held.get("a")?.(failed);
  await clock.advance(24 * 3_600_000);
  assert.deepEqual(runs, ["a 1"]);
  assert.equal(await queue.deadLetter("a"), null);
  assert.equal(await dispatcher.cancel("a"), false);
});

interface Story {
  readonly outcomes?: (lease: Lease) => Outcome;
  /** Whether runs last until the story ends them. */
  readonly hold?: boolean;
  readonly inFlightMax?: number;
  readonly laneLimit?: number;
  /** What ends mean beside their outcome. */
  readonly ending?: Omit<Ended, "outcome" | "policy">;
}

function setUp({
  outcomes = () => succeeded,
  hold = false,
  inFlightMax = 100,
  laneLimit = 100,
  ending = {},
}: Story = {}) {
  const clock = new VirtualClock();
  let jumpedMs = 0;
  const { queue } = openMemoryStore();
  const store = { broken: false };
  const calls: string[] = [];
  const runs: string[] = [];
  const messages: string[] = [];
  const held = new Map<string, (outcome: Outcome) => void>();
  const signals = new Map<string, AbortSignal>();
  const options: DispatcherOptions = {
    queue: watched(queue, store, calls),
    clock: {
      nowMs: () => clock.nowMs() + jumpedMs,
      monotonicMs: () => clock.monotonicMs(),
      after: (delayMs, callback) => clock.after(delayMs, callback),
    },
    invoke: async (lease, signal) => {
      const { id } = lease.item;
      runs.push(`${id} ${lease.attempt}`);
      signals.set(id, signal);
      if (!hold) return { ...ending, policy: defaultRetryPolicy, outcome: outcomes(lease) };
      const { promise, resolve } = Promise.withResolvers<Outcome>();
      held.set(id, (outcome) => {
        held.delete(id);
        resolve(outcome);
      });
      return { ...ending, policy: defaultRetryPolicy, outcome: await promise };
    },
    laneLimit: () => laneLimit,
    inFlightMax,
    // A rejection that nobody handles ends the test run, as it would end the platform.
    supervise: (_, promise) => void promise,
    logger: { log: (_, message) => void messages.push(message) },
    leaseMs: LEASE_MS,
    random: () => 0.5,
  };
  const dispatcher = new Dispatcher(options);
  const put = async (lane: string, dueAtMs: number, ids: readonly string[]): Promise<void> => {
    const enqueuedAtMs = clock.nowMs();
    await queue.enqueue(ids.map((id) => ({ id, lane, payload: new Uint8Array(), dueAtMs, enqueuedAtMs })));
    dispatcher.notify();
    // What follows from it happens now, not at the time to which the story moves next.
    await clock.advance(0);
  };
  return {
    clock,
    /** The time of day is set; what was put off by a time is not. */
    jump: (byMs: number) => void (jumpedMs += byMs),
    queue,
    store,
    calls,
    runs,
    messages,
    held,
    signals,
    dispatcher,
    enqueue: (...ids: string[]) => put("lane", clock.nowMs(), ids),
    enqueueAt: (dueAtMs: number, ...ids: string[]) => put("lane", dueAtMs, ids),
    enqueueIn: (lane: string, ...ids: string[]) => put(lane, clock.nowMs(), ids),
  };
}

/** A queue that notes how it is called and fails while its store is broken. */
function watched(queue: Queue, store: { readonly broken: boolean }, calls: string[]): Queue {
  const through = async <Answer>(call: string, ask: () => Promise<Answer>): Promise<Answer> => {
    calls.push(call);
    if (store.broken) throw new KoineError("storage-failed", { detail: "broken" });
    return await ask();
  };
  return {
    ...unwatched(queue),
    enqueue: (items) => through("enqueue", () => queue.enqueue(items)),
    lease: (request) => through("lease", () => queue.lease(request)),
    extend: (receipt, untilMs) => through("extend", () => queue.extend(receipt, untilMs)),
    settle: (receipt, settlement) => through(`settle ${settlement.kind}`, () => queue.settle(receipt, settlement)),
    state: (nowMs) => through("state", () => queue.state(nowMs)),
  };
}

/** What the dispatcher itself never asks for. */
function unwatched(
  queue: Queue,
): Pick<Queue, "cancel" | "find" | "attempts" | "lanes" | "deadLetters" | "deadLetter" | "replay" | "purge"> {
  return {
    cancel: (id, nowMs) => queue.cancel(id, nowMs),
    find: (id, nowMs) => queue.find(id, nowMs),
    attempts: (id) => queue.attempts(id),
    lanes: (limit) => queue.lanes(limit),
    deadLetters: (query) => queue.deadLetters(query),
    deadLetter: (id) => queue.deadLetter(id),
    replay: (ids, request) => queue.replay(ids, request),
    purge: (ids) => queue.purge(ids),
  };
}
