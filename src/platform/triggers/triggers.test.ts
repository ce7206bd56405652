import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "zod";
import { VirtualClock } from "../../core/clock.ts";
import { KoineError } from "../../core/errors.ts";
import type { CloudEvent } from "../../core/event.ts";
import { createCloudEventsKind } from "../../triggers/cloudevents.ts";
import { createTopicKind } from "../../triggers/topic.ts";
import { type Emit, type PullKind, pullKind, secretReference } from "../../triggers/trigger.ts";
import { createWebhookKind } from "../../triggers/webhook.ts";
import { readPartialFailures, toInvocation } from "./delivery.ts";
import type { TriggerRequest } from "./record.ts";
import { type Durable, durable, eventsIn, openTriggers, target } from "./testing/hosted.ts";
import { stateOf } from "./triggers.ts";

const LEASE_MS = 15_000;

test("an event goes to the trigger's function, once, and the source hears of it when it is accepted", async () => {
  const story = await begin();
  await story.emit(event("a"));
  await story.emit(event("a"));
  assert.deepEqual(story.delivered(), ["a"]);
  const [first] = story.durable.queue.accepted;
  assert.equal(
    first?.item.invocation.call.kind === "event" && first.item.invocation.call.contentType,
    "application/cloudevents+json",
  );
  await story.stop();
});

test("what the filter does not let through is not delivered, and the source may go on", async () => {
  const story = await begin({ filter: { data: { n: [{ numeric: [">", 1] }] } } });
  for (const n of [1, 2, 3]) await story.emit(event(String(n), { n }));
  assert.deepEqual(story.delivered(), ["2", "3"]);
  assert.deepEqual(story.counts(), { received: 3, filtered: 1, delivered: 2, failed: 0 });
  await story.stop();
});

test("a batch is handed over when it is full, or when its window has passed", async () => {
  const story = await begin({ batch: { size: 3, windowMs: 5_000 } });
  const emits = ["a", "b", "c", "d"].map((id) => story.emit(event(id)));
  await Promise.all(emits.slice(0, 3));
  assert.deepEqual(story.batches(), [["a", "b", "c"]]);
  await story.clock.advance(4_999);
  assert.equal(story.batches().length, 1);
  await story.clock.advance(1);
  await emits[3];
  assert.deepEqual(story.batches()[1], ["d"]);
  await story.stop();
});

test("with ordering by key a batch holds events of one key, which is its ordering key", async () => {
  const story = await begin({ batch: { size: 10, windowMs: 10 }, ordering: "key" });
  const emits = ["x1", "y1", "x2"].map((id) =>
    story.emit({ ...event(id), extensions: { partitionkey: id.charAt(0) } }),
  );
  await story.clock.advance(10);
  await Promise.all(emits);
  assert.deepEqual(story.batches(), [["x1", "x2"], ["y1"]]);
  const keys = story.durable.queue.accepted.map(({ item }) => item.options?.orderingKey?.split("/")[1]);
  assert.deepEqual(keys, ["x", "y"]);
  await story.stop();
});

test("while the queue is full the source waits, and goes on when there is room", async () => {
  const story = await begin();
  story.durable.queue.refusal = new KoineError("too-many-requests", { name: "f" });
  const emitted = story.emit(event("a"));
  await story.clock.advance(30_000);
  assert.deepEqual(story.delivered(), []);
  story.durable.queue.refusal = null;
  await story.clock.advance(2_000);
  await emitted;
  assert.deepEqual(story.delivered(), ["a"]);
  await story.stop();
});

test("what cannot be accepted in time ends the run, is shown, and is tried again with growing waits", async () => {
  const story = await begin();
  story.durable.queue.refusal = new KoineError("storage-full");
  const emitted = assert.rejects(story.emit(event("a")), /disk/);
  await story.clock.advance(61_000);
  await emitted;
  const hosted = story.triggers.get("default", "t");
  assert.equal(stateOf(hosted), "connected", "it was opened anew meanwhile");
  assert.equal(story.source.opened, 2);
  assert.equal(story.counts().failed, 1);
  await story.stop();
});

