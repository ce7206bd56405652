import type { Command } from "commander";
import type { AliasView, FunctionView } from "../../core/api.ts";
import { functionNamed, functionPath, inPackage } from "../address.ts";
import type { Cli } from "../command.ts";
import { defineCommand, withSession } from "../command.ts";
import { formatAgo, formatBytes, formatDuration } from "../quantity.ts";
import { instancesText } from "./list.ts";

export function addGet(parent: Command, cli: Cli): void {
  defineCommand(parent, "get <name>", {
    summary: "Show a function and the settings of its live version",
    examples: ["koine get hello", "koine get hello -o json | jq .spec.environment"],
  }).action(
    withSession(cli, async (session, name: string) => {
      const path = functionPath(session, functionNamed(session, name));
      const view = await session.client.json<FunctionView>("GET", path);
      const nowMs = session.io.clock.nowMs();
      session.output.show(view, () => session.output.facts(facts(view, session.client.address(view.path), nowMs)));
    }),
  );
}

function facts(view: FunctionView, url: string, nowMs: number): readonly (readonly [string, string])[] {
  const { spec } = view;
  const variables = Object.entries(spec.environment).map(([name, value]) => `${name}=${value}`);
  return [
    ["name", inPackage(view)],
    ["namespace", view.namespace],
    ["url", url],
    ...(spec.description === "" ? [] : [["description", spec.description] as const]),
    ["live version", `${view.liveVersion}${view.previousVersion === null ? "" : ` (before: ${view.previousVersion})`}`],
    ["newest version", String(view.newestVersion)],
    ["aliases", view.aliases.length === 0 ? "-" : view.aliases.map(aliasText).join(", ")],
    ["runtime", spec.runtime],
    ...(spec.image === undefined ? [] : [["image", spec.image] as const]),
    ...programText(spec),
    ["memory", formatBytes(spec.memoryBytesMax)],
    ["timeout", formatDuration(spec.timeoutMs)],
    ["concurrency", `${spec.instanceConcurrency} per instance, ${spec.reservedConcurrency ?? "any number"} in all`],
    ["idle timeout", spec.idleTimeoutMs === null ? "the platform's choice" : formatDuration(spec.idleTimeoutMs)],
    ["access", spec.access],
    ["network", networkText(spec)],
    ["cpu", spec.cpuCores === undefined ? "by memory" : `${spec.cpuCores} cores at most`],
    ["environment", variables.length === 0 ? "-" : variables.join(" ")],
    ["secrets", spec.secrets.length === 0 ? "-" : spec.secrets.join(" ")],
    ["dialect", spec.dialect],
    ["instances", instancesText(view.instances)],
    ["code", spec.code],
    ["created", formatAgo(view.createdAt, nowMs)],
    ["updated", formatAgo(view.updatedAt, nowMs)],
  ];
}

function networkText({ network, allowNetwork }: FunctionView["spec"]): string {
  const mode = network ?? "the platform's";
  return allowNetwork === undefined || allowNetwork.length === 0 ? mode : `${mode}, and ${allowNetwork.join(" ")}`;
}

/** `prod → v3`, or `prod → v3 90%, v4 10%`. */
export function aliasText(alias: Pick<AliasView, "name" | "version" | "additional">): string {
  return `${alias.name} → ${aliasTarget(alias)}`;
}

export function aliasTarget({ version, additional }: Pick<AliasView, "version" | "additional">): string {
  if (additional === undefined) return `v${version}`;
  const share = (weight: number): string => `${Number((weight * 100).toFixed(2))}%`;
  return `v${version} ${share(1 - additional.weight)}, v${additional.version} ${share(additional.weight)}`;
}

/** The handler, or what stands in its place. */
function programText(spec: FunctionView["spec"]): readonly (readonly [string, string])[] {
  const { protocol, command, port, readyPath } = spec;
  if (protocol === undefined) return [["handler", `${spec.handler} (${spec.handlerModel})`]];
  const details = [
    ...(port === undefined ? [] : [`port ${port}`]),
    ...(readyPath === undefined ? [] : [`ready at ${readyPath}`]),
  ];
  return [
    ["protocol", [protocol, ...details].join(", ")],
    ["command", command === undefined ? "./bootstrap, or the image's own" : command.join(" ")],
  ];
}
