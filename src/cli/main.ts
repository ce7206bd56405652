import { Command, CommanderError } from "commander";
import type { Cli, CliCommands } from "./command.ts";
import { addGlobalOptions } from "./command.ts";
import { addAlias } from "./commands/alias.ts";
import { addCompletion } from "./commands/completion.ts";
import { addContext } from "./commands/context.ts";
import { addDelete } from "./commands/delete.ts";
import { addDeploy } from "./commands/deploy.ts";
import { addDev } from "./commands/dev.ts";
import { addDlq } from "./commands/dlq.ts";
import { addGet } from "./commands/get.ts";
import { addInit } from "./commands/init.ts";
import { addInvoke } from "./commands/invoke.ts";
import { addList } from "./commands/list.ts";
import { addLogs } from "./commands/logs.ts";
import { addRuns } from "./commands/runs.ts";
import { addSecret } from "./commands/secret.ts";
import { addStatus } from "./commands/status.ts";
import { addTopic } from "./commands/topic.ts";
import { addTrigger } from "./commands/trigger.ts";
import { addUp } from "./commands/up.ts";
import { addVersions } from "./commands/versions.ts";
import { exitCodes, toFailure, usageFailure } from "./failure.ts";
import type { CliFailure } from "./failure.ts";
import type { CliIo } from "./io.ts";
import { Output } from "./output.ts";
import { readDisplay } from "./settings.ts";

/**
 * Runs one command line (without node and script) and answers the exit code: 0 ok, 1 failed, 2 usage, 3 not allowed, 4 not found, 5 timed
 * out, 6 the function failed, 130 interrupted. Set it as `process.exitCode` rather than exit, so that what was written is flushed.
 */
export async function runCli(argv: readonly string[], io: CliIo, commands: CliCommands = {}): Promise<number> {
  const cli: Cli = { io, commands, exitCode: exitCodes.ok };
  // Whoever read our output may stop doing so at any time; that is not an error of ours.
  const ignore = (): void => {};
  io.stdout.on("error", ignore);
  io.stderr.on("error", ignore);
  try {
    const program = buildProgram(cli);
    if (argv.length === 0) {
      program.outputHelp();
      return exitCodes.ok;
    }
    await program.parseAsync(argv, { from: "user" });
    return cli.exitCode;
  } catch (thrown) {
    const failure = thrown instanceof CommanderError ? usageOf(thrown) : toFailure(thrown);
    if (typeof failure === "number") return failure;
    if (failure.exitCode !== exitCodes.interrupted) outputOf(argv, io).failure(failure);
    if (readDisplay(io).debug && thrown instanceof Error) io.stderr.write(`${thrown.stack}\n`);
    return failure.exitCode;
  } finally {
    io.stdout.off("error", ignore);
    io.stderr.off("error", ignore);
  }
}

/** All commands. */
export function buildProgram(cli: Cli): Command {
  const program = new Command("koine")
    .description("A self-hosted serverless platform: one engine that speaks every serverless dialect.")
    .version(cli.io.version, "-V, --version", "show the version")
    .enablePositionalOptions()
    .exitOverride()
    .configureHelp({
      subcommandTerm: (command) => [termOf(command), command.usage().replace("[options]", "").trim()].join(" ").trim(),
    })
    .configureOutput({
      writeOut: (text) => void cli.io.stdout.write(text),
      writeErr: (text) => void cli.io.stderr.write(text),
      // Errors are shown once, by runCli, in the form of all others.
      outputError: () => {},
    })
    .addHelpText(
      "after",
      "\nExamples:\n  $ koine up\n  $ koine init my-fn && cd my-fn && koine dev\n  $ koine deploy . && koine invoke my-fn -d '{\"a\":1}'\n\n" +
        "Exit codes: 0 ok, 1 failed, 2 usage, 3 not allowed, 4 not found, 5 timed out, 6 the function failed, 130 interrupted.\n",
    );
  program.commandsGroup("Begin:");
  for (const add of [addUp, addInit, addDev]) add(program, cli);
  program.commandsGroup("Functions:");
  for (const add of [addDeploy, addInvoke, addLogs, addRuns, addList, addGet, addVersions, addAlias, addDelete]) {
    add(program, cli);
  }
  program.commandsGroup("Events:");
  for (const add of [addTrigger, addTopic, addDlq]) add(program, cli);
  program.commandsGroup("Platform:");
  for (const add of [addSecret, addStatus, addContext, addCompletion]) add(program, cli);
  program.helpCommand("help [command]", "Show the help of a command");
  addGlobalOptions(program);
  return program;
}

function termOf(command: Command): string {
  return [command.name(), ...command.aliases()].join("|");
}

/** The exit code when commander only showed something, else the failure that its error means. */
function usageOf(error: CommanderError): number | CliFailure {
  if (error.code === "commander.helpDisplayed" || error.code === "commander.version") return exitCodes.ok;
  // A command group without a command: help was shown, on stderr.
  if (error.code === "commander.help") return exitCodes.usage;
  const [message = "", ...more] = error.message.replace(/^error: /, "").split("\n");
  const meant = /^\(Did you mean (.*)\?\)$/.exec(more.join(" "));
  const hint =
    meant === null ? "'koine help' and 'koine COMMAND --help' show what is possible." : `Did you mean '${meant[1]}'?`;
  return usageFailure(message, hint);
}

/** How to show an error of which no command knows yet what was asked for. */
function outputOf(argv: readonly string[], io: CliIo): Output {
  const json = argv.some((word, index) => {
    const value = /^(?:-o|--output)$/.test(word) ? argv[index + 1] : /^(?:-o|--output=)(.*)$/.exec(word)?.[1];
    return value === "json";
  });
  return new Output(io, { ...(json ? { output: "json" } : {}), color: !argv.includes("--no-color") });
}
