import type { Command } from "commander";
import type { DoctorReport, PlatformStatus } from "../../core/api.ts";
import type { Cli } from "../command.ts";
import { defineCommand, withSession } from "../command.ts";
import { formatAgo, formatBytes } from "../quantity.ts";
import { instancesText } from "./list.ts";

/** Time in which `version` waits for the platform's, in milliseconds. */
const VERSION_MS_MAX = 1_000;

/** Adds `status`, `doctor` and `version`: what the platform is and can do. */
export function addStatus(parent: Command, cli: Cli): void {
  defineCommand(parent, "status", {
    summary: "Show what the platform is doing",
    examples: ["koine status", "koine status --url https://koine.example.org -o json"],
  }).action(
    withSession(cli, async ({ client, io, output, settings }) => {
      const status = await client.json<PlatformStatus>("GET", "/v1/status");
      const address = settings.context === null ? settings.url.origin : `${settings.url.origin} (${settings.context})`;
      output.show(status, () => output.facts(statusFacts(status, address, io.clock.nowMs())));
    }),
  );

  defineCommand(parent, "doctor", {
    summary: "Check what the platform's machine offers for isolation, and how to get what is missing",
    examples: ["koine doctor"],
  }).action(
    withSession(cli, async ({ client, output }) => {
      const report = await client.json<DoctorReport>("GET", "/v1/doctor");
      if (output.json) return output.value(report);
      output.list(report.facts, {
        columns: [{ title: "" }, { title: "ABILITY" }, { title: "DETAIL" }],
        row: (fact) => [
          fact.holds ? output.paint("green", "yes") : output.paint("yellow", "no"),
          fact.ability,
          fact.holds || fact.remedy === "" ? fact.detail : `${fact.detail} → ${fact.remedy}`,
        ],
        empty: "Nothing to check.",
      });
      const missing = report.facts.filter((fact) => !fact.holds).length;
      output.note(`sandbox ${report.sandbox}: ${missing === 0 ? "everything holds" : `${missing} missing`}`);
    }),
  );

  defineCommand(parent, "version", {
    summary: "Show the version of this command and of the platform it speaks to",
    examples: ["koine version", "koine version -o json"],
  }).action(
    withSession(cli, async ({ client, io, output, settings }) => {
      const platform = await client
        .send({ method: "GET", path: "/v1/status", timeoutMs: VERSION_MS_MAX })
        .then(async (response) => ((await client.readJson(response)) as PlatformStatus).version)
        .catch(() => undefined);
      output.show(
        { cli: io.version, platform: platform ?? null, node: process.versions.node },
        () => `koine ${io.version}`,
      );
      if (!output.json) {
        output.note(
          platform === undefined
            ? `no platform at ${settings.url.origin}`
            : `platform ${platform} at ${settings.url.origin}`,
        );
      }
    }),
  );
}

function statusFacts(status: PlatformStatus, address: string, nowMs: number): readonly (readonly [string, string])[] {
  const spares = Object.entries(status.spares).map(([runtime, count]) => `${count} ${runtime}`);
  const { memory, queue } = status;
  return [
    ["platform", `koine ${status.version} at ${address}`],
    ["started", formatAgo(status.startedAt, nowMs)],
    ["data", status.dataDirectory],
    ["sandbox", status.sandbox],
    ["authentication", status.authentication ? "yes" : "no: whoever reaches the port may do everything"],
    ["functions", String(status.functions)],
    ["instances", instancesText(status.instances)],
    ["spare sandboxes", spares.length === 0 ? "-" : spares.join(", ")],
    ["memory", `${formatBytes(memory.usedBytes)} of ${formatBytes(memory.budgetBytes)}`],
    ["queue", `${queue.waiting} waiting, ${queue.leased} running, ${queue.dead} dead`],
    ...enginesFacts(status.engines),
  ];
}

/** Of a platform with one engine everything is said already. */
function enginesFacts(engines: PlatformStatus["engines"] = []): readonly (readonly [string, string])[] {
  if (engines.length < 2) return [];
  return engines.map(({ engine, pid, connections, inFlight, instances }) => [
    `engine ${engine}`,
    pid === null
      ? "is being started anew"
      : `process ${pid}, ${connections} connections, ${inFlight} invocations, instances ${instancesText(instances)}`,
  ]);
}
