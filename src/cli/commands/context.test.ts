import assert from "node:assert/strict";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { run, temporaryFolder } from "../testing/run.ts";
import { page, scriptedPlatform } from "../testing/scripted-platform.ts";

const functions = "GET /v1/namespaces/default/functions";

test("a context keeps address, token and namespace, in a file that only its owner can read", async () => {
  await using home = await temporaryFolder();
  await using platform = await scriptedPlatform({ "GET /v1/namespaces/team/functions": page() });
  const environment = { XDG_CONFIG_HOME: home.path };
  const set = await run(null, ["context", "set", "prod", "--url", platform.url, "-n", "team", "--token"], {
    environment,
    stdin: "t0ken\n",
  });
  assert.deepEqual([set.code, set.stderr], [0, `context prod is set: ${platform.url}, in use\n`]);
  const path = join(home.path, "koine", "config.json");
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.equal((await run(null, ["list"], { environment })).code, 0);
  assert.equal(platform.seen[0]?.headers.authorization, "Bearer t0ken");
  const listed = await run(null, ["context", "list", "-o", "json"], { environment });
  assert.doesNotMatch(listed.stdout, /t0ken/);
  assert.deepEqual(JSON.parse(listed.stdout).items, [
    { name: "prod", current: true, url: platform.url, namespace: "team", hasToken: true },
  ]);
});

test("contexts are switched, named for one command, and deleted", async () => {
  await using home = await temporaryFolder();
  await using one = await scriptedPlatform({ [functions]: page() });
  await using two = await scriptedPlatform({ [functions]: page() });
  const environment = { XDG_CONFIG_HOME: home.path };
  const ran = async (argv: readonly string[]): Promise<number> => (await run(null, argv, { environment })).code;
  assert.equal(await ran(["context", "set", "one", "--url", one.url]), 0);
  assert.equal(await ran(["context", "set", "two", "--url", two.url]), 0);
  assert.equal(await ran(["list"]), 0);
  assert.equal(await ran(["list", "--context", "two"]), 0);
  assert.equal(await ran(["context", "use", "two"]), 0);
  assert.equal(await ran(["list"]), 0);
  assert.deepEqual([one.seen.length, two.seen.length], [1, 2]);
  assert.equal(await ran(["context", "delete", "two"]), 0);
  assert.equal(JSON.parse(await readFile(join(home.path, "koine", "config.json"), "utf8")).current, null);
  assert.equal(await ran(["context", "use", "two"]), 4);
  const typo = await run(null, ["context", "use", "onne"], { environment });
  assert.match(typo.stderr, /Did you mean 'one'\?/);
  assert.equal(await ran(["context", "set", "three"]), 2);
});

test("a context's token does not follow to another address", async () => {
  await using home = await temporaryFolder();
  await using own = await scriptedPlatform({ [functions]: page() });
  await using other = await scriptedPlatform({ [functions]: page() });
  const environment = { XDG_CONFIG_HOME: home.path };
  await run(null, ["context", "set", "own", "--url", own.url, "--token"], { environment, stdin: "t0ken" });
  await run(null, ["list", "--url", other.url], { environment });
  await run(other.url, ["list"], { environment });
  assert.deepEqual(
    other.seen.map((request) => request.headers.authorization),
    [undefined, undefined],
  );
  await run(other.url, ["list"], { environment: { ...environment, KOINE_TOKEN: "env" } });
  assert.equal(other.seen.at(-1)?.headers.authorization, "Bearer env");
  await run(null, ["context", "set", "own", "--url", other.url], { environment });
  await run(null, ["list"], { environment });
  assert.equal(other.seen.at(-1)?.headers.authorization, undefined);
});

test("a file of contexts that holds something else is named", async () => {
  await using home = await temporaryFolder();
  await run(null, ["context", "set", "a", "--url", "http://x"], { environment: { XDG_CONFIG_HOME: home.path } });
  await writeFile(join(home.path, "koine", "config.json"), '{"contexts": {"a": 1}}');
  const { code, stderr } = await run(null, ["list"], { environment: { XDG_CONFIG_HOME: home.path } });
  assert.equal(code, 1);
  assert.match(stderr, /is not a file of contexts/);
});
