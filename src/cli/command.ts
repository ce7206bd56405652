import { Command, Option } from "commander";
import { setMaxListeners } from "node:events";
import { isName } from "../core/function.ts";
import { Client } from "./client.ts";
import type { UpOptions } from "./commands/up.ts";
import { CliFailure, usageFailure } from "./failure.ts";
import type { CliIo } from "./io.ts";
import type { OutputFlags } from "./output.ts";
import { Output } from "./output.ts";
import type { Settings, SettingsFlags } from "./settings.ts";
import { readSettings } from "./settings.ts";

/** Abilities of the whole program that the CLI only starts. */
export interface CliCommands {
  /** Runs the platform until it has stopped; answers the exit code. */
  up?(options: UpOptions): Promise<number>;
}

/** One run of the CLI. */
export interface Cli {
  readonly io: CliIo;
  readonly commands: CliCommands;
  /** What the command that ran answered. */
  exitCode: number;
}

/** What a command works with. */
export interface Session {
  readonly io: CliIo;
  readonly settings: Settings;
  readonly client: Client;
  readonly output: Output;
  /** Aborts on Ctrl-C, and when nobody reads stdout any more. */
  readonly signal: AbortSignal;
}

/** Adds a command to its parent; every one has a summary and at least one example. */
export function defineCommand(
  parent: Command,
  nameAndArguments: string,
  about: { readonly summary: string; readonly detail?: string; readonly examples: readonly string[] },
): Command {
  const detail = about.detail === undefined ? "" : `\n${about.detail}`;
  return parent
    .command(nameAndArguments)
    .helpCommand(false)
    .summary(about.summary)
    .description(`${about.summary}.${detail}`)
    .addHelpText("after", `\nExamples:\n${about.examples.map((line) => `  $ ${line}`).join("\n")}\n`);
}

/** The action of a command that speaks to the platform: its arguments, then its options. */
export function withSession<Args extends unknown[]>(
  cli: Cli,
  body: (session: Session, ...args: Args) => Promise<number | void>,
): (...args: unknown[]) => Promise<void> {
  return async (...given) => {
    const command = given.at(-1);
    if (!(command instanceof Command)) throw new TypeError("the last argument of an action is its command");
    const flags = globalFlags(command);
    const settings = await readSettings(cli.io, flags);
    if (!isName(settings.namespace)) {
      throw usageFailure(`'${settings.namespace}' is not a namespace`, "Use letters, digits, '.', '_' and '-'.");
    }
    const interruption = new AbortController();
    setMaxListeners(0, interruption.signal);
    const stopListening = cli.io.onInterrupt(() => interruption.abort());
    let readerIsGone = false;
    const closedPipe = (): void => {
      readerIsGone = true;
      interruption.abort();
    };
    cli.io.stdout.once("error", closedPipe);
    const { url, token } = settings;
    const client = new Client({ url, token, version: cli.io.version, signal: interruption.signal });
    const output = new Output(cli.io, flags);
    const session: Session = { io: cli.io, settings, client, output, signal: interruption.signal };
    try {
      cli.exitCode = (await body(session, ...(given.slice(0, -1) as Args))) ?? 0;
    } catch (thrown) {
      if (readerIsGone) return;
      throw interruption.signal.aborted ? new CliFailure("interrupted", "Interrupted", "") : thrown;
    } finally {
      client.close();
      stopListening();
      cli.io.stdout.off("error", closedPipe);
    }
  };
}

/** Gives a command and everything below it the options that all commands share, after its own. */
export function addGlobalOptions(command: Command): void {
  for (const child of command.commands) addGlobalOptions(child);
  const group = "Global options:";
  const options = [
    new Option("-o, --output <format>", "for people, or as JSON").choices(["table", "json"]),
    new Option("--url <url>", "address of the platform (KOINE_URL)"),
    new Option("-n, --namespace <namespace>", "namespace to act in (KOINE_NAMESPACE)"),
    new Option("--context <name>", "context to use instead of the current one"),
    new Option("-q, --quiet", "leave out remarks and progress"),
    new Option("--no-color", "leave out colours (NO_COLOR)"),
  ];
  for (const option of options) command.addOption(option.helpGroup(group));
}

/** The shared options, wherever on the command line they stand; the nearest to the end counts. */
export function globalFlags(command: Command): SettingsFlags & OutputFlags {
  const chain: Command[] = [];
  for (let at: Command | null = command; at !== null; at = at.parent) chain.unshift(at);
  const set = chain.flatMap((at) =>
    Object.entries(at.opts()).filter(([name]) => at.getOptionValueSource(name) === "cli"),
  );
  const { url, namespace, context, output, quiet, color } = Object.fromEntries(set) as SettingsFlags & OutputFlags;
  return {
    ...(url === undefined ? {} : { url }),
    ...(namespace === undefined ? {} : { namespace }),
    ...(context === undefined ? {} : { context }),
    ...(output === undefined ? {} : { output }),
    ...(quiet === undefined ? {} : { quiet }),
    ...(color === undefined ? {} : { color }),
  };
}

/** Collects an option that may be given several times. */
export function collect(value: string, previous: readonly string[] | undefined): readonly string[] {
  return [...(previous ?? []), value];
}
