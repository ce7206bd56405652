import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { parseNetworkRules } from "../../core/network.ts";
import { next, run, sandboxConformance, start, testLimits } from "../conformance.ts";
import type { Executes, Freezable, Holds, Reachable, Sandbox, SandboxDriver, SandboxRequest } from "../sandbox.ts";
import { openContainerDriver } from "./driver.ts";
import { importImage, startEngine, type TestEngine } from "./testing/engine.ts";

type Able = Sandbox & Executes & Freezable & Holds & Reachable;

const MIB = 1024 * 1024;
let engine: TestEngine;
let image = "";
let driver: SandboxDriver;
let opened = 0;
let lastId = 0;

function open(more: { readonly aheadMax?: number; readonly tag?: string } = {}): Promise<SandboxDriver> {
  const { address, folder } = engine;
  const tag = `test${++opened}`;
  return openContainerDriver({ address, tag, directory: join(folder, "containers"), aheadMax: 0, ...more });
}

function request(command: readonly string[], more: Partial<SandboxRequest> = {}): SandboxRequest {
  const id = `own-${++lastId}`;
  return { id, command, environment: {}, mounts: [], limits: testLimits, network: "none", image, ...more };
}

const shell = (script: string, more: Partial<SandboxRequest> = {}): SandboxRequest =>
  request(["sh", "-c", script], more);
const begin = async (wanted: SandboxRequest, by = driver): Promise<Able> => (await start(by, wanted)) as Able;
const output = async (script: string): Promise<string> => (await run(driver, shell(script))).stdout;

before(async () => {
  engine = await startEngine();
  image = await importImage(engine, {
    name: "koine-test/programs",
    librariesOf: process.execPath,
    changes: ['CMD ["echo", "the image says this"]', "ENV FROM_IMAGE=yes", "VOLUME /var/volume"],
  });
  driver = await open();
});
after(async () => {
  await driver.close();
  await engine[Symbol.asyncDispose]();
});

sandboxConformance("container", () => open(), { image: () => image, homeIsReadOnly: true });

test("without a command the image's own runs, with its environment", async () => {
  assert.equal((await run(driver, request([]))).stdout, "the image says this\n");
  assert.equal(await output("echo $FROM_IMAGE"), "yes\n");
});

test("it has no capabilities, cannot get any, and system calls are filtered", async () => {
  const status = await output("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status");
  assert.deepEqual([...status.matchAll(/^Cap\w+:\s+0+$/gm)].length, 5, status);
  assert.match(status, /^NoNewPrivs:\s+1$/m);
  assert.match(status, /^Seccomp:\s+2$/m);
});

test("it can write to /tmp, /run and volumes only, and no more than it may", async () => {
  const script =
    "for f in / /etc /bin /home /dev/shm/.. ; do touch $f/x 2>/dev/null && echo wrote $f; done; touch /tmp/x /run/x /var/volume/x && echo kept; dd if=/dev/zero of=/tmp/big bs=1M count=64 2>/dev/null || echo full; dd if=/dev/zero of=/var/volume/big bs=1M count=64 2>/dev/null || echo full";
  assert.equal(await output(script.replace(" /dev/shm/..", "")), "kept\nfull\nfull\n");
});

test("with network none there is a loopback interface and nothing else", async () => {
  assert.equal(await output("ls /sys/class/net"), "lo\n");
});

test("with network egress it reaches what its list allows on the machine, and nothing else of it", async (context) => {
  const [allowed, other] = [createServer((socket) => socket.end("from the machine")), createServer()];
  for (const server of [allowed, other]) await once(server.listen(0, "127.0.0.1"), "listening");
  context.after(() => [allowed, other].map((server) => server.close()));
  const [port, otherPort] = [portOf(allowed), portOf(other)];
  const script = `nc 127.0.0.1 ${port} < /dev/null; echo; nc -w 2 127.0.0.1 ${otherPort} < /dev/null || echo refused; cat /etc/resolv.conf`;
  const allowNetwork = parseNetworkRules([`localhost:${port}`]);
  const { stdout } = await run(driver, shell(script, { network: "egress", allowNetwork }));
  assert.match(stdout, /^from the machine\nrefused\nnameserver 192\.0\.0\.1\n$/);
});

