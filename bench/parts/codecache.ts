import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Bench, PartResult } from "../bench.ts";
import { median, percentile } from "../measure/statistics.ts";
import { install } from "../peers/install.ts";
import { bytes, durations, times } from "../report/format.ts";
import { type MetricRow, missingRow } from "../row.ts";
import type { Source } from "../targets/functions.ts";
import { type Koine, startKoine } from "../targets/koine.ts";

const METRIC = "Cold start of a large bundle, with its compiled code";
const TARGET = "< 1×";
/** One file without dependencies, as bundlers write them. */
const PACKAGE = "typescript@5.9.3";
const FILE = "typescript.js";
const CACHE = fileURLToPath(new URL("../../node_modules/.cache/koine-bench", import.meta.url));

/** The first call of a function whose code is a real bundle of megabytes, with and without what was compiled at its deploy. */
export async function codecache(bench: Bench): Promise<PartResult> {
  let content: string;
  try {
    content = await bundle();
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    return { rows: [missingRow("codecache", METRIC, TARGET, why)] };
  }
  await bench.rest();
  await using koine = await startKoine();
  const withMs: number[] = [];
  const withoutMs: number[] = [];
  const rounds = bench.quick ? 3 : 25;
  for (let round = 0; round <= rounds; round++) {
    if (round % 5 === 0) bench.say(`codecache: ${round} of ${rounds}`);
    // Taken in turns, each with code that nobody has compiled before.
    const cachedMs = await coldMs(koine, content, { name: `cached-${round}`, check: true });
    const plainMs = await coldMs(koine, content, { name: `plain-${round}`, check: false });
    if (round === 0) continue;
    withMs.push(cachedMs);
    withoutMs.push(plainMs);
  }
  return { rows: [row(withMs, withoutMs, Buffer.byteLength(content))] };
}

async function bundle(): Promise<string> {
  const folder = join(CACHE, "codecache");
  await install(folder, [PACKAGE]);
  const name = PACKAGE.slice(0, PACKAGE.lastIndexOf("@"));
  return await readFile(join(folder, "node_modules", name, "lib", FILE), "utf8");
}

/** A function that uses what it loads. */
function sourceOf(content: string, name: string): Source {
  return {
    [FILE]: `${content}\n// ${name} ${Date.now()}\n`,
    "index.mjs": `import ts from "./${FILE}";
export default () => new Response(ts.transpile("const x: number = 1"));
`,
  };
}

/** With `check` another function of the same code was checked at its deploy, which compiles it; the measured one has run nowhere. */
async function coldMs(
  koine: Koine,
  content: string,
  { name, check }: { readonly name: string; readonly check: boolean },
): Promise<number> {
  const code = await koine.upload(sourceOf(content, name));
  if (check) await koine.put(`${name}-checked`, { code, check: true });
  await koine.put(name, { code });
  await koine.settled();
  const connection = await koine.connect();
  try {
    const answer = await connection.call(koine.request(name));
    if (answer.status !== 200) throw new Error(`a cold call answered ${answer.status}: ${answer.body}`);
    if (!/\r\nx-koine-start: cold\r\n/i.test(answer.headers)) throw new Error("a call of a new function was not cold");
    return answer.totalMs;
  } finally {
    connection.close();
    await koine.remove(name);
    if (check) await koine.remove(`${name}-checked`);
  }
}

function row(withMs: readonly number[], withoutMs: readonly number[], size: number): MetricRow {
  const shares = (values: readonly number[]): Readonly<Record<string, number>> => ({
    p50: median(values),
    p99: percentile(values, 0.99),
  });
  const found = median(withMs) / median(withoutMs);
  return {
    id: "codecache",
    metric: METRIC,
    ours: durations(shares(withMs)),
    reference: `without ${durations(shares(withoutMs))}`,
    ratio: times(found),
    target: TARGET,
    met: found < 1,
    note: `${PACKAGE} in one file of ${bytes(size)}, which the call uses; ${withMs.length} functions each, with a spare sandbox`,
    figures: { withMs, withoutMs, bundleBytes: size },
  };
}
