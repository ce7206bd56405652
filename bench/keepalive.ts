import { KEEP_ALIVE_SETTINGS, type KeepAliveSettings } from "../src/engine/keepalive.ts";
import { measurePlan } from "./keepalive/cost.ts";
import { fixedWindow, greedyDual, hybridHistogram, learnt } from "./keepalive/policies.ts";
import { type Simulated, simulate } from "./keepalive/simulate.ts";
import { part, readTrace, type Trace, traceFolder } from "./keepalive/trace.ts";
import { type MetricRow, missingRow } from "./row.ts";

const COLD_SHARE_MAX = 0.02;
/** What a fixed window of ten minutes keeps on this trace: the memory that the target allows. */
const IDLE_MAX = 62.3;
const TARGET = `≤ ${percent(COLD_SHARE_MAX)} cold at ≤ ${IDLE_MAX} idle`;
const METRIC = "Keep-alive policy on a real day of traffic";
const FIXED_MINUTES = [1, 5, 10, 20, 60];
/** What the data's own description gives for some policies: the simulator must agree with it. */
const PUBLISHED: Readonly<Record<string, string>> = {
  "fixed 1 min": "27.8 % · 17.7",
  "fixed 5 min": "5.70 % · 48.5",
  "fixed 10 min": "3.50 % · 62.3",
  "fixed 20 min": "2.05 % · 78.6",
  "fixed 60 min": "0.95 % · 113.9",
  "hybrid histogram": "1.39 % · 87.0",
  "greedy-dual, 150 resident": "1.94 % · 85.7",
};
const VARIED = [
  "idleMinutesDefault",
  "priorWeight",
  "learningRate",
  "worthMin",
  "startChanceMin",
  "priceStep",
] as const;

/** Row 9: cold starts and idle functions of the engine's keep-alive over a day of real traffic, beside the policies of others. */
export async function keepaliveBench(): Promise<MetricRow[]> {
  const folder = traceFolder();
  const trace = await readTrace(folder);
  if (trace === null)
    return [missingRow("9", METRIC, TARGET, `there is no trace in ${folder}; KOINE_BENCH_TRACE names its folder`)];
  const functions = trace.active.length;
  const others: Readonly<Record<string, Simulated>> = {
    ...Object.fromEntries(
      FIXED_MINUTES.map((minutes) => [`fixed ${minutes} min`, simulate(trace, fixedWindow(functions, minutes))]),
    ),
    "hybrid histogram": simulate(trace, hybridHistogram(functions)),
    "greedy-dual, 150 resident": simulate(trace, greedyDual(functions, 150)),
  };
  const ours = simulate(trace, learnt(functions, IDLE_MAX));
  const tenMinutes = others["fixed 10 min"];
  return [
    row(METRIC, ours, {
      reference: tenMinutes === undefined ? "" : `fixed 10 min: ${figures(tenMinutes)}`,
      ratio: tenMinutes === undefined ? "" : `${(ours.coldShare / tenMinutes.coldShare).toFixed(2)}×`,
      target: TARGET,
      met: ours.coldShare <= COLD_SHARE_MAX && ours.idleMean <= IDLE_MAX,
      note: `started ahead ${ours.startedAhead} times, ${percent(ours.startedAheadUsed / ours.startedAhead)} of them called within that minute; at most ${ours.idleMax} idle at once`,
    }),
    ...budgets(trace),
    ...Object.entries(others).map(([name, simulated]) =>
      row(`Keep-alive: ${name}`, simulated, { reference: `published ${PUBLISHED[name] ?? "–"}` }),
    ),
    ...sensitivity(trace, ours),
    ...halves(trace),
    ...measurePlan(),
  ];
}

/** The same policy with less and with more memory. */
function budgets(trace: Trace): MetricRow[] {
  return [30, 40, 50, 82].map((idleMax) =>
    row(`Keep-alive: learnt, ${idleMax} may be idle`, simulate(trace, learnt(trace.active.length, idleMax)), {}),
  );
}

/** What becomes of it when each parameter by itself is half as large, and half as large again. */
function sensitivity(trace: Trace, ours: Simulated): MetricRow[] {
  return VARIED.map((name) => {
    const varied = [0.5, 1.5].map((factor) => {
      const settings: Partial<KeepAliveSettings> = { [name]: KEEP_ALIVE_SETTINGS[name] * factor };
      return simulate(trace, learnt(trace.active.length, IDLE_MAX, settings));
    });
    return {
      id: "9",
      metric: `Keep-alive: learnt, ${name} − 50 % and + 50 %`,
      ours: varied.map(figures).join(" and "),
      reference: figures(ours),
      ratio: varied.map(({ coldShare }) => `${(coldShare / ours.coldShare).toFixed(2)}×`).join(" and "),
      target: "",
      met: null,
    };
  });
}

/** Every second function alone, with half of the memory: what is learnt across functions then comes from half as many. */
function halves(trace: Trace): MetricRow[] {
  return [0, 1].map((rest) => {
    const half = part(trace, (index) => index % 2 === rest);
    const functions = half.active.length;
    return row(
      `Keep-alive: learnt, ${rest === 0 ? "even" : "odd"} functions only`,
      simulate(half, learnt(functions, IDLE_MAX / 2)),
      { reference: `fixed 10 min: ${figures(simulate(half, fixedWindow(functions, 10)))}` },
    );
  });
}

function row(metric: string, simulated: Simulated, rest: Partial<MetricRow>): MetricRow {
  return {
    id: "9",
    metric,
    ours: figures(simulated),
    reference: "–",
    ratio: "",
    target: "",
    met: null,
    figures: { ...simulated },
    ...rest,
  };
}

function figures({ coldShare, idleMean }: Simulated): string {
  return `${percent(coldShare)} · ${idleMean.toFixed(1)}`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(2)} %`;
}
