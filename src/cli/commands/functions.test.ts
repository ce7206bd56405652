import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { run } from "../testing/run.ts";
import { errorScript, page, scriptedPlatform } from "../testing/scripted-platform.ts";
import { functionView, versionView } from "../testing/views.ts";

const functions = "/v1/namespaces/default/functions";
const hello = `${functions}/hello`;
const done = { status: 204 } as const;

test("list shows a table on all pages, and the API's page as JSON", async () => {
  await using platform = await scriptedPlatform({
    [`GET ${functions}`]: ({ url }, response) => {
      const isLast = new URL(url, "http://x").searchParams.get("after") === "hello";
      const items = isLast ? [{ ...functionView, name: "resize", package: "images", instances: {} }] : [functionView];
      response.end(JSON.stringify({ items, next: isLast ? null : "hello" }));
    },
  });
  const table = await run(platform.url, ["list"]);
  assert.equal(table.code, 0);
  assert.equal(
    table.stdout,
    [
      "NAME           RUNTIME     LIVE  INSTANCES       MEMORY  TIMEOUT  UPDATED",
      "hello          nodejs26.x    v2  2 idle, 1 busy  256 MB     30 s  3m ago",
      "images/resize  nodejs26.x    v2  -               256 MB     30 s  3m ago",
      "",
    ].join("\n"),
  );
  const json = JSON.parse((await run(platform.url, ["ls", "-o", "json"])).stdout);
  assert.equal(json.items.length, 2);
  assert.equal(json.next, null);
});

test("an empty listing writes nothing to stdout", async () => {
  await using platform = await scriptedPlatform({ [`GET ${functions}`]: page() });
  const { code, stdout, stderr } = await run(platform.url, ["list"]);
  assert.deepEqual([code, stdout], [0, ""]);
  assert.match(stderr, /koine init/);
  assert.equal((await run(platform.url, ["list", "--quiet"])).stderr, "");
});

test("get shows a function, also one in a package and another namespace", async () => {
  await using platform = await scriptedPlatform({
    [`GET ${hello}`]: { status: 200, body: functionView },
    "GET /v1/namespaces/team/functions/images%2Fresize": { status: 200, body: functionView },
  });
  const { stdout } = await run(platform.url, ["get", "hello"]);
  assert.match(stdout, new RegExp(`^url +${platform.url}/fn/hello$`, "m"));
  assert.match(stdout, /^aliases +prod → v1 90%, v2 10%$/m);
  assert.deepEqual(JSON.parse((await run(platform.url, ["get", "hello", "-o", "json"])).stdout), functionView);
  assert.equal((await run(platform.url, ["get", "images/resize", "-n", "team"])).code, 0);
  assert.equal((await run(platform.url, ["get", "team/images/resize"])).code, 0);
  assert.equal((await run(platform.url, ["get", "helo"])).code, 4);
});

test("delete deletes what it names, without a question where there is no terminal", async () => {
  await using platform = await scriptedPlatform({ [`DELETE ${hello}`]: done });
  assert.deepEqual(await run(platform.url, ["delete", "hello"]), { code: 0, stdout: "", stderr: "deleted hello\n" });
  assert.equal((await run(platform.url, ["rm", "hello", "gone"])).code, 4);
  assert.equal(
    (await run(platform.url, ["rm", "hello", "-o", "json"])).stdout,
    '{\n  "deleted": [\n    "hello"\n  ]\n}\n',
  );
});

test("delete asks on a terminal, and anything but yes leaves everything as it is", async () => {
  await using platform = await scriptedPlatform({ [`DELETE ${hello}`]: done });
  const answered = (text: string): PassThrough => new PassThrough().end(text);
  const no = await run(platform.url, ["delete", "hello"], { isTerminal: true, stdin: answered("\n") });
  assert.equal(no.code, 1);
  assert.match(no.stderr, /Delete hello and all versions\? \[y\/N\]/);
  assert.equal(platform.seen.length, 0);
  const yes = await run(platform.url, ["delete", "hello"], { isTerminal: true, stdin: answered("y\n") });
  assert.equal(yes.code, 0);
  assert.equal((await run(platform.url, ["delete", "hello", "--yes"], { isTerminal: true })).code, 0);
  assert.equal(platform.seen.length, 2);
});

test("versions are listed with what is live and which aliases point there", async () => {
  await using platform = await scriptedPlatform({ [`GET ${hello}/versions`]: page(versionView) });
  const { stdout } = await run(platform.url, ["versions", "hello"]);
  assert.match(stdout, / {6}2 {2}live {2}prod {5}nodejs26\.x {2}index\.mjs {2}256 MB {2}abababababab {2}3m ago/);
});

test("publish and rollback make a version live", async () => {
  await using platform = await scriptedPlatform({
    [`POST ${hello}/publish`]: { status: 200, body: functionView },
    [`POST ${hello}/rollback`]: { status: 200, body: functionView },
  });
  const published = await run(platform.url, ["publish", "hello", "2"]);
  assert.deepEqual(published, { code: 0, stdout: "", stderr: "version 2 of hello is live\n" });
  assert.deepEqual(JSON.parse(platform.request(`POST ${hello}/publish`).body.toString()), { version: 2 });
  assert.deepEqual(
    JSON.parse((await run(platform.url, ["rollback", "hello", "--to", "2", "-o", "json"])).stdout),
    functionView,
  );
  assert.deepEqual(JSON.parse(platform.request(`POST ${hello}/rollback`).body.toString()), { version: 2 });
  assert.equal((await run(platform.url, ["publish", "hello", "two"])).code, 2);
  assert.equal((await run(platform.url, ["rollback", "other"])).code, 4);
});

test("an alias is set, split, listed and deleted", async () => {
  const alias = {
    name: "prod",
    version: 1,
    additional: { version: 2, weight: 0.1 },
    updatedAt: "2030-01-31T11:00:00.000Z",
  };
  await using platform = await scriptedPlatform({
    [`PUT ${hello}/aliases/prod`]: { status: 200, body: alias },
    [`GET ${hello}/aliases`]: page(alias),
    [`DELETE ${hello}/aliases/prod`]: done,
    [`DELETE ${hello}/aliases/none`]: errorScript("alias-not-found", 404),
  });
  const set = await run(platform.url, ["alias", "set", "hello", "prod", "1", "--split", "2=10%"]);
  assert.deepEqual(set, { code: 0, stdout: "", stderr: "hello: prod → v1 90%, v2 10%\n" });
  const request = platform.request(`PUT ${hello}/aliases/prod`).body.toString();
  assert.deepEqual(JSON.parse(request), { version: 1, additional: { version: 2, weight: 0.1 } });
  assert.equal(
    (await run(platform.url, ["alias", "ls", "hello"])).stdout,
    "ALIAS  VERSION         UPDATED\nprod   v1 90%, v2 10%  1h ago\n",
  );
  assert.equal((await run(platform.url, ["alias", "rm", "hello", "prod"])).code, 0);
  assert.equal((await run(platform.url, ["alias", "delete", "hello", "none"])).code, 4);
  assert.equal((await run(platform.url, ["alias", "set", "hello", "prod", "1", "--split", "2=110%"])).code, 2);
});
