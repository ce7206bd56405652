import { type ChildProcess, spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import type { Bench, PartResult } from "../bench.ts";
import { memoryBytesOf, treeOf } from "../measure/processes.ts";
import { bytes, times } from "../report/format.ts";
import type { MetricRow } from "../row.ts";
import { holdingJs } from "../targets/functions.ts";
import { freePort } from "../targets/server.ts";
import { startKoine } from "../targets/koine.ts";

const INSTANCES = 8;
const INSTANCE_RATIO_MAX = 1.2;
const FUNCTION_BYTES_MAX = 1_024;
const QUIET_MS = 3_000;

/** Row 5: what a warm instance and what a registered function cost. */
export async function memory(bench: Bench): Promise<PartResult> {
  await bench.rest();
  return { rows: [await perInstance(bench), await perFunction(bench)] };
}

/** Instances and bare processes side by side at the same time, so that both share the pages of Node's binary alike. */
async function perInstance(bench: Bench): Promise<MetricRow> {
  bench.say("memory: warm instances");
  await using koine = await startKoine({ sparesMax: 0 });
  await koine.deploy("held", holdingJs(300), { instanceConcurrency: 1, idleTimeoutMs: 600_000 });
  const connections = await Promise.all(Array.from({ length: INSTANCES }, () => koine.connect()));
  const bare = Array.from({ length: INSTANCES }, idleNode);
  try {
    for (let round = 0; round < 3; round++)
      await Promise.all(connections.map((connection) => connection.call(koine.request("held"))));
    await sleep(QUIET_MS);
    const { instances } = await koine.status();
    const running = instances.idle + instances.frozen + instances.busy;
    const ours = memoryBytesOf(treeOf(koine.pid).slice(1)) / running;
    const theirs = memoryBytesOf(bare.map(({ pid }) => pid ?? 0)) / INSTANCES;
    return {
      id: "5",
      metric: "Memory of a warm Node instance, its sandbox included",
      ours: bytes(ours),
      reference: `idle node -e ${bytes(theirs)}`,
      ratio: times(ours / theirs),
      target: `≤ ${INSTANCE_RATIO_MAX}×`,
      met: ours / theirs <= INSTANCE_RATIO_MAX,
      note: `proportional share (PSS), mean of ${running} that had served 3 calls and were idle for ${QUIET_MS / 1000} s`,
      figures: { oursBytes: ours, bareBytes: theirs },
    };
  } finally {
    for (const connection of connections) connection.close();
    for (const child of bare) child.kill();
  }
}

function idleNode(): ChildProcess {
  return spawn(process.execPath, ["-e", "setInterval(() => {}, 1e9)"], { stdio: "ignore" });
}

/** Growth of the platform's heap, after collecting garbage, from some functions to many. */
async function perFunction(bench: Bench): Promise<MetricRow> {
  const count = bench.quick ? 3_000 : 20_000;
  bench.say(`memory: ${count} registered functions`);
  const port = await freePort();
  await using koine = await startKoine({ environment: { NODE_OPTIONS: `--inspect=127.0.0.1:${port}` } });
  await koine.settled();
  const before = await heapBytes(port);
  const residentBefore = memoryBytesOf([koine.pid]);
  await koine.deployMany("idle", count);
  await sleep(QUIET_MS);
  const grown = (await heapBytes(port)) - before;
  const resident = memoryBytesOf([koine.pid]) - residentBefore;
  const each = grown / count;
  return {
    id: "5",
    metric: "Memory of a registered idle function",
    ours: bytes(each),
    reference: "–",
    ratio: "–",
    target: `≤ ${bytes(FUNCTION_BYTES_MAX)}`,
    met: each <= FUNCTION_BYTES_MAX,
    note: `growth of the main heap with ${count} functions, garbage collected; the whole process grew by ${bytes(resident)}`,
    figures: { eachBytes: each, grownBytes: grown, residentBytes: resident, functions: count },
  };
}

/** Bytes that live in the main thread's heap and in its buffers, after a full collection, asked over the inspector. */
async function heapBytes(port: number): Promise<number> {
  const targets = (await (await fetch(`http://127.0.0.1:${port}/json`)).json()) as { webSocketDebuggerUrl: string }[];
  const socket = new WebSocket(targets[0]?.webSocketDebuggerUrl ?? "");
  await new Promise((resolve, reject) => {
    socket.addEventListener("open", resolve, { once: true });
    socket.addEventListener("error", () => reject(new Error("the platform's inspector does not answer")), {
      once: true,
    });
  });
  const ask = (id: number, method: string): Promise<unknown> =>
    new Promise((resolve) => {
      const heard = ({ data }: MessageEvent): void => {
        const answer = JSON.parse(String(data)) as { id?: number; result?: unknown };
        if (answer.id !== id) return;
        socket.removeEventListener("message", heard);
        resolve(answer.result);
      };
      socket.addEventListener("message", heard);
      socket.send(JSON.stringify({ id, method }));
    });
  await ask(1, "HeapProfiler.enable");
  await ask(2, "HeapProfiler.collectGarbage");
  await ask(3, "HeapProfiler.collectGarbage");
  const usage = (await ask(4, "Runtime.getHeapUsage")) as { usedSize: number; backingStorageSize?: number };
  socket.close();
  return usage.usedSize + (usage.backingStorageSize ?? 0);
}
