import type { Bench, PartResult } from "../bench.ts";
import type { Connection } from "../load/connection.ts";
import { memoryBytesOf, namespacesOf, treeOf } from "../measure/processes.ts";
import { median, percentile } from "../measure/statistics.ts";
import { coldHistogram } from "../report/charts.ts";
import { bytes, durations, times } from "../report/format.ts";
import { type MetricRow, missingRow } from "../row.ts";
import { coldJs, coldPython, type Source } from "../targets/functions.ts";
import { type Koine, startKoine } from "../targets/koine.ts";
import { type Bare, bareNode, barePython, spawnToFirstByte } from "../targets/spawn.ts";

/** Rows 1, 1b, 1c: a call of a function that has never run, from sending the request to the last byte of its answer. */
export async function cold(bench: Bench): Promise<PartResult> {
  const koine = await bench.koine();
  const python = await barePython();
  const samples = bench.quick ? 12 : 200;
  bench.say(`cold: ${samples} JavaScript functions`);
  const js = await sample(koine, javascript, { samples, bare: bareNode });
  bench.say(`cold: ${samples} Python functions`);
  const py = python === null ? null : await sample(koine, pythonKind, { samples, bare: python });
  await bench.rest();
  await using empty = await startKoine({ sparesMax: 0 });
  bench.say("cold: JavaScript without spares");
  const noSpares = await sample(empty, javascript, { samples: Math.ceil(samples / 2), bare: bareNode });
  return {
    rows: [
      coldRow(js, { id: "1", language: "JavaScript", p50Max: 0.1, p99Max: 0.25 }),
      coldRow(noSpares, { id: "1b", language: "JavaScript, no spare sandbox left", p50Max: 1.3, p99Max: null }),
      py === null
        ? missingRow("1c", "Cold start, Python", "p50 ≤ 0.30×", "there is no python3 on this machine")
        : coldRow(py, { id: "1c", language: "Python", p50Max: 0.3, p99Max: null }),
    ],
    charts: [coldHistogram({ "with a spare": js.oursMs, "without a spare": noSpares.oursMs, "bare node": js.bareMs })],
  };
}

interface Kind {
  readonly runtime: string;
  readonly spec: Readonly<Record<string, unknown>>;
  source(nonce: string): Source;
}

const javascript: Kind = { runtime: "nodejs26.x", spec: {}, source: coldJs };
const pythonKind: Kind = {
  runtime: "python3",
  spec: { runtime: "python3", handler: "app.app", handlerModel: "wsgi" },
  source: coldPython,
};

interface Samples {
  readonly oursMs: readonly number[];
  readonly bareMs: readonly number[];
  /** Spare sandboxes that waited, at most, and the memory of all processes below the platform then. */
  readonly spares: number;
  readonly sparesBytes: number;
}

/** Ours and theirs in turn; every one is a new name, new code, and proven to be a new process in a sandbox of its own. */
async function sample(koine: Koine, kind: Kind, { samples, bare }: { samples: number; bare: Bare }): Promise<Samples> {
  const oursMs: number[] = [];
  const bareMs: number[] = [];
  const seen = new Set<string>();
  let spares = 0;
  let sparesBytes = 0;
  const connection = await koine.connect();
  try {
    for (let round = -1; round < samples; round++) {
      const nonce = `${kind.runtime.replaceAll(".", "-")}-${Date.now().toString(36)}-${round + 1}`;
      await koine.deploy(`cold-${nonce}`, kind.source(nonce), kind.spec);
      const waiting = (await koine.settled()).spares[kind.runtime] ?? 0;
      if (waiting > spares) {
        spares = waiting;
        sparesBytes = memoryBytesOf(treeOf(koine.pid).slice(1));
      }
      const tookMs = await callCold(connection, koine, { nonce, seen });
      const spawnedMs = await spawnToFirstByte(bare);
      await koine.remove(`cold-${nonce}`);
      // The first of both finds cold caches and uncompiled code; a platform that has served for a minute does not.
      if (round < 0) continue;
      oursMs.push(tookMs);
      bareMs.push(spawnedMs);
    }
  } finally {
    connection.close();
  }
  return { oursMs, bareMs, spares, sparesBytes };
}

interface Evidence {
  readonly nonce: string;
  readonly began: string;
  readonly pid: number;
  readonly namespaces: Readonly<Record<string, string>>;
  readonly noNewPrivs: string;
  readonly seccomp: string;
}

async function callCold(
  connection: Connection,
  koine: Koine,
  { nonce, seen }: { nonce: string; seen: Set<string> },
): Promise<number> {
  const first = await connection.call(koine.request(`cold-${nonce}`));
  assert(first.status === 200, `a cold call answered ${first.status}: ${first.body}`);
  assert(/\r\nx-koine-start: cold\r\n/i.test(first.headers), "a call of a new function was not cold");
  assert(first.body.startsWith(`${nonce} `), `new code did not answer: ${first.body}`);
  const second = await connection.call(koine.request(`cold-${nonce}/evidence`));
  assert(second.status === 200, `the evidence answered ${second.status}: ${second.body}`);
  const evidence = JSON.parse(second.body) as Evidence;
  assert(evidence.began.startsWith(first.body.split(" ")[1] ?? "?"), "another process gave the evidence");
  assert(!seen.has(evidence.began), "a process served two functions");
  seen.add(evidence.began);
  assert(evidence.noNewPrivs === "1", `NoNewPrivs is ${evidence.noNewPrivs}`);
  assert(evidence.seccomp === "2", `Seccomp is ${evidence.seccomp}`);
  const outside = namespacesOf(koine.pid);
  for (const [name, namespace] of Object.entries(evidence.namespaces))
    assert(namespace !== outside[name], `the ${name} namespace is the platform's`);
  return first.totalMs;
}

function assert(holds: boolean, otherwise: string): void {
  if (!holds) throw new Error(otherwise);
}

function coldRow(
  { oursMs, bareMs, spares, sparesBytes }: Samples,
  { id, language, p50Max, p99Max }: { id: string; language: string; p50Max: number; p99Max: number | null },
): MetricRow {
  const ours = { p50: median(oursMs), p99: percentile(oursMs, 0.99) };
  const bareP50 = median(bareMs);
  const ratios = { p50: ours.p50 / bareP50, p99: ours.p99 / bareP50 };
  return {
    id,
    metric: `Cold start, ${language}`,
    ours: durations(ours),
    reference: `bare process ${durations({ p50: bareP50, p99: percentile(bareMs, 0.99) })}`,
    ratio: `p50 ${times(ratios.p50)}, p99 ${times(ratios.p99)}`,
    target: `p50 ≤ ${p50Max}×${p99Max === null ? "" : `, p99 ≤ ${p99Max}×`} of the process's p50`,
    met: ratios.p50 <= p50Max && (p99Max === null || ratios.p99 <= p99Max),
    note: `${oursMs.length} functions; up to ${spares} spare sandboxes waited${spares === 0 ? "" : `, ${bytes(sparesBytes)} together`}`,
    figures: { oursMs, bareMs, spares, sparesBytes },
  };
}
