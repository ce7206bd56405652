import assert from "node:assert/strict";
import { test } from "node:test";
import { run } from "../testing/run.ts";
import { scriptedPlatform } from "../testing/scripted-platform.ts";

const status = {
  version: "9.9.9",
  startedAt: "2030-01-31T10:00:00.000Z",
  dataDirectory: "/srv/koine",
  sandbox: "process",
  functions: 12,
  instances: { starting: 0, idle: 3, busy: 1, frozen: 0 },
  spares: { "nodejs26.x": 2 },
  memory: { usedBytes: 300 * 1024 * 1024, budgetBytes: 2 * 1024 ** 3 },
  queue: { waiting: 0, leased: 1, dead: 0 },
  authentication: false,
};

test("status shows what the platform does", async () => {
  await using platform = await scriptedPlatform({ "GET /v1/status": { status: 200, body: status } });
  const { stdout } = await run(platform.url, ["status"]);
  assert.match(stdout, new RegExp(`^platform +koine 9\\.9\\.9 at ${platform.url}$`, "m"));
  assert.match(stdout, /^memory +300 MB of 2 GB$/m);
  assert.match(stdout, /^queue +0 waiting, 1 running, 0 dead$/m);
  assert.deepEqual(JSON.parse((await run(platform.url, ["status", "-o", "json"])).stdout), status);
});

test("doctor shows what holds and how to get what does not, and ends with 0 either way", async () => {
  const report = {
    sandbox: "process",
    facts: [
      { ability: "user namespaces", holds: true, detail: "usable", remedy: "" },
      { ability: "cgroup", holds: false, detail: "not writable", remedy: "delegate one" },
    ],
  };
  await using platform = await scriptedPlatform({ "GET /v1/doctor": { status: 200, body: report } });
  const { code, stdout, stderr } = await run(platform.url, ["doctor"]);
  assert.equal(code, 0);
  assert.match(stdout, /^no {3}cgroup {11}not writable → delegate one$/m);
  assert.equal(stderr, "sandbox process: 1 missing\n");
  assert.deepEqual(JSON.parse((await run(platform.url, ["doctor", "-o", "json"])).stdout), report);
});

test("version answers with and without a platform", async () => {
  await using platform = await scriptedPlatform({ "GET /v1/status": { status: 200, body: status } });
  const there = await run(platform.url, ["version"]);
  assert.deepEqual(there, { code: 0, stdout: "koine 1.2.3\n", stderr: `platform 9.9.9 at ${platform.url}\n` });
  const away = await run("http://127.0.0.1:1", ["version", "-o", "json"]);
  assert.deepEqual(JSON.parse(away.stdout), { cli: "1.2.3", platform: null, node: process.versions.node });
  assert.equal((await run(null, ["--version"])).stdout, "1.2.3\n");
});
