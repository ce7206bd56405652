import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { after, before, test } from "node:test";
import type { DeadLetterDetailView, DeadLetterView, Page, RunView } from "../../src/core/api.ts";
import { type Answer, call, deploy, errorOf, eventually, manage, read, send } from "./api.ts";
import { type RunningPlatform, startPlatform } from "./platform.ts";

interface Received {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

const NS = "/v1/namespaces/default";
const SECRET = "a secret to sign with";

/** A folder that functions write into: what they did, whatever becomes of the platform. Only a platform without isolation sees it. */
const scratch = mkdtempSync(join(tmpdir(), "koine-async-"));
const file = (name: string): string => join(scratch, name);
const linesOf = (name: string): string[] =>
  existsSync(file(name)) ? readFileSync(file(name), "utf8").split("\n").filter(Boolean) : [];

let platform: RunningPlatform;
let receiver: Server;
let receivedAt: string;
const received: Received[] = [];
/** Statuses of the next answers; then 200. */
let statuses: number[] = [];

before(async () => {
  receiver = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (piece: string) => (body += piece));
    request.on("end", () => {
      received.push({ headers: request.headers, body });
      response.writeHead(statuses.shift() ?? 200).end("thanks");
    });
  });
  await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
  receivedAt = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/hook`;
  platform = await startPlatform({ sandbox: "none", env: { KOINE_DESTINATIONS_ALLOW: "127.0.0.1" } });
  await manage(platform, "PUT", `${NS}/secrets/WEBHOOK_SECRET`, { value: SECRET });
});

after(async () => {
  // First what is there even when the platform did not start.
  receiver.closeAllConnections();
  receiver.close();
  await platform.stop();
  rmSync(scratch, { recursive: true, force: true });
});

/** A handler that notes each call in a file and then does what its body says. */
function noting(name: string, body: string): string {
  return `import { appendFileSync, readFileSync } from "node:fs";
