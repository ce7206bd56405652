import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { run, temporaryFolder } from "../testing/run.ts";
import { page, scriptedPlatform } from "../testing/scripted-platform.ts";

const view = { name: "KEY", createdAt: "2030-01-30T12:00:00.000Z", updatedAt: "2030-01-31T11:00:00.000Z" };
const path = "/v1/namespaces/default/secrets";

function routes(): Parameters<typeof scriptedPlatform>[0] {
  return {
    [`PUT ${path}/KEY`]: { status: 201, body: view },
    [`GET ${path}`]: page(view),
    [`DELETE ${path}/KEY`]: { status: 204 },
  };
}

test("a secret comes from stdin without the newline at its end", async () => {
  await using platform = await scriptedPlatform(routes());
  const ran = await run(platform.url, ["secret", "set", "KEY", "-"], { stdin: "s3cret\n\n" });
  assert.deepEqual(ran, { code: 0, stdout: "", stderr: "secret KEY is set\n" });
  assert.deepEqual(JSON.parse(platform.request(`PUT ${path}/KEY`).body.toString()), { value: "s3cret\n" });
});

test("a secret comes from a file as it is", async () => {
  await using platform = await scriptedPlatform(routes());
  await using folder = await temporaryFolder();
  await writeFile(join(folder.path, "key.pem"), "line\n");
  const ran = await run(platform.url, ["secret", "set", "KEY", "--from-file", "key.pem", "-o", "json"], {
    cwd: folder.path,
  });
  assert.deepEqual(JSON.parse(ran.stdout), view);
  assert.deepEqual(JSON.parse(platform.request(`PUT ${path}/KEY`).body.toString()), { value: "line\n" });
  const missing = await run(platform.url, ["secret", "set", "KEY", "--from-file", "nothing"], { cwd: folder.path });
  assert.equal(missing.code, 1);
  assert.match(missing.stderr, /file-not-usable/);
});

test("a secret is asked for on a terminal and does not appear there", async () => {
  await using platform = await scriptedPlatform(routes());
  const stdin = new PassThrough();
  stdin.end("typed\n");
  const ran = await run(platform.url, ["secret", "set", "KEY"], { isTerminal: true, stdin });
  assert.equal(ran.code, 0);
  assert.match(ran.stderr, /Value of KEY \(input is hidden\)/);
  assert.doesNotMatch(ran.stderr + ran.stdout, /typed/);
  assert.deepEqual(JSON.parse(platform.request(`PUT ${path}/KEY`).body.toString()), { value: "typed" });
});

test("a question that is not answered is an interruption", async () => {
  await using platform = await scriptedPlatform(routes());
  const ran = await run(platform.url, ["secret", "set", "KEY"], { isTerminal: true, stdin: new PassThrough().end() });
  assert.equal(ran.code, 130);
  assert.equal(platform.seen.length, 0);
});

test("a secret's value is refused as an argument, and when it is no text", async () => {
  await using platform = await scriptedPlatform(routes());
  const argument = await run(platform.url, ["secret", "set", "KEY", "value"]);
  assert.equal(argument.code, 2);
  assert.match(argument.stderr, /cannot be an argument/);
  const bytes = await run(platform.url, ["secret", "set", "KEY"], {
    stdin: new PassThrough().end(Buffer.from([0xff, 0xfe])),
  });
  assert.equal(bytes.code, 1);
  assert.equal(platform.seen.length, 0);
});

test("secrets are listed by name and deleted", async () => {
  await using platform = await scriptedPlatform(routes());
  assert.equal((await run(platform.url, ["secret", "list"])).stdout, "NAME  CREATED  UPDATED\nKEY   1d ago   1h ago\n");
  assert.equal((await run(platform.url, ["secret", "delete", "KEY"])).stderr, "deleted secret KEY\n");
  assert.equal((await run(platform.url, ["secret", "delete", "OTHER"])).code, 4);
});
