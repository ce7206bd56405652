import { sign } from "@octokit/webhooks-methods";
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { CloudEvent, emitterFor, HTTP, httpTransport, Mode } from "cloudevents";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { Stripe } from "stripe";
import type { PublishView, TriggerView } from "../../src/core/api.ts";
import { deploy, errorOf, eventually, manage, read, send } from "./api.ts";
import { type RunningPlatform, startPlatform } from "./platform.ts";

/** Writes what it gets to a file, which outlives every kill; the answer says which of a batch failed. */
const RECORDER = `import { appendFileSync } from "node:fs";
export default async (request, context) => {
  const type = request.headers.get("content-type") ?? "";
  const text = await request.text();
  const batch = type.startsWith("application/cloudevents-batch");
  const events = batch ? JSON.parse(text) : [{ id: request.headers.get("ce-id"), type: request.headers.get("ce-type"), source: request.headers.get("ce-source"), data: text }];
  const line = { activation: context.activationId, attempt: context.attempt, method: request.method, url: request.url, parameters: request.headers.get("x-koine-path-parameters"), events };
  appendFileSync(process.env.RECORD, JSON.stringify(line) + "\\n");
  if (events.some((event) => JSON.stringify(event).includes("fail always"))) throw new Error("as asked");
  if (batch && context.attempt === 1) return Response.json({ batchItemFailures: events.filter((event) => JSON.stringify(event).includes("fail once")).map((event) => ({ itemIdentifier: event.id })) });
  return Response.json({ got: events.length });
};`;

interface Recorded {
  readonly activation: string;
  readonly attempt: number;
  readonly method: string;
  readonly url: string;
  readonly parameters: string | null;
  readonly events: readonly {
    readonly id: string;
    readonly type: string;
    readonly source: string;
    readonly data: unknown;
  }[];
}

let platform: RunningPlatform;
let scratch: string;
let record: string;

before(async () => {
  scratch = mkdtempSync(join(tmpdir(), "koine-triggers-"));
  record = join(scratch, "record");
  writeFileSync(record, "");
  mkdirSync(join(scratch, "watched"));
  // Without isolation a function may write to the test's file.
  platform = await startPlatform({ sandbox: "none", env: { KOINE_TRIGGER_FOLDERS: scratch } });
  await deploy(platform, "recorder", RECORDER, { spec: { environment: { RECORD: record }, instanceConcurrency: 50 } });
});

after(async () => {
  await platform?.stop();
  rmSync(scratch, { recursive: true, force: true });
});

function recorded(): readonly Recorded[] {
  return readFileSync(record, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Recorded);
}

async function put(name: string, body: Readonly<Record<string, unknown>>): Promise<TriggerView> {
  const answer = await manage(platform, "PUT", `/v1/namespaces/default/triggers/${name}`, {
    function: "recorder",
    ...body,
  });
  assert.ok(answer.status < 300, answer.text);
  return JSON.parse(answer.text) as TriggerView;
}

async function secret(name: string, value: string): Promise<void> {
  assert.ok((await manage(platform, "PUT", `/v1/namespaces/default/secrets/${name}`, { value })).status < 300);
}

async function eventOf(
  holds: (event: Recorded["events"][number], line: Recorded) => boolean,
): Promise<Recorded["events"][number]> {
  return await eventually("it", () =>
    Promise.resolve(recorded().flatMap((line) => line.events.filter((event) => holds(event, line)))[0] ?? null),
  );
}