const note = (text) => appendFileSync(${JSON.stringify(file(name))}, text + "\\n");
const notes = () => readFileSync(${JSON.stringify(file(name))}, "utf8").split("\\n").length - 1;
export const handler = async (event, context) => { ${body} };`;
}

const quick = { retry: { attemptsMax: 3, delayMs: 200 } };

async function enqueue(name: string, event: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  return await send(platform, `${NS}/functions/${name}/invoke?mode=async`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(event),
  });
}

async function enqueued(name: string, event: unknown, headers: Record<string, string> = {}): Promise<string> {
  const answer = await enqueue(name, event, headers);
  assert.equal(answer.status, 202, answer.text);
  return (JSON.parse(answer.text) as { activationId: string }).activationId;
}

async function run(id: string): Promise<RunView> {
  return await read<RunView>(platform, `${NS}/activations/${id}`);
}

async function deadLetters(query: string): Promise<readonly DeadLetterView[]> {
  return (await read<Page<DeadLetterView>>(platform, `${NS}/dead-letters?${query}`)).items;
}

async function deadLetterOf(id: string): Promise<DeadLetterDetailView> {
  return await eventually("the dead letter", async () => {
    const answer = await send(platform, `${NS}/dead-letters/${id}`);
    return answer.status === 200 ? (JSON.parse(answer.text) as DeadLetterDetailView) : null;
  });
}

const lines = (name: string, count: number): Promise<string[]> =>
  eventually(`${count} lines in ${name}`, () => (linesOf(name).length >= count ? linesOf(name) : null));

test("a failing invocation is tried again until it succeeds, and its run shows every attempt", async () => {
  const source = noting("flaky", `note(event.n); if (notes() < 3) throw new TypeError("not yet"); return "done";`);
  await deploy(platform, "flaky", source, { spec: quick });
  const id = await enqueued("flaky", { n: "x" });
  const view = await eventually("its success", async () => {
    const now = await run(id);
    return now.state === "succeeded" ? now : null;
  });
  assert.equal(view.attempt, 3);
  const ended = await eventually("its history", async () => {
    const now = await run(id);
    return now.queued === null ? now : null;
  });
  assert.deepEqual(
    ended.attempts.map(({ number, outcome, error }) => [number, outcome, error?.code]),
    [
      [1, "failed", "handler-failed"],
      [2, "failed", "handler-failed"],
      [3, "succeeded", undefined],
    ],
  );
  const shown = await platform.koine(["runs", "get", id]);
  assert.match(shown.stdout, /attempt 1 .*TypeError: not yet/);
});

test("what runs out of attempts is a dead letter with its event, and is replayed with it, once", async () => {
  await deploy(platform, "broken", noting("broken", `note(event.n); throw new Error("no");`), { spec: quick });
  const id = await enqueued("broken", { n: "kept" });
  const letter = await deadLetterOf(id);
  assert.deepEqual(
    [letter.name, letter.kind, letter.attempts, letter.code, letter.event.body, letter.history.length],
    ["broken", "invocation", 3, "handler-failed", '{"n":"kept"}', 3],
  );
  const listed = await platform.koine(["dlq", "list", "broken", "--code", "handler-failed", "--since", "1h"]);
  assert.match(listed.stdout, new RegExp(`${id} +broken +invocation +3`));
  assert.deepEqual(await deadLetters("function=broken&code=other"), []);
  assert.deepEqual(await deadLetters(`function=broken&before=${Date.now() - 600_000}`), []);
  await deploy(platform, "broken", noting("broken", `note("again " + event.n); return 1;`), { spec: quick });
  const replayed = await platform.koine(["runs", "replay", id]);
  assert.equal(replayed.code, 0, replayed.stderr);
  const again = await send(platform, `${NS}/dead-letters/${id}/replay`, { method: "POST" });
  errorOf(again, "dead-letter-not-found");
  assert.deepEqual(await lines("broken", 4), ["kept", "kept", "kept", "again kept"]);
  await eventually("its success", async () => ((await run(id)).state === "succeeded" ? true : null));
  assert.equal((await run(id)).deadLetter, false);
});

test("many dead letters are replayed by one command, each once, and purged by another", async () => {
  await deploy(platform, "many", noting("many", `throw new Error("no");`), { spec: { retry: { attemptsMax: 1 } } });
  const ids = await Promise.all(Array.from({ length: 30 }, (_, n) => enqueued("many", { n })));
  await eventually("their deaths", async () =>
    (await deadLetters("function=many&limit=100")).length === 30 ? true : null,
  );
  await deploy(platform, "many", noting("many", `note(event.n); if (event.n === 7) throw new Error("still");`), {
    spec: { retry: { attemptsMax: 1 } },
  });
  const unclear = await platform.koine(["dlq", "replay"]);
  assert.equal(unclear.code, 2);
  const replayed = await platform.koine(["dlq", "replay", "many", "--rate", "200", "-o", "json"]);
  assert.equal(replayed.code, 0, replayed.stderr);
  assert.deepEqual(
    (JSON.parse(replayed.stdout) as { activationIds: string[] }).activationIds.toSorted(),
    ids.toSorted(),
  );
  const seen = await lines("many", 30);
  assert.deepEqual(new Set(seen).size, 30);
  await eventually("one to die again", async () => ((await deadLetters("function=many")).length === 1 ? true : null));
  const purged = await platform.koine(["dlq", "purge", "many", "-o", "json"]);
  assert.deepEqual(JSON.parse(purged.stdout), { purged: 1 });
  assert.deepEqual(await deadLetters("function=many"), []);
});

test("a function can say that another attempt would be in vain, and an answer of 400 or more is a failure", async () => {
  const vain = noting("vain", `note("x"); throw Object.assign(new Error("never"), { retryable: false });`);
  await deploy(platform, "vain", vain, { spec: quick });
  assert.equal((await deadLetterOf(await enqueued("vain", {}))).attempts, 1);
  const python =
    "class Never(Exception):\n    retryable = False\n\ndef handler(event, context):\n    raise Never('no')\n";
  const runtime = { runtime: "python3", handler: "app.handler" };
  await deploy(platform, "vain-python", { "app.py": python }, { spec: { ...quick, ...runtime } });
  assert.equal((await deadLetterOf(await enqueued("vain-python", {}))).attempts, 1);
  const web = `export default (request) => new Response("", { status: Number(new URL(request.url).searchParams.get("s")),
    headers: { "Koine-Retry": new URL(request.url).searchParams.get("r") ?? "" } });`;
  await deploy(platform, "web", web, { spec: quick });
  const attempts = async (query: string): Promise<number> => {
    const answer = await call(platform, `web/?${query}`, { headers: { prefer: "respond-async" } });
    const { activationId } = JSON.parse(answer.text) as { activationId: string };
    const letter = await deadLetterOf(activationId);
    assert.equal(letter.code, "answered-error");
    assert.equal((await run(activationId)).state, "failed");
    return letter.attempts;
  };
  assert.deepEqual(await Promise.all([attempts("s=503"), attempts("s=404"), attempts("s=500&r=no")]), [3, 1, 1]);
});

test("work of a function that is deleted meanwhile is a dead letter at once", async () => {
  await deploy(platform, "gone", noting("gone", "return 1;"), {});
  const id = await enqueued("gone", { n: 1 }, { "koine-delay": "1s" });
  await manage(platform, "DELETE", `${NS}/functions/gone`);
  const letter = await deadLetterOf(id);
  assert.deepEqual([letter.code, letter.attempts], ["function-not-found", 1]);
});

test("the same idempotency key is the same activation, also after a kill and for what has ended", async () => {
  await deploy(platform, "once", noting("once", "note(event.n); return event.n;"), {});
  const key = { "idempotency-key": "order 17" };
  const [first, second] = await Promise.all([enqueue("once", { n: 1 }, key), enqueue("once", { n: 1 }, key)]);
  const idOf = (answer: Answer): string => (JSON.parse(answer.text) as { activationId: string }).activationId;
  assert.equal(idOf(first), idOf(second));
  await lines("once", 1);
  await platform.kill9();
  await platform.restart();
  const third = await enqueue("once", { n: 1 }, key);
  assert.deepEqual(JSON.parse(third.text), { activationId: idOf(first), duplicate: true });
  const other = await enqueue("once", { n: 2 }, { "idempotency-key": "order 18" });
  assert.notEqual(idOf(other), idOf(first));
  assert.deepEqual((await lines("once", 2)).toSorted(), ["1", "2"]);
});

test("items of one ordering key run one after the other in order, through failures, while others overtake them", async () => {
  const source = noting(
    "ordered",
    `note("begin " + event.k + event.n); await new Promise((r) => setTimeout(r, 30));
     if (event.n === 2 && context.attempt !== 2 && notes() < 40 && !globalThis.failed) { globalThis.failed = true; note("fail " + event.k + event.n); throw new Error("once"); }
     note("end " + event.k + event.n);`,
  );
  await deploy(platform, "ordered", source, { spec: { ...quick, instanceConcurrency: 10 } });
  for (let n = 0; n < 6; n++) await enqueued("ordered", { k: "a", n }, { "koine-ordering-key": "a" });
  await enqueued("ordered", { k: "b", n: 0 }, { "koine-ordering-key": "b" });
  const seen = await lines("ordered", 16);
  const ofA = seen.filter((line) => line.includes(" a"));
  assert.deepEqual(
    ofA.filter((line) => line.startsWith("end")),
    [0, 1, 2, 3, 4, 5].map((n) => `end a${n}`),
  );
  assert.ok(ofA.indexOf("fail a2") > 0 && ofA.indexOf("begin a3") > ofA.indexOf("end a2"));
  assert.ok(seen.indexOf("end b0") < seen.indexOf("end a5"));
});

test("what is put off runs not before its time, and can be cancelled until then", async () => {
  await deploy(platform, "later", noting("later", "note(event.n + ' ' + Date.now());"), {});
  const beganMs = Date.now();
  await enqueued("later", { n: "now" });
  await enqueued("later", { n: "soon" }, { "koine-delay": "700ms" });
  const atMs = Date.now() + 900;
  await enqueued("later", { n: "at" }, { "koine-at": new Date(atMs).toISOString() });
  const never = await platform.koine([
    "invoke",
    "later",
    "--async",
    "--delay",
    "1h",
    "-d",
    '{"n":"never"}',
    "-o",
    "json",
  ]);
  const { activationId } = JSON.parse(never.stdout) as { activationId: string };
  assert.equal((await run(activationId)).queued?.running, false);
  assert.equal((await platform.koine(["runs", "cancel", activationId])).code, 0);
  const cancelled = await run(activationId);
  assert.deepEqual([cancelled.state, cancelled.error?.code, cancelled.queued], ["failed", "cancelled", null]);
  const timeOf = (await lines("later", 3)).map((line) => [line.split(" ")[0], Number(line.split(" ")[1])] as const);
  const times = Object.fromEntries(timeOf);
  assert.ok((times["soon"] ?? 0) >= beganMs + 700 && (times["at"] ?? 0) >= atMs);
  const again = await send(platform, `${NS}/activations/${activationId}/cancel`, { method: "POST" });
  errorOf(again, "not-acceptable-state");
  const wrong: readonly Record<string, string>[] = [
    { "koine-delay": "soon" },
    { "koine-at": "tomorrow" },
    { "koine-priority": "top" },
  ];
  for (const headers of wrong) errorOf(await enqueue("later", {}, headers), "invalid-request");
});

test("what runs can be cancelled, asynchronous or not, and does not run again", async () => {
  await deploy(
    platform,
    "long",
    noting("long", "note(context.awsRequestId); await new Promise((r) => setTimeout(r, 60_000));"),
    {
      spec: { timeoutMs: 90_000, ...quick },
    },
  );
  const id = await enqueued("long", { n: "async" });
  await lines("long", 1);
  assert.equal((await send(platform, `${NS}/activations/${id}/cancel`, { method: "POST" })).status, 204);
  const view = await eventually("its record", async () => {
    const now = await run(id);
    return now.error?.code === "cancelled" ? now : null;
  });
  assert.deepEqual([view.state, view.queued, view.deadLetter], ["failed", null, false]);
  const other = send(platform, `${NS}/functions/long/invoke`, { method: "POST", body: '{"n":"sync"}' });
  const [, syncId = ""] = await lines("long", 2);
  errorOf(
    await send(platform, `/v1/namespaces/other/activations/${syncId}/cancel`, { method: "POST" }),
    "activation-not-found",
  );
  assert.equal((await platform.koine(["runs", "cancel", syncId])).code, 0);
  errorOf(await other, "cancelled");
  assert.equal((await run(syncId)).error?.code, "cancelled");
});

test("one function's backlog keeps no other waiting, and high priority goes first", async () => {
  const slow = noting("slow", "note(event.n); await new Promise((r) => setTimeout(r, 100));");
  await deploy(platform, "slow", slow, { spec: { reservedConcurrency: 1 } });
  await deploy(platform, "quick", noting("quick", "note(event.n);"), {});
  await Promise.all(Array.from({ length: 60 }, (_, n) => enqueued("slow", { n })));
  await enqueued("slow", { n: "high" }, { "koine-priority": "high" });
  await enqueued("quick", { n: 1 });
  await lines("quick", 1);
  assert.ok(linesOf("slow").length < 50, "the quick one did not wait for the backlog");
  const order = await eventually("the high one", () => (linesOf("slow").includes("high") ? linesOf("slow") : null));
  assert.ok(order.indexOf("high") < 50, "the high one overtook most of the backlog");
});

test("outcomes go to functions and URLs; URLs get them signed, and again until they take them", async () => {
  await deploy(platform, "audit", noting("audit", "note(JSON.stringify(event));"), {});
  const spec = { ...quick, destinations: { onSuccess: "function:audit", onFailure: receivedAt } };
  const source = noting("source", `if (event.fail) throw new Error("no"); return { sum: event.a + event.b };`);
  await deploy(platform, "source", source, { spec });
  const good = await enqueued("source", { a: 1, b: 2 });
  const [line = ""] = await lines("audit", 1);
  const event = JSON.parse(line);
  assert.deepEqual(
    [event.specversion, event.type, event.subject, event.source],
    ["1.0", "koine.invocation.succeeded", good, "/namespaces/default/functions/source"],
  );
  assert.deepEqual(event.data.response.body, { sum: 3 });
  assert.deepEqual(event.data.request.body, { a: 1, b: 2 });
  received.length = 0;
  const bad = await enqueued("source", { fail: true });
  const [hook] = await eventually("the webhook", () => (received.length > 0 ? received : null));
  const told = JSON.parse(hook?.body ?? "");
  assert.deepEqual([told.type, told.subject, told.data.attempts], ["koine.invocation.failed", bad, 3]);
  const [, seconds = "", mac] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(String(hook?.headers["koine-signature"])) ?? [];
  assert.equal(createHmac("sha256", SECRET).update(`${seconds}.${hook?.body}`).digest("hex"), mac);
  assert.equal((await deadLetterOf(bad)).name, "source");
});

test("work of a function that may run nothing waits, its queue says how much, and it runs once that may be", async () => {
  await deploy(platform, "resting", noting("resting", "note(event.subject);"), { spec: { reservedConcurrency: 0 } });
  const spec = { ...quick, destinations: { onSuccess: "function:resting" } };
  await deploy(platform, "leading", noting("leading", "return 1;"), { spec });
  const id = await enqueued("leading", {});
  const metrics = await eventually("that it waits", async () => {
    const { text } = await send(platform, "/metrics");
    return text.includes('koine_queue_depth{queue="default/resting"} 1') ? text : null;
  });
  assert.match(metrics, /koine_queue_age_seconds\{queue="default\/resting"\}/);
  await deploy(platform, "resting", noting("resting", "note(event.subject);"), {});
  assert.deepEqual(await lines("resting", 1), [id]);
});

test("outcomes go to topics, and so to everybody who subscribes", async () => {
  await manage(platform, "PUT", `${NS}/topics/outcomes`, {});
  await deploy(platform, "subscriber", noting("subscriber", "note(JSON.stringify(event));"), {});
  const subscription = { kind: "topic", function: "subscriber", settings: { topic: "outcomes" } };
  assert.equal((await manage(platform, "PUT", `${NS}/triggers/outcomes`, subscription)).status, 201);
  const spec = { ...quick, destinations: { onSuccess: "topic:outcomes" } };
  await deploy(platform, "publisher", noting("publisher", "return 1;"), { spec });
  const id = await enqueued("publisher", {});
  const [line = ""] = await lines("subscriber", 1);
  assert.equal(JSON.parse(line).subject, id);
});

test("an outcome that was settled reaches its destination through a kill of the platform", async () => {
  await deploy(platform, "sink", noting("sink", "note(event.subject);"), {});
  const spec = { ...quick, instanceConcurrency: 50, destinations: { onSuccess: "function:sink" } };
  await deploy(platform, "spring", noting("spring", "note(event.n); return event.n;"), { spec });
  const ids = await Promise.all(Array.from({ length: 120 }, (_, n) => enqueued("spring", { n })));
  await lines("sink", 5);
  await platform.kill9();
  await platform.restart();
  const seen = await eventually("every outcome", () => {
    const subjects = new Set(linesOf("sink"));
    return ids.every((id) => subjects.has(id)) ? linesOf("sink") : null;
  });
  assert.ok(
    seen.every((subject) => ids.includes(subject)),
    "none is invented",
  );
  assert.deepEqual(await deadLetters("function=spring"), []);
});

test("a destination that cannot be is refused when it is deployed, or when it is used", async () => {
  const { version } = await deploy(platform, "odd", noting("odd", "return 1;"), {});
  const refused = async (destination: string): Promise<string> => {
    const request = { code: version.spec.code, destinations: { onSuccess: destination } };
    const answer = await manage(platform, "PUT", `${NS}/functions/odd`, request);
    return (JSON.parse(answer.text) as { error?: { code: string } }).error?.code ?? answer.text;
  };
  assert.equal(await refused("mailto:me@example.com"), "destination-refused");
  assert.equal(await refused("function:nobody"), "function-not-found");
  assert.equal(await refused("function:other/x/y"), "destination-refused");
  assert.equal(await refused("https://user:word@example.com/"), "destination-refused");
  assert.equal(await refused("topic:none"), "topic-not-found");
  const spec = {
    retry: { attemptsMax: 1 },
    destinations: { onSuccess: "http://169.254.169.254/latest", secret: "WEBHOOK_SECRET" },
  };
  await deploy(platform, "probing", noting("probing", "return 1;"), { spec });
  await enqueued("probing", {});
  const [letter] = await eventually("the refusal", async () => {
    const found = await deadLetters("function=probing");
    return found.length > 0 ? found : null;
  });
  assert.deepEqual([letter?.kind, letter?.code, letter?.attempts], ["delivery", "destination-refused", 1]);
});

test("the queue's figures are in the metrics", async () => {
  const text = await eventually("the figures", async () => {
    const { text: metrics } = await send(platform, "/metrics");
    return /koine_queue_depth\{queue="default\/slow"\}|koine_dead_letters\{queue="default\/probing@destinations"\} 1/.test(
      metrics,
    )
      ? metrics
      : null;
  });
  for (const name of ["koine_async_attempts_total", "koine_dead_letters_total", "koine_queue_age_seconds"])
    assert.match(text, new RegExp(`^${name}`, "m"));
});

test("a platform that loses its store says so and ends, and a new start goes on with what was accepted", async () => {
  const fixture = pathToFileURL(join(import.meta.dirname, "lost-store.fixture.mjs")).href;
  await deploy(platform, "survivor", noting("survivor", "note(event.n);"), {});
  await platform.restart({ env: { NODE_OPTIONS: `--import ${fixture}` } });
  await enqueued("survivor", { n: "kept" }, { "koine-delay": "3s" });
  process.kill(platform.pid, "SIGUSR2");
  assert.equal(await platform.ended, 1);
  assert.match(platform.output, /error: .*the store's thread has ended/);
  await platform.restart({ env: {} });
  assert.deepEqual(await lines("survivor", 1), ["kept"]);
});
