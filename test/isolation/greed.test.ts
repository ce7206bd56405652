import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { after, before, test, type TestContext } from "node:test";
import { limits } from "../../src/core/limits.ts";
import { type Answer, call, deploy, errorOf, idOf, logsOf, manage } from "../system/api.ts";
import { type RunningPlatform, startPlatform } from "../system/platform.ts";

/** Whoever takes all it can get is stopped with the right reason; who lives next door is answered as ever. */
let platform: RunningPlatform;

const MIB = 1024 * 1024;
const source = readFileSync(join(import.meta.dirname, "attacker/greedy.mjs"), "utf8");
const GREEDY_PYTHON = `
import os, threading, time
def handler(event, context):
    if event["way"] == "threads":
        try:
            for count in range(5000): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        except RuntimeError:
            os._exit(1)
    for count in range(2_000_000):
        os.close(os.open(f"/tmp/{count}", os.O_CREAT))
    return "not stopped"
`;

before(async () => {
  platform = await startPlatform({ sandbox: "process" });
  await deploy(platform, "victim", `let calls = 0; export default () => new Response(String(++calls));`);
  const deployed = Object.entries({
    forks: {},
    bomb: { timeoutMs: 2_000 },
    memory: { memoryBytesMax: 128 * MIB },
    disk: { memoryBytesMax: 768 * MIB },
    "disk-in-memory": { memoryBytesMax: 96 * MIB },
    "shared-memory": {},
    descriptors: {},
    output: {},
    spin: { timeoutMs: 1_000, cpu: 0.5 },
    "huge-answer": { timeoutMs: 120_000 },
    "slow-answer": { timeoutMs: 1_000 },
  }).map(async ([name, spec]) => {
    const { cpu, ...rest } = { cpu: null, ...spec };
    const share = cpu === null ? {} : { cpuCores: cpu };
    await deploy(platform, name, { "index.mjs": source }, { spec: { ...rest, ...share } });
  });
  await Promise.all(deployed);
  const python = { runtime: "python3", handler: "app.handler", memoryBytesMax: 64 * MIB, timeoutMs: 30_000 };
  await deploy(platform, "greedy-python", { "app.py": GREEDY_PYTHON }, { spec: python });
  await call(platform, "victim");
});
after(() => platform?.stop());

/** Calls the victim without pause while something happens; every call must succeed, in the one instance it has had all along. */
async function besideVictim<Result>(context: TestContext, what: Promise<Result>): Promise<Result> {
  const over = new AbortController();
  const tookMs: number[] = [];
  const callers = Array.from({ length: 2 }, async () => {
    do {
      const begunMs = performance.now();
      const answer = await call(platform, "victim");
      tookMs.push(performance.now() - begunMs);
      assert.equal(answer.status, 200, answer.text);
      assert.ok(Number(answer.text) > 0);
    } while (!over.signal.aborted);
  });
  const settled = what.finally(() => over.abort());
  const [result] = await Promise.all([settled, ...callers]);
  const sorted = tookMs.toSorted((one, other) => one - other);
  context.diagnostic(
    `the victim's ${sorted.length} calls: median ${sorted[sorted.length >> 1]?.toFixed(1)} ms, slowest ${sorted.at(-1)?.toFixed(1)} ms`,
  );
  return result;
}

const greedy = (name: string, way: string): Promise<Answer> => call(platform, `${name}/${way}`);
const greedyPython = (way: string): Promise<Answer> =>
  manage(platform, "POST", "/v1/namespaces/default/functions/greedy-python/invoke", { way });

test("one that forks without end is ended for its processes", async (context) => {
  const answer = await besideVictim(context, greedy("forks", "forks"));
  assert.match(errorOf(answer, "too-many-processes").message, new RegExp(`limit of ${limits.sandboxPidsMax}`));
});

test("without a sandbox nothing stops the same", async () => {
  await using unisolated = await startPlatform({ sandbox: "none" });
  await deploy(unisolated, "greedy", { "index.mjs": source }, { spec: { memoryBytesMax: 96 * MIB } });
  assert.equal((await call(unisolated, "greedy/someMemory")).text, "192 MiB");
  assert.equal((await call(unisolated, "greedy/forks")).text, "400 processes");
  await deploy(platform, "greedy", { "index.mjs": source }, { spec: { memoryBytesMax: 96 * MIB } });
  errorOf(await call(platform, "greedy/someMemory"), "out-of-memory");
  errorOf(await call(platform, "greedy/forks"), "too-many-processes");
});

