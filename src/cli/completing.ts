import type { Command, Option } from "commander";

/** Where the values of an argument or option come from. */
export type ValueSource = "functions" | "secrets" | "contexts" | "runtimes" | "aliases";

/** Looks values up; answers none rather than failing. `positional` are the arguments before the one being typed. */
export type LookUp = (source: ValueSource, positional: readonly string[]) => Promise<readonly string[]>;

/** What may stand at the last of these words, which is the one being typed; no answers mean files. */
export async function completions(
  program: Command,
  words: readonly string[],
  lookUp: LookUp,
): Promise<readonly string[]> {
  const typed = words.at(-1) ?? "";
  let command = program;
  let pending: Option | undefined;
  const positional: string[] = [];
  for (const word of words.slice(0, -1)) {
    if (pending !== undefined) {
      pending = undefined;
    } else if (word.startsWith("-") && word !== "-") {
      const option = optionNamed(command, word.split("=")[0] ?? "");
      if (option !== undefined && takesValue(option) && !word.includes("=")) pending = option;
    } else {
      const child = command.commands.find((other) => other.name() === word || other.aliases().includes(word));
      if (child === undefined) positional.push(word);
      else command = child;
    }
  }
  const found = await candidates(command, { pending, typed, positional }, lookUp);
  return found.filter((candidate) => candidate.startsWith(typed));
}

async function candidates(
  command: Command,
  at: { readonly pending: Option | undefined; readonly typed: string; readonly positional: readonly string[] },
  lookUp: LookUp,
): Promise<readonly string[]> {
  if (at.pending !== undefined) {
    if (at.pending.argChoices !== undefined) return at.pending.argChoices;
    const source = optionSources[at.pending.attributeName()];
    return source === undefined ? [] : await lookUp(source, at.positional);
  }
  if (at.typed.startsWith("-")) {
    const help = command.createHelp();
    return help
      .visibleOptions(command)
      .flatMap((option) => (option.long === undefined || option.long === null ? [] : [option.long]));
  }
  if (command.commands.length > 0) {
    const help = command.createHelp();
    return help.visibleCommands(command).map((child) => child.name());
  }
  const declared = command.registeredArguments;
  const argument = declared[at.positional.length] ?? declared.find((other) => other.variadic);
  if (argument === undefined) return [];
  if (argument.argChoices !== undefined) return argument.argChoices;
  const source = argumentSources[argument.name()];
  return source === undefined ? [] : await lookUp(source, at.positional);
}

const optionSources: Readonly<Record<string, ValueSource | undefined>> = {
  context: "contexts",
  runtime: "runtimes",
  secret: "secrets",
};

const argumentSources: Readonly<Record<string, ValueSource | undefined>> = {
  name: "functions",
  secret: "secrets",
  context: "contexts",
  alias: "aliases",
};

function optionNamed(command: Command, flag: string): Option | undefined {
  return command.options.find((option) => option.long === flag || option.short === flag);
}

function takesValue(option: Option): boolean {
  return option.required || option.optional;
}
