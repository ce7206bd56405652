import { digits, duration, rate } from "./format.ts";
import { lineChart, type Series } from "./svg.ts";

/** A curve for the page, with what it shows. */
export interface Chart {
  /** Name of its file in `docs/performance/`. */
  readonly file: string;
  readonly title: string;
  readonly svg: string;
}

export interface LatencyCurve {
  readonly name: string;
  readonly points: { readonly ratePerSecond: number; readonly p50Ms: number; readonly p99Ms: number }[];
}

export function latencyByLoad(curves: readonly LatencyCurve[]): Chart {
  const title = "Latency by load";
  const series = curves.flatMap(({ name, points }, colour): Series[] => [
    { name: `${name} p50`, colour, points: points.map(({ ratePerSecond, p50Ms }) => [ratePerSecond, p50Ms]) },
    {
      name: `${name} p99`,
      colour,
      dashed: true,
      points: points.map(({ ratePerSecond, p99Ms }) => [ratePerSecond, p99Ms]),
    },
  ]);
  const svg = lineChart({
    title,
    caption: "Open loop: requests fall due at a fixed rate, and their clock runs from then",
    x: { label: "requests per second", scale: "linear", format: (value) => digits(value) },
    y: { label: "latency", scale: "log", format: duration },
    series,
  });
  return { file: "latency-by-load.svg", title, svg };
}

export function burstCurve(
  answeredMs: readonly number[],
  { perSecond, count }: { readonly perSecond: number; readonly count: number },
): Chart {
  const title = `Instances in a burst of ${count} cold starts`;
  const svg = lineChart({
    title,
    caption: `${count} functions that have never run are called at once; ${rate(perSecond)}`,
    x: { label: "time since the calls", scale: "linear", format: duration },
    y: { label: "instances that have answered", scale: "linear", format: digits },
    series: [
      {
        name: "instances",
        colour: 0,
        shape: "steps",
        points: [[0, 0], ...answeredMs.map((ms, index) => [ms, index + 1] as const)],
      },
    ],
  });
  return { file: "burst.svg", title, svg };
}

const BINS_PER_DECADE = 12;

export function coldHistogram(samples: Readonly<Record<string, readonly number[]>>): Chart {
  const title = "Cold starts";
  const series = Object.entries(samples).map(([name, values], colour): Series => ({
    name,
    colour,
    shape: "steps",
    points: bins(values),
  }));
  const svg = lineChart({
    title,
    caption: "Share of calls by the time to the last byte; every one a new function, new code, a new sandbox",
    x: { label: "time", scale: "log", format: duration },
    y: { label: "share of calls", scale: "linear", format: (value) => `${digits(value * 100)} %` },
    series,
  });
  return { file: "cold-start.svg", title, svg };
}

/** Shares by bins of equal relative width, with an empty one on either side. */
function bins(values: readonly number[]): readonly (readonly [number, number])[] {
  const counts = new Map<number, number>();
  for (const value of values) {
    const bin = Math.floor(Math.log10(value) * BINS_PER_DECADE);
    counts.set(bin, (counts.get(bin) ?? 0) + 1);
  }
  const known = [...counts.keys()];
  const [first, last] = [Math.min(...known) - 1, Math.max(...known) + 2];
  return Array.from({ length: last - first + 1 }, (_, index) => [
    10 ** ((first + index) / BINS_PER_DECADE),
    (counts.get(first + index) ?? 0) / values.length,
  ]);
}

const MIB = 1024 * 1024;

export interface SoakPoint {
  readonly atMs: number;
  readonly platformBytes: number;
  /** Of instances and spares. */
  readonly instanceBytes: number;
  readonly descriptors: number;
}

export function soakCurves(points: readonly SoakPoint[]): Chart {
  const title = "Memory at half of peak";
  const most = Math.max(...points.map(({ descriptors }) => descriptors));
  const svg = lineChart({
    title,
    caption: `Open descriptors: between ${Math.min(...points.map(({ descriptors }) => descriptors))} and ${most}`,
    x: { label: "minutes", scale: "linear", format: digits },
    y: { label: "memory (PSS), MiB", scale: "linear", format: digits },
    series: [
      { name: "platform", colour: 0, points: points.map((point) => [point.atMs / 60_000, point.platformBytes / MIB]) },
      {
        name: "instances and spares",
        colour: 1,
        points: points.map((point) => [point.atMs / 60_000, point.instanceBytes / MIB]),
      },
    ],
  });
  return { file: "soak.svg", title, svg };
}
