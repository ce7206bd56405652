import { globSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { MetricRow } from "../row.ts";
import type { Chart } from "./charts.ts";
import type { Machine } from "./machine.ts";
import { markdownTable } from "./table.ts";

/** A run as it is kept in `bench/results/`. */
export interface Results {
  readonly startedAt: string;
  readonly quick: boolean;
  readonly parts: readonly string[];
  readonly machine: Machine;
  readonly rows: readonly PartRow[];
}

/** A row, and the part that has measured it. */
export interface PartRow extends MetricRow {
  readonly part: string;
}

/** The id of the row that stands for a part which failed; the page keeps what was measured before. */
export const FAILED = "–";

/** Writes the run, its charts and the page; answers the path of the run. */
export function writeResults(root: string, results: Results, charts: readonly Chart[]): string {
  const folder = join(root, "bench", "results");
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${results.startedAt.replaceAll(":", "").slice(0, 17)}Z.json`);
  writeFileSync(path, `${JSON.stringify(results, null, 1)}\n`);
  const pages = join(root, "docs", "performance");
  mkdirSync(pages, { recursive: true });
  for (const { file, svg } of charts) writeFileSync(join(pages, file), svg);
  writeFileSync(join(root, "docs", "performance.md"), page(root, folder));
  return path;
}

interface Dated {
  readonly row: PartRow;
  readonly from: Results;
}

/** Every row as it was measured last; a short run counts only where no long one has measured it. */
function latestRows(folder: string): readonly Dated[] {
  const runs = globSync("*.json", { cwd: folder })
    .map((name) => JSON.parse(readFileSync(join(folder, name), "utf8")) as Results)
    .toSorted((a, b) => Number(b.quick) - Number(a.quick) || a.startedAt.localeCompare(b.startedAt));
  const latest = new Map<string, Dated>();
  for (const from of runs) {
    const measured = from.rows.filter((row) => row.id !== FAILED);
    // A part that has been run again replaces all of its rows, also those whose name has changed since.
    const again = new Set(measured.map(({ part }) => part));
    for (const [key, { row }] of latest) if (again.has(row.part)) latest.delete(key);
    for (const row of measured) latest.set(`${row.part} ${row.id} ${row.metric}`, { row, from });
  }
  const order = (id: string): number => Number.parseInt(id, 10) || 100;
  return [...latest.values()].toSorted((a, b) => order(a.row.id) - order(b.row.id) || a.row.id.localeCompare(b.row.id));
}

function page(root: string, folder: string): string {
  const dated = latestRows(folder);
  const runs = [...new Set(dated.map(({ from }) => from))].toSorted((a, b) => a.startedAt.localeCompare(b.startedAt));
  const charts = globSync("*.svg", { cwd: join(root, "docs", "performance") }).toSorted();
  return `# Performance

Written by \`npm run bench\`; edit nothing here. Ratios are taken within one run and carry over to other machines; absolute figures
do not. Everything is on while it is measured: authentication, a thousand routes, limits, logs, metrics, the default isolation.

${markdownTable(dated.map(({ row }) => row))}
## Where and when

${runs.map(runLine).join("\n")}

## Curves

${charts.map((file) => `![${file.replace(".svg", "").replaceAll("-", " ")}](performance/${file})`).join("\n\n")}

## How it is measured

- \`npm run bench\` runs all parts but the long ones; \`npm run bench -- cold throughput\` some; \`npm run bench -- --quick\` all of them
  in short, to see that they work.
- Every server listens on loopback, runs on the same Node and answers the same; the load comes from a process of its own over raw
  sockets with ready-made requests and kept-alive connections.
- Contenders take turns: A B C A B C …, five rounds of 3 s, the first one dropped. The ratio is the median of the rounds' ratios, with its
  range. A round in which the bare server strays more than 15 % from its median is void and run again.
- Processor time is that of a server's whole process tree, per 1,000 requests: it does not mind neighbours.
- A cold start is a call of a function that was deployed a moment ago under a new name with new code, from the first byte sent to the last
  one received. From inside it proves that it runs in a new process, in namespaces of its own, with \`NoNewPrivs: 1\` and \`Seccomp: 2\`.
- Percentiles come from a histogram whose buckets are 0.8 % wide. Open loops count from when a request is due, whether or not a
  connection is free then, so that a stall is charged for everybody who came meanwhile; what the generator's own timer of a millisecond is late is not charged.
- Bare processes write one byte and end: \`node -e\`, and Python without its site packages (\`-I -S\`), the least that either can take.
- Peers run with their shipped defaults.
`;
}

function runLine({ startedAt, quick, parts, machine }: Results): string {
  const { processor, cores, memory, kernel, node, commit } = machine;
  const what = `${quick ? "short run of " : ""}${parts.join(", ")}`;
  const source = commit === null ? "" : `, source ${commit}`;
  return `- ${startedAt.slice(0, 16).replace("T", " ")} UTC (${what}): ${processor}, ${cores} cores, ${memory}, ${kernel}, Node ${node}${source}`;
}
