import assert from "node:assert/strict";
import { once } from "node:events";
import { createHash, randomBytes } from "node:crypto";
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex, Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { KoineError } from "../core/errors.ts";
import {
  type Holds,
  isAttachable,
  isFreezable,
  isPathMapped,
  isReachable,
  type Mount,
  type Reachable,
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

/** What sets the sandboxes of one driver apart from those of others. */
export interface SandboxTraits {
  /** The image that is to be run; it has a shell, the usual programs, and what Node needs beside itself. */
  image?(): string;
  /** The home is the image's, and only /tmp can be written to. */
  readonly homeIsReadOnly?: boolean;
}

/** Where programs of drivers without channels are talked to. */
const WIRE_PORT = 7_000;

/** One driver and requests that suit it. */
class Kit {
  readonly #driver: () => SandboxDriver;
  readonly traits: SandboxTraits;

  constructor(driver: () => SandboxDriver, traits: SandboxTraits) {
    this.#driver = driver;
    this.traits = traits;
  }

  get driver(): SandboxDriver {
    return this.#driver();
  }

  /** A program of Node with a `channel`: its file descriptor 3, or a connection where images know no such thing. */
  node(program: string, more: Partial<SandboxRequest> = {}): SandboxRequest {
    const request = nodeRequest(program, more);
    if (this.traits.image === undefined) return request;
    const served = `const server = require("node:net").createServer((channel) => { server.close(); ${program} }).listen(${WIRE_PORT}, "127.0.0.1");`;
    return { ...request, image: this.traits.image(), command: [nodeMount.target, "-e", served] };
  }

  shell(script: string, more: Partial<SandboxRequest> = {}): SandboxRequest {
    const request = shellRequest(script, more);
    return this.traits.image === undefined ? request : { ...request, image: this.traits.image() };
  }

  start(request: SandboxRequest): Promise<Sandbox> {
    return start(this.driver, request);
  }

  run(request: SandboxRequest): ReturnType<typeof run> {
    return run(this.driver, request);
  }

  async channel(sandbox: Sandbox): Promise<Duplex> {
    if (this.traits.image === undefined) return sandbox.channel;
    assert.ok(isReachable(sandbox));
    const signal = AbortSignal.timeout(START_MS_MAX);
    for (;;) {
      try {
        return await sandbox.connect(WIRE_PORT, signal);
      } catch (thrown) {
        if (signal.aborted || !(thrown instanceof Error && "code" in thrown && thrown.code === "ECONNREFUSED"))
          throw thrown;
        await delay(5);
      }
    }
  }
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
export function sandboxConformance(name: string, open: () => Promise<SandboxDriver>, traits: SandboxTraits = {}): void {
  describe(`a sandbox of the driver '${name}'`, () => {
    let driver: SandboxDriver;
    before(async () => {
      driver = await open();
    });
    after(() => driver.close());

    const kit = new Kit(() => driver, traits);
    channelTests(kit);
    endTests(kit);
    surroundingsTests(kit);
    networkTests(kit);
    abilityTests(kit);
    reachTests(kit);
    driverTests(kit, open);
  });
}

function channelTests(kit: Kit): void {
  test("its channel carries bytes in both directions and holds back who writes too fast", async () => {
    const sandbox = await kit.start(kit.node(echo));
    const channel = await kit.channel(sandbox);
    const sent = randomBytes(8 * MIB);
    let heldBack = false;
    const writing = (async () => {
      for (let at = 0; at < sent.length; at += 65_536) {
        if (channel.write(sent.subarray(at, at + 65_536))) continue;
        heldBack = true;
        await new Promise((resolve) => channel.once("drain", resolve));
      }
    })();
    const hash = createHash("sha256");
    let count = 0;
    for await (const chunk of channel.iterator({ destroyOnReturn: false })) {
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
    const sandbox = await kit.start(kit.node(`channel.end("last words");`));
    assert.equal(await text(await kit.channel(sandbox)), "last words");
    await sandbox.ended;
  });

  test("its stdout and stderr are apart", async () => {
    const { stdout, stderr } = await kit.run(kit.shell("echo to stdout; echo to stderr >&2"));
    assert.deepEqual({ stdout, stderr }, { stdout: "to stdout\n", stderr: "to stderr\n" });
  });
}

function endTests(kit: Kit): void {
  test("its exit code is told", async () => {
    assert.deepEqual((await kit.run(kit.shell("exit 7"))).end, { kind: "exited", exitCode: 7 });
  });

  test("the signal that ended it is told", async () => {
    const { end } = await kit.run(kit.shell("kill -KILL $$"));
    assert.deepEqual(end, { kind: "killed", signal: "SIGKILL" });
  });

  test("stopping it with grace lets it say goodbye", async () => {
    const program = `process.on("SIGTERM", () => { console.log("goodbye"); process.exit(); }); channel.write("up"); ${waitForEver}`;
    const sandbox = await kit.start(kit.node(program));
    assert.equal(await next(await kit.channel(sandbox)), "up");
    const said = text(sandbox.stdout);
    assert.deepEqual(await sandbox.stop(START_MS_MAX), { kind: "stopped" });
    assert.equal(await said, "goodbye\n");
  });

  test("stopping it ends what does not want to end", async () => {
    const sandbox = await kit.start(kit.node(`process.on("SIGTERM", () => {}); channel.write("up"); ${waitForEver}`));
    assert.equal(await next(await kit.channel(sandbox)), "up");
    assert.deepEqual(await sandbox.stop(20), { kind: "stopped" });
  });

  test("stopping it again answers the same end", async () => {
    const sandbox = await kit.start(kit.node(waitForEver));
    const ends = await Promise.all([sandbox.stop(0), sandbox.stop(0), sandbox.stop(10)]);
    assert.deepEqual(
      [...ends, await sandbox.stop(0)],
      Array.from({ length: 4 }, () => ({ kind: "stopped" })),
    );
  });

  test("processes that its command leaves behind end with it", async () => {
    const sandbox = await kit.start(kit.shell("sleep 1000 & echo started; exit 0"));
    // The sleeping process holds the output too: its end shows that nobody is left.
    assert.equal(await text(sandbox.stdout), "started\n");
    assert.deepEqual(await sandbox.ended, { kind: "exited", exitCode: 0 });
  });

  test("an id can be used again after its end", async () => {
    const request = kit.shell("exit 0");
    await kit.run(request);
    assert.deepEqual((await kit.run(request)).end, { kind: "exited", exitCode: 0 });
  });
}

function surroundingsTests(kit: Kit): void {
  test("it gets the environment that was asked for and nothing of the platform's", async () => {
    process.env["KOINE_CONFORMANCE"] = "must not be seen inside";
    const { stdout } = await kit.run(kit.shell("env", { environment: { GREETING: "hello = world" } }));
    delete process.env["KOINE_CONFORMANCE"];
    assert.match(stdout, /^GREETING=hello = world$/m);
    assert.doesNotMatch(stdout, /KOINE_CONFORMANCE/);
  });

  test("it has a home that it can write to", async (context) => {
    if (kit.traits.homeIsReadOnly === true) {
      const { stdout } = await kit.run(kit.shell(`echo kept > "$TMPDIR/file" && cat /tmp/file`));
      assert.equal(stdout, "kept\n");
      return context.skip("its home is the image's; it has a /tmp that it can write to");
    }
    const { stdout } = await kit.run(kit.shell(`echo kept > "$HOME/file" && cat "$TMPDIR/file"`));
    assert.equal(stdout, "kept\n");
  });

  test("it sees the mounts of its request, and starts in the folder it asked for", async () => {
    const source = await folderWith("file", "content");
    const request = kit.shell("cat file", { mounts: [{ source, target: "/code" }], cwd: "/code" });
    assert.equal((await kit.run(request)).stdout, "content");
    await rm(source, { recursive: true });
  });

  test("what it writes to a writable mount stays, and belongs to the platform's user", async () => {
    const source = await folderWith("file", "content");
    const request = kit.shell("mkdir made && echo new > made/file && echo more >> file", {
      mounts: [{ source, target: "/code", writable: true }],
      cwd: "/code",
    });
    assert.deepEqual(await kit.run(request), { end: { kind: "exited", exitCode: 0 }, stdout: "", stderr: "" });
    assert.equal(await readFile(join(source, "made/file"), "utf8"), "new\n");
    assert.equal(await readFile(join(source, "file"), "utf8"), "contentmore\n");
    assert.equal((await stat(join(source, "made/file"))).uid, process.getuid?.());
    await rm(source, { recursive: true });
  });
}

function abilityTests(kit: Kit): void {
  test("its memory is measured, and the peak is known after its end", async (context) => {
    const sandbox = await kit.start(
      kit.node(`globalThis.kept = Buffer.alloc(${20 * MIB}, 1); channel.write("up");` + waitForEver),
    );
    await next(await kit.channel(sandbox));
    const memory = sandbox.memory();
    await sandbox.stop(0);
    if (memory === null) return context.skip("memory cannot be measured here");
    assert.ok(memory.currentBytes > 20 * MIB && memory.peakBytes >= memory.currentBytes);
    assert.ok((sandbox.memory()?.peakBytes ?? 0) >= memory.peakBytes);
  });

  test("code that is attached while it runs can be read", async (context) => {
    const source = await folderWith("file", "attached code");
    const program = `channel.on("data", (path) => channel.write(require("node:fs").readFileSync(String(path))));`;
    const sandbox = await kit.start(kit.node(program, { attachable: true }));
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
    assert.equal(await ask(await kit.channel(sandbox), path), "attached code");
    await sandbox.stop(0);
    assert.equal(await readFile(join(source, "file"), "utf8"), "attached code");
    await assert.rejects(sandbox.attach([{ source, target: "/late" }], testLimits), { code: "sandbox-failed" });
    await rm(source, { recursive: true });
  });

  test("while frozen it does nothing, thawed it goes on", async (context) => {
    const [frozen, other] = await Promise.all([kit.start(kit.node(echo)), kit.start(kit.node(echo))]);
    if (!isFreezable(frozen)) {
      await Promise.all([frozen.stop(0), other.stop(0)]);
      return context.skip("this driver cannot freeze");
    }
    const [toFrozen, toOther] = await Promise.all([kit.channel(frozen), kit.channel(other)]);
    assert.equal(await ask(toFrozen, "a"), "a");
    await frozen.freeze();
    let answered = false;
    const answer = ask(toFrozen, "b").finally(() => {
      answered = true;
    });
    for (let round = 0; round < 20; round++) assert.equal(await ask(toOther, "c"), "c");
    assert.equal(answered, false);
    await frozen.thaw();
    assert.equal(await answer, "b");
    await Promise.all([frozen.stop(0), other.stop(0)]);
  });

  test("frozen it can be stopped, politely or not", async () => {
    for (const graceMs of [0, START_MS_MAX]) {
      const sandbox = await kit.start(kit.node(`channel.write("up"); ${waitForEver}`));
      await next(await kit.channel(sandbox));
      if (isFreezable(sandbox)) await sandbox.freeze();
      assert.deepEqual(await sandbox.stop(graceMs), { kind: "stopped" });
    }
  });
}

/** Ports inside, from outside. */
function reachTests(kit: Kit): void {
  const listening = `require("node:net").createServer((socket) => socket.pipe(socket)).listen(PORT, "127.0.0.1", () => channel.write("on"));`;

  test("what listens inside is reached, and a port on which nobody listens refuses", async (context) => {
    const port = kit.driver.sharesNetwork === true ? await freePort() : 8_080;
    const sandbox = await kit.start(kit.node(listening.replace("PORT", String(port))));
    if (!isReachable(sandbox) || !(await canBeReached(sandbox))) return context.skip("its ports cannot be reached");
    await next(await kit.channel(sandbox));
    const signal = AbortSignal.timeout(START_MS_MAX);
    const connections = await Promise.all([1, 2, 3].map(() => sandbox.connect(port, signal)));
    for (const [index, connection] of connections.entries())
      assert.equal(await ask(connection, `hello ${index}`), `hello ${index}`);
    const unused = kit.driver.sharesNetwork === true ? await freePort() : 8_081;
    await assert.rejects(sandbox.connect(unused, signal), { code: "ECONNREFUSED" });
    await assert.rejects(sandbox.connect(port, AbortSignal.abort(new Error("enough"))), { message: "enough" });
    await sandbox.stop(0);
    for (const connection of connections) if (!connection.destroyed) await once(connection, "close");
    await assert.rejects(sandbox.connect(port, signal));
  });

  test("a port that is listened on for it is reached from inside, and not from elsewhere", async (context) => {
    const sandbox = await kit.start(kit.node(waitForEver));
    if (!isReachable(sandbox) || !(await canBeReached(sandbox))) return context.skip("its ports cannot be reached");
    const port = await sandbox.listen(0, (connection) => connection.pipe(connection));
    const connection = await sandbox.connect(port.port, AbortSignal.timeout(START_MS_MAX));
    assert.equal(await ask(connection, "around"), "around");
    if (kit.driver.sharesNetwork !== true) {
      const { connect } = await import("node:net");
      const outside = connect(port.port, "127.0.0.1");
      const [error] = (await once(outside, "error")) as [NodeJS.ErrnoException];
      assert.equal(error.code, "ECONNREFUSED");
    }
    await port[Symbol.asyncDispose]();
    await assert.rejects(sandbox.connect(port.port, AbortSignal.timeout(START_MS_MAX)), { code: "ECONNREFUSED" });
    await sandbox.stop(0);
  });

  test("a command that is held begins when it is told, and finds what was put up for it", async (context) => {
    const port = kit.driver.sharesNetwork === true ? await freePort() : 9_001;
    const script = `connect(${port}, "127.0.0.1").on("error", () => process.exit(3)).on("close", () => process.exit(0));`;
    const program = `require("node:net").${script}`;
    const request = { ...kit.shell(""), mounts: [nodeMount], command: [nodeMount.target, "-e", program], held: true };
    const sandbox = await kit.start(request);
    if (!isReachable(sandbox) || !("begin" in sandbox) || !(await canBeReached(sandbox)))
      return context.skip("its command cannot be held");
    await using _listening = await sandbox.listen(port, (connection) => connection.end());
    (sandbox as Sandbox & Holds).begin();
    assert.deepEqual(await sandbox.ended, { kind: "exited", exitCode: 0 });
  });
}

/** An ordinary user without namespaces of its own may not enter those of its sandboxes. */
async function canBeReached(sandbox: Sandbox & Reachable): Promise<boolean> {
  try {
    await using _port = await sandbox.listen(0, () => {});
    return true;
  } catch (thrown) {
    if (!(thrown instanceof KoineError) || thrown.code !== "not-supported") throw thrown;
    await sandbox.stop(0);
    return false;
  }
}

/** Who reaches what outside is each driver's to test; that the machine's loopback is not the sandbox's is common to all. */
function networkTests(kit: Kit): void {
  const client = (port: number): string => `const { connect, createServer } = require("node:net");
    const said = (port) => new Promise((resolve) => connect(port, "127.0.0.1").on("connect", () => resolve("reached")).on("error", (error) => resolve(error.code)));
    const own = createServer().listen(0, "127.0.0.1", async () => { console.log(await said(${port}), await said(own.address().port)); process.exit(); });`;

  for (const network of ["none", "egress"] as const) {
    test(`with the network mode '${network}' its loopback is its own, and the machine's is not reached`, async (context) => {
      const { driver } = kit;
      if (driver.sharesNetwork === true || driver.networks?.[network].had === false)
        return context.skip("the mode is not to be had here");
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
      const address = server.address();
      const port = typeof address === "object" && address !== null ? address.port : 0;
      const request = {
        ...kit.shell("", { network }),
        mounts: [nodeMount],
        command: [nodeMount.target, "-e", client(port)],
      };
      const { stdout, stderr } = await kit.run(request);
      server.close();
      assert.equal(stdout, "ECONNREFUSED reached\n", stderr);
    });
  }
}

function freePort(): Promise<number> {
  const server = createServer();
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}

function driverTests(kit: Kit, open: () => Promise<SandboxDriver>): void {
  test("many are started at once, each with its own channel", async () => {
    const sandboxes = await Promise.all(Array.from({ length: 8 }, () => kit.start(kit.node(echo))));
    const answers = await Promise.all(
      sandboxes.map(async (sandbox, index) => ask(await kit.channel(sandbox), `number ${index}`)),
    );
    assert.deepEqual(
      answers,
      sandboxes.map((_, index) => `number ${index}`),
    );
    await Promise.all(sandboxes.map((sandbox) => sandbox.stop(0)));
  });

  test("a command that does not exist is an error of the start", async () => {
    const request = { ...kit.shell(""), command: ["/koine/missing"] };
    await assert.rejects(kit.start(request), { code: "sandbox-failed" });
  });

  test("a variable that cannot be passed on is an error of the start", async () => {
    const request = kit.shell("env", { environment: { TRICK: "value\0--bind\0/\0/tmp" } });
    await assert.rejects(kit.start(request), { code: "sandbox-failed" });
  });

  test("a start that is cancelled fails, before or in the middle", async () => {
    await assert.rejects(kit.driver.create(kit.node(waitForEver), AbortSignal.abort()), { code: "sandbox-failed" });
    const controller = new AbortController();
    const starting = kit.driver.create(kit.node(waitForEver), controller.signal);
    controller.abort();
    await assert.rejects(starting, { code: "sandbox-failed" });
  });

  test("a sweep ends nothing that this platform runs", async () => {
    const sandbox = await kit.start(kit.node(echo));
    const channel = await kit.channel(sandbox);
    assert.equal(await kit.driver.sweep(), 0);
    assert.equal(await ask(channel, "still here"), "still here");
    await sandbox.stop(0);
  });

  test("inspecting says of each ability whether it holds, and else what to do", async () => {
    const facts = await kit.driver.inspect();
    assert.ok(facts.length > 0);
    for (const fact of facts) assert.equal(fact.remedy === "", fact.holds, fact.ability);
  });

  test("closing the driver ends all its sandboxes", async () => {
    const second = await open();
    const sandboxes = await Promise.all([1, 2].map(() => start(second, kit.node(waitForEver))));
    await second.close();
    assert.deepEqual(
      await Promise.all(sandboxes.map((sandbox) => sandbox.ended)),
      Array.from({ length: 2 }, () => ({ kind: "stopped" })),
    );
  });
}
