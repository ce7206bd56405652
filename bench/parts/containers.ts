import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { openContainerDriver } from "../../src/sandbox/container/driver.ts";
import { importImage, startEngine, type TestEngine } from "../../src/sandbox/container/testing/engine.ts";
import type { SandboxDriver, SandboxRequest } from "../../src/sandbox/sandbox.ts";
import type { Bench, PartResult } from "../bench.ts";
import { median, percentile } from "../measure/statistics.ts";
import { durations, times } from "../report/format.ts";
import { type MetricRow, missingRow } from "../row.ts";

const IMAGE = "koine-bench/echo";
const MIB = 1024 * 1024;

/** From asking for a container of an image to the first byte that its program writes, beside `docker run` of the same, in turn. */
export async function containers(bench: Bench): Promise<PartResult> {
  const metric = "Start of an image's program";
  if (process.getuid?.() !== 0) {
    return { rows: [missingRow("C", metric, "p50 < 1×", "starting a container engine takes root")] };
  }
  const client = ["/usr/bin", "/usr/local/bin"]
    .map((folder) => join(folder, "docker"))
    .find((path) => existsSync(path));
  if (client === undefined) return { rows: [missingRow("C", metric, "p50 < 1×", "there is no docker client")] };
  await bench.rest();
  await using engine = await startEngine();
  await importImage(engine, { name: IMAGE, changes: ['CMD ["sh", "-c", "echo up; exec sleep 1000"]'] });
  const options = { address: engine.address, directory: join(engine.folder, "containers") };
  const ahead = await openContainerDriver({ ...options, tag: "ahead", aheadMax: 1 });
  const fresh = await openContainerDriver({ ...options, tag: "fresh", aheadMax: 0 });
  const samples = bench.quick ? 3 : 30;
  bench.say(`containers: ${samples} of each kind`);
  const taken: Record<"run" | "ahead" | "fresh", number[]> = { run: [], ahead: [], fresh: [] };
  try {
    for (let round = -1; round < samples; round++) {
      const run = await dockerRun(client, engine);
      const anew = await startOf(fresh, round);
      const waited = await startOf(ahead, round, () => waitingIn(engine));
      // The first round makes the container that waits for the second, and warms everything.
      if (round < 0) continue;
      taken.run.push(run);
      taken.fresh.push(anew);
      taken.ahead.push(waited);
    }
  } finally {
    await Promise.all([ahead.close(), fresh.close()]);
  }
  return {
    rows: [
      row({ id: "C1", metric: `${metric}, a container waits`, ours: taken.ahead, run: taken.run, p50Max: 0.1 }),
      row({ id: "C2", metric: `${metric}, none waits`, ours: taken.fresh, run: taken.run, p50Max: 1 }),
    ],
  };
}

function row(figures: {
  readonly id: string;
  readonly metric: string;
  readonly ours: readonly number[];
  readonly run: readonly number[];
  readonly p50Max: number;
}): MetricRow {
  const { id, metric, ours, run, p50Max } = figures;
  const ratio = median(ours) / median(run);
  const shares = (values: readonly number[]) => ({ p50: median(values), p99: percentile(values, 0.99) });
  return {
    id,
    metric,
    ours: durations(shares(ours)),
    reference: `docker run ${durations(shares(run))}`,
    ratio: `p50 ${times(ratio)}`,
    target: `p50 ≤ ${p50Max}×`,
    met: ratio <= p50Max,
    note: `${ours.length} of each in turn; network none, read-only root, no capabilities, memory limit`,
    figures: { oursMs: ours, dockerRunMs: run },
  };
}

async function dockerRun(client: string, { address }: TestEngine): Promise<number> {
  const settings = ["--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--init"];
  const limits = ["--memory=64m", "--memory-swap=64m", "--pids-limit=64"];
  const begunMs = performance.now();
  const child = spawn(client, ["--host", address, "run", "--rm", ...settings, ...limits, IMAGE, "echo", "up"], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const exited = once(child, "exit");
  await once(child.stdout, "data");
  const tookMs = performance.now() - begunMs;
  await exited;
  return tookMs;
}

async function startOf(driver: SandboxDriver, round: number, ready?: () => Promise<void>): Promise<number> {
  if (round >= 0) await ready?.();
  const begunMs = performance.now();
  const sandbox = await driver.create({ ...request, id: `round-${round + 1}` }, AbortSignal.timeout(30_000));
  await once(sandbox.stdout, "data");
  const tookMs = performance.now() - begunMs;
  await sandbox.stop(0);
  return tookMs;
}

const request: Omit<SandboxRequest, "id"> = {
  command: [],
  environment: {},
  mounts: [],
  limits: {
    memoryBytesMax: 64 * MIB,
    pidsMax: 64,
    cpuCores: null,
    tmpBytesMax: 16 * MIB,
    openFilesMax: 1_024,
    fileBytesMax: 16 * MIB,
  },
  network: "none",
  image: IMAGE,
};

/** Until the container that was started ahead has got to where it waits. */
async function waitingIn({ api }: TestEngine): Promise<void> {
  const signal = AbortSignal.timeout(30_000);
  for (;;) {
    const listed = (await api.json("GET", "/containers/json")) as readonly unknown[];
    if (listed.length > 0) break;
    await delay(20, undefined, { signal });
  }
  await delay(200);
}
