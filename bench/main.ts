import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Bench, type BenchOptions, type Part } from "./bench.ts";
import { asynchronous } from "./parts/async.ts";
import { burst } from "./parts/burst.ts";
import { codecache } from "./parts/codecache.ts";
import { cold } from "./parts/cold.ts";
import { engines } from "./parts/engines.ts";
import { cron } from "./parts/cron.ts";
import { latency } from "./parts/latency.ts";
import { memory } from "./parts/memory.ts";
import { noisy } from "./parts/noisy.ts";
import { overload } from "./parts/overload.ts";
import { peers } from "./parts/peers.ts";
import { queues } from "./parts/queues.ts";
import { scaleout } from "./parts/scaleout.ts";
import { soak } from "./parts/soak.ts";
import { thaw } from "./parts/thaw.ts";
import { throughput } from "./parts/throughput.ts";
import type { Chart } from "./report/charts.ts";
import { thisMachine } from "./report/machine.ts";
import { FAILED, type PartRow, writeResults } from "./report/results.ts";
import { textTable } from "./report/table.ts";
import { missingRow } from "./row.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

const parts: readonly Part[] = [
  { name: "cold", byDefault: true, run: cold },
  { name: "codecache", byDefault: true, run: codecache },
  { name: "thaw", byDefault: true, run: thaw },
  { name: "latency", byDefault: true, run: latency },
  { name: "throughput", byDefault: true, run: throughput },
  { name: "engines", byDefault: true, run: engines },
  { name: "burst", byDefault: true, run: burst },
  { name: "scaleout", byDefault: true, run: scaleout },
  { name: "async", byDefault: true, run: asynchronous },
  { name: "queues", byDefault: true, run: queues },
  { name: "noisy", byDefault: true, run: noisy },
  { name: "overload", byDefault: true, run: overload },
  { name: "memory", byDefault: true, run: memory },
  // Both are loaded when they are run, because they bring the engine into this process.
  { name: "choose", byDefault: true, run: async (bench) => (await import("./parts/choose.ts")).choose(bench) },
  {
    name: "keepalive",
    byDefault: true,
    run: async () => ({ rows: await (await import("./keepalive.ts")).keepaliveBench() }),
  },
  {
    name: "containers",
    byDefault: true,
    run: async (bench) => (await import("./parts/containers.ts")).containers(bench),
  },
  { name: "peers", byDefault: true, run: peers },
  { name: "cron", byDefault: true, run: cron },
  { name: "aws", byDefault: true, run: async (bench) => (await import("./parts/aws.ts")).aws(bench) },
  { name: "soak", byDefault: false, run: soak },
];

const HELP = `npm run bench [-- PART …] [--quick] [--minutes N] [--peer NAME=URL …]

Parts: ${parts.map(({ name, byDefault }) => (byDefault ? name : `${name} (only when named)`)).join(", ")}
--quick          a few short rounds: shows that it works, not how fast
--minutes N      length of the soak; 60 when absent
--peer NAME=URL  a server that runs already, measured as a peer
`;

await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      quick: { type: "boolean", default: false },
      minutes: { type: "string", default: "60" },
      peer: { type: "string", multiple: true, default: [] },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const unknown = positionals.filter((name) => !parts.some((part) => part.name === name));
  const soakMinutes = Number(values.minutes);
  if (values.help || unknown.length > 0 || !(soakMinutes > 0)) {
    process.stdout.write(unknown.length > 0 ? `There is no part '${unknown.join("', '")}'.\n\n${HELP}` : HELP);
    process.exitCode = values.help ? 0 : 1;
    return;
  }
  const chosen = parts.filter(({ name, byDefault }) =>
    positionals.length > 0 ? positionals.includes(name) : byDefault,
  );
  const addresses = values.peer.map((text) => [
    text.slice(0, text.indexOf("=")),
    new URL(text.slice(text.indexOf("=") + 1)),
  ]);
  await measure(chosen, { quick: values.quick, soakMinutes, peers: Object.fromEntries(addresses) });
}

/** Runs the parts; one that fails costs its own rows only. */
async function measure(chosen: readonly Part[], options: BenchOptions): Promise<void> {
  const startedAt = new Date().toISOString();
  const rows: PartRow[] = [];
  const charts: Chart[] = [];
  {
    await using bench = new Bench(options);
    for (const { name, run } of chosen) {
      const begunMs = performance.now();
      try {
        const result = await run(bench);
        rows.push(...result.rows.map((row) => ({ ...row, part: name })));
        charts.push(...(result.charts ?? []));
        bench.say(`${name} took ${((performance.now() - begunMs) / 1_000).toFixed(1)} s`);
      } catch (thrown) {
        process.exitCode = 1;
        const why = thrown instanceof Error ? thrown.message : String(thrown);
        bench.say(`${name} failed: ${thrown instanceof Error ? thrown.stack : why}`);
        rows.push({ ...missingRow(FAILED, `Part ${name}`, "–", `failed: ${why.slice(0, 300)}`), part: name });
        await bench.rest();
      }
    }
  }
  const machine = thisMachine(root);
  const results = { startedAt, quick: options.quick, parts: chosen.map(({ name }) => name), machine, rows };
  const path = writeResults(root, results, charts);
  process.stdout.write(
    `\n${machine.processor}, ${machine.cores} cores, ${machine.memory}, ${machine.kernel}, Node ${machine.node}\n\n${textTable(rows)}\n`,
  );
  process.stderr.write(`  written to ${path.slice(root.length + 1)}, docs/performance.md and docs/performance/\n`);
}
