import type { Command } from "commander";
import { Argument } from "commander";
import type { AliasView, FunctionView, Page, RuntimeView, SecretView } from "../../core/api.ts";
import { functionNamed, functionPath, inPackage, namespacePath } from "../address.ts";
import type { Cli, Session } from "../command.ts";
import { defineCommand, withSession } from "../command.ts";
import type { ValueSource } from "../completing.ts";
import { completions } from "../completing.ts";
import { readContexts } from "../settings.ts";

/** A shell that waits for its Tab key waits no longer than this for the platform, in milliseconds. */
const LOOK_UP_MS_MAX = 700;

const scripts = {
  bash: `# koine completion for bash: source <(koine completion bash)
_koine() {
  local IFS=$'\\n'
  COMPREPLY=($(koine __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _koine koine
`,
  zsh: `#compdef koine
# koine completion for zsh: source <(koine completion zsh), or save it as _koine in a folder of $fpath
_koine() {
  local -a found
  found=("\${(@f)$(koine __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "\${found[*]}" ]]; then compadd -- "\${found[@]}"; else _files; fi
}
if [[ "\${funcstack[1]}" = _koine ]]; then _koine "$@"; else compdef _koine koine; fi
`,
  fish: `# koine completion for fish: koine completion fish | source
function __koine_complete
  set -l words (commandline -opc)
  set -l typed (commandline -ct)
  koine __complete -- $words[2..-1] "$typed" 2>/dev/null
end
complete -c koine -a '(__koine_complete)'
`,
} as const;

/** Adds `completion`, and the hidden command that its scripts call. */
export function addCompletion(parent: Command, cli: Cli): void {
  defineCommand(parent, "completion", {
    summary: "Print a script that completes commands, options and function names in your shell",
    examples: ["source <(koine completion bash)", "koine completion fish > ~/.config/fish/completions/koine.fish"],
  })
    .addArgument(new Argument("<shell>", "your shell").choices(Object.keys(scripts)))
    .action((shell: keyof typeof scripts) => {
      cli.io.stdout.write(scripts[shell]);
    });

  parent
    .command("__complete [words...]", { hidden: true })
    .helpOption(false)
    .action(
      withSession(cli, async (session, words: readonly string[]) => {
        const found = await completions(parent, words, (source, positional) =>
          lookUp(session, source, positional).catch(() => []),
        );
        if (found.length > 0) session.output.line(found.join("\n"));
      }),
    );
}

async function lookUp(
  session: Session,
  source: ValueSource,
  positional: readonly string[],
): Promise<readonly string[]> {
  switch (source) {
    case "functions":
      return (await page<FunctionView>(session, namespacePath(session, "/functions?limit=1000"))).map(inPackage);
    case "secrets":
      return (await page<SecretView>(session, namespacePath(session, "/secrets?limit=1000"))).map((view) => view.name);
    case "runtimes":
      return (await page<RuntimeView>(session, "/v1/runtimes")).map((view) => view.name);
    case "aliases": {
      const path = functionPath(session, functionNamed(session, positional[0] ?? ""), "/aliases");
      return (await page<AliasView>(session, path)).map((view) => view.name);
    }
    case "contexts":
      return Object.keys((await readContexts(session.io)).contexts);
    default:
      return source satisfies never;
  }
}

async function page<Item>(session: Session, path: string): Promise<readonly Item[]> {
  const response = await session.client.send({ method: "GET", path, timeoutMs: LOOK_UP_MS_MAX });
  return ((await session.client.readJson(response)) as Page<Item>).items;
}
