import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex, Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";
import {
  isAttachable,
  isFreezable,
  isPathMapped,
  type Mount,
  type Sandbox,
  type SandboxDriver,
  type SandboxLimits,
  type SandboxRequest,
} from "./sandbox.ts";

const MIB = 1024 * 1024;
/** No test waits longer for a sandbox to start; a limit for broken drivers, not a measure. */
const START_MS_MAX = 20_000;

export const testLimits: SandboxLimits = {
  memoryBytesMax: 256 * MIB,
  pidsMax: 64,
  cpuCores: null,
  tmpBytesMax: 8 * MIB,
  openFilesMax: 512,
  fileBytesMax: 32 * MIB,
};

/** The Node that runs the tests, as a sandbox sees it. */
export const nodeMount: Mount = { source: process.execPath, target: "/koine/runtime/node" };

let lastId = 0;

/** A request that runs a program of Node; `channel` is its file descriptor 3. */
export function nodeRequest(program: string, more: Partial<SandboxRequest> = {}): SandboxRequest {
  const opened = `const channel = new (require("node:net").Socket)({ fd: 3 });`;
  return {
    id: `test-${process.pid}-${++lastId}`,
    command: [nodeMount.target, "-e", opened + program],
    environment: {},
    limits: testLimits,
    network: "none",
    ...more,
    mounts: [nodeMount, ...(more.mounts ?? [])],
  };
}

/** The same for a script of the shell. */
export function shellRequest(script: string, more: Partial<SandboxRequest> = {}): SandboxRequest {
  return { ...nodeRequest("", more), command: ["/bin/sh", "-c", script] };
}

export function start(driver: SandboxDriver, request: SandboxRequest): Promise<Sandbox> {
  return driver.create(request, AbortSignal.timeout(START_MS_MAX));
}

/** Runs to the end and answers what was printed. */
export async function run(
  driver: SandboxDriver,
  request: SandboxRequest,
): Promise<{ end: unknown; stdout: string; stderr: string }> {
  const sandbox = await start(driver, request);
  sandbox.channel.resume();
  const [stdout, stderr, end] = await Promise.all([text(sandbox.stdout), text(sandbox.stderr), sandbox.ended]);
  return { end, stdout, stderr };
}

/** The next chunk of a stream as text. */
export async function next(stream: Readable): Promise<string> {
  return await new Promise((resolve) => stream.once("data", (chunk: Buffer) => resolve(chunk.toString())));
}

async function ask(channel: Duplex, question: string): Promise<string> {
  const answer = next(channel);
  channel.write(question);
  return await answer;
}

/** A folder with one file, readable for everyone, as packages are. */
export async function folderWith(name: string, content: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "koine-code-"));
  await chmod(folder, 0o755);
  await writeFile(join(folder, name), content);
  return folder;
}

const echo = `channel.pipe(channel);`;
const waitForEver = `setInterval(() => {}, 1000);`;

/** What every sandbox driver must do, whether it isolates or not. */
export function sandboxConformance(name: string, open: () => Promise<SandboxDriver>): void {
  describe(`a sandbox of the driver '${name}'`, () => {
    let driver: SandboxDriver;
    before(async () => {
      driver = await open();
    });
    after(() => driver.close());

    channelTests(() => driver);
    endTests(() => driver);
    surroundingsTests(() => driver);
    abilityTests(() => driver);
    driverTests(() => driver, open);
  });
}

function channelTests(driver: () => SandboxDriver): void {
  test("its channel carries bytes in both directions and holds back who writes too fast", async () => {
    const sandbox = await start(driver(), nodeRequest(echo));
    const sent = randomBytes(8 * MIB);
    let heldBack = false;
    const writing = (async () => {
      for (let at = 0; at < sent.length; at += 65_536) {
        if (sandbox.channel.write(sent.subarray(at, at + 65_536))) continue;
        heldBack = true;
        await new Promise((resolve) => sandbox.channel.once("drain", resolve));
      }
    })();
    const hash = createHash("sha256");
    let count = 0;
    for await (const chunk of sandbox.channel.iterator({ destroyOnReturn: false })) {
      hash.update(chunk);
      count += chunk.length;
      if (count >= sent.length) break;
    }
    await writing;
    assert.equal(hash.digest("hex"), createHash("sha256").update(sent).digest("hex"));
    assert.ok(heldBack, "8 MiB never filled the channel");
    await sandbox.stop(0);
  });

  test("its channel ends when it ends", async () => {
    const sandbox = await start(driver(), nodeRequest(`channel.end("last words");`));
    assert.equal(await text(sandbox.channel), "last words");
    await sandbox.ended;
  });

  test("its stdout and stderr are apart", async () => {
    const { stdout, stderr } = await run(driver(), shellRequest("echo to stdout; echo to stderr >&2"));
    assert.deepEqual({ stdout, stderr }, { stdout: "to stdout\n", stderr: "to stderr\n" });
  });
}

