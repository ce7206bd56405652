import { availableParallelism } from "node:os";
import type { Bench, PartResult } from "../bench.ts";
import type { Connection } from "../load/connection.ts";
import { median } from "../measure/statistics.ts";
import { durations, times } from "../report/format.ts";
import { busyJs, helloJs } from "../targets/functions.ts";
import type { Koine } from "../targets/koine.ts";
import { HELLO_SPEC } from "./throughput.ts";

const RATE = 200;
const BUSY_MS = 50;
const P99_MAX = 2;

/** Row 10: a function's latency while another one takes all the processor it can get, against running alone. */
export async function noisy(bench: Bench): Promise<PartResult> {
  const koine = await bench.koine();
  await koine.deploy("victim", helloJs, HELLO_SPEC);
  await koine.deploy("noisy", busyJs(BUSY_MS), { instanceConcurrency: 1, idleTimeoutMs: 600_000 });
  const neighbours = availableParallelism() * 2;
  const alone: Figures[] = [];
  const disturbed: Figures[] = [];
  for (let round = 0; round <= bench.rounds.count; round++) {
    bench.say(`noisy: round ${round} of ${bench.rounds.count}`);
    const quiet = await victim(bench, koine);
    const loud = await beside(koine, neighbours, () => victim(bench, koine));
    if (round === 0) continue;
    alone.push(quiet);
    disturbed.push(loud);
  }
  const [ours, theirs] = [disturbed, alone].map((figures) => ({
    p50: median(figures.map(({ p50Ms }) => p50Ms)),
    p99: median(figures.map(({ p99Ms }) => p99Ms)),
  }));
  const found = (ours?.p99 ?? 0) / (theirs?.p99 ?? 1);
  const row = {
    id: "10",
    metric: `Noisy neighbour: ${neighbours} instances that use all processor`,
    ours: durations(ours ?? {}),
    reference: `alone ${durations(theirs ?? {})}`,
    ratio: `p99 ${times(found)}`,
    target: `p99 ≤ ${P99_MAX}×`,
    met: found <= P99_MAX,
    note: `open loop at ${RATE}/s`,
    figures: { alone, disturbed },
  };
  return { rows: [row] };
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

/** Runs something while so many connections call the noisy function without pause. */
async function beside<Result>(koine: Koine, count: number, run: () => Promise<Result>): Promise<Result> {
  const connections = await Promise.all(Array.from({ length: count }, () => koine.connect()));
  const stop = new AbortController();
  const call = async (connection: Connection): Promise<void> => {
    while (!stop.signal.aborted) await connection.call(koine.request("noisy"));
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
