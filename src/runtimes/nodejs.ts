import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import {
  access,
  chmod,
  constants,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  writeFile,
} from "node:fs/promises";
import { delimiter, dirname, isAbsolute, join } from "node:path";
import { nodePackageName } from "../../scripts/node-version.mjs";
import { KoineError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type { Mount } from "../sandbox/sandbox.ts";
import { joinModules } from "./nodejs/join-modules.ts";
import { type BuildRecipe, insidePaths, type Runtime, type RuntimeLaunch } from "./runtime.ts";

export interface NodeRuntimeOptions {
  readonly name: "nodejs26.x" | "nodejs24.x" | "nodejs22.x";
  /** Where a Node other than the one we run on is kept; made when needed. */
  readonly cacheDirectory: string;
  /** The machine's folder with our bootstrap: `bootstrap/nodejs`. */
  readonly bootstrapFolder: string;
  /** The language's adapters, which a sandbox that waits loads ahead. */
  readonly adapters: readonly { readonly path: string }[];
  /** The environment of this process: says where npm is, and how it reaches its registry. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Puts an npm package with its `bin/node` into `folder/node_modules`; npm does when absent. */
  readonly install?: (folder: string, packageSpec: string) => Promise<void>;
  /** The Node we run on. */
  readonly own?: { readonly executable: string; readonly version: string };
}

/** Node in the major version that the name says: the one we run on, else one from npm that is fetched when first used. */
export function createNodeRuntime(options: NodeRuntimeOptions): Runtime {
  let prepared: Promise<RuntimeLaunch> | null = null;
  return {
    name: options.name,
    language: "nodejs",
    async prepare(signal) {
      signal.throwIfAborted();
      // One preparation serves all who ask meanwhile, so nobody's signal may end it; it has a time limit of its own.
      prepared ??= prepare(options).catch((thrown: unknown) => {
        prepared = null;
        throw thrown;
      });
      return untilAborted(prepared, signal);
    },
  };
}

const insideNode = `${insidePaths.runtime}/bin/node`;
const FETCH_TIMEOUT_MS = 5 * 60_000;
const PROBE_TIMEOUT_MS = 10_000;
/** What a Node with our bootstrap and its adapters takes of memory that it shares with nobody, and room to work. */
const OVERHEAD_BYTES = 32 * 1024 * 1024;

/**
 * A young generation of 2 to 8 MiB: nothing is collected while booting (3 ms), and a busy instance stays at half the memory and serves
 * as many requests. One thread collects it: helpers would take the processor from others, for a heap this small. None of these makes V8 refuse
 * the compiled code that comes with Node, as most others do: `--heap-growing-percent` took a quarter of a boot.
 */
const V8_FLAGS = ["--max-semi-space-size=8", "--min-semi-space-size=2", "--no-parallel-scavenge"];
/** Each of Node's threads would have memory of its own to give out; gone before user code runs. */
const MALLOC = { MALLOC_ARENA_MAX: "2" };
/** Lets our adapters load Node's web classes when they are first needed (25 ms, 8 MB), although others stand in their place. */
export const NODE_FLAGS: readonly string[] = ["--expose-internals"];

async function prepare(options: NodeRuntimeOptions): Promise<RuntimeLaunch> {
  const { executable, version } = await findNode(options);
  const bootstrap = join(insidePaths.bootstrap, "nodejs");
  const mounts: Mount[] = [
    { source: executable, target: insideNode },
    { source: await joinedBootstrap(options), target: bootstrap },
  ];
  return {
    command: [
      insideNode,
      ...V8_FLAGS,
      ...NODE_FLAGS,
      // Node 22 and 24 warn on stderr when they load TypeScript.
      "--disable-warning=ExperimentalWarning",
      join(bootstrap, "main.mjs"),
      ...options.adapters.map(({ path }) => path),
    ],
    environment: { PATH: INSIDE_PATH, HOME: "/tmp", TMPDIR: "/tmp", ...MALLOC },
    mounts,
    overheadBytes: OVERHEAD_BYTES,
    version,
    build: await buildRecipe(options, mounts),
  };
}

const ENTRY = "main.mjs";

/** A copy of our bootstrap in which the entry holds all that it loads; the folder itself where that cannot be made. */
async function joinedBootstrap({ bootstrapFolder, cacheDirectory }: NodeRuntimeOptions): Promise<string> {
  try {
    const text = await joinModules(bootstrapFolder, ENTRY);
    const digest = createHash("sha256").update(text);
    for (const name of (await readdir(bootstrapFolder)).toSorted()) {
      digest.update(`\0${name}\0`).update(await readFile(join(bootstrapFolder, name)));
    }
    const kept = join(cacheDirectory, `bootstrap-nodejs-${digest.digest("hex").slice(0, 16)}`);
    if (await exists(kept)) return kept;
    await mkdir(cacheDirectory, { recursive: true });
    const made = await mkdtemp(join(cacheDirectory, ".bootstrap-"));
    try {
      await cp(bootstrapFolder, made, { recursive: true });
      await writeFile(join(made, ENTRY), text);
      await chmod(made, 0o755);
      // Of two who make it one wins, and both have it.
      await rename(made, kept).catch(() => {});
    } finally {
      await rm(made, { recursive: true, force: true });
    }
    return (await exists(kept)) ? kept : bootstrapFolder;
  } catch {
    return bootstrapFolder;
  }
}

const INSIDE_PATH = `${dirname(insideNode)}:/usr/local/bin:/usr/bin:/bin`;

interface FoundNode {
  readonly executable: string;
  readonly version: string;
}

async function findNode(options: NodeRuntimeOptions): Promise<FoundNode> {
  const major = majorOf(options.name);
  const own = options.own ?? { executable: process.execPath, version: process.versions.node };
  if (majorOf(own.version) === major) return { executable: await realpath(own.executable), version: own.version };
  const kept = join(options.cacheDirectory, `nodejs${major}`);
  const found = (await probe(kept, major)) ?? (await fetchNode(options, major, kept));
  return { executable: await realpath(found.executable), version: found.version };
}

/** `nodejs24.x` and `24.11.0` alike. */
function majorOf(name: string): number {
  return Number(/\d+/.exec(name)?.[0]);
}

/** The Node in a folder, if it runs and is of that major version. */
async function probe(folder: string, major: number): Promise<FoundNode | null> {
  const executable = join(folder, "bin", "node");
  const { output, failure } = await run(executable, ["--version"], { timeoutMs: PROBE_TIMEOUT_MS, environment: {} });
  const version = output.trim().replace(/^v/, "");
  return failure === null && majorOf(version) === major ? { executable, version } : null;
}

/**
 * Fetches into a folder of its own and renames it: whoever looks sees nothing or all of it, and of two who fetch one wins.
 * @throws KoineError `runtime-unavailable`
 */
async function fetchNode(options: NodeRuntimeOptions, major: number, kept: string): Promise<FoundNode> {
  const packageName = nodePackageName();
  const unavailable = (detail: string): KoineError =>
    new KoineError("runtime-unavailable", {
      runtime: options.name,
      detail,
      remedy: `Give this machine access to an npm registry once, or put a Node ${major} at ${kept}/bin/node.`,
    });
  let staging: string | null = null;
  try {
    await mkdir(options.cacheDirectory, { recursive: true });
    staging = await mkdtemp(join(options.cacheDirectory, ".fetch-"));
    await (options.install ?? npmInstaller(options))(staging, `${packageName}@${major}`);
    const fetched = join(staging, "node_modules", packageName);
    if ((await probe(fetched, major)) === null)
      throw unavailable(`the Node in npm package ${packageName} does not run here`);
    await rename(fetched, kept).catch(() => {});
    const found = await probe(kept, major);
    if (found === null) throw unavailable(`${kept} is in the way and holds no Node ${major}`);
    return found;
  } catch (thrown) {
    if (thrown instanceof KoineError) throw thrown;
    throw unavailable(`fetching it failed: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
  } finally {
    if (staging !== null) await rm(staging, { recursive: true, force: true });
  }
}

function npmInstaller(options: NodeRuntimeOptions): (folder: string, packageSpec: string) => Promise<void> {
  return async (folder, packageSpec) => {
    const npm = await findTool("npm", options.environment);
    if (npm === null) throw new Error("there is no npm on the path");
    const flags = ["--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--loglevel=error"];
    const { failure } = await run(process.execPath, [npm.script, "install", ...flags, packageSpec], {
      timeoutMs: FETCH_TIMEOUT_MS,
      environment: options.environment,
      cwd: folder,
    });
    if (failure !== null) throw new Error(failure);
  };
}

/** How each kind of lock file is installed from; the script of the tool comes first on the command line, after Node. */
const INSTALLERS = {
  "package-lock.json": { tool: "npm", words: ["ci", "--omit=dev", "--no-audit", "--no-fund"] },
  "npm-shrinkwrap.json": { tool: "npm", words: ["ci", "--omit=dev", "--no-audit", "--no-fund"] },
  "pnpm-lock.yaml": { tool: "pnpm", words: ["install", "--prod", "--frozen-lockfile", "--config.node-linker=hoisted"] },
  "yarn.lock": { tool: "yarn", words: ["install", "--production", "--frozen-lockfile", "--non-interactive"] },
} as const;

async function buildRecipe(options: NodeRuntimeOptions, mounts: readonly Mount[]): Promise<BuildRecipe> {
  const tools = new Map<string, Tool | null>();
  for (const { tool } of Object.values(INSTALLERS)) tools.set(tool, await findTool(tool, options.environment));
  return {
    lockFiles: Object.keys(INSTALLERS),
    installed: "node_modules",
    command(lockFile) {
      const installer = Object.entries(INSTALLERS).find(([name]) => name === lockFile)?.[1];
      const tool = installer === undefined ? undefined : tools.get(installer.tool);
      if (installer === undefined || tool === undefined || tool === null) {
        const name = installer?.tool ?? "its tool";
        const detail = `${lockFile} needs ${name}, which is not on this machine: install it, or deploy with node_modules`;
        throw new KoineError("build-failed", { detail });
      }
      return {
        command: [insideNode, tool.script, ...installer.words],
        environment: {
          PATH: INSIDE_PATH,
          HOME: "/tmp",
          TMPDIR: "/tmp",
          npm_config_cache: "/tmp/npm",
          npm_config_update_notifier: "false",
          CI: "true",
        },
        // At the same place inside, because a tool's script finds its own files from there.
        mounts: isSystem(tool.folder) ? mounts : [...mounts, { source: tool.folder, target: tool.folder }],
      };
    },
  };
}

interface Tool {
  /** The package's own folder. */
  readonly folder: string;
  /** What Node runs. */
  readonly script: string;
}

/** A package manager that is written in JavaScript, by the command on the path. */
async function findTool(name: string, environment: NodeRuntimeOptions["environment"]): Promise<Tool | null> {
  const folders = [...(environment["PATH"] ?? "").split(delimiter), dirname(process.execPath)];
  for (const folder of folders) {
    if (!isAbsolute(folder)) continue;
    const script = await realpath(join(folder, name)).catch(() => null);
    if (script === null || !/\.[cm]?js$/.test(script)) continue;
    const root = dirname(dirname(script));
    if (await exists(join(root, "package.json"))) return { folder: root, script };
  }
  return null;
}

async function exists(path: string): Promise<boolean> {
  return await access(path, constants.R_OK).then(
    () => true,
    () => false,
  );
}

/** What every sandbox sees already. */
function isSystem(path: string): boolean {
  return path.startsWith("/usr/");
}

interface RunOptions {
  readonly timeoutMs: number;
  readonly environment: NodeRuntimeOptions["environment"];
  readonly cwd?: string;
}

function run(
  program: string,
  programArguments: readonly string[],
  { timeoutMs, environment, cwd = "/" }: RunOptions,
): Promise<{ readonly output: string; readonly failure: string | null }> {
  return new Promise((resolve) => {
    const options = { timeout: timeoutMs, env: { ...environment }, cwd, maxBuffer: limits.managementBodyBytesMax };
    execFile(program, programArguments, options, (error, stdout, stderr) => {
      resolve({ output: stdout, failure: error === null ? null : (stderr || error.message).trim().slice(-500) });
    });
  });
}

function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    const settled = (): void => signal.removeEventListener("abort", onAbort);
    promise.then(resolve, reject).finally(settled);
  });
}