test("no slot of a schedule is lost and none becomes two invocations, however often the platform is killed", async () => {
  const names = Array.from({ length: 10 }, (_, index) => `tick-${index}`);
  for (const name of names) await put(name, { kind: "schedule", settings: { cron: "* * * * * *", catchUp: "all" } });
  const random = seeded(Number(process.env["KOINE_TEST_SEED"] ?? 5));
  for (let kill = 0; kill < 6; kill++) {
    await sleep(300 + Math.floor(random() * 1_400));
    await platform.kill9();
    await platform.restart();
  }
  await sleep(1_500);
  for (const name of names) await manage(platform, "POST", `/v1/namespaces/default/triggers/${name}/pause`);
  await eventually("it", async () => {
    const { queue } = await read<{ readonly queue: { readonly waiting: number; readonly leased: number } }>(
      platform,
      "/v1/status",
    );
    return queue.waiting + queue.leased === 0 ? true : null;
  });
  for (const name of names) {
    const slots = new Map<string, Set<string>>();
    for (const line of recorded())
      for (const { id, source } of line.events)
        if (source === `/triggers/default/${name}`) slots.set(id, (slots.get(id) ?? new Set()).add(line.activation));
    const times = [...slots.keys()].map((slot) => Date.parse(slot)).sort((a, b) => a - b);
    assert.ok(times.length >= 6, `${name} has ${times.length} slots`);
    for (const [index, time] of times.entries())
      if (index > 0)
        assert.equal(
          time - (times[index - 1] ?? 0),
          1_000,
          `${name} has a hole before ${new Date(time).toISOString()}`,
        );
    for (const [slot, activations] of slots)
      assert.equal(activations.size, 1, `${name} fired ${activations.size} times for ${slot}`);
    await manage(platform, "DELETE", `/v1/namespaces/default/triggers/${name}`);
  }
});

test("what was published is delivered to every subscription after a kill", async () => {
  await manage(platform, "PUT", "/v1/namespaces/default/topics/orders", {});
  await put("all-orders", { kind: "topic", settings: { topic: "orders" } });
  await put("paid-orders", { kind: "topic", settings: { topic: "orders" }, filter: { type: ["order.paid"] } });
  const published: string[] = [];
  for (let index = 0; index < 40; index++) {
    const type = index % 2 === 0 ? "order.paid" : "order.made";
    const body = JSON.stringify({ specversion: "1.0", id: `o${index}`, source: "/shop", type, data: { index } });
    const headers = { "content-type": "application/cloudevents+json" };
    const answer = await send(platform, "/v1/namespaces/default/topics/orders", { method: "POST", headers, body });
    assert.equal(answer.status, 202, answer.text);
    assert.equal((JSON.parse(answer.text) as PublishView).subscriptions, index % 2 === 0 ? 2 : 1);
    published.push(...(index % 2 === 0 ? [`o${index}`, `o${index}`] : [`o${index}`]));
  }
  await platform.kill9();
  await platform.restart();
  const got = await eventually("it", () => {
    // An invocation that ran at the kill runs again: the same activation.
    const once = new Map(
      recorded().flatMap((line) => line.events.map((event) => [`${line.activation} ${event.id}`, event] as const)),
    );
    const ids = [...once.values()].filter(({ source }) => source === "/shop").map(({ id }) => id);
    return Promise.resolve(ids.length >= published.length ? ids : null);
  });
  assert.deepEqual([...got].sort(), [...published].sort());
});

test("of a batch only what failed comes again, and what fails always becomes a dead letter", async () => {
  await put("batched", {
    kind: "topic",
    settings: { topic: "batches" },
    batch: { size: 10 },
    retry: { attemptsMax: 2, delaysMs: [0] },
  });
  await manage(platform, "PUT", "/v1/namespaces/default/topics/batches", {});
  const events = ["fine", "fail once", "fine too"].map((data, index) => ({
    specversion: "1.0",
    id: `b${index}`,
    source: "/batch",
    type: "t",
    data,
  }));
  const headers = { "content-type": "application/cloudevents-batch+json" };
  await send(platform, "/v1/namespaces/default/topics/batches", {
    method: "POST",
    headers,
    body: JSON.stringify(events),
  });
  const lines = await eventually("it", () => {
    const found = recorded().filter((line) => line.events.some(({ source }) => source === "/batch"));
    return Promise.resolve(found.length >= 2 ? found : null);
  });
  assert.deepEqual(
    lines.map((line) => line.events.map(({ id }) => id)),
    [["b0", "b1", "b2"], ["b1"]],
  );
  const { dead: before } = (await read<{ readonly queue: { readonly dead: number } }>(platform, "/v1/status")).queue;
  await send(platform, "/v1/namespaces/default/topics/batches", {
    method: "POST",
    headers,
    body: JSON.stringify([{ specversion: "1.0", id: "b9", source: "/batch", type: "t", data: "fail always" }]),
  });
  await eventually("it", async () => {
    const { queue } = await read<{ readonly queue: { readonly dead: number } }>(platform, "/v1/status");
    return queue.dead === before + 1 ? true : null;
  });
});

