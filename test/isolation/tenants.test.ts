import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { FRAME_HEADER_BYTES, frameType } from "../../src/protocols/frame-codec.ts";
import { deploy, eventually, manage, send, upload, zip } from "../system/api.ts";
import { type RunningPlatform, startPlatform } from "../system/platform.ts";
import { SECRET } from "./attacks.ts";
import { compileAttack, deployAttackers, invoke, type Result, secretOf } from "./stage.ts";

/** What one function leaves behind for the next: nothing. */
let platform: RunningPlatform;
let folder: string;
const words = { secret: secretOf("tenant"), variable: secretOf("variable"), file: secretOf("file") };

/** Holds secrets in its environment, its memory, its /tmp and its output. */
const TENANT = `
import os
FILE = "${words.file}"
def handler(event, context):
    if event.get("write"):
        for name in ("/tmp/left", "/dev/shm/left"):
            with open(name, "w") as file: file.write(FILE)
    print(os.environ["WORD"], os.environ["VARIABLE"])
    left = [name for name in ("/tmp/left", "/dev/shm/left") if os.path.exists(name)]
    if event.get("end"):
        os._exit(1)
    return {"left": left, "environment": [os.environ["WORD"], os.environ["VARIABLE"]]}
`;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "koine-tenants-"));
  platform = await startPlatform({ sandbox: "process" });
  await manage(platform, "PUT", "/v1/namespaces/default/secrets/WORD", { value: words.secret });
  const spec = {
    runtime: "python3",
    handler: "app.handler",
    secrets: ["WORD"],
    environment: { VARIABLE: words.variable },
  };
  await deploy(platform, "tenant", { "app.py": TENANT }, { spec });
});
after(async () => {
  await platform?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const attempt = async (name: string, attack: string, ...args: readonly unknown[]): Promise<Result> =>
  (await invoke(platform, name, { attack, args, scratch: "/tmp/scratch" })) as Result;

test("the function itself has what it was given, and finds its file again in the same instance", async () => {
  const seen = await invoke(platform, "tenant", { write: true });
  assert.deepEqual(seen, { left: ["/tmp/left", "/dev/shm/left"], environment: [words.secret, words.variable] });
});

test("a spare that waited meanwhile holds nothing of it: no file, no variable, nothing in its memory", async () => {
  // Deployed only now, so that they get sandboxes which were booted while the tenant ran.
  await deployAttackers(platform, compileAttack(folder));
  const tries = await Promise.all([
    attempt("attacker-python", "own memory", SECRET),
    attempt("attacker-python", "memory", [], SECRET),
    attempt("attacker", "environments", SECRET),
    attempt("attacker", "commands", SECRET),
    attempt("attacker", "search", "/tmp", SECRET),
    attempt("attacker", "search", "/dev/shm", SECRET),
  ]);
  for (const result of tries) assert.ok("refused" in result || result.took === "", JSON.stringify(result));
});

test("the same search finds a secret in the instance that has it", async () => {
  const source = readFileSync(join(import.meta.dirname, "attacker/app.py"), "utf8");
  const spec = { runtime: "python3", handler: "app.handler", secrets: ["WORD"], memoryBytesMax: 1024 * 1024 * 1024 };
  await deploy(platform, "entitled", { "app.py": source }, { spec });
  const result = await attempt("entitled", "own memory", SECRET);
  assert.ok("took" in result && result.took.includes(words.secret), JSON.stringify(result));
});

test("the files of an instance that has ended are gone, for its successor and from the machine", async () => {
  const ended = await manage(platform, "POST", "/v1/namespaces/default/functions/tenant/invoke", { end: true });
  assert.equal(ended.status, 502);
  const seen = (await invoke(platform, "tenant", {})) as { readonly left: readonly string[] };
  assert.deepEqual(seen.left, []);
  const kept = filesBelow(platform.dataDirectory).filter((path) => path.endsWith("/left"));
  assert.deepEqual(kept, []);
});

test("a signal to everybody reaches nobody outside", async () => {
  await deploy(
    platform,
    "listener",
    { "index.cjs": `let count = 0; process.on("SIGURG", () => count++); exports.handler = async () => count;` },
    { spec: { handlerModel: "lambda" } },
  );
  assert.equal(await invoke(platform, "listener", {}), 0);
  const result = await attempt("attacker", "signalAll");
  assert.ok("took" in result || /ESRCH|EPERM/.test(result.refused), JSON.stringify(result));
  assert.equal(await invoke(platform, "listener", {}), 0);
  assert.equal((await send(platform, "/readyz")).status, 200);
});

test("compiled code that one namespace had kept is not given to another, for the same package", async () => {
  const mark = "forged-by-the-first";
  const name = Buffer.alloc(2);
  name.writeUInt16LE(4);
  const payload = Buffer.concat([name, Buffer.from("kept"), Buffer.from(mark)]);
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  header.writeUInt32LE(payload.length, 0);
  header[8] = frameType.codeCache;
  const forged = Buffer.concat([header, payload]).toString("base64");
  const source = `import { writeSync, readdirSync, readFileSync } from "node:fs";
    import { join } from "node:path";
    if (process.env.FORGES) writeSync(3, Buffer.from("${forged}", "base64"));
    export default () => {
      const found = [];
      for (const folder of ["/koine", "/tmp", "/code"]) {
        for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
          if (entry.isFile() && entry.name === "kept") found.push(readFileSync(join(entry.parentPath, entry.name), "utf8"));
        }
      }
      return new Response(found.join());
    };`;
  const spec = { idleTimeoutMs: 600_000 };
  await deploy(platform, "cached", source, { namespace: "one", spec: { ...spec, environment: { FORGES: "yes" } } });
  await deploy(platform, "cached", source, { namespace: "two", spec });
  const seen = async (namespace: string): Promise<string> =>
    (await manage(platform, "POST", `/v1/namespaces/${namespace}/functions/cached/invoke`, {})).text;
  // A deploy's own instance compiled by itself; those that follow get what it told.
  await deploy(platform, "again", source, { namespace: "one", spec });
  await deploy(platform, "again", source, { namespace: "two", spec });
  const again = async (namespace: string): Promise<string> =>
    (await manage(platform, "POST", `/v1/namespaces/${namespace}/functions/again/invoke`, {})).text;
  assert.deepEqual([await seen("two"), await again("two")], ["", ""]);
  await eventually(
    "the first namespace to find its own",
    async () => ((await again("one")) === mark ? true : null),
    10_000,
  );
});

test("what a package says of set-user-id and of others' rights to write is not kept", async () => {
  const entry = `import { statSync } from "node:fs";
    export default () => new Response(["program", "open"].map((name) => (statSync("/code/" + name).mode & 0o7777).toString(8)).join());`;
  const archive = zip([
    { path: "index.mjs", content: entry },
    { path: "program", content: "#!/bin/sh\nid\n", mode: 0o106755 },
    { path: "open", content: "x", mode: 0o100777 },
  ]);
  const { digest } = JSON.parse((await upload(platform, archive)).text) as { digest: string };
  const put = await manage(platform, "PUT", "/v1/namespaces/default/functions/modes", { code: digest });
  assert.ok(put.status < 300, put.text);
  const modes = (await send(platform, "/fn/modes")).text.split(",").map((mode) => Number.parseInt(mode, 8));
  assert.equal(modes.length, 2);
  for (const mode of modes) assert.equal(mode & 0o6022, 0, mode.toString(8));
});

function filesBelow(path: string): string[] {
  return readdirSync(path, { recursive: true, encoding: "utf8" }).map((name) => join(path, name));
}