function endTests(driver: () => SandboxDriver): void {
  test("its exit code is told", async () => {
    assert.deepEqual((await run(driver(), shellRequest("exit 7"))).end, { kind: "exited", exitCode: 7 });
  });

  test("the signal that ended it is told", async () => {
    const { end } = await run(driver(), nodeRequest(`process.kill(process.pid, "SIGKILL"); ${waitForEver}`));
    assert.deepEqual(end, { kind: "killed", signal: "SIGKILL" });
  });

  test("stopping it with grace lets it say goodbye", async () => {
    const program = `process.on("SIGTERM", () => { console.log("goodbye"); process.exit(); }); channel.write("up"); ${waitForEver}`;
    const sandbox = await start(driver(), nodeRequest(program));
    assert.equal(await next(sandbox.channel), "up");
    const said = text(sandbox.stdout);
    assert.deepEqual(await sandbox.stop(START_MS_MAX), { kind: "stopped" });
    assert.equal(await said, "goodbye\n");
  });

  test("stopping it ends what does not want to end", async () => {
    const sandbox = await start(
      driver(),
      nodeRequest(`process.on("SIGTERM", () => {}); channel.write("up"); ${waitForEver}`),
    );
    assert.equal(await next(sandbox.channel), "up");
    assert.deepEqual(await sandbox.stop(20), { kind: "stopped" });
  });

  test("stopping it again answers the same end", async () => {
    const sandbox = await start(driver(), nodeRequest(waitForEver));
    const ends = await Promise.all([sandbox.stop(0), sandbox.stop(0), sandbox.stop(10)]);
    assert.deepEqual(
      [...ends, await sandbox.stop(0)],
      Array.from({ length: 4 }, () => ({ kind: "stopped" })),
    );
  });

  test("processes that its command leaves behind end with it", async () => {
    const sandbox = await start(driver(), shellRequest("sleep 1000 & echo started >&3; exit 0"));
    // The sleeping process holds the channel too: its end shows that nobody is left.
    assert.equal(await text(sandbox.channel), "started\n");
    assert.deepEqual(await sandbox.ended, { kind: "exited", exitCode: 0 });
  });

  test("an id can be used again after its end", async () => {
    const request = shellRequest("exit 0");
    await run(driver(), request);
    assert.deepEqual((await run(driver(), request)).end, { kind: "exited", exitCode: 0 });
  });
}

function surroundingsTests(driver: () => SandboxDriver): void {
  test("it gets the environment that was asked for and nothing of the platform's", async () => {
    process.env["KOINE_CONFORMANCE"] = "must not be seen inside";
    const { stdout } = await run(driver(), shellRequest("env", { environment: { GREETING: "hello = world" } }));
    delete process.env["KOINE_CONFORMANCE"];
    assert.match(stdout, /^GREETING=hello = world$/m);
    assert.doesNotMatch(stdout, /KOINE_CONFORMANCE/);
  });

  test("it has a home that it can write to", async () => {
    const { stdout } = await run(driver(), shellRequest(`echo kept > "$HOME/file" && cat "$TMPDIR/file"`));
    assert.equal(stdout, "kept\n");
  });

  test("it sees the mounts of its request, and starts in the folder it asked for", async () => {
    const source = await folderWith("file", "content");
    const request = shellRequest("cat file", { mounts: [{ source, target: "/code" }], cwd: "/code" });
    assert.equal((await run(driver(), request)).stdout, "content");
    await rm(source, { recursive: true });
  });

  test("what it writes to a writable mount stays, and belongs to the platform's user", async () => {
    const source = await folderWith("file", "content");
    const request = shellRequest("mkdir made && echo new > made/file && echo more >> file", {
      mounts: [{ source, target: "/code", writable: true }],
      cwd: "/code",
    });
    assert.deepEqual(await run(driver(), request), { end: { kind: "exited", exitCode: 0 }, stdout: "", stderr: "" });
    assert.equal(await readFile(join(source, "made/file"), "utf8"), "new\n");
    assert.equal(await readFile(join(source, "file"), "utf8"), "contentmore\n");
    assert.equal((await stat(join(source, "made/file"))).uid, process.getuid?.());
    await rm(source, { recursive: true });
  });
}

