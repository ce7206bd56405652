import { setTimeout as sleep } from "node:timers/promises";
import type { Bench, PartResult } from "../bench.ts";
import { descriptorsOf, memoryBytesOf, treeOf } from "../measure/processes.ts";
import { median, slope } from "../measure/statistics.ts";
import { type SoakPoint, soakCurves } from "../report/charts.ts";
import { bytes, rate, times } from "../report/format.ts";
import type { MetricRow } from "../row.ts";
import { helloJs } from "../targets/functions.ts";
import { HELLO_SPEC } from "./throughput.ts";

const SHARE_OF_PEAK = 0.5;
const CONNECTIONS = 64;
const SAMPLES = 360;
/** Growth of memory between the second and the last quarter that counts as flat: garbage is collected when it pleases. */
const GROWTH_MAX = 1.05;

/** Half of peak for a long time: memory and descriptors must not grow. */
export async function soak(bench: Bench): Promise<PartResult> {
  const koine = await bench.koine();
  await koine.deploy("hello", helloJs, HELLO_SPEC);
  const durationMs = bench.options.soakMinutes * 60_000;
  const target = { address: koine.address, request: koine.request("hello"), connections: CONNECTIONS };
  const peak = await bench.load.run({ ...target, durationMs: bench.rounds.ms, ratePerSecond: null });
  const ratePerSecond = Math.round(peak.perSecond * SHARE_OF_PEAK);
  bench.say(`soak: ${bench.options.soakMinutes} minutes at ${rate(ratePerSecond)}`);
  const points: SoakPoint[] = [];
  const ended = new AbortController();
  const running = bench.load.run({ ...target, durationMs, ratePerSecond }).finally(() => ended.abort());
  const begunMs = performance.now();
  while (!ended.signal.aborted) {
    const tree = treeOf(koine.pid);
    points.push({
      atMs: performance.now() - begunMs,
      platformBytes: memoryBytesOf([koine.pid]),
      instanceBytes: memoryBytesOf(tree.slice(1)),
      descriptors: descriptorsOf(tree),
    });
    await sleep(Math.max(1_000, durationMs / SAMPLES), undefined, { signal: ended.signal }).catch(() => {});
  }
  const result = await running;
  const under = points.filter(({ atMs }) => atMs <= durationMs);
  return { rows: [soakRow(under, { minutes: bench.options.soakMinutes, result })], charts: [soakCurves(under)] };
}

interface SoakEnd {
  readonly minutes: number;
  readonly result: Awaited<ReturnType<Bench["load"]["run"]>>;
}

function soakRow(points: readonly SoakPoint[], { minutes, result }: SoakEnd): MetricRow {
  const quarter = (number: number): readonly SoakPoint[] =>
    points.slice(Math.floor((points.length * (number - 1)) / 4), Math.floor((points.length * number) / 4));
  const middle = (part: readonly SoakPoint[], of: (point: SoakPoint) => number): number =>
    part.length === 0 ? Number.NaN : median(part.map(of));
  const memory = ({ platformBytes, instanceBytes }: SoakPoint): number => platformBytes + instanceBytes;
  const growth = middle(quarter(4), memory) / middle(quarter(2), memory);
  const descriptors = [2, 4].map((number) => middle(quarter(number), (point) => point.descriptors));
  const perHour = slope(
    quarter(3)
      .concat(quarter(4))
      .map((point) => [point.atMs / 3_600_000, memory(point)]),
  );
  const broken = result.failures + result.unanswered;
  const lasted = Math.round(result.seconds / 6) / 10;
  return {
    id: "soak",
    metric: `${lasted} minutes at half of peak`,
    ours: `${bytes(middle(quarter(4), memory))}, ${descriptors[1]} descriptors`,
    reference: `in the second quarter ${bytes(middle(quarter(2), memory))}, ${descriptors[0]} descriptors`,
    ratio: times(growth),
    target: `≤ ${GROWTH_MAX}×, descriptors equal`,
    met: growth <= GROWTH_MAX && descriptors[0] === descriptors[1] && broken === 0 && lasted >= minutes,
    note: `${lasted < minutes ? `given up before ${minutes} minutes, far behind; ` : ""}${result.succeeded} calls, ${broken} lost; the second half's trend is ${bytes(Math.max(0, perHour))} an hour`,
    figures: { points, statuses: result.statuses, p99Ms: result.latency.percentileMs(0.99), bytesPerHour: perHour },
  };
}
