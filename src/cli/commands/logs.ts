import type { Command } from "commander";
import type { LogView } from "../../core/api.ts";
import { functionNamed } from "../address.ts";
import type { Cli, Session } from "../command.ts";
import { defineCommand, withSession } from "../command.ts";
import { followLogs, readLogs, renderLog } from "../logs.ts";
import type { LogQuery } from "../logs.ts";
import { parseCount, parseSince } from "../quantity.ts";

interface LogFlags {
  readonly follow?: boolean;
  readonly since?: string;
  readonly activation?: string;
  readonly version?: string;
  readonly limit?: string;
}

export function addLogs(parent: Command, cli: Cli): void {
  defineCommand(parent, "logs <name>", {
    summary: "Show what a function wrote, oldest first",
    detail: "With -o json one JSON object per line.",
    examples: ["koine logs hello -f", "koine logs hello --since 10m", "koine logs hello --activation 01920c3e-…"],
  })
    .option("-f, --follow", "go on with what is written from now on, until Ctrl-C")
    .option("--since <when>", "only what is younger: 10m, 2h, or a time")
    .option("--activation <id>", "only of this invocation")
    .option("--version <number>", "only of this version")
    .option("--limit <lines>", "at most so many lines, the youngest")
    .action(
      withSession(cli, async (session, name: string, flags: LogFlags) => {
        const ref = functionNamed(session, name);
        const query = logQuery(session, flags);
        const print = logPrinter(session);
        if (flags.follow === true) {
          await followLogs(session, ref, { query, signal: session.signal, each: print });
          session.signal.throwIfAborted();
          return;
        }
        const logs = await readLogs(session, ref, query);
        for (const log of logs) print(log);
        if (logs.length === 0) session.output.note("No output is kept for this.");
      }),
    );
}

/** Writes a log line to stdout, for people or as one JSON object. */
export function logPrinter(session: Session): (log: LogView) => void {
  const { io, output } = session;
  if (output.json) return (log) => output.line(JSON.stringify(log));
  const look = { paint: output.paint, isTerminal: io.isTerminal.stdout, withVersion: true };
  return (log) => output.line(renderLog(log, look));
}

function logQuery(session: Session, flags: LogFlags): LogQuery {
  return {
    since: flags.since === undefined ? undefined : parseSince(flags.since, session.io.clock.nowMs()),
    activation: flags.activation,
    version: flags.version === undefined ? undefined : parseCount(flags.version, "a version"),
    limit: flags.limit === undefined ? undefined : parseCount(flags.limit, "a number of lines"),
  };
}
