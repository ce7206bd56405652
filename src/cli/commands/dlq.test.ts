import assert from "node:assert/strict";
import { test } from "node:test";
import { run } from "../testing/run.ts";
import { errorScript, page, scriptedPlatform, type Script } from "../testing/scripted-platform.ts";

const letters = "/v1/namespaces/default/dead-letters";
const ID = "01920c3e-0000-7000-8000-000000000001";
const letter = {
  id: ID,
  namespace: "default",
  package: "",
  name: "hello",
  kind: "invocation",
  attempts: 3,
  reason: "failed 3 times",
  code: "handler-failed",
  acceptedAt: "2030-01-31T11:00:00.000Z",
  diedAt: "2030-01-31T11:30:00.000Z",
};
const detail = {
  ...letter,
  event: { contentType: "application/json", body: '{"n":1}' },
  history: [
    {
      number: 1,
      outcome: "failed",
      error: null,
      startedAt: "2030-01-31T11:00:00.000Z",
      endedAt: "2030-01-31T11:00:01.000Z",
    },
  ],
};

test("dead letters are listed by function, code and time, and shown with attempts and event", async () => {
  await using platform = await scriptedPlatform({
    [`GET ${letters}`]: page(letter),
    [`GET ${letters}/${ID}`]: { status: 200, body: detail },
  });
  const listed = await run(platform.url, ["dlq", "list", "hello", "--code", "handler-failed", "--since", "1h"]);
  assert.equal(
    listed.stdout,
    `ID${" ".repeat(36)}FUNCTION  KIND        ATTEMPTS  ERROR           FAILED\n${ID}  hello     invocation         3  handler-failed  30m ago\n`,
  );
  const { searchParams } = new URL(platform.request(`GET ${letters}`).url, platform.url);
  assert.deepEqual(
    ["function", "code", "since"].map((name) => searchParams.get(name)),
    ["hello", "handler-failed", "2030-01-31T11:00:00.000Z"],
  );
  const shown = await run(platform.url, ["dlq", "get", ID]);
  assert.match(shown.stdout, /attempt 1 +2030-01-31T11:00:00.000Z, 1 s, failed/);
  assert.equal((await run(platform.url, ["dlq", "get", ID, "--event"])).stdout, '{"n":1}');
});

test("a replay goes on until nothing is left, waits while the queue is full, and leaves out what fails again meanwhile", async () => {
  const answers: Script[] = [
    { status: 200, body: { replayed: 2, activationIds: ["a", "b"], more: true } },
    errorScript("queue-full", 429),
    { status: 200, body: { replayed: 1, activationIds: ["c"], more: false } },
  ];
  await using platform = await scriptedPlatform({
    [`POST ${letters}/replay`]: (_, response) => {
      const script = answers.shift();
      if (script === undefined || typeof script === "function") throw new Error("asked too often");
      response.writeHead(script.status, { "content-type": "application/json", ...script.headers });
      response.end(JSON.stringify(script.body));
    },
  });
  const ran = await run(platform.url, ["dlq", "replay", "hello", "--rate", "7", "-o", "json"]);
  assert.deepEqual(JSON.parse(ran.stdout), { replayed: 3, activationIds: ["a", "b", "c"], more: false });
  assert.match(ran.stderr, /the queue is full/);
  const bodies = platform.seen.map(({ body }) => JSON.parse(body.toString()));
  assert.deepEqual(bodies[0], { function: "hello", before: "2030-01-31T12:00:00.000Z", limit: 70, perSecond: 7 });
  assert.deepEqual(bodies[2], bodies[0]);
});

test("one is replayed or purged by its id; all only when that is said", async () => {
  await using platform = await scriptedPlatform({
    [`POST ${letters}/${ID}/replay`]: { status: 202, body: { activationId: ID } },
    [`DELETE ${letters}/${ID}`]: { status: 204 },
    [`POST ${letters}/purge`]: { status: 200, body: { purged: 4, more: false } },
  });
  assert.match((await run(platform.url, ["dlq", "replay", ID])).stderr, /runs again/);
  assert.equal((await run(platform.url, ["dlq", "purge", ID])).stderr, "1 dead letter purged\n");
  assert.equal((await run(platform.url, ["dlq", "purge", "--all"])).stderr, "4 dead letters purged\n");
  for (const wrong of [["replay"], ["purge"], ["replay", "hello", "--all"], ["replay", ID, "--code", "x"]])
    assert.equal((await run(platform.url, ["dlq", ...wrong])).code, 2, wrong.join(" "));
});

test("runs are cancelled and replayed", async () => {
  const activation = `/v1/namespaces/default/activations/${ID}`;
  await using platform = await scriptedPlatform({
    [`POST ${activation}/cancel`]: { status: 204 },
    [`POST ${activation}/replay`]: errorScript("not-acceptable-state", 409),
  });
  assert.equal((await run(platform.url, ["runs", "cancel", ID])).stderr, `cancelled ${ID}\n`);
  assert.equal((await run(platform.url, ["runs", "replay", ID])).code, 1);
});
