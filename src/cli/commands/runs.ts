import type { Command } from "commander";
import { Option } from "commander";
import { pipeline } from "node:stream/promises";
import type { ActivationView, RunView } from "../../core/api.ts";
import { invocationHeaders } from "../../core/api.ts";
import { functionNamed, inPackage, namespacePath } from "../address.ts";
import type { Cli, Session } from "../command.ts";
import { defineCommand, withSession } from "../command.ts";
import { usageFailure } from "../failure.ts";
import { readActivationLogs } from "../logs.ts";
import type { Paint } from "../terminal.ts";
import { formatAgo, formatBytes, formatDuration, parseCount, parseSince } from "../quantity.ts";
import { attemptText } from "./dlq.ts";
import { logPrinter } from "./logs.ts";

const STATES = ["queued", "running", "succeeded", "failed", "timedOut", "rejected"] as const;
const LIMIT_DEFAULT = 20;

interface ListFlags {
  readonly state?: string;
  readonly since?: string;
  readonly limit?: string;
}

/** Adds `runs list|get|cancel|replay`: invocations that were made. */
export function addRuns(parent: Command, cli: Cli): void {
  const runs = defineCommand(parent, "runs", {
    summary: "Look at the invocations that were made",
    examples: ["koine runs list hello", "koine runs get 01920c3e-…"],
  });

  defineCommand(runs, "list [name]", {
    summary: "List invocations, newest first",
    examples: ["koine runs list", "koine runs list hello --state failed --since 1h"],
  })
    .alias("ls")
    .addOption(new Option("--state <state>", "only those that ended so").choices(STATES))
    .option("--since <when>", "only what is younger: 10m, 2h, or a time")
    .option("--limit <count>", `at most so many (default ${LIMIT_DEFAULT})`)
    .action(withSession(cli, listRuns));

  defineCommand(runs, "get <id>", {
    summary: "Show one invocation",
    examples: ["koine runs get 01920c3e-…", "koine runs get 01920c3e-… --logs", "koine runs get 01920c3e-… --result"],
  })
    .option("--logs", "show what it wrote instead")
    .option("--result", "show the stored answer of an asynchronous invocation instead")
    .action(withSession(cli, getRun));

  defineCommand(runs, "cancel <id>", {
    summary: "End an invocation that waits or runs",
    examples: ["koine runs cancel 01920c3e-…"],
  }).action(withSession(cli, cancelRun));

  defineCommand(runs, "replay <id>", {
    summary: "Run an asynchronous invocation again that failed for good, with its event",
    detail: "The events of others are not kept. 'koine dlq replay' does it for many.",
    examples: ["koine runs replay 01920c3e-…"],
  }).action(withSession(cli, replayRun));
}

async function cancelRun(session: Session, id: string): Promise<void> {
  await session.client.json("POST", namespacePath(session, `/activations/${encodeURIComponent(id)}/cancel`));
  session.output.done(`cancelled ${id}`);
  if (session.output.json) session.output.value({ cancelled: [id] });
}

async function replayRun(session: Session, id: string): Promise<void> {
  await session.client.json("POST", namespacePath(session, `/activations/${encodeURIComponent(id)}/replay`));
  session.output.done(`${id} runs again; 'koine runs get ${id}' shows it`);
  if (session.output.json) session.output.value({ activationId: id });
}

async function listRuns(session: Session, name: string | undefined, flags: ListFlags): Promise<void> {
  const { client, io, output } = session;
  const nowMs = io.clock.nowMs();
  const ref = name === undefined ? undefined : functionNamed(session, name);
  const query = {
    function: ref === undefined ? undefined : inPackage(ref),
    state: flags.state,
    since: flags.since === undefined ? undefined : parseSince(flags.since, nowMs),
  };
  const most = flags.limit === undefined ? LIMIT_DEFAULT : parseCount(flags.limit, "a number of invocations");
  const path = namespacePath(session, "/activations", ref?.namespace);
  output.list(await client.items<ActivationView>(path, query, most), {
    columns: [
      { title: "ID" },
      { title: "FUNCTION" },
      { title: "VERSION", align: "right" },
      { title: "STATE" },
      { title: "START" },
      { title: "DURATION", align: "right" },
      { title: "WHEN" },
    ],
    row: (view) => [
      view.id,
      inPackage(view),
      `v${view.version}`,
      stateText(view.state, output.paint),
      view.cold ? "cold" : "warm",
      formatDuration(view.durationMs),
      formatAgo(view.startedAt, nowMs),
    ],
    empty: "No invocations.",
  });
}

async function getRun(
  session: Session,
  id: string,
  flags: { readonly logs?: boolean; readonly result?: boolean },
): Promise<void> {
  const { client, io, output } = session;
  const path = namespacePath(session, `/activations/${encodeURIComponent(id)}`);
  if (flags.logs === true && flags.result === true)
    throw usageFailure("--logs and --result exclude each other", "Use one.");
  if (flags.logs === true) {
    const print = logPrinter(session);
    for (const log of await readActivationLogs(session, id)) print(log);
    return;
  }
  if (flags.result === true) {
    const response = await client.send({ method: "GET", path: `${path}/result`, timeoutMs: 30_000 });
    // Without this header a status of 400 or more is the stored answer's own.
    if (response.headers[invocationHeaders.error] !== undefined) throw await client.failure(response);
    await pipeline(response, io.stdout, { end: false, signal: session.signal });
    return;
  }
  const view = await client.json<RunView>("GET", path);
  output.show(view, () => output.facts(runFacts(view, output.paint, io.clock.nowMs())));
}

function runFacts(view: RunView, paint: Paint, nowMs: number): readonly (readonly [string, string])[] {
  const { error } = view;
  return [
    ["id", view.id],
    ["function", `${inPackage(view)}, version ${view.version}`],
    ["state", stateText(view.state, paint)],
    ["mode", `${view.mode}, attempt ${view.attempt}`],
    ["started", `${view.startedAt} (${formatAgo(view.startedAt, nowMs)})`],
    ["duration", formatDuration(view.durationMs)],
    [
      "waited",
      `${formatDuration(view.queuedMs)}${view.cold ? `, of which start ${formatDuration(view.startMs)}` : ""}`,
    ],
    ["start", view.cold ? "cold" : "warm"],
    ["memory", view.memoryBytes === 0 ? "-" : formatBytes(view.memoryBytes)],
    ["status", view.status === null ? "-" : String(view.status)],
    ["instance", view.instanceId === "" ? "-" : view.instanceId],
    ...view.attempts.map((attempt) => [`attempt ${attempt.number}`, attemptText(attempt)] as const),
    ...(view.queued === null ? [] : [["queue", view.queued.running ? "running" : `due ${view.queued.dueAt}`] as const]),
    ...(view.deadLetter ? [["dead letter", `'koine dlq get ${view.id}' shows its event`] as const] : []),
    ...(error === null ? [] : [["error", `${error.message} (${error.code}, fault ${error.fault})`] as const]),
    ...(error?.cause?.stack === undefined
      ? []
      : [["stack", error.cause.stack.replaceAll("\n", "\n          ")] as const]),
  ];
}

function stateText(state: ActivationView["state"], paint: Paint): string {
  switch (state) {
    case "succeeded":
      return paint("green", state);
    case "queued":
    case "running":
      return paint("cyan", state);
    case "failed":
    case "rejected":
    case "timedOut":
      return paint("red", state === "timedOut" ? "timed out" : state);
    default:
      return state satisfies never;
  }
}
