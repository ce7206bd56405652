import { execFile } from "node:child_process";
import { access, constants, realpath } from "node:fs/promises";
import { delimiter, isAbsolute, join, relative } from "node:path";
import { KoineError } from "../core/errors.ts";
import type { Mount } from "../sandbox/sandbox.ts";
import { type BuildRecipe, insidePaths, type Runtime, type RuntimeLaunch } from "./runtime.ts";

export interface PythonRuntimeOptions {
  /** `python3`, or one version such as `python3.11`; also the name of the program that is looked for. */
  readonly name: string;
  /** The machine's folder with our bootstrap: `bootstrap/python`. */
  readonly bootstrapFolder: string;
  /** Folders with adapters (`<folder>/python/*.py`), compiled beside the bootstrap when this user may write there. */
  readonly handlerFolders?: readonly string[];
  /** The language's adapters, as paths inside, which a sandbox that waits loads ahead. */
  readonly adapters?: readonly { readonly path: string }[];
  /** The machine's PATH. */
  readonly searchPath: string;
  /** Settings of pip for builds: `PIP_INDEX_URL` and such. */
  readonly buildEnvironment?: Readonly<Record<string, string>>;
  readonly buildMounts?: readonly Mount[];
}

/** An interpreter as it describes itself. */
export interface PythonInterpreter {
  /** Absolute, free of links, shims and virtual environments. */
  readonly executable: string;
  readonly version: string;
  /** Folders without which it does not run. */
  readonly folders: readonly string[];
}

/** The machine's own Python, 3.9 or newer; the first on the path that works. */
export function createPythonRuntime(options: PythonRuntimeOptions): Runtime {
  let prepared: Promise<RuntimeLaunch> | null = null;
  return {
    name: options.name,
    language: "python",
    prepare(signal) {
      prepared ??= prepare(options, signal).catch((thrown: unknown) => {
        // The next call looks again: Python may have been installed meanwhile.
        prepared = null;
        throw thrown;
      });
      return prepared;
    },
  };
}

/**
 * Names under which the machine's Python is offered: `python3` and, where there is one, `python3.11`. `known` are names that
 * exist already.
 */
export function pythonAliases(version: string): readonly string[] {
  const [major, minor] = version.split(".");
  return ["python3", `python${major}.${minor}`];
}

const VERSION_MINOR_MIN = 9;
/** Mounted into every sandbox already. */
const SYSTEM_FOLDERS = ["/usr", "/lib", "/lib64", "/bin"];
const OVERHEAD_BYTES = 24 * 1024 * 1024;
const PROBE_TIMEOUT_MS = 10_000;

const PROBE = `
import json, os, sys, sysconfig
paths = sysconfig.get_paths()
base = getattr(sys, "_base_executable", None) or sys.executable
print(json.dumps({
    "version": "%d.%d.%d" % sys.version_info[:3],
    "implementation": sys.implementation.name,
    "executable": os.path.realpath(base),
    "folders": [sys.base_prefix, sys.base_exec_prefix, sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}),
                sysconfig.get_path("platstdlib", vars={"platbase": sys.base_exec_prefix})],
}))`;

async function prepare(options: PythonRuntimeOptions, signal: AbortSignal): Promise<RuntimeLaunch> {
  const interpreter = await findPython(options.name, options.searchPath, signal);
  await compile(interpreter, options, signal);
  const bootstrap = join(insidePaths.bootstrap, "python");
  const mounts: Mount[] = [
    ...interpreter.folders.map((folder) => ({ source: folder, target: folder })),
    { source: options.bootstrapFolder, target: bootstrap },
  ];
  return {
    // Without -I and -S the machine's settings and packages would reach into functions, and booting would take four times as long.
    command: [
      interpreter.executable,
      "-I",
      "-S",
      "-B",
      join(bootstrap, "main.py"),
      ...(options.adapters ?? []).map(({ path }) => path),
    ],
    environment: { PYTHONDONTWRITEBYTECODE: "1", LANG: "C.UTF-8" },
    mounts,
    overheadBytes: OVERHEAD_BYTES,
    version: interpreter.version,
    build: buildRecipe(interpreter, mounts, options),
  };
}