test("memory beyond its limit ends it, and the reason is told", async () => {
  const limits = { ...testLimits, memoryBytesMax: 32 * MIB };
  const { end } = await run(driver, shell("x=aaaaaaaa; while true; do x=$x$x; done", { limits }));
  assert.deepEqual(end, { kind: "out-of-memory" });
});

test("processes beyond its limit are refused, and the reason is told", async () => {
  const limits = { ...testLimits, pidsMax: 10 };
  const forks = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 100 & done";
  // Who ends in the same moment may be gone with his counters before they are read.
  const script = `mkfifo /tmp/f; sh -c "${forks}"; read -t 1 x <> /tmp/f; exit 1`;
  assert.deepEqual((await run(driver, shell(script, { limits }))).end, { kind: "too-many-processes" });
});

test("open files and file sizes are limited", async () => {
  const limits = { ...testLimits, openFilesMax: 123, fileBytesMax: MIB };
  const { stdout } = await run(driver, shell("ulimit -n; ulimit -f", { limits }));
  assert.equal(stdout, "123\n2048\n");
});

test("what listens on its loopback interface is reached from outside, whatever its network", async () => {
  const server = await begin(
    shell(`echo "hello from inside" > /tmp/index.html; exec httpd -f -p 127.0.0.1:8080 -h /tmp`),
  );
  const refused = server.connect(9_999, AbortSignal.timeout(5_000));
  await assert.rejects(refused, { code: "ECONNREFUSED" });
  assert.match(await askHttp(server, 8_080), /hello from inside/);
  await server.stop(0);
});

test("a program that is held finds what listens for it inside", async () => {
  const held = await begin(shell("wget -qO- http://127.0.0.1:9001/", { held: true }));
  await held.listen(9_001, (connection) => {
    connection.once("data", () => connection.end("HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nhere"));
  });
  const said = text(held.stdout);
  held.begin();
  assert.equal(await said, "here");
  assert.deepEqual(await held.ended, { kind: "exited", exitCode: 0 });
});

test("in a sandbox that is idle programs are executed, each with its streams, environment and exit code", async () => {
  const idle = await begin(request([], { idle: true }));
  const signal = AbortSignal.timeout(10_000);
  const execution = await idle.execute(
    { command: ["sh", "-c", "cat; echo $NAME $PWD >&2; exit 3"], environment: { NAME: "value" }, cwd: "/etc" },
    signal,
  );
  execution.stdin.end("through the program");
  const [stdout, stderr, end] = await Promise.all([text(execution.stdout), text(execution.stderr), execution.ended]);
  assert.deepEqual([stdout, stderr, end], ["through the program", "value /etc\n", { exitCode: 3, signal: null }]);
  const own = await idle.execute({ command: [], environment: {} }, signal);
  assert.equal(await text(own.stdout), "the image says this\n");
  await idle.stop(0);
});

test("a program that was executed can be killed, and the sandbox stays", async () => {
  const idle = await begin(request([], { idle: true }));
  const signal = AbortSignal.timeout(10_000);
  const execution = await idle.execute({ command: ["sh", "-c", "echo up; sleep 1000"], environment: {} }, signal);
  await next(execution.stdout);
  execution.kill();
  assert.deepEqual(await execution.ended, { exitCode: null, signal: "SIGKILL" });
  const other = await idle.execute({ command: ["echo", "still here"], environment: {} }, signal);
  assert.equal(await text(other.stdout), "still here\n");
  await idle.stop(0);
});

test("frozen it is found so in the engine", async () => {
  const sandbox = await begin(shell("echo up; exec sleep 1000"));
  await next(sandbox.stdout);
  await sandbox.freeze();
  assert.deepEqual(await states(), ["paused"]);
  await sandbox.thaw();
  assert.deepEqual(await states(), ["running"]);
  await sandbox.stop(0);
  assert.deepEqual(await states(), []);
});

test("an image of one program and nothing else can run", async () => {
  await importImage(engine, {
    name: "koine-test/bare",
    bare: true,
    programs: ["/bin/busybox"],
    changes: ['ENTRYPOINT ["/bin/busybox"]', 'CMD ["echo", "alone"]'],
  });
  const { stdout, stderr } = await run(driver, request([], { image: "koine-test/bare" }));
  assert.deepEqual([stdout, stderr], ["alone\n", ""]);
});

