import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import type { Bench, PartResult } from "../bench.ts";
import type { Connection } from "../load/connection.ts";
import { median } from "../measure/statistics.ts";
import { durations, times } from "../report/format.ts";
import { busyJs, helloJs } from "../targets/functions.ts";
import type { MetricRow } from "../row.ts";
import type { Koine } from "../targets/koine.ts";
import { HELLO_SPEC } from "./throughput.ts";

const RATE = 200;
const BUSY_MS = 50;
const P99_MAX = 2;
const MIB = 1024 * 1024;

/** Those that take all they can get, by the part of the path that greedy.mjs knows them by. */
const greedy = {
  bomb: { name: "a fork bomb", spec: { timeoutMs: 1_000 } },
  memory: { name: "a memory bomb", spec: { memoryBytesMax: 128 * MIB } },
  output: { name: "a flood of output", spec: {} },
  disk: { name: "one that fills its /tmp", spec: { memoryBytesMax: 128 * MIB } },
  spin: { name: "one that spins until its timeout", spec: { timeoutMs: 1_000 } },
} as const;
const GREEDY_AT_A_TIME = 2;
const source = {
  "index.mjs": readFileSync(new URL("../../test/isolation/attacker/greedy.mjs", import.meta.url), "utf8"),
};

/** Row 10: a function's latency while others take all they can get, of the processor and of everything else, against running alone. */
export async function noisy(bench: Bench): Promise<PartResult> {
  const koine = await bench.koine();
  await koine.deploy("victim", helloJs, HELLO_SPEC);
  await koine.deploy("noisy", busyJs(BUSY_MS), { instanceConcurrency: 1, idleTimeoutMs: 600_000 });
  for (const [way, { spec }] of Object.entries(greedy))
    await koine.deploy(`greedy-${way}`, source, { instanceConcurrency: 1, ...spec });
  const neighbours = availableParallelism() * 2;
  const cases = [
    { path: "noisy", name: `${neighbours} instances that use all processor`, count: neighbours },
    ...Object.entries(greedy).map(([way, { name }]) => ({
      path: `greedy-${way}/${way}`,
      name: `${name}, ${GREEDY_AT_A_TIME} at a time`,
      count: GREEDY_AT_A_TIME,
    })),
  ];
  const alone: Figures[] = [];
  const disturbed = new Map<string, Figures[]>(cases.map(({ path }) => [path, []]));
  for (let round = 0; round <= bench.rounds.count; round++) {
    bench.say(`noisy: round ${round} of ${bench.rounds.count}`);
    const quiet = await victim(bench, koine);
    if (round > 0) alone.push(quiet);
    for (const { path, count } of cases) {
      const loud = await beside(koine, { path, count }, () => victim(bench, koine));
      if (round > 0) disturbed.get(path)?.push(loud);
      await koine.settled();
    }
  }
  return { rows: cases.map(({ path, name }) => rowOf(name, alone, disturbed.get(path) ?? [])) };
}

function rowOf(name: string, alone: readonly Figures[], disturbed: readonly Figures[]): MetricRow {
  const [ours, theirs] = [disturbed, alone].map((figures) => ({
    p50: median(figures.map(({ p50Ms }) => p50Ms)),
    p99: median(figures.map(({ p99Ms }) => p99Ms)),
  }));
  const found = (ours?.p99 ?? 0) / (theirs?.p99 ?? 1);
  return {
    id: "10",
    metric: `Noisy neighbour: ${name}`,
    ours: durations(ours ?? {}),
    reference: `alone ${durations(theirs ?? {})}`,
    ratio: `p99 ${times(found)}`,
    target: `p99 ≤ ${P99_MAX}×`,
    met: found <= P99_MAX,
    note: `open loop at ${RATE}/s`,
    figures: { alone, disturbed },
  };
}

interface Figures {
  readonly p50Ms: number;
  readonly p99Ms: number;
}

async function victim(bench: Bench, koine: Koine): Promise<Figures> {
  const { latency } = await bench.load.run({
    address: koine.address,
    request: koine.request("victim"),
    connections: 16,
    durationMs: bench.rounds.ms,
    ratePerSecond: RATE,
  });
  return { p50Ms: latency.percentileMs(0.5), p99Ms: latency.percentileMs(0.99) };
}

interface Noise {
  readonly path: string;
  readonly count: number;
}

/** Runs something while so many connections call a noisy function without pause. */
async function beside<Result>(koine: Koine, { path, count }: Noise, run: () => Promise<Result>): Promise<Result> {
  const connections = await Promise.all(Array.from({ length: count }, () => koine.connect()));
  const stop = new AbortController();
  const call = async (connection: Connection): Promise<void> => {
    while (!stop.signal.aborted) await connection.call(koine.request(path));
  };
  const calling = Promise.all(connections.map(call));
  try {
    return await run();
  } finally {
    stop.abort();
    await calling;
    for (const connection of connections) connection.close();
  }
}