function buildRecipe(
  interpreter: PythonInterpreter,
  mounts: readonly Mount[],
  options: PythonRuntimeOptions,
): BuildRecipe {
  return {
    lockFiles: ["requirements.txt"],
    installed: "python_modules",
    command: (lockFile) => ({
      command: [
        interpreter.executable,
        "-I",
        join(insidePaths.bootstrap, "python", "build.py"),
        join(insidePaths.code, lockFile),
        join(insidePaths.code, "python_modules"),
      ],
      environment: {
        HOME: "/tmp",
        LANG: "C.UTF-8",
        PIP_NO_CACHE_DIR: "1",
        ...options.buildEnvironment,
      },
      mounts: [...mounts, ...(options.buildMounts ?? [])],
    }),
  };
}

/**
 * The first working Python ≥ 3.9 of this name on the path. A shim (as pyenv's) is asked for the interpreter behind it.
 * @throws KoineError `runtime-unavailable`
 */
export async function findPython(name: string, searchPath: string, signal: AbortSignal): Promise<PythonInterpreter> {
  const refused: string[] = [];
  for (const folder of searchPath.split(delimiter)) {
    const program = join(folder, name);
    if (!isAbsolute(program) || !(await isExecutable(program))) continue;
    const answer = await probe(program, signal);
    signal.throwIfAborted();
    if (typeof answer === "string") refused.push(`${program} ${answer}`);
    else return answer;
  }
  throw new KoineError("runtime-unavailable", {
    runtime: name,
    detail: refused.length === 0 ? `there is no ${name} on the path` : refused.join("; "),
    remedy: "Install Python 3.9 or newer, as with: apt-get install python3",
  });
}

/** The interpreter behind a program, or why it cannot be used. */
async function probe(program: string, signal: AbortSignal): Promise<PythonInterpreter | string> {
  const { output, failure } = await run(program, ["-I", "-c", PROBE], signal);
  if (failure !== null) return `does not run: ${failure}`;
  let found: { version: string; implementation: string; executable: string; folders: string[] };
  try {
    found = JSON.parse(output) as typeof found;
  } catch {
    return "does not behave like Python";
  }
  const [major = 0, minor = 0] = found.version.split(".").map(Number);
  if (found.implementation !== "cpython") return `is ${found.implementation}, not CPython`;
  if (major !== 3 || minor < VERSION_MINOR_MIN) return `is Python ${found.version}, older than 3.${VERSION_MINOR_MIN}`;
  const folders = await Promise.all(
    [...found.folders, found.executable].map(async (path) => [path, await realpath(path).catch(() => null)]),
  );
  const existing = folders.flat().filter((path) => path !== null);
  return { executable: found.executable, version: found.version, folders: outermost(existing) };
}

/** Without what lies inside another of them or is part of the system anyway. */
function outermost(paths: readonly string[]): string[] {
  const kept: string[] = [];
  for (const path of [...new Set(paths)].sort((a, b) => a.length - b.length)) {
    if (![...SYSTEM_FOLDERS, ...kept].some((folder) => isInside(path, folder))) kept.push(path);
  }
  return kept;
}

function isInside(path: string, folder: string): boolean {
  const way = relative(folder, path);
  return way === "" || (!way.startsWith("..") && !isAbsolute(way));
}

/** Bytecode of our own files saves some 15 ms per boot; without the right to write it, booting is only slower. */
async function compile(
  interpreter: PythonInterpreter,
  options: PythonRuntimeOptions,
  signal: AbortSignal,
): Promise<void> {
  const folders = [options.bootstrapFolder, ...(options.handlerFolders ?? []).map((folder) => join(folder, "python"))];
  await run(interpreter.executable, ["-I", "-m", "compileall", "-q", ...folders], signal);
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function run(
  program: string,
  programArguments: readonly string[],
  signal: AbortSignal,
): Promise<{ readonly output: string; readonly failure: string | null }> {
  return new Promise((resolve) => {
    // In the root folder, so that a `.python-version` of wherever we were started does not choose another interpreter.
    const options = { timeout: PROBE_TIMEOUT_MS, signal, cwd: "/" };
    execFile(program, programArguments, options, (error, stdout, stderr) => {
      const failure =
        error === null ? null : stderr.trim().slice(-300) || `it ended with ${error.code ?? error.signal}`;
      resolve({ output: stdout, failure });
    });
  });
}
