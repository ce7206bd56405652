import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { ProjectFolder } from "../project-folder.ts";
import { lines } from "../stream.ts";

/** Whether there is something to check. */
export function hasTypes(folder: ProjectFolder): boolean {
  return folder.facts.files.some((file) => /\.[mc]?ts$/.test(file));
}

/**
 * Type errors of a folder as `file:line:column message`, from its own compiler or else ours; null when there is no compiler, or the signal
 * aborted.
 */
export async function checkTypes(
  folder: ProjectFolder,
  options: { readonly environment: Readonly<Record<string, string | undefined>>; readonly signal: AbortSignal },
): Promise<readonly string[] | null> {
  const root = folder.isFile ? dirname(folder.path) : folder.path;
  const hasConfig = !folder.isFile && existsSync(join(root, "tsconfig.json"));
  // The project's own compiler knows its configuration; without one, only ours is known to take our options.
  const places = hasConfig ? [root, ownFolder()] : [ownFolder(), root];
  const compiler = places
    .map((place) => nearestPackage(place, "typescript/bin/tsc"))
    .find((path) => path !== undefined);
  if (compiler === undefined) return null;
  const child = spawn(
    process.execPath,
    [compiler, ...(hasConfig ? ["--noEmit", "--pretty", "false"] : compilerArguments(folder, root))],
    {
      cwd: root,
      env: options.environment,
      stdio: ["ignore", "pipe", "ignore"],
      signal: options.signal,
    },
  );
  // A failure to start or an abort ends the output, which is what is waited for.
  child.on("error", () => {});
  const found: string[] = [];
  for await (const line of lines(child.stdout)) {
    if (line.trim() !== "") found.push(readable(line));
  }
  return options.signal.aborted ? null : found;
}

/** `a.ts(3,5): error TS2322: …` as `a.ts:3:5 TS2322: …`, a form that editors and terminals can open. */
export function readable(line: string): string {
  return line.replace(/^(\S.*)\((\d+),(\d+)\): error (TS\d+: )/, "$1:$2:$3 $4");
}

function compilerArguments(folder: ProjectFolder, root: string): readonly string[] {
  const types = nearestPackage(root, "@types/node") ?? nearestPackage(ownFolder(), "@types/node");
  const flags =
    "--ignoreConfig --noEmit --pretty false --strict --skipLibCheck --allowImportingTsExtensions --erasableSyntaxOnly " +
    "--target esnext --module nodenext --lib esnext,dom";
  return [
    ...flags.split(" "),
    ...(types === undefined ? [] : ["--types", "node", "--typeRoots", dirname(types)]),
    ...folder.facts.files.filter((file) => /\.[mc]?ts$/.test(file)),
  ];
}

/** Path of something in the nearest `node_modules` at or above a folder. */
function nearestPackage(folder: string, path: string): string | undefined {
  for (let at = folder; ; at = dirname(at)) {
    const found = join(at, "node_modules", path);
    if (existsSync(found)) return found;
    if (dirname(at) === at) return undefined;
  }
}

function ownFolder(): string {
  return dirname(fileURLToPath(import.meta.url));
}