test("a source that fails is opened anew, with waits that grow to a bound, and its error is shown without secrets", async () => {
  const story = await begin({ settings: { password: { secret: "PASSWORD" } } }, { secret: "hunter22" });
  story.source.fail(new Error("login of koine:hunter22@broker failed: amqp://koine:hunter22@broker"));
  await story.clock.advance(0);
  const failing = story.triggers.get("default", "t");
  assert.equal(stateOf(failing), "failing");
  const shown = JSON.stringify(failing.runner?.status);
  assert.match(shown, /login of/);
  assert.doesNotMatch(shown + story.messages.join(), /hunter22/);
  story.source.failure = new Error("still");
  const opened: number[] = [];
  for (let minute = 0; minute < 30; minute++) {
    await story.clock.advance(60_000);
    opened.push(story.source.opened);
  }
  assert.ok((opened.at(-1) ?? 0) < 60, `${opened.at(-1)} starts in half an hour`);
  assert.ok((opened.at(-1) ?? 0) > 25, `${opened.at(-1)} starts in half an hour`);
  await story.stop();
});

test("a secret that changes opens the sources anew that use it, and cannot be deleted while they do", async () => {
  const story = await begin({ settings: { password: { secret: "PASSWORD" } } }, { secret: "old" });
  assert.equal(story.source.host?.secret({ secret: "PASSWORD" }), "old");
  await story.secrets.put("default", "PASSWORD", "new", 0);
  await story.triggers.secretChanged("default", "PASSWORD");
  await story.clock.advance(0);
  assert.equal(story.source.opened, 2);
  assert.equal(story.source.host?.secret({ secret: "PASSWORD" }), "new");
  assert.throws(() => story.triggers.checkSecretUnused("default", "PASSWORD"), /used by the triggers t/);
  await story.stop();
});

test("a paused trigger does not run, also after a restart, and goes on at its checkpoint", async () => {
  const story = await begin();
  await story.source.host?.checkpoint.write("7");
  await story.triggers.setPaused("default", "t", true);
  assert.equal(story.source.running, false);
  await story.stop();
  const again = await begin(null, { durable: story.durable });
  assert.equal(again.source.opened, 0);
  await again.triggers.setPaused("default", "t", false);
  await again.clock.advance(0);
  assert.equal(again.source.running, true);
  assert.equal(await again.source.host?.checkpoint.read(), "7");
  await again.stop();
});

test("a deleted trigger ends, and one of the same name begins without its checkpoint", async () => {
  const story = await begin();
  await story.source.host?.checkpoint.write("7");
  await story.triggers.delete("default", "t");
  assert.equal(story.source.running, false);
  await story.put({});
  await story.clock.advance(0);
  assert.equal(await story.source.host?.checkpoint.read(), null);
  await story.stop();
});

test("of two nodes one runs a trigger; when it is gone without a word the other takes over after its time", async () => {
  const shared = durable();
  const clock = new VirtualClock();
  const one = await begin({}, { durable: shared, node: "one", clock });
  const two = await begin(null, { durable: shared, node: "two", clock });
  await clock.advance(5_000);
  assert.deepEqual([one.source.running, two.source.running], [true, false]);
  assert.equal(stateOf(two.triggers.get("default", "t")), "elsewhere");
  one.vanish();
  await clock.advance(LEASE_MS - 5_000);
  assert.equal(two.source.running, false);
  await clock.advance(LEASE_MS);
  assert.equal(two.source.running, true);
  await assert.rejects(async () => await one.source.host?.checkpoint.write("old"), /checkpoint of trigger/);
  await two.stop();
});

test("a node that stops hands its triggers over at once", async () => {
  const shared = durable();
  const clock = new VirtualClock();
  const one = await begin({}, { durable: shared, node: "one", clock });
  const two = await begin(null, { durable: shared, node: "two", clock });
  await clock.advance(5_000);
  await one.stop();
  await clock.advance(5_000);
  assert.equal(two.source.running, true);
  await two.stop();
});

test("a node that cannot show itself lets go before another may take over", async () => {
  const shared = durable();
  const clock = new VirtualClock();
  const one = await begin({}, { durable: shared, node: "one", clock });
  one.failStore(true);
  await clock.advance(LEASE_MS);
  assert.equal(one.source.running, false);
  one.failStore(false);
  await clock.advance(LEASE_MS);
  assert.equal(one.source.running, true);
  await one.stop();
});

