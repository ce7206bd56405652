import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { importImage, startEngine, type TestEngine } from "../../src/sandbox/container/testing/engine.ts";
import { send } from "./api.ts";
import { type RunningPlatform, startPlatform } from "./platform.ts";

let engine: TestEngine;
let platform: RunningPlatform;
let folder = "";

before(async () => {
  engine = await startEngine();
  folder = await mkdtemp(join(tmpdir(), "koine-images-"));
  await importImage(engine, {
    name: "koine-test/site",
    files: { "www/index.html": "a page\n" },
    changes: ['CMD ["sh", "-c", "echo the server starts; exec httpd -f -p 8080 -h /www"]', "EXPOSE 8080"],
  });
  platform = await startPlatform({ args: ["--container-engine", engine.address] });
});
after(async () => {
  await platform.stop();
  await engine[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** Runs a command that must succeed. */
async function koine(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await platform.koine(args);
  assert.equal(code, 0, stderr);
  return stdout;
}

test("an image is deployed by its name, pinned, and called over HTTP", async () => {
  assert.match(await koine("deploy", "--image", "koine-test/site", "--network", "none"), /\/fn\/site\n$/);
  const answer = await send(platform, "/fn/site");
  assert.deepEqual([answer.status, answer.text], [200, "a page\n"]);
  assert.equal((await send(platform, "/fn/site/missing")).status, 404, "its own answer, not the platform's");
  const { spec } = JSON.parse(await koine("get", "site", "-o", "json")) as { spec: Record<string, unknown> };
  assert.deepEqual([spec["runtime"], spec["protocol"], spec["port"]], ["image", "http", 8080]);
  assert.match(String(spec["image"]), /^sha256:[0-9a-f]{64}$/);
});

test("deployed again, an image that has not changed makes no new version", async () => {
  const { stderr } = await platform.koine(["deploy", "--image", "koine-test/site", "--network", "none"]);
  assert.match(stderr, /site is unchanged: version 1/);
});

test("what its program writes is found in the function's logs", async () => {
  assert.match(await koine("logs", "site"), /the server starts/);
});

test("without calls no instance is left, and the next call has one again", async () => {
  await koine("deploy", "--image", "koine-test/site", "--name", "rare", "--network", "none", "--idle-timeout", "1s");
  assert.equal((await send(platform, "/fn/rare")).status, 200);
  await until(async () => (await koine("get", "rare", "-o", "json")).includes('"idle": 0'));
  const answer = await send(platform, "/fn/rare");
  assert.deepEqual([answer.status, answer.text, answer.headers["x-koine-start"]], [200, "a page\n", "cold"]);
});

test("a folder with a Dockerfile is built and deployed, without what .dockerignore names", async () => {
  const project = join(folder, "project");
  await mkdir(join(project, "private"), { recursive: true });
  const dockerfile =
    'FROM koine-test/site\nCOPY . /www\nRUN echo "built $(ls /www)"\nCMD ["httpd", "-f", "-p", "8080", "-h", "/www"]\n';
  await writeFile(join(project, "Dockerfile"), dockerfile);
  await writeFile(join(project, ".dockerignore"), "private\n*.log\n");
  await writeFile(join(project, "index.html"), "a built page\n");
  await writeFile(join(project, "private/key"), "must not be in it\n");
  const { code, stderr } = await platform.koine(["deploy", project, "--name", "built", "--network", "none"]);
  assert.equal(code, 0, stderr);
  assert.match(stderr, /Step 1\/4[^]*built Dockerfile/, "the builder's output is shown");
  assert.equal((await send(platform, "/fn/built")).text, "a built page\n");
  assert.equal((await send(platform, "/fn/built/private/key")).status, 404);
});

test("a Dockerfile that cannot be built is an error with the builder's words, and nothing is deployed", async () => {
  const project = join(folder, "broken");
  await mkdir(project);
  await writeFile(join(project, "Dockerfile"), "FROM koine-test/site\nRUN exit 9\n");
  const { code, stderr } = await platform.koine(["deploy", project]);
  assert.notEqual(code, 0);
  assert.match(stderr, /returned a non-zero code: 9/);
  assert.equal((await send(platform, "/fn/broken")).status, 404);
});

test("a program of an image runs once for each call, with its exit code as the outcome", async () => {
  const command = `sh -c 'read line; echo "$GREETING $line"; test "$line" != bad'`;
  const settings = ["--protocol", "stdio", "--command", command, "-e", "GREETING=hello", "--network", "none"];
  await koine("deploy", "--image", "koine-test/site", "--name", "filter", ...settings);
  const good = await send(platform, "/fn/filter", { method: "POST", body: "world\n" });
  assert.deepEqual([good.status, good.text], [200, "hello world\n"]);
  assert.equal((await send(platform, "/fn/filter", { method: "POST", body: "bad\n" })).status, 502);
});

test("an image that polls the Runtime API of Lambda is called by it, with what fails told as a failure", async () => {
  const bootstrap = `#!/bin/sh
base="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
echo "the runtime starts"
while wget -q -S -O /tmp/event "$base/next" 2>/tmp/headers; do
  id=$(sed -n 's/^ *[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: *//p' /tmp/headers | tr -d '\\r')
  if grep -q fail /tmp/event; then
    wget -q -O /dev/null --post-data '{"errorType":"Asked","errorMessage":"as asked"}' "$base/$id/error"
  else
    wget -q -O /dev/null --post-data "{\\"got\\":$(cat /tmp/event)}" "$base/$id/response"
  fi
done
`;
  await importImage(engine, {
    name: "koine-test/polls",
    files: { bootstrap },
    changes: ['CMD ["sh", "/bootstrap"]'],
  });
  await koine("deploy", "--image", "koine-test/polls", "--protocol", "lambda-runtime-api", "--network", "none");
  assert.deepEqual(JSON.parse(await koine("invoke", "polls", "-d", '{"a":1}')), { got: { a: 1 } });
  const failed = await platform.koine(["invoke", "polls", "-d", '{"fail":true}']);
  assert.notEqual(failed.code, 0);
  assert.match(failed.stderr, /as asked/);
  assert.deepEqual(JSON.parse(await koine("invoke", "polls", "-d", "2")), { got: 2 });
  assert.match(await koine("logs", "polls"), /the runtime starts/);
});

test("a server that takes more memory than it has is ended for that, and the next call has a new one", async () => {
  await importImage(engine, {
    name: "koine-test/greedy",
    files: {
      "www/index.html": "ok\n",
      "www/cgi-bin/eat": "#!/bin/sh\ntouch /tmp/eat\nsleep 60\n",
      serve:
        "#!/bin/sh\nhttpd -p 8080 -h /www\nuntil [ -e /tmp/eat ]; do sleep 0.1; done\nx=aaaaaaaa\nwhile true; do x=$x$x; done\n",
    },
    changes: ['CMD ["/serve"]', "EXPOSE 8080"],
  });
  await koine("deploy", "--image", "koine-test/greedy", "--memory", "32MB", "--network", "none");
  assert.equal((await send(platform, "/fn/greedy")).text, "ok\n");
  const ended = await send(platform, "/fn/greedy/cgi-bin/eat", { method: "POST" });
  assert.deepEqual([ended.status, ended.headers["x-koine-error"]], [502, "out-of-memory"]);
  assert.equal((await send(platform, "/fn/greedy")).text, "ok\n");
});

test("an image that is nowhere, and one that is no name, are refused with what to do", async () => {
  const missing = await platform.koine(["deploy", "--image", "127.0.0.1:1/nobody/nothing:1"]);
  assert.match(missing.stderr, /registry of '127\.0\.0\.1:1\/nobody\/nothing:1' cannot be used/);
  const invalid = await platform.koine(["deploy", "--image", "Not A Name", "--name", "x"]);
  assert.match(invalid.stderr, /is not an image's name/);
});

test("after kill -9 the containers of before are gone as soon as the platform is up again", async () => {
  assert.equal((await send(platform, "/fn/site")).status, 200);
  const left = await containers();
  assert.ok(left.length > 0);
  await platform.kill9();
  await platform.restart({ args: ["--container-engine", engine.address] });
  await until(async () => (await containers()).every((id) => !left.includes(id)));
  assert.equal((await send(platform, "/fn/site")).text, "a page\n");
});

test("without an engine an image is refused with where it was looked for, and everything else works", async () => {
  await platform.restart({ args: ["--container-engine", "unix:///nowhere/engine.sock"] });
  const { code, stderr } = await platform.koine(["deploy", "--image", "koine-test/site", "--name", "other"]);
  assert.notEqual(code, 0);
  assert.match(stderr, /there is no socket at \/nowhere\/engine\.sock/);
  await writeFile(join(folder, "plain.mjs"), "export default () => new Response('plain');\n");
  await koine("deploy", join(folder, "plain.mjs"));
  assert.equal((await send(platform, "/fn/plain")).text, "plain");
});

async function containers(): Promise<readonly string[]> {
  const listed = (await engine.api.json("GET", "/containers/json?all=1")) as readonly { readonly Id: string }[];
  return listed.map(({ Id: id }) => id);
}

async function until(look: () => Promise<boolean>): Promise<void> {
  const signal = AbortSignal.timeout(30_000);
  while (!(await look())) {
    signal.throwIfAborted();
    await delay(50);
  }
}