test("a fork bomb stays within its limit until its call's time is over", async (context) => {
  const answer = await besideVictim(context, greedy("bomb", "bomb"));
  assert.match(errorOf(answer).code, /function-timed-out|too-many-processes/);
});

test("one that starts thousands of threads is ended for them", async (context) => {
  errorOf(await besideVictim(context, greedyPython("threads")), "too-many-processes");
});

test("a memory bomb is ended for its memory", async (context) => {
  errorOf(await besideVictim(context, greedy("memory", "memory")), "out-of-memory");
});

test("one that fills its /tmp is told that it is full, at its own limit", async (context) => {
  const answer = await besideVictim(context, greedy("disk", "disk"));
  const [code, mib] = answer.text.split(" ");
  // The one file that is written may be as large as /tmp.
  assert.match(String(code), /ENOSPC|EFBIG/, answer.text);
  assert.ok(Number(mib) * MIB <= limits.sandboxTmpBytesMax, answer.text);
  const shared = await besideVictim(context, greedy("shared-memory", "sharedMemory"));
  assert.match(shared.text, /^ENOSPC (?:[1-5]?[0-9]|6[0-4])$/);
});

test("files in /tmp count as memory: more of them than that ends their function", async (context) => {
  errorOf(await besideVictim(context, greedy("disk-in-memory", "disk")), "out-of-memory");
});

test("one that makes empty files without end is ended for the memory that they take", async (context) => {
  const answer = await besideVictim(context, greedyPython("inodes"));
  assert.match(errorOf(answer).message, /memory|No space left/);
});

test("one that leaks descriptors is told so at its own limit", async (context) => {
  const answer = await besideVictim(context, greedy("descriptors", "descriptors"));
  const [code, count] = answer.text.split(" ");
  assert.equal(code, "EMFILE");
  assert.ok(Number(count) < limits.sandboxOpenFilesMax);
});

test("a flood of output is cut, with a notice, and its function goes on", async (context) => {
  const answer = await besideVictim(context, greedy("output", "output"));
  assert.equal(answer.text, "printed");
  const lines = await logsOf(platform, idOf(answer));
  const bytes = lines.reduce((sum, { line }) => sum + Buffer.byteLength(line), 0);
  assert.ok(bytes < limits.logBytesPerInvocationMax * 1.1, `${bytes} bytes`);
  assert.ok(lines.some(({ stream, line }) => stream === "platform" && /bytes of output were dropped/.test(line)));
});

test("those who spin are ended at their time, as many as they are", async (context) => {
  const spinning = Array.from({ length: 4 }, () => greedy("spin", "spin"));
  for (const answer of await besideVictim(context, Promise.all(spinning))) errorOf(answer, "function-timed-out");
});

test("an answer of any size passes without being kept, and those that nobody reads hold up nobody else", async (context) => {
  const before = residentBytes();
  const whole = besideVictim(context, greedy("huge-answer", "hugeAnswer"));
  assert.equal((await whole).text.length, 96 * MIB);
  const { hostname, port } = new URL(platform.url);
  const unread = Array.from({ length: 4 }, () => {
    const socket = connect({ host: hostname, port: Number(port) }).on("error", () => {});
    socket.pause();
    socket.write(`GET /fn/huge-answer/hugeAnswer HTTP/1.1\r\nHost: ${hostname}:${port}\r\n\r\n`);
    return socket;
  });
  // As long as those four are stuck, another call of the same function is answered.
  assert.equal((await besideVictim(context, greedy("huge-answer", "descriptors"))).status, 200);
  assert.ok(residentBytes() - before < 160 * MIB, `${(residentBytes() - before) / MIB} MiB more`);
  for (const socket of unread) socket.destroy();
});

test("an answer that comes byte by byte ends with its call's time", async (context) => {
  const answer = await besideVictim(context, greedy("slow-answer", "slowAnswer"));
  assert.equal(answer.complete, false);
  assert.match(answer.text, /^\.+$/);
});

function residentBytes(): number {
  const [, kib = "0"] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${platform.pid}/status`, "utf8")) ?? [];
  return Number(kib) * 1024;
}