test("what is published is enqueued for every subscription that wants it, together", async () => {
  const story = await begin();
  await story.triggers.topics.put("default", "orders", "");
  await story.put({ kind: "topic", settings: { topic: "orders" } }, "all");
  await story.put({ kind: "topic", settings: { topic: "orders" }, filter: { type: ["order.paid"] } }, "paid");
  await story.put({ kind: "topic", settings: { topic: "other" } }, "other");
  const made = await story.triggers.topics.publish("default", "orders", [{ ...event("1"), type: "order.made" }]);
  const paid = await story.triggers.topics.publish("default", "orders", [{ ...event("2"), type: "order.paid" }]);
  assert.deepEqual([made.subscriptions, paid.subscriptions], [1, 2]);
  assert.deepEqual(story.delivered(), ["1", "2", "2"]);
  await assert.rejects(story.triggers.topics.publish("default", "nowhere", [event("3")]), /no topic 'nowhere'/);
  await assert.rejects(story.triggers.topics.delete("default", "orders"), /has the subscriptions/);
  await story.stop();
});

test("what cannot be meant is refused before anything is stored", async () => {
  const story = await begin();
  const refusals: readonly (readonly [Partial<TriggerRequest>, RegExp])[] = [
    [{ kind: "kafak" }, /no kind of trigger 'kafak'/],
    [{ kind: "scripted", settings: { password: "hunter22" } }, /password must be the name of a secret/],
    [{ kind: "scripted", settings: { password: { secret: "NOT_SET" } } }, /no secret 'NOT_SET'/],
    [{ kind: "scripted", settings: { colour: "red" } }, /colour/],
    [{ filter: { type: "x" } }, /'type' must be an array/],
    [{ batch: { size: 0 } }, /batch\.size/],
    [{ batch: { size: 10, windowMs: 10_000_000 } }, /batch\.windowMs/],
    [{ target: { ...target, name: "missing" } }, /no function 'missing'/],
    [{ target: { ...target, namespace: "other" } }, /own namespace/],
    [{ kind: "webhook", settings: { path: "/v1/functions", auth: { kind: "none" } } }, /must begin with \/hooks\//],
    [{ kind: "webhook", settings: { path: "/hooks/a" } }, /auth/],
  ];
  for (const [request, says] of refusals) await assert.rejects(story.put(request, "bad"), says, String(says));
  assert.deepEqual(
    story.triggers.list("default").map(({ trigger }) => trigger.name),
    ["t"],
  );
  await story.stop();
});

test("a route belongs to one trigger, whatever its parameters are called", async () => {
  const story = await begin();
  const hook = (path: string) => ({ kind: "webhook", settings: { path, auth: { kind: "none" } } });
  await story.put(hook("/hooks/{id}/items"), "one");
  await assert.rejects(story.put(hook("/hooks/{other}/items"), "two"), /is the route of trigger 'one'/);
  await story.put(hook("/hooks/fixed/items"), "three");
  await story.put(hook("/hooks/{id}/items"), "one");
  const { host } = story.triggers;
  const nameOf = (path: string, method = "POST"): string => {
    const match = host.matchRoute("any", method, path);
    if (match === null) return "nobody";
    return "entry" in match
      ? `${match.entry.trigger.name} ${JSON.stringify(match.parameters)}`
      : `only ${match.join()}`;
  };
  assert.equal(nameOf("/hooks/fixed/items"), "three {}");
  assert.equal(nameOf("/hooks/a%20b/items"), 'one {"id":"a b"}');
  assert.equal(nameOf("/hooks/x/items", "GET"), "only POST");
  assert.equal(nameOf("/hooks/x"), "nobody");
  await story.triggers.delete("default", "one");
  assert.equal(nameOf("/hooks/x/items"), "nobody");
  await story.stop();
});

test("of a batch only what failed is tried again; what is ordered from the first that failed on", () => {
  const trigger = { ...storedTrigger, batch: { size: 10, windowMs: 0 } };
  const { invocation } = toInvocation(
    trigger,
    ["a", "b", "c"].map((id) => event(id)),
    0,
  );
  const ordered = toInvocation(
    { ...trigger, ordering: "all" },
    ["a", "b", "c"].map((id) => event(id)),
    0,
  ).invocation;
  const answer = (body: unknown) => ({
    status: 200,
    headers: [],
    body: Buffer.from(typeof body === "string" ? body : JSON.stringify(body)),
  });
  const failing = answer({ batchItemFailures: [{ itemIdentifier: "b" }] });
  const ids = (body: Buffer | null): readonly string[] | null =>
    body === null
      ? null
      : (JSON.parse(body.toString("utf8")) as readonly { readonly id: string }[]).map(({ id }) => id);
  assert.deepEqual(ids(readPartialFailures(invocation, failing)), ["b"]);
  assert.deepEqual(ids(readPartialFailures(ordered, failing)), ["b", "c"]);
  for (const fine of [{}, null, "ok", "", { batchItemFailures: [] }, { batchItemFailures: null }, [1]])
    assert.equal(readPartialFailures(invocation, answer(fine)), null);
  for (const broken of [
    { batchItemFailures: "b" },
    { batchItemFailures: [{}] },
    { batchItemFailures: [{ itemIdentifier: "z" }] },
  ])
    assert.throws(() => readPartialFailures(invocation, answer(broken)), KoineError);
});

const storedTrigger = {
  namespace: "default",
  name: "t",
  id: "019d0000-0000-7000-8000-000000000000",
  kind: "scripted",
  target,
  settings: {},
  filter: null,
  batch: null,
  ordering: "none",
  retry: {},
  priority: "normal",
  paused: false,
  description: "",
  createdAtMs: 0,
  updatedAtMs: 0,
} as const;

function event(id: string, data: unknown = { id }): CloudEvent {
  return { specversion: "1.0", id, source: "/test", type: "test", data };
}

/** A source whose events the test emits, and which fails when it is told to. */
class Scripted {
  opened = 0;
  running = false;
  host: Parameters<PullKind["open"]>[1] | null = null;
  emit: Emit = () => Promise.reject(new Error("the source does not run"));
  failure: Error | null = null;
  fail: (reason: Error) => void = () => {};

  readonly kind = pullKind({
    name: "scripted",
    summary: "what a test says",
    settings: z.strictObject({ password: secretReference("Password").optional() }),
    abilities: { ordering: true, replay: true },
    sample: () => event("sample"),
    open: (settings, host) => ({
      run: async (emit, signal) => {
        this.opened++;
        if (settings.password !== undefined) host.secret(settings.password);
        if (this.failure !== null) throw this.failure;
        this.running = true;
        this.host = host;
        this.emit = emit;
        host.report({ state: "connected" });
        try {
          await new Promise<void>((resolve, reject) => {
            this.fail = reject;
            signal.addEventListener("abort", () => resolve(), { once: true });
          });
        } finally {
          this.running = false;
        }
      },
    }),
  });
}

async function begin(
  request: Partial<TriggerRequest> | null = {},
  options: {
    readonly durable?: Durable;
    readonly node?: string;
    readonly clock?: VirtualClock;
    readonly secret?: string;
  } = {},
) {
  const shared = options.durable ?? durable();
  const clock = options.clock ?? new VirtualClock();
  const source = new Scripted();
  const kinds = [source.kind, createTopicKind(), createWebhookKind(), createCloudEventsKind()];
  const store = { failing: false, gone: false };
  const values: Durable["store"]["values"] = {
    get: (...given) => guarded(() => shared.store.values.get(...given)),
    list: (...given) => guarded(() => shared.store.values.list(...given)),
    commit: (...given) => guarded(() => shared.store.values.commit(...given)),
  };
  const guarded = async <Answer>(ask: () => Promise<Answer>): Promise<Answer> => {
    if (store.failing) throw new KoineError("storage-failed", { detail: "broken" });
    return await ask();
  };
  const own: Durable = { queue: shared.queue, store: { ...shared.store, values } };
  const { triggers, secrets, messages } = openTriggers(kinds, own, {
    clock,
    ...(options.node === undefined ? {} : { node: options.node }),
  });
  if (options.secret !== undefined) await secrets.put("default", "PASSWORD", options.secret, clock.nowMs());
  await triggers.load();
  await triggers.start();
  const put = async (changed: Partial<TriggerRequest>, name = "t") =>
    await triggers.put("default", name, { kind: "scripted", target, ...changed });
  if (request !== null) await put(request);
  await clock.advance(0);
  return {
    durable: shared,
    clock,
    triggers,
    source,
    secrets,
    messages,
    put,
    emit: (one: CloudEvent) => source.emit(one),
    delivered: () => eventsIn(shared.queue).map(({ id }) => id),
    batches: () => shared.queue.accepted.map(({ events }) => events.map(({ id }) => id)),
    counts: () => triggers.get("default", "t").counts.all(),
    failStore: (failing: boolean) => void (store.failing = failing),
    /** As after a power cut, only that the source's last steps can still be watched. */
    vanish: () => {
      values.commit = async (changes) => {
        const beats = changes.some(({ collection }) => collection === "nodes");
        if (beats) throw new KoineError("storage-failed", { detail: "gone" });
        return await shared.store.values.commit(changes);
      };
    },
    stop: () => triggers.stop(),
  };
}