test("requests that GitHub signs are let in, others are not", async () => {
  await secret("GITHUB_SECRET", "old-secret\nnew-secret");
  await put("github", {
    kind: "webhook",
    settings: { path: "/hooks/github", auth: { kind: "github", secret: { secret: "GITHUB_SECRET" } } },
  });
  const body = JSON.stringify({ action: "opened", repository: { html_url: "https://github.com/koine/koine" } });
  const headers = { "content-type": "application/json", "x-github-event": "issues", "x-github-delivery": "d-1" };
  for (const key of ["old-secret", "new-secret"]) {
    const signed = { ...headers, "x-hub-signature-256": await sign(key, body) };
    assert.equal((await send(platform, "/hooks/github", { method: "POST", headers: signed, body })).status, 202);
  }
  const event = await eventOf(({ id }) => id === "d-1");
  assert.deepEqual([event.type, event.source], ["com.github.issues.opened", "https://github.com/koine/koine"]);
  const forged = { ...headers, "x-hub-signature-256": await sign("other", body) };
  errorOf(await send(platform, "/hooks/github", { method: "POST", headers: forged, body }), "hook-unauthorized");
  errorOf(await send(platform, "/hooks/github", { method: "POST", headers, body }), "hook-unauthorized");
  errorOf(await send(platform, "/hooks/github", { headers }), "method-not-allowed");
  assert.equal(
    recorded().filter((line) => line.events.some(({ id }) => id === "d-1")).length,
    1,
    "the same delivery is one event",
  );
});

test("requests that Stripe signs are let in while their timestamp is recent", async () => {
  await secret("STRIPE_SECRET", "whsec_test");
  await put("stripe", {
    kind: "webhook",
    settings: { path: "/hooks/stripe", auth: { kind: "stripe", secret: { secret: "STRIPE_SECRET" } } },
  });
  const payload = JSON.stringify({
    id: "evt_1",
    object: "event",
    type: "invoice.paid",
    created: 1_700_000_000,
    data: { object: {} },
  });
  const header = (timestamp: number): string =>
    Stripe.webhooks.generateTestHeaderString({ payload, secret: "whsec_test", timestamp });
  const nowSeconds = Math.floor(Date.now() / 1_000);
  const post = async (signature: string) =>
    await send(platform, "/hooks/stripe", {
      method: "POST",
      headers: { "stripe-signature": signature, "content-type": "application/json" },
      body: payload,
    });
  assert.equal((await post(header(nowSeconds))).status, 202);
  errorOf(await post(header(nowSeconds - 3_600)), "hook-unauthorized");
  errorOf(await post(header(nowSeconds).replace(/v1=./, "v1=x")), "hook-unauthorized");
  assert.equal((await eventOf(({ id }) => id === "evt_1")).type, "com.stripe.invoice.paid");
});

test("requests that Slack signs are let in, and its question for the address is answered", async () => {
  await secret("SLACK_SECRET", "slack-signing-secret");
  await put("slack", {
    kind: "webhook",
    settings: { path: "/hooks/slack", auth: { kind: "slack", secret: { secret: "SLACK_SECRET" } } },
  });
  const post = async (body: string, atMs = Date.now()) => {
    const timestamp = String(Math.floor(atMs / 1_000));
    const signature = `v0=${createHmac("sha256", "slack-signing-secret").update(`v0:${timestamp}:${body}`).digest("hex")}`;
    const headers = {
      "x-slack-request-timestamp": timestamp,
      "x-slack-signature": signature,
      "content-type": "application/json",
    };
    return await send(platform, "/hooks/slack", { method: "POST", headers, body });
  };
  const asked = await post(JSON.stringify({ type: "url_verification", challenge: "c-123" }));
  assert.deepEqual([asked.status, asked.text], [200, "c-123"]);
  const message = JSON.stringify({
    type: "event_callback",
    event_id: "Ev1",
    event: { type: "app_mention", text: "hi" },
  });
  assert.equal((await post(message)).status, 202);
  assert.equal((await eventOf(({ id }) => id === "Ev1")).type, "com.slack.app_mention");
  errorOf(await post(message, Date.now() - 600_000), "hook-unauthorized");
});

