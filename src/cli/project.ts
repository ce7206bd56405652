import { posix } from "node:path";
import { CliFailure } from "./failure.ts";

/** What is known of a folder before its code is read. */
export interface FolderFacts {
  /** Paths, with `/`, of the files at the top and in `src`, and of what package.json calls its entry, if it is there. */
  readonly files: readonly string[];
  /** Those of them that can be executed. */
  readonly executables?: readonly string[];
  /** Parsed package.json; null when there is none. */
  readonly packageJson: PackageJson | null;
}

export interface PackageJson {
  readonly name?: unknown;
  readonly main?: unknown;
  readonly exports?: unknown;
  readonly engines?: unknown;
}

export interface ProjectChoice {
  readonly runtime?: string | undefined;
  readonly handler?: string | undefined;
  /** What a program of the user's speaks, and how it is launched. */
  readonly protocol?: string | undefined;
  readonly command?: readonly string[] | undefined;
}

export interface Project {
  readonly runtime: string;
  /** Absent for functions that bring a program of their own, unless it was said. */
  readonly handler?: string;
  readonly protocol?: string;
  readonly command?: readonly string[];
  /** Remarks on what was passed over. */
  readonly notes: readonly string[];
}

type Language = "nodejs" | "python";

const NODE_SOURCE = /\.(?:ts|mts|cts|mjs|js|cjs)$/;
const NOT_A_HANDLER =
  /(?:\.d\.[mc]?ts|\.(?:test|spec|config)\.[mc]?[jt]s|(?:^|\/)(?:test_[^/]*|[^/]*_test|conftest|setup)\.py)$/;
/** Of several of these in one folder none is more likely than another, but for `index`, which is what Node itself takes. */
const NODE_STEMS = ["index", "main", "app", "server", "handler", "function"];
const PYTHON_STEMS = ["app", "main", "handler", "lambda_function", "function", "index", "wsgi", "asgi"];
const NODE_MAJORS = [26, 24, 22];

/**
 * Runtime and handler of a folder, from what it holds; what was chosen already is kept.
 * @throws CliFailure `invalid-project` when there is nothing to run, or more than one thing
 */
export function recogniseProject(folder: FolderFacts, chosen: ProjectChoice = {}): Project {
  const program = recogniseProgram(folder, chosen);
  if (program !== null) return program;
  if (chosen.runtime !== undefined && chosen.handler !== undefined) {
    return { runtime: chosen.runtime, handler: chosen.handler, notes: [] };
  }
  const language = languageOf(folder, chosen);
  const notes: string[] = [];
  const handler = chosen.handler ?? (language === "nodejs" ? nodeHandler(folder, notes) : pythonHandler(folder));
  const runtime = chosen.runtime ?? (language === "python" ? "python3" : nodeRuntime(folder.packageJson, notes));
  return { runtime, handler, notes };
}

/** A function that brings a program of its own; null: it has a handler. */
function recogniseProgram(folder: FolderFacts, chosen: ProjectChoice): Project | null {
  const { executables = [] } = folder;
  const handler = chosen.handler === undefined ? {} : { handler: chosen.handler };
  const brings = executables.includes(BOOTSTRAP) && (chosen.runtime === undefined || chosen.runtime === CUSTOM);
  if (chosen.protocol === undefined && chosen.command === undefined) {
    if (!brings || chosen.handler !== undefined) return null;
    const notes = [
      `'${BOOTSTRAP}' can be executed: it is run, and spoken to by the Lambda Runtime API (--protocol says otherwise)`,
    ];
    return { runtime: CUSTOM, protocol: "lambda-runtime-api", notes };
  }
  const protocol = chosen.protocol ?? "http";
  const notes =
    chosen.protocol === undefined ? ["a command without --protocol: taken for a server that speaks http"] : [];
  const alone = folder.files.length === 1 && executables.length === 1 ? [`./${executables[0] ?? ""}`] : undefined;
  const command = chosen.command ?? (executables.includes(BOOTSTRAP) ? undefined : alone);
  const runtime = chosen.runtime ?? programRuntime(folder, command, notes);
  return { runtime, protocol, ...handler, ...(command === undefined ? {} : { command }), notes };
}

