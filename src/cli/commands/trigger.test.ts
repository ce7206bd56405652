import assert from "node:assert/strict";
import { test } from "node:test";
import type { TriggerView } from "../../core/api.ts";
import { run } from "../testing/run.ts";
import { page, scriptedPlatform } from "../testing/scripted-platform.ts";

const TRIGGERS = "/v1/namespaces/default/triggers";
const view: TriggerView = {
  namespace: "default",
  name: "nightly",
  kind: "schedule",
  function: "report",
  settings: { cron: "0 3 * * *", timezone: "UTC" },
  filter: { type: ["a"] },
  batch: null,
  ordering: "none",
  retry: { attemptsMax: 5 },
  priority: "normal",
  description: "",
  createdAt: "2030-01-31T11:00:00.000Z",
  updatedAt: "2030-01-31T11:00:00.000Z",
  state: "connected",
  detail: "next at 2030-02-01T03:00:00.000Z",
  error: null,
  node: "local",
  lag: null,
  lastEventAt: "2030-01-31T11:59:00.000Z",
  events: { received: 3, filtered: 1, delivered: 2, failed: 0 },
  route: null,
};

test("the kind is meant by --cron, and what is given becomes settings", async () => {
  await using platform = await scriptedPlatform({ [`POST ${TRIGGERS}`]: { status: 201, body: view } });
  const args = [
    "--cron",
    "0 3 * * *",
    "--timezone",
    "Europe/Berlin",
    "--batch-size",
    "5",
    "--batch-window",
    "2s",
    "--attempts",
    "4",
    "--retry-delay",
    "1s",
  ];
  const { code } = await run(platform.url, ["trigger", "create", "nightly", "report", ...args]);
  assert.equal(code, 0);
  assert.deepEqual(JSON.parse(platform.request(`POST ${TRIGGERS}`).body.toString()), {
    name: "nightly",
    function: "report",
    kind: "schedule",
    settings: { cron: "0 3 * * *", timezone: "Europe/Berlin" },
    batch: { size: 5, windowMs: 2_000 },
    retry: { attemptsMax: 4, delaysMs: [1_000] },
  });
});

test("--set takes JSON, text, fields of fields, and names of secrets", async () => {
  await using platform = await scriptedPlatform({ [`POST ${TRIGGERS}`]: { status: 201, body: view } });
  const sets = ["path=/hooks/a", "methods=[]", "auth.kind=hmac", "auth.secret=secret:KEY", "__proto__.x=1"].flatMap(
    (set) => ["--set", set],
  );
  await run(platform.url, ["trigger", "create", "t", "f", "--kind", "webhook", ...sets]);
  const sent = JSON.parse(platform.request(`POST ${TRIGGERS}`).body.toString()) as { readonly settings: object };
  assert.deepEqual(
    JSON.stringify(sent.settings),
    '{"path":"/hooks/a","methods":[],"auth":{"kind":"hmac","secret":{"secret":"KEY"}},"__proto__":{"x":1}}',
  );
});

test("an update leaves alone what is not said, and one time replaces another", async () => {
  await using platform = await scriptedPlatform({
    [`GET ${TRIGGERS}/nightly`]: { status: 200, body: view },
    [`PUT ${TRIGGERS}/nightly`]: { status: 200, body: view },
  });
  await run(platform.url, ["trigger", "update", "nightly", "--rate", "1 day"]);
  assert.deepEqual(JSON.parse(platform.request(`PUT ${TRIGGERS}/nightly`).body.toString()), {
    kind: "schedule",
    function: "report",
    settings: { timezone: "UTC", rate: "1 day" },
    filter: { type: ["a"] },
    retry: { attemptsMax: 5 },
    ordering: "none",
    priority: "normal",
    description: "",
  });
});

test("a list says how each of them is", async () => {
  await using platform = await scriptedPlatform({ [`GET ${TRIGGERS}`]: page(view) });
  const { stdout } = await run(platform.url, ["trigger", "list"]);
  assert.match(stdout, /nightly\s+schedule\s+report\s+connected\s+2\s+1m ago\s+next at/);
});

test("what cannot be meant is said before anything is sent", async () => {
  await using platform = await scriptedPlatform({});
  for (const [args, says] of [
    [["f"], /kind of the trigger is not said/],
    [["f", "--kind", "webhook", "--set", "path"], /'path' is not a setting/],
    [["f", "--cron", "* * * * *", "--filter", "{"], /--filter is not JSON/],
    [["f", "--cron", "* * * * *", "--batch-window", "soon"], /not a duration/],
  ] as const) {
    const { code, stderr } = await run(platform.url, ["trigger", "create", "t", ...args]);
    assert.equal(code, 2, stderr);
    assert.match(stderr, says);
  }
  assert.equal(platform.seen.length, 0);
});

test("a test of a trigger whose source cannot be reached fails", async () => {
  const result = {
    event: { id: "1" },
    matched: true,
    activationId: null,
    connection: { ok: false, detail: "ECONNREFUSED" },
  };
  await using platform = await scriptedPlatform({ [`POST ${TRIGGERS}/t/test`]: { status: 200, body: result } });
  const { code, stderr } = await run(platform.url, ["trigger", "test", "t"]);
  assert.equal(code, 1);
  assert.match(stderr, /cannot be used: ECONNREFUSED/);
});
