// Writes the pages of docs/ that are made from the source: `npm run docs`. test/docs.test.ts fails when they are stale.
import { globSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { errorTable, type Fault } from "../src/core/errors.ts";
import { limits } from "../src/core/limits.ts";
import { operationsPage } from "./operations.ts";
import { attacksPage } from "../test/isolation/attacks.ts";

const root = fileURLToPath(new URL("..", import.meta.url));

/** The generated pages: their text by path within the repository. */
export function generatedPages(): ReadonlyMap<string, string> {
  return new Map([
    ["docs/attacks.md", attacksPage()],
    ["docs/dialects/aws.md", operationsPage("docs/dialects/aws.md")],
    ["docs/errors.md", errorsPage()],
    ["docs/limits.md", limitsPage(readFileSync(join(root, "src/core/limits.ts"), "utf8"))],
    ["docs/metrics.md", metricsPage(sourceFiles())],
  ]);
}

const GENERATED = "by `npm run docs`; edit the source instead.";

const faults: Readonly<Record<Fault, { readonly title: string; readonly text: string }>> = {
  caller: { title: "The caller must act", text: "The request is wrong, not allowed, or too much at once." },
  function: {
    title: "The function's author must act",
    text: "The platform did its part; the code, or its settings, did not.",
  },
  platform: { title: "The operator must act", text: "The machine or the platform itself cannot do what was asked." },
};

function errorsPage(): string {
  const sections = Object.entries(faults).map(([fault, { title, text }]) => {
    const rows = Object.entries(errorTable)
      .filter(([, definition]) => definition.fault === fault)
      .map(([code, { status, message, hint }]) => `| \`${code}\` | ${status} | ${cell(message)} | ${cell(hint)} |`);
    return [
      `## ${title}`,
      "",
      text,
      "",
      "| Code | HTTP | Message | What to do |",
      "| --- | --- | --- | --- |",
      ...rows,
    ].join("\n");
  });
  return `# Errors

Generated from \`src/core/errors.ts\` ${GENERATED}

Every error has a code that stays, whose fault it is (\`caller\`, \`function\`, \`platform\`), a message and a hint. Over HTTP the header
\`x-koine-error\` carries the code, and the body is

\`\`\`json
{ "error": { "code": "…", "fault": "…", "message": "…", "hint": "…", "cause": { "type": "…", "message": "…", "stack": "…" }, "values": {}, "requestId": "…" } }
\`\`\`

\`cause\` is what user code threw, if that is the reason; \`values\` are what stands in braces below. An answer without \`x-koine-error\` is the
function's own, whatever its status. Statuses 429 and 503 come with \`Retry-After\`. The command line turns codes into
[exit codes](cli.md#conventions) and has [a few of its own](cli.md#errors-of-the-command-line-itself). What to try first:
[troubleshooting](troubleshooting.md).

${sections.join("\n\n")}
`;
}

function limitsPage(source: string): string {
  const rows: string[] = [];
  const entry = /\/\*\* (?<comment>[^]*?) \*\/|^ {2}(?<name>\w+): /gm;
  const body = source.slice(source.indexOf("export const limits"));
  let comment = "";
  for (const { groups } of body.matchAll(entry)) {
    if (groups?.["comment"] !== undefined) comment = groups["comment"].replaceAll(/\s*\n\s*\*\s*/g, " ");
    else {
      const name = groups?.["name"] ?? "";
      rows.push(`| ${cell(withoutUnits(comment))} | ${amount(name)} | \`${name}\` |`);
      comment = "";
    }
  }
  return `# Limits

Generated from \`src/core/limits.ts\` ${GENERATED}

Every queue, wait, body, retry and log line has a bound. A row without a description belongs to the one above it. What can be chosen per
function or per platform is in [configuration.md](configuration.md); the rest is fixed.

| What | Limit | Name |
| --- | --- | --- |
${rows.join("\n")}
`;
}

/** The values are shown with their units. */
function withoutUnits(comment: string): string {
  return comment.replaceAll(/, in (?:bytes|milliseconds)(?: and count)?/g, "");
}

function amount(name: string): string {
  if (!Object.hasOwn(limits, name)) throw new Error(`'${name}' in src/core/limits.ts is not a limit`);
  const value = limits[name as keyof typeof limits];
  if (/Bytes/.test(name))
    return scaled(
      value,
      [
        [1024 ** 3, "GiB"],
        [1024 ** 2, "MiB"],
        [1024, "KiB"],
      ],
      "B",
    );
  if (/Ms/.test(name))
    return scaled(
      value,
      [
        [24 * 3_600_000, "d"],
        [3_600_000, "h"],
        [60_000, "min"],
        [1_000, "s"],
      ],
      "ms",
    );
  return grouped(value);
}

/** In the largest unit of which it is a whole number. */
function scaled(value: number, units: readonly (readonly [number, string])[], rest: string): string {
  const unit = units.find(([size]) => value >= size && value % size === 0);
  return unit === undefined ? `${grouped(value)} ${rest}` : `${grouped(value / unit[0])} ${unit[1]}`;
}

function grouped(value: number): string {
  return String(value).replaceAll(/\B(?=(?:\d{3})+$)/g, ",");
}

/** Which labels a metric has is known where it is observed; a new metric must be added here. */
const labels: Readonly<Record<string, readonly string[]>> = {
  koine_http_requests_total: [],
  koine_http_refused_total: [],
  koine_invocations_total: ["namespace", "function", "outcome"],
  koine_errors_total: ["namespace", "function", "fault", "code"],
  koine_invocation_duration_seconds: ["namespace", "function"],
  koine_queue_duration_seconds: [],
  koine_cold_starts_total: ["namespace", "function"],
  koine_cold_start_seconds: [],
  koine_instances: ["state"],
  koine_instances_memory_bytes: [],
  koine_spare_sandboxes: ["runtime"],
  koine_queue_depth: ["queue"],
  koine_queue_age_seconds: ["queue"],
  koine_queue_refused_total: ["code"],
  koine_async_attempts_total: ["outcome"],
  koine_async_retries_total: [],
  koine_dead_letters: ["queue"],
  koine_dead_letters_total: ["code"],
  koine_destinations_total: ["outcome"],
  koine_engine_restarts_total: [],
  koine_schedule_lateness_seconds: [],
  koine_trigger_events_total: ["namespace", "trigger", "result"],
  koine_trigger_lag_events: ["namespace", "trigger"],
  koine_trigger_lag_seconds: ["namespace", "trigger"],
  koine_triggers: ["kind", "state"],
};

function metricsPage(sources: readonly string[]): string {
  const found = sources.flatMap((text) => [
    ...text.matchAll(/\.(?<type>counter|gauge|histogram)\(\s*"(?<name>koine_\w+)",\s*"(?<help>[^"]+)"/g),
  ]);
  const rows = found
    .map(({ groups }) => ({ type: groups?.["type"] ?? "", name: groups?.["name"] ?? "", help: groups?.["help"] ?? "" }))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ type, name, help }) => {
      const known = labels[name];
      if (known === undefined) throw new Error(`scripts/docs.ts does not know the labels of metric ${name}`);
      return `| \`${name}\` | ${type} | ${known.map((label) => `\`${label}\``).join(", ")} | ${cell(help)} |`;
    });
  return `# Metrics

Generated from the source ${GENERATED}

\`GET /metrics\` answers in Prometheus' text format 0.0.4. With tokens it needs one with the right \`read\` for all namespaces. A metric
appears once there is something to say. Histograms have buckets from 0.5 ms to a minute.

| Name | Type | Labels | Meaning |
| --- | --- | --- | --- |
${rows.join("\n")}
`;
}

function sourceFiles(): readonly string[] {
  return globSync("src/**/*.ts", { cwd: root })
    .filter((path) => !path.endsWith(".test.ts"))
    .map((path) => readFileSync(join(root, path), "utf8"));
}

/** Text as the cell of a table. */
function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("\n", " ");
}

if (import.meta.main) {
  for (const [path, text] of generatedPages()) {
    writeFileSync(join(root, path), text);
    process.stdout.write(`wrote ${path}\n`);
  }
}