test("an image without a command, and a program of another architecture, are told apart", async () => {
  await importImage(engine, { name: "koine-test/silent", files: { "bin/strange": "\x7fELF not for this machine" } });
  const silent = { image: "koine-test/silent" };
  await assert.rejects(start(driver, request([], silent)), { code: "image-unusable", message: /ENTRYPOINT/ });
  const { end, stderr } = await run(driver, request(["strange"], silent));
  assert.deepEqual(end, { kind: "exited", exitCode: 126 });
  assert.match(stderr, /another architecture/);
});

test("an image that the engine does not have is an error that names it", async () => {
  const missing = start(driver, request([], { image: "koine-test/nowhere" }));
  await assert.rejects(missing, { code: "image-not-found", message: /koine-test\/nowhere/ });
});

test("a request like one before finds its container started, and nothing of the image has run in it", async () => {
  const ahead = await open({ aheadMax: 2 });
  const wanted = shell("cat /proc/uptime; exec sleep 1000", { environment: { NUMBER: "1" } });
  await (await begin(wanted, ahead)).stop(0);
  const again = await foundWaiting(ahead, wanted);
  assert.match(await next(again.stdout), /^\d/);
  const other = await begin({ ...wanted, id: "other", environment: { NUMBER: "2" } }, ahead);
  assert.match(await next(other.stdout), /^\d/);
  await Promise.all([again.stop(0), other.stop(0)]);
  await ahead.close();
  assert.deepEqual(await runningIds(), []);
});

test("what a killed platform left is ended by the sweep of the next, and nothing else", async () => {
  const { address, folder } = engine;
  const platform = spawn(process.execPath, [
    "--experimental-ffi",
    "--disable-warning=ExperimentalWarning",
    join(import.meta.dirname, "abandoned.fixture.ts"),
    address,
    "left",
    join(folder, "containers"),
    image,
  ]);
  await once(platform.stdout, "data");
  platform.kill("SIGKILL");
  const other = await begin(shell("exec sleep 1000"));
  assert.equal((await runningIds()).length, 2);
  const successor = await openContainerDriver({ address, tag: "left", directory: join(folder, "containers") });
  assert.equal((await runningIds()).length, 1);
  await other.stop(0);
  await successor.close();
});

test("no engine, and an engine that this user may not ask, are errors that say what to do", async () => {
  const nowhere = { tag: "none", directory: engine.folder, address: join(engine.folder, "nowhere.sock") };
  await assert.rejects(openContainerDriver(nowhere), {
    code: "container-engine-unavailable",
    message: /there is no socket/,
  });
  const notUnix = { ...nowhere, address: "tcp://127.0.0.1:2375" };
  await assert.rejects(openContainerDriver(notUnix), { code: "invalid-configuration" });
});

function portOf(server: Server): number {
  const address = server.address();
  assert.ok(address !== null && typeof address !== "string");
  return address.port;
}

async function askHttp(server: Able, port: number): Promise<string> {
  const signal = AbortSignal.timeout(10_000);
  for (;;) {
    try {
      const connection = await server.connect(port, signal);
      connection.write("GET /index.html HTTP/1.0\r\n\r\n");
      return await text(connection);
    } catch (thrown) {
      if (signal.aborted) throw thrown;
      await delay(10);
    }
  }
}

interface Listed {
  readonly Id: string;
  readonly State: string;
}

async function listed(): Promise<readonly Listed[]> {
  return (await engine.api.json("GET", "/containers/json?all=1")) as readonly Listed[];
}

async function states(): Promise<readonly string[]> {
  return (await listed()).map(({ State: state }) => state);
}

async function runningIds(): Promise<readonly string[]> {
  return (await listed()).map(({ Id: id }) => id);
}

/** A sandbox whose container was there before it was asked for. */
async function foundWaiting(by: SandboxDriver, wanted: SandboxRequest): Promise<Able> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const waiting = await runningIds();
    const sandbox = await begin({ ...wanted, id: `attempt-${attempt}` }, by);
    const before = new Set(waiting);
    const own = await next(
      await sandbox
        .execute({ command: ["hostname"], environment: {} }, AbortSignal.timeout(9_000))
        .then(({ stdout }) => stdout),
    );
    if ([...before].some((id) => id.startsWith(own.trim()))) return sandbox;
    await sandbox.stop(0);
    await delay(100);
  }
  throw new Error("no container was ever made ahead");
}
