import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../../../core/clock.ts";
import type { Supervise } from "../../../core/telemetry.ts";
import { openMemoryStore } from "../../../store/memory.ts";
import type { Values } from "../../../store/store.ts";
import { AwsError } from "../wire/error.ts";
import { applyAttributes, type QueueSettings } from "./attributes.ts";
import type { MessageQueue, Outgoing, Received } from "./queue.ts";
import { arnOf, Queues } from "./queues.ts";

/** Nothing that a queue does by itself may fail in these tests. */
const supervise: Supervise = (what, promise) =>
  void promise.catch((thrown: unknown) => assert.fail(`${what}: ${String(thrown)}`));

interface World {
  readonly clock: VirtualClock;
  readonly values: Values;
  readonly queues: Queues;
}

async function world(): Promise<World> {
  const clock = new VirtualClock();
  const { values } = openMemoryStore();
  return { clock, values, queues: await Queues.open({ values, clock, supervise }) };
}

async function queue({ queues }: World, name: string, attributes: Record<string, string> = {}): Promise<MessageQueue> {
  const settings: QueueSettings = applyAttributes(attributes);
  return await queues.messages(
    await queues.create({ namespace: "default", name, region: "us-east-1", settings, tags: {} }),
  );
}

function message(body: string, more: Partial<Outgoing> = {}): Outgoing {
  return {
    body,
    attributes: {},
    traceHeader: null,
    senderId: "me",
    delaySeconds: null,
    groupId: null,
    deduplicationId: null,
    ...more,
  };
}

async function receive(
  of: MessageQueue,
  more: Partial<Parameters<MessageQueue["receive"]>[0]> = {},
): Promise<readonly Received[]> {
  return await of.receive({
    limit: 10,
    visibilityMs: 30_000,
    waitMs: 0,
    signal: new AbortController().signal,
    ...more,
  });
}

/** A receive that has found nothing and waits now. */
async function waiting(of: MessageQueue, waitMs: number): Promise<{ readonly received: Promise<readonly Received[]> }> {
  const received = receive(of, { waitMs });
  await new Promise((resolve) => setImmediate(resolve));
  return { received };
}

const bodies = (received: readonly Received[]): readonly string[] => received.map(({ message: { body } }) => body);

test("what was received is invisible until its time is over, then comes again with a higher count", async () => {
  const here = await world();
  const orders = await queue(here, "orders");
  await orders.send([message("a"), message("b")]);
  assert.deepEqual(bodies(await receive(orders)), ["a", "b"]);
  assert.deepEqual(await receive(orders), []);
  assert.deepEqual(orders.counts(), { visible: 0, inFlight: 2, delayed: 0 });
  await here.clock.advance(30_000);
  const again = await receive(orders);
  assert.deepEqual(
    again.map(({ state }) => state.receiveCount),
    [2, 2],
  );
});

test("a deleted message never comes again, not even after a restart", async () => {
  const here = await world();
  const orders = await queue(here, "orders");
  await orders.send([message("a"), message("b")]);
  const [first] = await receive(orders, { limit: 1 });
  await orders.delete(first?.receiptHandle ?? "");
  const after = await Queues.open({ ...here, supervise });
  const record = after.find("default", "orders");
  assert.ok(record !== null);
  assert.deepEqual(bodies(await receive(await after.messages(record))), ["b"]);
});

test("a restart keeps messages in their order, and those in flight invisible", async () => {
  const here = await world();
  const orders = await queue(here, "orders");
  await orders.send(Array.from({ length: 20 }, (_, index) => message(String(index))));
  assert.equal((await receive(orders, { limit: 5 })).length, 5);
  const after = await Queues.open({ ...here, supervise });
  const reopened = await after.messages(after.list("default")[0] ?? assert.fail());
  assert.deepEqual(bodies(await receive(reopened, { limit: 3 })), ["5", "6", "7"]);
  await here.clock.advance(30_000);
  assert.equal((await receive(reopened, { limit: 10 })).length, 10);
});

test("a delayed message is not seen before its time", async () => {
  const here = await world();
  const orders = await queue(here, "orders", { DelaySeconds: "10" });
  await orders.send([
    message("queue's delay"),
    message("own delay", { delaySeconds: 5 }),
    message("none", { delaySeconds: 0 }),
  ]);
  assert.deepEqual(bodies(await receive(orders)), ["none"]);
  await here.clock.advance(5_000);
  assert.deepEqual(bodies(await receive(orders)), ["own delay"]);
  await here.clock.advance(5_000);
  assert.deepEqual(bodies(await receive(orders)), ["queue's delay"]);
});

test("who waits gets a message as soon as one is sent or becomes visible, and nothing when the time is over", async () => {
  const here = await world();
  const orders = await queue(here, "orders");
  const sent = await waiting(orders, 20_000);
  await here.clock.advance(1_000);
  await orders.send([message("now")]);
  assert.deepEqual(bodies(await sent.received), ["now"]);
  const visible = await waiting(orders, 40_000);
  await here.clock.advance(30_000);
  assert.deepEqual(bodies(await visible.received), ["now"]);
  const nothing = await waiting(orders, 5_000);
  await here.clock.advance(5_000);
  assert.deepEqual(await nothing.received, []);
});

