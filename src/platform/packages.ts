import { createHash } from "node:crypto";
import { createReadStream, createWriteStream, statSync } from "node:fs";
import { lstat, mkdir, mkdtemp, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Clock } from "../core/clock.ts";
import { isDigest } from "../core/code-package.ts";
import { KoineError } from "../core/errors.ts";
import type { Digest } from "../core/function.ts";
import type { Limits } from "../core/limits.ts";
import type { BuildRecipe, RuntimeLaunch } from "../runtimes/runtime.ts";
import type { SandboxDriver } from "../sandbox/sandbox.ts";
import type { Blobs } from "../store/store.ts";
import { dependencyInputs } from "./dependency-inputs.ts";
import { Gate } from "./gate.ts";
import { installDependencies } from "./install-dependencies.ts";
import type { InstallEnvironment } from "./install-environment.ts";
import { SingleFlight } from "./single-flight.ts";
import { adoptTree, isSystemError, linkTree, overlayTrees, settleFolder } from "./tree.ts";
import { unpackArchive, type PackageLimits, type UnpackedPackage } from "./unpack.ts";

type UsedLimits =
  | keyof PackageLimits
  | (`build${string}` & keyof Limits)
  | "sandboxOpenFilesMax"
  | "sandboxFileBytesMax"
  | "logLineBytesMax";

export interface CodePackagesOptions {
  /** Keeps the archives, by digest. */
  readonly blobs: Blobs;
  /** A folder of this node alone, used by one process at a time: what is in it can be made again from the blobs. */
  readonly directory: string;
  readonly limits: { readonly [Name in UsedLimits]: number };
  /** Makes build sandboxes. */
  readonly driver: SandboxDriver;
  readonly clock: Clock;
  readonly installEnvironment: () => Promise<InstallEnvironment>;
}

export interface CodeFolder {
  /** Addresses the content of the folder: the package's digest, followed by a key of its dependencies where some were installed. */
  readonly digest: string;
  /** Absolute path of code and dependencies, to be mounted read-only at `/code`. */
  readonly folder: string;
}

interface BuildPlan {
  readonly digest: Digest;
  readonly tree: string;
  readonly launch: RuntimeLaunch;
  readonly recipe: BuildRecipe;
  readonly lockFile: string;
  readonly files: readonly string[] | null;
  /** Names the installed dependencies. */
  readonly key: string;
}

/**
 * CodePackages: archives in the blobs, unpacked trees on this node. In `directory` are `trees/<digest>`, the dependencies that were
 * installed as `installed/<key>`, the two combined as `built/<digest>.<key>`, several trees in one as `overlaid/<digest>.<digest>`, and
 * `temporary/`; a folder appears in the first four in one step and complete, and never changes.
 */
export class CodePackages {
  readonly #options: CodePackagesOptions;
  readonly #unpacks = new SingleFlight<string>();
  readonly #builds = new SingleFlight<string>();
  readonly #installs = new SingleFlight<string>();
  readonly #overlays = new SingleFlight<string>();
  readonly #gate: Gate;
  /** Who listens to the installation of a key. */
  readonly #listeners = new Map<string, Set<(line: string) => void>>();

  /** Answers of `withDependencies`, so that the next start of an instance costs one look at the disk. */
  readonly #prepared = new Map<string, CodeFolder>();

  readonly #usedAtMs = new Map<Digest, number>();

  private constructor(options: CodePackagesOptions) {
    this.#options = options;
    this.#gate = new Gate(options.limits.buildsMax, options.limits.buildsWaitingMax);
  }

  /** Opens the folder and removes what an earlier process left half done. */
  static async open(options: CodePackagesOptions): Promise<CodePackages> {
    await rm(join(options.directory, "temporary"), { recursive: true, force: true, maxRetries: 3 });
    for (const name of ["trees", "installed", "built", "overlaid", "temporary"]) {
      await mkdir(join(options.directory, name), { recursive: true });
    }
    return new CodePackages(options);
  }