test("tokens of an issuer are checked by its keys, for audience, issuer and time", async () => {
  const { publicKey, privateKey } = await generateKeyPair("ES256", { extractable: true });
  const other = await generateKeyPair("ES256");
  const jwks = { keys: [{ ...(await exportJWK(publicKey)), kid: "k1", alg: "ES256" }] };
  const auth = { kind: "jwt", algorithms: ["ES256"], jwks, issuer: "https://id.example", audience: "koine" };
  await put("jwt", {
    kind: "webhook",
    settings: {
      path: "/hooks/jwt/{id}/{rest+}",
      auth,
      answer: "sync",
      methods: [],
      cors: { origins: ["https://app.example"] },
    },
  });
  const token = async (change: Readonly<Record<string, unknown>> = {}, key = privateKey): Promise<string> => {
    const claims = {
      iss: "https://id.example",
      aud: "koine",
      exp: Math.floor(Date.now() / 1_000) + 60,
      sub: "ada",
      ...change,
    };
    return await new SignJWT(claims).setProtectedHeader({ alg: "ES256", kid: "k1" }).sign(key);
  };
  const get = async (bearer: string) =>
    await send(platform, "/hooks/jwt/17/a/b?x=1", {
      headers: { authorization: `Bearer ${bearer}`, origin: "https://app.example" },
    });
  const answer = await get(await token());
  assert.deepEqual([answer.status, answer.text], [200, '{"got":1}']);
  assert.equal(answer.headers["access-control-allow-origin"], "https://app.example");
  const line = recorded().find(({ url }) => url.includes("/hooks/jwt/17"));
  assert.deepEqual([line?.method, line?.parameters], ["GET", "id=17&rest=a%2Fb"]);
  const past = Math.floor(Date.now() / 1_000) - 3_600;
  for (const bad of [
    await token({ iss: "https://evil.example" }),
    await token({ aud: "other" }),
    await token({ exp: past }),
    await token({ exp: undefined }),
    await token({}, other.privateKey),
    "x.y.z",
  ])
    errorOf(await get(bad), "hook-unauthorized");
  const headers = { origin: "https://app.example", "access-control-request-method": "PUT" };
  const asked = await send(platform, "/hooks/jwt/17/a", { method: "OPTIONS", headers });
  assert.deepEqual([asked.status, asked.headers["access-control-allow-origin"]], [204, "https://app.example"]);
  const stranger = await send(platform, "/hooks/jwt/17/a", {
    method: "OPTIONS",
    headers: { ...headers, origin: "https://evil.example" },
  });
  assert.equal(stranger.headers["access-control-allow-origin"], undefined);
});

test("the official SDK's events arrive in binary, structured and batch mode", async () => {
  await secret("INGEST_KEY", "ingest-key-of-the-test");
  const auth = { kind: "key", secret: { secret: "INGEST_KEY" } };
  await put("ingest", { kind: "cloudevents", settings: { path: "/hooks/ingest", auth } });
  const url = `${platform.url}/hooks/ingest`;
  for (const mode of [Mode.BINARY, Mode.STRUCTURED]) {
    const emit = emitterFor(httpTransport(url), { mode });
    const event = new CloudEvent({
      id: `sdk ${mode} ü`,
      source: "/sdk",
      type: "made.by.sdk",
      myext: 7,
      data: { mode },
    });
    await emit(event, { headers: { "x-api-key": "ingest-key-of-the-test" } });
    const got = await eventOf(({ id }) => decodeURIComponent(id) === `sdk ${mode} ü`);
    assert.deepEqual(JSON.parse(String(got.data)), { mode });
  }
  const batch = ["b1", "b2"].map(
    (id) => new CloudEvent({ id: `sdk-${id}`, source: "/sdk", type: "made.by.sdk", data: Buffer.from("bytes") }),
  );
  const parts = batch.map((event) => JSON.parse(String(HTTP.structured(event).body)) as unknown);
  const headers = { "content-type": "application/cloudevents-batch+json", "x-api-key": "ingest-key-of-the-test" };
  const answer = await send(platform, "/hooks/ingest", { method: "POST", headers, body: JSON.stringify(parts) });
  assert.equal((JSON.parse(answer.text) as { readonly activationIds: readonly string[] }).activationIds.length, 2);
  await eventOf(({ id, data }) => id === "sdk-b2" && data === "bytes");
  errorOf(
    await send(platform, "/hooks/ingest", {
      method: "POST",
      headers: { ...headers, "x-api-key": "wrong" },
      body: "[]",
    }),
    "hook-unauthorized",
  );
  errorOf(await send(platform, "/hooks/ingest", { method: "POST", headers, body: '[{"id":"x"}]' }), "invalid-event");
});

