import type { Command } from "commander";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { basename, dirname, join, relative, resolve } from "node:path";
import { isName } from "../../core/function.ts";
import type { Cli, Session } from "../command.ts";
import { defineCommand, withSession } from "../command.ts";
import { CliFailure, usageFailure } from "../failure.ts";
import { nameFrom } from "../project.ts";
import { nearest } from "../../core/nearest.ts";
import type { Template } from "../templates.ts";
import { renderTemplate, templates } from "../templates.ts";

interface InitFlags {
  readonly template: string;
  readonly list?: boolean;
  readonly force?: boolean;
}

export function addInit(parent: Command, cli: Cli): void {
  defineCommand(parent, "init [directory]", {
    summary: "Make a small function to begin with",
    detail: "The folder's name becomes the function's.",
    examples: [
      "koine init my-fn",
      "koine init my-fn --template typescript && cd my-fn && koine dev",
      "koine init --list",
    ],
  })
    .option("-t, --template <template>", Object.keys(templates).join(", "), "node")
    .option("--list", "list the templates")
    .option("--force", "also into a folder that is not empty; replaces files of the same name")
    .action(
      withSession(cli, async (session, directory: string | undefined, flags: InitFlags) => {
        if (flags.list === true) listTemplates(session);
        else await init(session, directory ?? ".", flags);
      }),
    );
}

function listTemplates({ output }: Session): void {
  const views = Object.entries(templates).map(([name, { summary }]) => ({ name, summary }));
  output.list(views, {
    columns: [{ title: "TEMPLATE" }, { title: "WHAT IT IS" }],
    row: (view) => [view.name, view.summary],
    empty: "No templates.",
  });
}

async function init(session: Session, directory: string, flags: InitFlags): Promise<void> {
  const { io, output } = session;
  const template = templateNamed(flags.template);
  const folder = resolve(io.cwd, directory);
  const name = basename(folder);
  if (!isName(name)) {
    const near = nameFrom(name);
    const hint = `Use letters, digits, '.', '_' and '-'${near === undefined ? "." : `: '${near}', for instance.`}`;
    throw usageFailure(`'${name}' cannot be a function's name`, hint);
  }
  const there = (await readdir(folder).catch(() => [])).filter((entry) => entry !== ".git");
  if (there.length > 0 && flags.force !== true) {
    throw new CliFailure("file-not-usable", `${folder} is not empty`, "Choose another folder, or add --force.");
  }
  const files = renderTemplate(template, name);
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), text);
  }
  const from = relative(io.cwd, folder);
  output.done(`made ${name} (${flags.template}): ${Object.keys(files).join(", ")}`);
  if (output.json) output.value({ name, template: flags.template, folder, files: Object.keys(files) });
  output.note(`  next  ${from === "" ? "" : `cd ${from} && `}koine dev`);
}

function templateNamed(name: string): Template {
  const template = Object.hasOwn(templates, name) ? templates[name] : undefined;
  if (template !== undefined) return template;
  const near = nearest(name, Object.keys(templates));
  throw usageFailure(
    `There is no template '${name}'`,
    near === null ? `There are: ${Object.keys(templates).join(", ")}.` : `Did you mean '${near}'?`,
  );
}
