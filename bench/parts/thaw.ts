import { setTimeout as sleep } from "node:timers/promises";
import type { Bench, PartResult } from "../bench.ts";
import type { Connection } from "../load/connection.ts";
import { cpuMsOf, treeOf } from "../measure/processes.ts";
import { median, percentile } from "../measure/statistics.ts";
import { duration, durations, times } from "../report/format.ts";
import type { MetricRow } from "../row.ts";
import { tickingJs } from "../targets/functions.ts";
import { type Koine, startKoine } from "../targets/koine.ts";

const INSTANCES = 20;
/** Idle for so long, and not frozen yet: as cold in the processor's caches as a frozen one. */
const IDLE_MS = 4_000;
const CPU_WINDOW_MS = 2_000;
const FROZEN_MS_MAX = 30_000;
const ADDED_MS_MAX = 1;

/** The first call of an instance that was frozen beside that of one that was only idle, and the processor time that timers inside use meanwhile. */
export async function thaw(bench: Bench): Promise<PartResult> {
  await bench.rest();
  await using koine = await startKoine({ sparesMax: 0 });
  const names = Array.from({ length: INSTANCES }, (_, index) => `ticking-${index}`);
  for (const name of names) await koine.deploy(name, tickingJs, { idleTimeoutMs: 600_000 });
  const connection = await koine.connect();
  const rounds = bench.quick ? 1 : 5;
  const idleMs: number[] = [];
  const frozenMs: number[] = [];
  const idleCpu: number[] = [];
  const frozenCpu: number[] = [];
  try {
    for (let round = 0; round <= rounds; round++) {
      bench.say(`thaw: ${INSTANCES} instances, ${round === 0 ? "to warm up" : `${round} of ${rounds}`}`);
      // The first calls of a process compile what later ones find.
      for (let count = 0; count < 5; count++) await callEach(koine, connection, names);
      await sleep(IDLE_MS - CPU_WINDOW_MS);
      const used = await cpuShare(koine);
      const idle = await callEach(koine, connection, names);
      await allFrozen(koine);
      const usedFrozen = await cpuShare(koine);
      const frozen = await callEach(koine, connection, names);
      if (round === 0) continue;
      idleMs.push(...idle);
      frozenMs.push(...frozen);
      idleCpu.push(used);
      frozenCpu.push(usedFrozen);
    }
  } finally {
    connection.close();
  }
  return { rows: [latencyRow(idleMs, frozenMs), cpuRow(idleCpu, frozenCpu)] };
}

async function callEach(koine: Koine, connection: Connection, names: readonly string[]): Promise<number[]> {
  const tookMs: number[] = [];
  for (const name of names) {
    const answer = await connection.call(koine.request(name));
    if (answer.status !== 200) throw new Error(`a call answered ${answer.status}: ${answer.body}`);
    tookMs.push(answer.totalMs);
  }
  return tookMs;
}

async function allFrozen(koine: Koine): Promise<void> {
  const deadlineMs = performance.now() + FROZEN_MS_MAX;
  for (;;) {
    const { instances } = await koine.status();
    if (instances.frozen >= INSTANCES) return;
    if (performance.now() > deadlineMs)
      throw new Error(`${instances.frozen} of ${INSTANCES} instances were frozen: ${JSON.stringify(instances)}`);
    await sleep(100);
  }
}

/** Milliseconds of processor time that all sandboxes together use in a second. */
async function cpuShare(koine: Koine): Promise<number> {
  const sandboxes = (): readonly number[] => treeOf(koine.pid).slice(1);
  const beforeMs = cpuMsOf(sandboxes());
  const begunMs = performance.now();
  await sleep(CPU_WINDOW_MS);
  const usedMs = cpuMsOf(sandboxes()) - beforeMs;
  return (usedMs / (performance.now() - begunMs)) * 1_000;
}

function latencyRow(idleMs: readonly number[], frozenMs: readonly number[]): MetricRow {
  const shares = (values: readonly number[]): { readonly p50: number; readonly p99: number } => ({
    p50: median(values),
    p99: percentile(values, 0.99),
  });
  const [idle, frozen] = [shares(idleMs), shares(frozenMs)];
  const addedMs = frozen.p50 - idle.p50;
  return {
    id: "thaw",
    metric: "First call of a frozen instance",
    ours: durations(frozen),
    reference: `one that was idle for ${IDLE_MS / 1_000} s ${durations(idle)}`,
    ratio: `p50 ${times(frozen.p50 / idle.p50)}, ${addedMs < 0 ? "nothing" : duration(addedMs)} added`,
    target: `< ${ADDED_MS_MAX} ms added`,
    met: addedMs < ADDED_MS_MAX,
    note: `${frozenMs.length} calls of ${INSTANCES} instances in turn`,
    figures: { idleMs, frozenMs },
  };
}

function cpuRow(idle: readonly number[], frozen: readonly number[]): MetricRow {
  const [idleMs, frozenMs] = [median(idle), median(frozen)];
  return {
    id: "thaw",
    metric: "Processor time of frozen instances with timers inside",
    ours: `${duration(frozenMs)} per second`,
    reference: `not frozen ${duration(idleMs)} per second`,
    ratio: times(frozenMs / idleMs),
    target: "none",
    met: frozenMs === 0,
    note: `${INSTANCES} instances together, each with a timer that is due every 10 ms; over ${CPU_WINDOW_MS / 1_000} s`,
    figures: { idleMsPerSecond: idle, frozenMsPerSecond: frozen },
  };
}