const BOOTSTRAP = "bootstrap";
const CUSTOM = "custom";

/** The runtime whose interpreter and dependencies a program needs. */
function programRuntime(folder: FolderFacts, command: readonly string[] | undefined, notes: string[]): string {
  const program = command?.[0] ?? "";
  if (/^(?:node|npm|npx)$/.test(program)) return nodeRuntime(folder.packageJson, notes);
  if (/^(?:python3?|gunicorn|uvicorn|hypercorn|waitress-serve)$/.test(program)) return "python3";
  return CUSTOM;
}

/** Where the entry that package.json names may be. */
export function entryPaths(packageJson: PackageJson | null): readonly string[] {
  return entries(packageJson).flatMap(([, entry]) => entryFiles(entry));
}

/** A valid function name made of a folder's, file's or package's; undefined when nothing of it can be used. */
export function nameFrom(text: string): string | undefined {
  const name = text
    .replace(/^@[^/]*\//, "")
    .replaceAll(/[^A-Za-z0-9._-]+/g, "-")
    .slice(0, 64)
    .replaceAll(/^[^A-Za-z0-9]+|[^A-Za-z0-9]+$/g, "");
  return name === "" ? undefined : name;
}

/** The newest Node major among ours that a range of versions allows; undefined when it allows none. */
export function nodeMajorFor(range: string): number | undefined {
  return NODE_MAJORS.find((major) => range.split("||").some((clause) => allows(clause.trim(), major)));
}

function languageOf(folder: FolderFacts, chosen: ProjectChoice): Language {
  if (chosen.runtime?.startsWith("nodejs") === true) return "nodejs";
  if (chosen.runtime?.startsWith("python") === true) return "python";
  if (chosen.runtime !== undefined) {
    const hint = "Add --handler FILE or FILE.EXPORT.";
    throw new CliFailure("invalid-project", `The handler of runtime '${chosen.runtime}' must be said`, hint);
  }
  const python = candidates(folder.files, PYTHON_STEMS, /\.py$/);
  const node = candidates(folder.files, NODE_STEMS, NODE_SOURCE);
  if (chosen.handler !== undefined) return languageOfHandler(chosen.handler, folder);
  const isNode = folder.packageJson !== null;
  const isPython = folder.files.some((file) => /^(?:requirements\.txt|pyproject\.toml)$/.test(file));
  if (isNode !== isPython && (isNode || python.length > 0)) return isNode ? "nodejs" : "python";
  if (node.length > 0 && python.length > 0) throw ambiguous([...node, ...python], "--runtime or --handler");
  return python.length > 0 ? "python" : "nodejs";
}

function languageOfHandler(handler: string, folder: FolderFacts): Language {
  if (/\.py(?:\.|$)/.test(handler)) return "python";
  if (/\.(?:ts|mts|cts|mjs|js|cjs)(?:\.|$)/.test(handler)) return "nodejs";
  const stems = [handler, handler.replace(/\.[^./]+$/, "")];
  const has = (extension: RegExp): boolean =>
    folder.files.some((file) => extension.test(file) && stems.includes(file.replace(extension, "")));
  return has(/\.py$/) && !has(NODE_SOURCE) ? "python" : "nodejs";
}

function nodeHandler(folder: FolderFacts, notes: string[]): string {
  for (const [field, entry] of entries(folder.packageJson)) {
    const found = entryFiles(entry).find((path) => folder.files.includes(path));
    if (found !== undefined) return found;
    notes.push(`package.json's ${field} '${entry}' is not there; looked for another`);
  }
  const found = candidates(folder.files, NODE_STEMS, NODE_SOURCE);
  const index = found.filter((file) => /(?:^|\/)index\.\w+$/.test(file));
  return only(index.length === 1 ? index : found, "a JavaScript or TypeScript file such as index.mjs");
}

function pythonHandler(folder: FolderFacts): string {
  const file = only(candidates(folder.files, PYTHON_STEMS, /\.py$/), "a Python file such as app.py");
  return file.endsWith("lambda_function.py") ? `${file.slice(0, -".py".length)}.lambda_handler` : file;
}

/** Files that could hold the handler: those with a usual name, at the top before those in src; else every source file at the top. */
function candidates(files: readonly string[], stems: readonly string[], extension: RegExp): readonly string[] {
  const sources = files.filter((file) => extension.test(file) && !NOT_A_HANDLER.test(file));
  for (const folder of ["", "src/"]) {
    const usual = sources.filter((file) => stems.some((stem) => file.replace(extension, "") === folder + stem));
    if (usual.length > 0) return usual;
    if (folder === "") {
      const top = sources.filter((file) => !file.includes("/"));
      if (top.length === 1) return top;
    }
  }
  const top = sources.filter((file) => !file.includes("/"));
  return top.length > 0 ? top : sources.length === 1 ? sources : [];
}

function entries(packageJson: PackageJson | null): readonly (readonly [string, string])[] {
  if (packageJson === null) return [];
  const exported = exportedPath(packageJson.exports);
  return [
    ...(exported === undefined ? [] : [["exports", exported] as const]),
    ...(typeof packageJson.main === "string" && packageJson.main !== "" ? [["main", packageJson.main] as const] : []),
  ];
}

function entryFiles(entry: string): readonly string[] {
  const file = posix.normalize(entry).replace(/\/$/, "");
  return [file, `${file}.js`, `${file}/index.js`];
}

function exportedPath(exported: unknown): string | undefined {
  if (typeof exported === "string") return exported;
  if (typeof exported !== "object" || exported === null) return undefined;
  const conditions = exported as Readonly<Record<string, unknown>>;
  for (const key of [".", "node", "import", "module-sync", "require", "default"]) {
    if (Object.hasOwn(conditions, key)) return exportedPath(conditions[key]);
  }
  return undefined;
}

function nodeRuntime(packageJson: PackageJson | null, notes: string[]): string {
  const newest = `nodejs${NODE_MAJORS[0]}.x`;
  const engines = packageJson?.engines;
  const range = typeof engines === "object" && engines !== null && "node" in engines ? engines.node : undefined;
  if (typeof range !== "string") return newest;
  const major = nodeMajorFor(range);
  if (major !== undefined) return `nodejs${major}.x`;
  notes.push(`package.json asks for Node '${range}', which is not offered; ${newest} is used`);
  return newest;
}

/** Whether one clause of a range (`>=20 <25`, `^22.1`, `24.x`, `22 - 24`) allows some version of a major. */
function allows(clause: string, major: number): boolean {
  const span = /^v?(\d+)\S*\s+-\s+v?(\d+)\S*$/.exec(clause);
  if (span !== null) return major >= Number(span[1]) && major <= Number(span[2]);
  const comparators = clause.replaceAll(/(>=|<=|>|<|=|\^|~)\s+/g, "$1").split(/\s+/);
  return comparators.every((comparator) => {
    const match = /^(>=|<=|>|<|=|\^|~)?v?(\d+|[xX*])?((?:\.(?:\d+|[xX*]))*)(?:[-+].*)?$/.exec(comparator);
    if (match === null) return false;
    const [, operator = "", named = "*", rest = ""] = match;
    if (!/^\d+$/.test(named)) return true;
    const wanted = Number(named);
    const begins = !/[1-9]/.test(rest);
    switch (operator) {
      case ">=":
        return major >= wanted;
      case ">":
        return rest === "" ? major > wanted : major >= wanted;
      case "<=":
        return major <= wanted;
      case "<":
        return begins ? major < wanted : major <= wanted;
      default:
        return major === wanted;
    }
  });
}

function only(found: readonly string[], example: string): string {
  const [first, ...others] = found;
  if (first === undefined) {
    const hint = `Add ${example}, or say which file with --handler or in koine.json; 'koine init' makes a small function.`;
    throw new CliFailure("invalid-project", "There is no file here that looks like a handler", hint);
  }
  if (others.length > 0) throw ambiguous(found, "--handler");
  return first;
}

function ambiguous(found: readonly string[], options: string): CliFailure {
  return new CliFailure(
    "invalid-project",
    `More than one file could be the handler: ${found.join(", ")}`,
    `Say which with ${options}, or in koine.json.`,
  );
}