  /** Aborts installations and unpacking that run, and waits for their end. */
  async close(): Promise<void> {
    const reason = new KoineError("shutting-down");
    await Promise.all(
      [this.#builds, this.#installs, this.#overlays, this.#unpacks].map((flights) => flights.close(reason)),
    );
  }

  /**
   * Takes in a zip archive. When it resolves the archive is durable and its tree is on this node; sizes are those of the tree.
   * @throws KoineError `payload-too-large`, `invalid-package`, `limit-exceeded`, `client-closed-request`
   */
  async receive(source: Readable, signal: AbortSignal): Promise<UnpackedPackage> {
    await using temporary = await this.#temporary();
    const archive = join(temporary.folder, "archive.zip");
    const tree = join(temporary.folder, "tree");
    await this.#save(source, archive, signal);
    const unpacked = await unpackArchive(archive, tree, { limits: this.#options.limits, signal });
    if (!(await this.#options.blobs.has(unpacked.digest))) {
      await this.#options.blobs.put(unpacked.digest, createReadStream(archive));
    }
    await settleFolder(tree, this.#treePath(unpacked.digest));
    this.#usedAtMs.set(unpacked.digest, this.#options.clock.nowMs());
    return unpacked;
  }

  /**
   * The unpacked tree of a package on this node, unpacked now if it is not there; concurrent calls share the work.
   * @throws KoineError `code-not-found`
   */
  async folder(digest: Digest, signal: AbortSignal): Promise<string> {
    if (!isDigest(digest)) throw new KoineError("code-not-found", { digest });
    this.#usedAtMs.set(digest, this.#options.clock.nowMs());
    const path = this.#treePath(digest);
    if (await isFolder(path)) return path;
    return this.#unpacks.run(digest, signal, (shared) => this.#unpackAgain(digest, shared));
  }

  /**
   * The trees of several packages in one folder of this node; where two have something at the same path, the later one's is there.
   * @throws KoineError `code-not-found`
   */
  async overlaid(digests: readonly Digest[], signal: AbortSignal): Promise<string> {
    const trees = await Promise.all(digests.map((digest) => this.folder(digest, signal)));
    const [only] = trees;
    if (trees.length === 1 && only !== undefined) return only;
    const name = digests.map(overlaidPart).join(".");
    const path = join(this.#options.directory, "overlaid", name);
    if (await isFolder(path)) return path;
    return await this.#overlays.run(name, signal, async () => {
      await using temporary = await this.#temporary();
      const tree = join(temporary.folder, "tree");
      await overlayTrees(trees, tree);
      await settleFolder(tree, path);
      return path;
    });
  }

  /** When packages were last uploaded, asked for or needed, milliseconds since the epoch; of those that were since this process began. */
  get usedAtMs(): ReadonlyMap<Digest, number> {
    return this.#usedAtMs;
  }

  async has(digest: Digest): Promise<boolean> {
    this.#usedAtMs.set(digest, this.#options.clock.nowMs());
    return isDigest(digest) && this.#options.blobs.has(digest);
  }

  async list(): Promise<readonly Digest[]> {
    return (await this.#options.blobs.list()).filter(isDigest);
  }

  /**
   * Removes a package and all that was made of it on this node, dependencies included that no other package shares. Nothing may run from
   * it. The blob goes last: after a crash in between the package is still listed, to be deleted again.
   */
  async delete(digest: Digest): Promise<void> {
    if (!isDigest(digest)) return;
    this.#usedAtMs.delete(digest);
    for (const preparation of this.#prepared.keys()) {
      if (preparation.startsWith(`${digest} `)) this.#prepared.delete(preparation);
    }
    const prefix = `${hexOf(digest)}.`;
    const built = await readdir(join(this.#options.directory, "built"));
    const ours = built.filter((name) => name.startsWith(prefix));
    for (const name of ours) await this.#remove(join("built", name));
    const wanted = new Set(built.filter((name) => !name.startsWith(prefix)).map(keyOf));
    for (const name of this.#builds.keys()) wanted.add(keyOf(name));
    for (const key of ours.map(keyOf)) if (!wanted.has(key)) await this.#remove(join("installed", key));
    for (const name of await readdir(join(this.#options.directory, "overlaid")))
      if (name.split(".").includes(overlaidPart(digest))) await this.#remove(join("overlaid", name));
    await this.#remove(join("trees", hexOf(digest)));
    await this.#options.blobs.delete(digest);
  }

  /**
   * A package's code together with its dependencies. When it has a lock file that the runtime knows how to install from, and the
   * dependencies are not in the package, they are installed now, in a build sandbox; equal dependencies are installed once.
   * @throws KoineError `code-not-found`, `build-failed`, `platform-overloaded`
   */
  async withDependencies(
    digest: Digest,
    runtime: { readonly name: string; readonly launch: RuntimeLaunch },
    options: { readonly onOutput: (line: string) => void; readonly signal: AbortSignal },
  ): Promise<CodeFolder> {
    const preparation = `${digest} ${runtime.name} ${runtime.launch.version}`;
    const prepared = this.#prepared.get(preparation);
    // On the path of cold starts: one that is in use is mounted, which keeps its folder in the kernel's memory, so this reads no disk.
    if (prepared !== undefined && statSync(prepared.folder, { throwIfNoEntry: false }) !== undefined) return prepared;
    const tree = await this.folder(digest, options.signal);
    const plan = await planBuild(digest, tree, runtime);
    const result = plan === null ? { digest, folder: tree } : await this.#build(plan, options);
    this.#prepared.set(preparation, result);
    return result;
  }

  async #build(
    plan: BuildPlan,
    options: { readonly onOutput: (line: string) => void; readonly signal: AbortSignal },
  ): Promise<CodeFolder> {
    const name = `${hexOf(plan.digest)}.${plan.key}`;
    const path = join(this.#options.directory, "built", name);
    const result = { digest: `${plan.digest}.${plan.key}`, folder: path };
    if (await isFolder(path)) return result;
    const listeners = this.#listeners.get(plan.key) ?? new Set();
    this.#listeners.set(plan.key, listeners);
    listeners.add(options.onOutput);
    try {
      await this.#builds.run(name, options.signal, (shared) => this.#combine(plan, path, shared));
    } finally {
      listeners.delete(options.onOutput);
      if (listeners.size === 0) this.#listeners.delete(plan.key);
    }
    return result;
  }

  /** Puts code and dependencies into one folder, so that one mount serves both. */
  async #combine(plan: BuildPlan, path: string, signal: AbortSignal): Promise<string> {
    const installed = await this.#installs.run(plan.key, signal, (shared) => this.#install(plan, shared));
    await using temporary = await this.#temporary();
    const tree = join(temporary.folder, "tree");
    await linkTree(plan.tree, tree);
    await mkdir(dirname(join(tree, plan.recipe.installed)), { recursive: true });
    await linkTree(installed, join(tree, plan.recipe.installed));
    await settleFolder(tree, path);
    return path;
  }

  async #install(plan: BuildPlan, signal: AbortSignal): Promise<string> {
    const path = join(this.#options.directory, "installed", plan.key);
    if (await isFolder(path)) return path;
    using _place = await this.#gate.enter(signal);
    await using temporary = await this.#temporary();
    const { limits, driver, clock } = this.#options;
    const installed = await installDependencies({
      ...plan,
      driver,
      clock,
      signal,
      environment: await this.#options.installEnvironment(),
      workspace: temporary.folder,
      onOutput: (line) => this.#listeners.get(plan.key)?.forEach((listener) => listener(line)),
      limits: {
        memoryBytesMax: limits.buildMemoryBytesMax,
        pidsMax: limits.buildPidsMax,
        tmpBytesMax: limits.buildTmpBytesMax,
        openFilesMax: limits.sandboxOpenFilesMax,
        fileBytesMax: limits.sandboxFileBytesMax,
        cpuCores: null,
        timeoutMs: limits.buildTimeoutMs,
        lineBytesMax: limits.logLineBytesMax,
      },
    });
    const size = await adoptTree(installed);
    checkSize("files", size.files, limits.packageFilesMax);
    checkSize("bytes", size.bytes, limits.packageBytesMax);
    await settleFolder(installed, path);
    return path;
  }

  async #unpackAgain(digest: Digest, signal: AbortSignal): Promise<string> {
    const path = this.#treePath(digest);
    const source = await this.#options.blobs.open(digest);
    if (source === null) throw new KoineError("code-not-found", { digest });
    await using temporary = await this.#temporary();
    const archive = join(temporary.folder, "archive.zip");
    const tree = join(temporary.folder, "tree");
    await pipeline(source, createWriteStream(archive), { signal });
    const unpacked = await unpackArchive(archive, tree, { limits: this.#options.limits, signal });
    if (unpacked.digest !== digest) {
      throw new KoineError("storage-failed", { detail: `the stored code package ${digest} is damaged` });
    }
    await settleFolder(tree, path);
    return path;
  }

  async #save(source: Readable, archive: string, signal: AbortSignal): Promise<void> {
    const { archiveBytesMax } = this.#options.limits;
    const bounded = async function* (chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
      let bytes = 0;
      for await (const chunk of chunks) {
        bytes += chunk.length;
        if (bytes > archiveBytesMax) {
          throw new KoineError("payload-too-large", { what: "the code package", limit: archiveBytesMax });
        }
        yield chunk;
      }
    };
    try {
      await pipeline(source, bounded, createWriteStream(archive), { signal });
    } catch (thrown) {
      if (!signal.aborted && isSystemError(thrown, "ERR_STREAM_PREMATURE_CLOSE", "ECONNRESET")) {
        throw new KoineError("client-closed-request", {}, { cause: thrown });
      }
      throw thrown;
    }
  }

  /** A folder for work in progress; what is still in it at the end is removed. */
  async #temporary(): Promise<AsyncDisposable & { readonly folder: string }> {
    const folder = await mkdtemp(join(this.#options.directory, "temporary", "work-"));
    return { folder, [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true, maxRetries: 3 }) };
  }

  /** Takes a folder out of sight in one step before its files go one by one. */
  async #remove(path: string): Promise<void> {
    await using temporary = await this.#temporary();
    try {
      await rename(join(this.#options.directory, path), join(temporary.folder, "removed"));
    } catch (thrown) {
      if (!isSystemError(thrown, "ENOENT")) throw thrown;
    }
  }

  #treePath(digest: Digest): string {
    return join(this.#options.directory, "trees", hexOf(digest));
  }
}

/** What must be installed for a package; null when nothing must. */
async function planBuild(
  digest: Digest,
  tree: string,
  runtime: { readonly name: string; readonly launch: RuntimeLaunch },
): Promise<BuildPlan | null> {
  const { launch, name } = runtime;
  const recipe = launch.build;
  if (recipe === null || (await exists(join(tree, recipe.installed)))) return null;
  for (const lockFile of recipe.lockFiles) {
    if ((await lstat(join(tree, lockFile)).catch(() => null))?.isFile() !== true) continue;
    const inputs = await dependencyInputs(tree, lockFile);
    // Compiled Python packages fit one minor version only.
    const interpreter = launch.version.split(".").slice(0, 2).join(".");
    const parts = [name, interpreter, lockFile, inputs.files === null ? digest : inputs.digest];
    const key = createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 40);
    return { digest, tree, launch, recipe, lockFile, files: inputs.files, key };
  }
  return null;
}

/** The digest as a file name; a colon separates paths in too many places. */
function hexOf(digest: Digest): string {
  return digest.slice("sha256:".length);
}

/** A few of them make a file name. */
function overlaidPart(digest: Digest): string {
  return hexOf(digest).slice(0, 40);
}

/** The key of the dependencies in the name of a built folder. */
function keyOf(builtName: string): string {
  return builtName.slice(builtName.indexOf(".") + 1);
}

function checkSize(what: string, value: number, allowed: number): void {
  if (value <= allowed) return;
  throw new KoineError("build-failed", { detail: `the dependencies are ${value} ${what}; allowed are ${allowed}` });
}

async function exists(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => null)) !== null;
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isDirectory() === true;
}