function abilityTests(driver: () => SandboxDriver): void {
  test("its memory is measured, and the peak is known after its end", async (context) => {
    const sandbox = await start(
      driver(),
      nodeRequest(`globalThis.kept = Buffer.alloc(${20 * MIB}, 1); channel.write("up");` + waitForEver),
    );
    await next(sandbox.channel);
    const memory = sandbox.memory();
    await sandbox.stop(0);
    if (memory === null) return context.skip("memory cannot be measured here");
    assert.ok(memory.currentBytes > 20 * MIB && memory.peakBytes >= memory.currentBytes);
    assert.ok((sandbox.memory()?.peakBytes ?? 0) >= memory.peakBytes);
  });

  test("code that is attached while it runs can be read", async (context) => {
    const source = await folderWith("file", "attached code");
    const program = `channel.on("data", (path) => channel.write(require("node:fs").readFileSync(String(path))));`;
    const sandbox = await start(driver(), nodeRequest(program, { attachable: true }));
    if (!isAttachable(sandbox)) {
      await sandbox.stop(0);
      return context.skip("this driver cannot attach here");
    }
    await sandbox.attach([{ source, target: "/code" }], {
      ...testLimits,
      memoryBytesMax: 200 * MIB,
      openFilesMax: 256,
    });
    const path = isPathMapped(sandbox) ? sandbox.toOutside("/code/file") : "/code/file";
    assert.equal(await ask(sandbox.channel, path), "attached code");
    await sandbox.stop(0);
    assert.equal(await readFile(join(source, "file"), "utf8"), "attached code");
    await assert.rejects(sandbox.attach([{ source, target: "/late" }], testLimits), { code: "sandbox-failed" });
    await rm(source, { recursive: true });
  });

  test("while frozen it does nothing, thawed it goes on", async (context) => {
    const [frozen, other] = await Promise.all([start(driver(), nodeRequest(echo)), start(driver(), nodeRequest(echo))]);
    if (!isFreezable(frozen)) {
      await Promise.all([frozen.stop(0), other.stop(0)]);
      return context.skip("this driver cannot freeze");
    }
    assert.equal(await ask(frozen.channel, "a"), "a");
    await frozen.freeze();
    let answered = false;
    const answer = ask(frozen.channel, "b").finally(() => {
      answered = true;
    });
    for (let round = 0; round < 20; round++) assert.equal(await ask(other.channel, "c"), "c");
    assert.equal(answered, false);
    await frozen.thaw();
    assert.equal(await answer, "b");
    await Promise.all([frozen.stop(0), other.stop(0)]);
  });

  test("frozen it can be stopped, politely or not", async () => {
    for (const graceMs of [0, START_MS_MAX]) {
      const sandbox = await start(driver(), nodeRequest(`channel.write("up"); ${waitForEver}`));
      await next(sandbox.channel);
      if (isFreezable(sandbox)) await sandbox.freeze();
      assert.deepEqual(await sandbox.stop(graceMs), { kind: "stopped" });
    }
  });
}

function driverTests(driver: () => SandboxDriver, open: () => Promise<SandboxDriver>): void {
  test("many are started at once, each with its own channel", async () => {
    const sandboxes = await Promise.all(Array.from({ length: 8 }, () => start(driver(), nodeRequest(echo))));
    const answers = await Promise.all(sandboxes.map((sandbox, index) => ask(sandbox.channel, `number ${index}`)));
    assert.deepEqual(
      answers,
      sandboxes.map((_, index) => `number ${index}`),
    );
    await Promise.all(sandboxes.map((sandbox) => sandbox.stop(0)));
  });

  test("a command that does not exist is an error of the start", async () => {
    const request = { ...shellRequest(""), command: ["/koine/missing"] };
    await assert.rejects(start(driver(), request), { code: "sandbox-failed" });
  });

  test("a variable that cannot be passed on is an error of the start", async () => {
    const request = shellRequest("env", { environment: { TRICK: "value\0--bind\0/\0/tmp" } });
    await assert.rejects(start(driver(), request), { code: "sandbox-failed" });
  });

  test("a start that is cancelled fails, before or in the middle", async () => {
    await assert.rejects(driver().create(nodeRequest(waitForEver), AbortSignal.abort()), { code: "sandbox-failed" });
    const controller = new AbortController();
    const starting = driver().create(nodeRequest(waitForEver), controller.signal);
    controller.abort();
    await assert.rejects(starting, { code: "sandbox-failed" });
  });

  test("a sweep ends nothing that this platform runs", async () => {
    const sandbox = await start(driver(), nodeRequest(echo));
    assert.equal(await driver().sweep(), 0);
    assert.equal(await ask(sandbox.channel, "still here"), "still here");
    await sandbox.stop(0);
  });

  test("inspecting says of each ability whether it holds, and else what to do", async () => {
    const facts = await driver().inspect();
    assert.ok(facts.length > 0);
    for (const fact of facts) assert.equal(fact.remedy === "", fact.holds, fact.ability);
  });

  test("closing the driver ends all its sandboxes", async () => {
    const second = await open();
    const sandboxes = await Promise.all([1, 2].map(() => start(second, nodeRequest(waitForEver))));
    await second.close();
    assert.deepEqual(
      await Promise.all(sandboxes.map((sandbox) => sandbox.ended)),
      Array.from({ length: 2 }, () => ({ kind: "stopped" })),
    );
  });
}
