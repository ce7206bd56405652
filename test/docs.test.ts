import assert from "node:assert/strict";
import { existsSync, globSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { generatedPages } from "../scripts/docs.ts";
import { operationStates } from "../scripts/operations.ts";
import { processIo } from "../src/cli/io.ts";
import { buildProgram } from "../src/cli/main.ts";
import { errorTable } from "../src/core/errors.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const read = (path: string): string => readFileSync(join(root, path), "utf8");
const pages = ["README.md", "CONTRIBUTING.md", ...globSync("{docs,examples/*}/**/*.md", { cwd: root })].filter(
  (path) => !path.includes("node_modules"),
);
const io = processIo({ environment: {}, version: "0.0.0", launch: [] });
const program = buildProgram({ io, commands: {}, exitCode: 0 });

test("generated pages are what 'npm run docs' writes now", () => {
  for (const [path, text] of generatedPages()) {
    assert.ok(existsSync(join(root, path)) && read(path) === text, `${path} is stale: run 'npm run docs'`);
  }
});

test("every operation of a dialect that is claimed is called by a test", () => {
  const unproven = [...operationStates()].flatMap(([service, states]) =>
    states.flatMap(({ name, state, called }) => (state !== "not there" && !called ? [`${service} ${name}`] : [])),
  );
  assert.deepEqual(unproven, []);
});

test("links between pages lead to files and headings that exist", () => {
  const broken = pages.flatMap((page) =>
    linksOf(read(page))
      .filter((link) => !leadsSomewhere(page, link))
      .map((link) => `${page}: ${link}`),
  );
  assert.deepEqual(broken, []);
});

test("every page of docs is reachable from its index", () => {
  const seen = new Set<string>();
  const visit = (page: string): void => {
    if (seen.has(page) || !existsSync(join(root, page)) || !page.endsWith(".md")) return;
    seen.add(page);
    for (const link of linksOf(read(page))) visit(targetOf(page, link).path);
  };
  visit("docs/README.md");
  assert.deepEqual(
    globSync("docs/**/*.md", { cwd: root }).filter((page) => !seen.has(page)),
    [],
  );
});

test("every command is in docs/cli.md", () => {
  const text = read("docs/cli.md");
  const missing = commandLines(program, "koine").filter((line) => !text.includes(line));
  assert.deepEqual(missing, []);
});

test("every option of up, deploy and dev is in docs/configuration.md", () => {
  const text = read("docs/configuration.md");
  const chosen = program.commands.filter((command) => ["up", "deploy", "dev"].includes(command.name()));
  const options = chosen.flatMap((command) => command.options.map((option) => option.long ?? ""));
  const globals = new Set(["--output", "--url", "--namespace", "--context", "--quiet", "--no-color", "--help"]);
  assert.deepEqual(
    options.filter((option) => !globals.has(option) && !text.includes(option)),
    [],
  );
});

test("every environment variable that is read is in docs/configuration.md", () => {
  const text = read("docs/configuration.md");
  const names = ["src/config.ts", "src/cli/settings.ts", "bin/koine.mjs"].flatMap((path) => [
    ...new Set(read(path).match(/\b(?:KOINE_[A-Z_]+|NO_COLOR|XDG_CONFIG_HOME|NODE_COMPILE_CACHE)\b/g)),
  ]);
  assert.deepEqual(
    names.filter((name) => !text.includes(name)),
    [],
  );
});

test("every error code is in docs/errors.md or, when it is the command line's own, in docs/cli.md", () => {
  const errors = read("docs/errors.md");
  assert.deepEqual(
    Object.keys(errorTable).filter((code) => !errors.includes(`| \`${code}\` |`)),
    [],
  );
  const own = /const cliErrors = \{(?<table>[^]*?)\n\} as const/.exec(read("src/cli/failure.ts"))?.groups?.["table"];
  const codes = [...(own ?? "").matchAll(/^ {2}"?([\w-]+)"?:/gm)].map(([, code = ""]) => code);
  assert.ok(codes.length > 0);
  assert.deepEqual(
    codes.filter((code) => !read("docs/cli.md").includes(`| \`${code}\` |`)),
    [],
  );
});

test("error codes that pages name exist", () => {
  const known = new Set([
    ...Object.keys(errorTable),
    ...(read("docs/cli.md").match(/(?<=^\| `)[a-z-]+(?=` \|)/gm) ?? []),
  ]);
  for (const page of ["docs/troubleshooting.md", "docs/handler-models.md", "docs/operations.md", "docs/security.md"]) {
    const named = read(page).match(/(?<=`)[a-z]+(?:-[a-z]+)+(?=`)/g) ?? [];
    const codes = named.filter((name) => !/^(?:x-|oom|content-|retry-|transfer-|util-)/.test(name));
    assert.deepEqual(
      codes.filter((code) => !known.has(code)),
      [],
      page,
    );
  }
});

test("every dependency has its reason in docs/dependencies.md", () => {
  const manifest = JSON.parse(read("package.json")) as Readonly<Record<string, Readonly<Record<string, string>>>>;
  const kinds = ["dependencies", "devDependencies", "optionalDependencies"];
  const names = kinds.flatMap((kind) => Object.keys(manifest[kind] ?? {}));
  assert.deepEqual(
    names.filter((name) => !read("docs/dependencies.md").includes(`\`${name}\``)),
    [],
  );
});

/** `koine alias set` and so on, for the commands that do something. */
function commandLines(command: Command, path: string): readonly string[] {
  return command.commands.flatMap((child) => {
    const line = `${path} ${child.name()}`;
    if (child.name().startsWith("__")) return [];
    return child.commands.length === 0 ? [line] : commandLines(child, line);
  });
}

/** Targets of links and images outside of code blocks. */
function linksOf(text: string): readonly string[] {
  const prose = text.replaceAll(/^```[^]*?^```/gm, "").replaceAll(/`[^`\n]*`/g, "");
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target = ""]) => target)
    .filter((target) => !/^\w+:/.test(target));
}

function targetOf(page: string, link: string): { readonly path: string; readonly anchor: string } {
  const [file = "", anchor = ""] = link.split("#");
  return { path: file === "" ? page : relative(root, join(root, dirname(page), file)), anchor };
}

function leadsSomewhere(page: string, link: string): boolean {
  const { path, anchor } = targetOf(page, link);
  const absolute = join(root, path);
  if (!existsSync(absolute)) return false;
  return anchor === "" || (statSync(absolute).isFile() && anchorsOf(read(path)).includes(anchor));
}

/** As GitHub makes them of headings. */
function anchorsOf(text: string): readonly string[] {
  const prose = text.replaceAll(/^```[^]*?^```/gm, "");
  return [...prose.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
      .replaceAll(/\s/g, "-"),
  );
}