test("files are told of, also those that came while the platform was down", async () => {
  const folder = join(scratch, "watched");
  await put("files", { kind: "files", settings: { folder, settleMs: 50, scanMs: 1_000, suffixes: [".csv"] } });
  await eventually("it", async () =>
    (await read<TriggerView>(platform, "/v1/namespaces/default/triggers/files")).state === "connected" ? true : null,
  );
  writeFileSync(join(folder, "one.csv"), "1");
  writeFileSync(join(folder, "ignored.txt"), "1");
  await eventOf(({ type, data }) => type === "koine.file.created" && String(data).includes("one.csv"));
  await platform.kill9();
  writeFileSync(join(folder, "two.csv"), "2");
  await platform.restart();
  await eventOf(({ type, data }) => type === "koine.file.created" && String(data).includes("two.csv"));
  const created = recorded().flatMap((line) =>
    line.events.filter(({ type }) => type === "koine.file.created").map(({ id }) => `${id} ${line.activation}`),
  );
  assert.equal(new Set(created).size, 2);
  const outside = await manage(platform, "PUT", "/v1/namespaces/default/triggers/etc", {
    function: "recorder",
    kind: "files",
    settings: { folder: "/etc" },
  });
  assert.ok(outside.status < 300);
  await eventually("it", async () =>
    (await read<TriggerView>(platform, "/v1/namespaces/default/triggers/etc")).error?.code === "forbidden"
      ? true
      : null,
  );
});

test("triggers are deployed with the function, changed, paused, tested and shown by the command line", async () => {
  const folder = join(scratch, "project");
  mkdirSync(folder);
  writeFileSync(join(folder, "index.mjs"), "export default () => new Response('ok');");
  const triggers = [
    {
      name: "nightly",
      kind: "schedule",
      settings: { cron: "0 3 * * *", timezone: "Europe/Berlin" },
      retry: { attempts: 5, delays: ["1s"] },
    },
  ];
  writeFileSync(join(folder, "koine.json"), JSON.stringify({ name: "report", triggers }));
  const koine = async (...args: readonly string[]): Promise<string> => {
    const { code, stdout, stderr } = await platform.koine(args);
    assert.equal(code, 0, `${args.join(" ")}: ${stderr}`);
    return stdout;
  };
  await koine("deploy", folder);
  const view = JSON.parse(await koine("trigger", "get", "nightly", "-o", "json")) as TriggerView;
  assert.deepEqual([view.function, view.retry], ["report", { attemptsMax: 5, delaysMs: [1_000] }]);
  await koine("trigger", "update", "nightly", "--rate", "1 day", "--filter", '{"type":["koine.schedule.fired"]}');
  const updated = JSON.parse(await koine("trigger", "get", "nightly", "-o", "json")) as TriggerView;
  assert.deepEqual(updated.retry, view.retry);
  assert.deepEqual((updated.settings as { readonly cron?: string; readonly rate?: string }).rate, "1 day");
  assert.match(
    await koine("trigger", "test", "nightly", "--deliver"),
    /passes the filter\s+yes\ndelivered\s+activation /,
  );
  await koine("trigger", "pause", "nightly");
  assert.match(await koine("trigger", "list"), /nightly\s+schedule\s+report\s+paused/);
  const twice = await platform.koine(["trigger", "create", "nightly", "report", "--rate", "1m"]);
  assert.match(twice.stderr, /There is a trigger 'nightly' already/);
  await koine("trigger", "delete", "nightly");
  assert.equal((await platform.koine(["trigger", "get", "nightly"])).code, 4);
});

/** Numbers from 0 to 1 that are the same for the same seed. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return state / 2_147_483_648;
  };
}