test("the visibility of a received message can be changed, of another one it cannot", async () => {
  const here = await world();
  const orders = await queue(here, "orders");
  await orders.send([message("a")]);
  const [first] = await receive(orders);
  const handle = first?.receiptHandle ?? "";
  await orders.changeVisibility(handle, 60_000);
  await here.clock.advance(59_000);
  assert.deepEqual(await receive(orders), []);
  await orders.changeVisibility(handle, 0);
  assert.deepEqual(bodies(await receive(orders)), ["a"]);
  await assert.rejects(orders.changeVisibility(handle, 10), { code: "MessageNotInflight" });
  await assert.rejects(
    orders.delete("no handle"),
    (thrown) => thrown instanceof AwsError && thrown.code === "ReceiptHandleIsInvalid",
  );
});

test("what was received too often goes to the dead letters in one step, with where it came from", async () => {
  const here = await world();
  const dead = await queue(here, "dead");
  const record = here.queues.find("default", "dead") ?? assert.fail();
  const policy = JSON.stringify({ deadLetterTargetArn: arnOf(record), maxReceiveCount: 2 });
  const orders = await queue(here, "orders", { RedrivePolicy: policy });
  await orders.send([message("poison")]);
  for (let round = 0; round < 2; round++) {
    assert.deepEqual(bodies(await receive(orders, { visibilityMs: 1_000 })), ["poison"]);
    await here.clock.advance(1_000);
  }
  assert.deepEqual(await receive(orders), []);
  const buried = await receive(dead);
  assert.deepEqual(bodies(buried), ["poison"]);
  assert.equal(buried[0]?.message.sourceArn, orders.arn);
  assert.equal(orders.counts().visible + orders.counts().inFlight, 0);
});

test("messages of a group are received in order, one batch at a time, while other groups go on", async () => {
  const here = await world();
  const orders = await queue(here, "orders.fifo", { FifoQueue: "true" });
  const send = async (groupId: string, body: string): Promise<unknown> =>
    await orders.send([message(body, { groupId, deduplicationId: body })]);
  for (const body of ["a1", "a2", "a3"]) await send("a", body);
  await send("b", "b1");
  assert.deepEqual(bodies(await receive(orders, { limit: 2 })), ["a1", "a2"]);
  const others = await receive(orders);
  assert.deepEqual(bodies(others), ["b1"]);
  assert.deepEqual(await receive(orders), []);
  await here.clock.advance(30_000);
  const again = await receive(orders, { limit: 1 });
  assert.deepEqual(bodies(again), ["a1"]);
  await orders.delete(again[0]?.receiptHandle ?? "");
  assert.equal(bodies(await receive(orders, { limit: 1 }))[0], "a2");
});

test("the same deduplication id within five minutes is the same message, also after it was deleted and after a restart", async () => {
  const here = await world();
  const orders = await queue(here, "orders.fifo", { FifoQueue: "true" });
  const one = message("a", { groupId: "g", deduplicationId: "d" });
  const [first] = await orders.send([one]);
  const [received] = await receive(orders);
  await orders.delete(received?.receiptHandle ?? "");
  const after = await Queues.open({ ...here, supervise });
  const reopened = await after.messages(after.list("default")[0] ?? assert.fail());
  assert.deepEqual(await reopened.send([one]), [first]);
  assert.deepEqual(await receive(reopened), []);
  await here.clock.advance(5 * 60_000);
  assert.notDeepEqual(await reopened.send([one]), [first]);
});

test("messages older than the queue keeps them are gone", async () => {
  const here = await world();
  const orders = await queue(here, "orders", { MessageRetentionPeriod: "60" });
  await orders.send([message("old")]);
  await here.clock.advance(61_000);
  await orders.send([message("new")]);
  assert.deepEqual(bodies(await receive(orders)), ["new"]);
});

test("moving gives dead letters back to where they came from, and leaves what has no place", async () => {
  const here = await world();
  const orders = await queue(here, "orders");
  const dead = await queue(here, "dead");
  await dead.send([message("x"), message("y")]);
  assert.equal(await dead.moveTo(async ({ body }) => (body === "x" ? orders : null), 10), 1);
  assert.deepEqual(bodies(await receive(orders)), ["x"]);
  assert.deepEqual(bodies(await receive(dead)), ["y"]);
});

test("twenty thousand messages are received, each exactly once", async () => {
  const here = await world();
  const orders = await queue(here, "orders");
  const total = 20_000;
  for (let from = 0; from < total; from += 1_000)
    await orders.send(Array.from({ length: 1_000 }, (_, index) => message(String(from + index))));
  const seen = new Set<string>();
  for (;;) {
    const received = await receive(orders);
    if (received.length === 0) break;
    for (const each of received) {
      assert.ok(!seen.has(each.message.body));
      seen.add(each.message.body);
      await orders.delete(each.receiptHandle);
    }
  }
  assert.equal(seen.size, total);
});
