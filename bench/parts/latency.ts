import type { Bench, PartResult } from "../bench.ts";
import { requestBytes } from "../load/connection.ts";
import { interleave, ratioOf, type Rounds } from "../measure/rounds.ts";
import { median, spread } from "../measure/statistics.ts";
import { type LatencyCurve, latencyByLoad } from "../report/charts.ts";
import { durations, ratio } from "../report/format.ts";
import type { MetricRow } from "../row.ts";
import { helloJs } from "../targets/functions.ts";
import type { Koine } from "../targets/koine.ts";
import type { Server } from "../targets/server.ts";
import { HELLO_SPEC, loading, type Saturated } from "./throughput.ts";

const P50_MAX = 1.75;
const P99_MAX = 2;
const OPEN_CONNECTIONS = 64;
const LOADS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/** Row 2: one request at a time; and how latency grows with load, measured in open loops. */
export async function latency(bench: Bench): Promise<PartResult> {
  const koine = await bench.koine();
  const bare = await bench.bare();
  await koine.deploy("hello", helloJs, HELLO_SPEC);
  const ours = koine.request("hello");
  const theirs = requestBytes(bare.address, { path: "/" });
  bench.say("latency: one request at a time");
  const rounds = await interleave(
    [loading(bench, bare, theirs, 1), loading(bench, koine, ours, 1)],
    (figures) => figures.latency.percentileMs(0.5),
    { count: bench.rounds.count, reference: bare.name },
  );
  bench.say("latency: by load");
  const curves = await byLoad(bench, [
    { server: koine, request: ours },
    { server: bare, request: theirs },
  ]);
  return { rows: [latencyRow(rounds)], charts: [latencyByLoad(curves)] };
}

function latencyRow(rounds: Rounds<Saturated>): MetricRow {
  const names = { ours: "Koine", reference: "bare node:http" };
  const p50 = ratioOf(rounds, names, (figures) => figures.latency.percentileMs(0.5));
  const p99 = ratioOf(rounds, names, (figures) => figures.latency.percentileMs(0.99));
  const [ours, theirs] = [names.ours, names.reference].map((name) => ({
    p50: median(rounds.of(name).map((figures) => figures.latency.percentileMs(0.5))),
    p99: median(rounds.of(name).map((figures) => figures.latency.percentileMs(0.99))),
  }));
  return {
    id: "2",
    metric: "Warm, one request at a time",
    ours: durations(ours ?? {}),
    reference: `bare node:http ${durations(theirs ?? {})}`,
    ratio: `p50 ${ratio(p50)}, p99 ${ratio(p99)}`,
    target: `p50 ≤ ${P50_MAX}×, p99 ≤ ${P99_MAX}×`,
    met: p50.median <= P50_MAX && p99.median <= P99_MAX,
    note: `${rounds.valid} of ${rounds.run} rounds count`,
    figures: { p50, p99, ours, theirs },
  };
}

interface Loaded {
  readonly server: Server | Koine;
  readonly request: Buffer;
}

/** Each at shares of what the slower one can do, so that both are asked for the same rates. */
async function byLoad(bench: Bench, loaded: readonly Loaded[]): Promise<readonly LatencyCurve[]> {
  const durationMs = bench.rounds.ms;
  const peaks: number[] = [];
  for (const { server, request } of loaded) {
    const { address } = server;
    const job = { address, request, connections: OPEN_CONNECTIONS, durationMs, ratePerSecond: null };
    peaks.push((await bench.load.run(job)).perSecond);
  }
  const peak = spread(peaks).min;
  const curves = loaded.map(({ server }): LatencyCurve => ({ name: server.name, points: [] }));
  for (const share of bench.quick ? LOADS.filter((_, index) => index % 4 === 0) : LOADS) {
    const ratePerSecond = Math.round(peak * share);
    for (const [index, { server, request }] of loaded.entries()) {
      const { address } = server;
      const result = await bench.load.run({
        address,
        request,
        connections: OPEN_CONNECTIONS,
        durationMs,
        ratePerSecond,
      });
      const { latency: histogram } = result;
      curves[index]?.points.push({
        ratePerSecond,
        p50Ms: histogram.percentileMs(0.5),
        p99Ms: histogram.percentileMs(0.99),
      });
    }
  }
  return curves;
}
