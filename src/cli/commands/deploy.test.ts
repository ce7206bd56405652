import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { run, temporaryFolder } from "../testing/run.ts";
import type { Ran, Stage } from "../testing/run.ts";
import { errorScript, scriptedPlatform } from "../testing/scripted-platform.ts";
import type { Script, ScriptedPlatform } from "../testing/scripted-platform.ts";
import { functionView, versionView } from "../testing/views.ts";

const digest = functionView.spec.code;
const put = "PUT /v1/namespaces/default/functions/hello";
const created = { change: "created", function: functionView, version: versionView };

/** A platform that lacks every package, or has every one. */
async function platformWith(
  routes: Readonly<Record<string, Script>>,
  has: "no code" | "all code",
): Promise<ScriptedPlatform> {
  const known = new Proxy(routes, {
    get: (target, route: string) =>
      route.startsWith("HEAD /v1/code/") ? { status: has === "no code" ? 404 : 200 } : target[route],
  });
  return await scriptedPlatform(known);
}

const accepting = {
  "POST /v1/code": { status: 201, body: { digest, bytes: 1, files: 1 } },
  [put]: { status: 201, body: created },
} as const;

async function deploy(
  platform: ScriptedPlatform,
  files: Readonly<Record<string, string>>,
  argv: readonly string[],
  stage: Stage = {},
): Promise<Ran> {
  await using folder = await temporaryFolder();
  const project = join(folder.path, "hello");
  await mkdir(project);
  for (const [path, text] of Object.entries(files)) await writeFile(join(project, path), text);
  return await run(platform.url, ["deploy", ...argv], { cwd: project, ...stage });
}

const handler = { "index.mjs": "export default () => new Response();" };

test("a folder is packed, uploaded and deployed; its URL is on stdout", async () => {
  await using platform = await platformWith(accepting, "no code");
  const ran = await deploy(platform, handler, []);
  assert.deepEqual([ran.code, ran.stdout], [0, `${platform.url}/fn/hello\n`]);
  assert.match(
    ran.stderr,
    /^packing\nuploading 1 file, 36 B\ncreated hello, version 2, live in .*\n {2}try {2}curl 'http.*\/fn\/hello'\n$/,
  );
  const upload = platform.request("POST /v1/code");
  assert.equal(upload.headers["content-type"], "application/zip");
  assert.equal(upload.body.subarray(0, 2).toString(), "PK");
  const request = JSON.parse(platform.request(put).body.toString());
  assert.deepEqual(request, { code: digest, runtime: "nodejs26.x", handler: "index.mjs" });
  assert.match(platform.request(put).headers.accept ?? "", /ndjson/);
});

test("what the platform has already is not uploaded again, and unchanged is said", async () => {
  const unchanged = { ...created, change: "unchanged" };
  await using platform = await platformWith({ [put]: { status: 200, body: unchanged } }, "all code");
  const ran = await deploy(platform, handler, []);
  assert.equal(ran.code, 0);
  assert.match(ran.stderr, /hello is unchanged: version 2, live/);
});

test("flags and koine.json make the request", async () => {
  await using platform = await platformWith(accepting, "all code");
  const files = { ...handler, "koine.json": '{"memoryMb": 64, "environment": {"A": "1"}}' };
  const argv =
    "-e B=2 --secret KEY --timeout 5s --concurrency 4 --max-concurrency 9 --idle-timeout 2m --public --no-check --description words";
  assert.equal((await deploy(platform, files, argv.split(" "))).code, 0);
  const { code, runtime, handler: entry, ...rest } = JSON.parse(platform.request(put).body.toString());
  assert.match(code, /^sha256:/);
  assert.equal(`${runtime} ${entry}`, "nodejs26.x index.mjs");
  assert.deepEqual(rest, {
    memoryBytesMax: 64 * 1024 * 1024,
    environment: { A: "1", B: "2" },
    secrets: ["KEY"],
    timeoutMs: 5_000,
    instanceConcurrency: 4,
    reservedConcurrency: 9,
    idleTimeoutMs: 120_000,
    access: "public",
    check: false,
    description: "words",
  });
});

test("a single file is a function of its own name", async () => {
  await using platform = await platformWith(accepting, "all code");
  const ran = await deploy(platform, { "hello.mjs": "export default 1", "other.mjs": "" }, ["hello.mjs"]);
  assert.equal(ran.code, 0);
  assert.equal(JSON.parse(platform.request(put).body.toString()).handler, "hello.mjs");
});

