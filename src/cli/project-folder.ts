import { readFile, readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { CliFailure } from "./failure.ts";
import type { FolderFacts, PackageJson } from "./project.ts";
import { entryPaths } from "./project.ts";
import type { ProjectFile } from "./project-file.ts";

/** What is to be deployed, before its code is packed. */
export interface ProjectFolder {
  /** The folder, or the file that is a whole function; absolute. */
  readonly path: string;
  readonly isFile: boolean;
  readonly facts: FolderFacts;
  /** Null: there is no koine.json. */
  readonly projectFile: ProjectFile | null;
}

/**
 * Reads what describes a project at an absolute path: a folder, or a single file that is a whole function.
 * @throws CliFailure `invalid-project`
 */
export async function readProjectFolder(path: string): Promise<ProjectFolder> {
  const found = await stat(path).catch(() => null);
  if (found === null) throw nothingAt(path);
  if (!found.isDirectory()) {
    const files = [basename(path)];
    const facts = { files, executables: (found.mode & 0o100) === 0 ? [] : files, packageJson: null };
    return { path, isFile: true, facts, projectFile: null };
  }
  const packageJson = await readPackageJson(path);
  const listed = [...(await filesIn(path, "")), ...(await filesIn(path, "src/"))];
  const entries: string[] = [];
  for (const entry of entryPaths(packageJson)) {
    if (listed.includes(entry) || entry.startsWith("..")) continue;
    if ((await stat(join(path, entry)).catch(() => null))?.isFile() === true) entries.push(entry);
  }
  const executables: string[] = [];
  for (const file of listed.filter((name) => !/[./]/.test(name)))
    if (((await stat(join(path, file)).catch(() => null))?.mode ?? 0) & 0o100) executables.push(file);
  const facts = { files: [...listed, ...entries].sort(), executables, packageJson };
  return { path, isFile: false, facts, projectFile: await readProjectFile(path) };
}

/** For what needs no folder. */
export function noFolder(path: string): ProjectFolder {
  return { path, isFile: false, facts: { files: [], packageJson: null }, projectFile: null };
}

export function nothingAt(path: string): CliFailure {
  const hint = "Give the path of a folder or file; 'koine init my-fn' makes one.";
  return new CliFailure("invalid-project", `There is nothing at ${path}`, hint);
}

async function readProjectFile(folder: string): Promise<ProjectFile | null> {
  const text = await readFile(join(folder, "koine.json"), "utf8").catch(() => null);
  if (text === null) return null;
  // The schema library takes longer to load than all the rest, and most commands do without.
  const { parseProjectFile } = await import("./project-file.ts");
  return parseProjectFile(text);
}

async function readPackageJson(folder: string): Promise<PackageJson | null> {
  const text = await readFile(join(folder, "package.json"), "utf8").catch(() => null);
  if (text === null) return null;
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === "object" && parsed !== null) return parsed;
  } catch {
    // Reported below, like a file that holds something other than an object.
  }
  throw new CliFailure("invalid-project", "package.json is not a JSON object", "Correct it.");
}

async function filesIn(folder: string, prefix: "" | "src/"): Promise<readonly string[]> {
  const listed = await readdir(join(folder, prefix), { withFileTypes: true }).catch(() => []);
  return listed.filter((entry) => !entry.isDirectory()).map((entry) => prefix + entry.name);
}