test("a version that is not to go live is shown with its own address", async () => {
  const result = { ...created, change: "updated", version: { ...versionView, number: 3, live: false } };
  await using platform = await platformWith({ ...accepting, [put]: { status: 200, body: result } }, "all code");
  const ran = await deploy(platform, handler, ["--no-live"]);
  assert.equal(ran.stdout, `${platform.url}/fn/hello:3\n`);
  assert.match(ran.stderr, /'koine publish hello 3' makes it so/);
});

function progress(...steps: readonly object[]): Script {
  return (_, response) => {
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    response.end(steps.map((step) => `${JSON.stringify(step)}\n`).join(""));
  };
}

test("progress is shown as it comes, the installer's output too", async () => {
  const steps = [
    { phase: "installing", message: "installing dependencies" },
    { phase: "output", message: "added 3 packages" },
    { phase: "checking", message: "" },
    { phase: "done", result: created },
  ];
  await using platform = await platformWith({ ...accepting, [put]: progress(...steps) }, "all code");
  const ran = await deploy(platform, handler, ["-o", "json"]);
  assert.deepEqual(JSON.parse(ran.stdout), created);
  assert.match(ran.stderr, /^packing\ninstalling dependencies\n {2}added 3 packages\nchecking\n/);
  const onTerminal = await deploy(platform, handler, [], { isTerminal: true, environment: { NO_COLOR: "" } });
  assert.match(onTerminal.stderr, /\r\x1b\[2K.*installing dependencies\r\x1b\[2K {2}.*added 3 packages/);
  const quiet = await deploy(platform, handler, ["-q"]);
  assert.equal(quiet.stderr, "");
});

test("a deploy that fails on the way shows why and ends with the function's exit code", async () => {
  const error = {
    code: "handler-syntax-error",
    fault: "function",
    message: "'index.mjs' has a syntax error: index.mjs:3:5",
    hint: "",
    requestId: "req-1",
    cause: {
      type: "SyntaxError",
      message: "Unexpected token",
      stack: "index.mjs:3\n  }\n  ^\nSyntaxError: Unexpected token",
    },
  };
  await using platform = await platformWith({ ...accepting, [put]: progress({ phase: "failed", error }) }, "all code");
  const ran = await deploy(platform, handler, []);
  assert.deepEqual([ran.code, ran.stdout], [6, ""]);
  assert.match(ran.stderr, /error: 'index\.mjs' has a syntax error: index\.mjs:3:5\n {2}index\.mjs:3\n/);
  await using cut = await platformWith(
    { ...accepting, [put]: progress({ phase: "checking", message: "" }) },
    "all code",
  );
  assert.match((await deploy(cut, handler, [])).stderr, /ended the deploy without a result/);
});

test("refusals of the platform keep their code, also while an upload is under way", async () => {
  await using large = await platformWith({ "POST /v1/code": errorScript("payload-too-large", 413) }, "no code");
  assert.match((await deploy(large, handler, [])).stderr, /code payload-too-large/);
  await using refusing = await platformWith({ ...accepting, [put]: errorScript("forbidden", 403) }, "all code");
  assert.equal((await deploy(refusing, handler, [])).code, 3);
});

test("what cannot be deployed is refused before anything is sent", async () => {
  await using platform = await platformWith(accepting, "no code");
  const cases: readonly (readonly [Readonly<Record<string, string>>, readonly string[], RegExp])[] = [
    [{ "README.md": "" }, [], /no file here that looks like a handler/],
    [{ "a.mjs": "", "b.mjs": "" }, [], /More than one file could be the handler: a\.mjs, b\.mjs/],
    [{ ...handler, "koine.json": '{"handlr": "x"}' }, [], /did you mean 'handler'/],
    [handler, ["nowhere"], /There is nothing at/],
    [handler, ["--memory", "much"], /'much' is not an amount of memory/],
    [handler, ["--env", "=1"], /not an environment variable/],
    [handler, ["--name", "a:b"], /A deploy makes the next version itself/],
  ];
  for (const [files, argv, message] of cases) {
    const ran = await deploy(platform, files, argv);
    assert.equal(ran.code, 2, argv.join(" "));
    assert.match(ran.stderr, message);
  }
  assert.equal(platform.seen.length, 0);
});
