import { mkdirSync, rmdirSync, statSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { access, constants, mkdir, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { KoineError } from "../../core/errors.ts";
import type { Mounting } from "./syscalls.ts";

/** A source as sandboxes see it: bound into the staging area, its rights already taken. */
export interface StagedSource {
  readonly path: string;
  readonly isFolder: boolean;
  /** To be called once by each who acquired it. */
  release(): void;
}

interface Entry {
  readonly key: string;
  readonly path: string;
  readonly isFolder: boolean;
  /** Tells whether the path still names what was staged: a folder may be deleted and made anew. */
  readonly identity: string;
  readonly ready: Promise<void>;
  references: number;
}

export interface StagingOptions {
  /** Becomes the mount point. */
  readonly directory: string;
  readonly mounting: Mounting;
  /** Whether sandboxes run as another user than the platform, who must be let in to read. */
  readonly foreignUser: boolean;
  /** Sources that stay staged although no sandbox uses them. */
  readonly idleSourcesMax?: number;
}

/**
 * A file system in memory, seen by this process only, out of which sandboxes are put together. It is a shared mount and the root
 * folder of each sandbox lies in it: what is mounted there later appears in the running sandbox. Sources are bound here first,
 * because rights (read-only) must be set before a mount spreads, and because the way to a source may be closed to the sandbox's user.
 */
export class Staging {
  /** Root folders of sandboxes are made in here. */
  readonly rootsFolder: string;
  readonly #options: StagingOptions;
  readonly #sourcesFolder: string;
  readonly #entries = new Map<string, Entry>();
  readonly #idleSourcesMax: number;
  #lastSource = 0;

  private constructor(options: StagingOptions) {
    this.#options = options;
    this.#idleSourcesMax = options.idleSourcesMax ?? 64;
    this.rootsFolder = join(options.directory, "roots");
    this.#sourcesFolder = join(options.directory, "sources");
  }

  /** @throws Error when this process may not mount */
  static async open(options: StagingOptions): Promise<Staging> {
    await mkdir(options.directory, { recursive: true, mode: 0o711 });
    await detachAll(options);
    await options.mounting.tmpfs(options.directory, "size=64m,nr_inodes=1000000,mode=0711");
    const staging = new Staging(options);
    try {
      await options.mounting.share(options.directory);
      await mkdir(staging.rootsFolder, { mode: 0o711 });
      await mkdir(staging.#sourcesFolder, { mode: 0o711 });
    } catch (thrown) {
      await staging.close();
      throw thrown;
    }
    return staging;
  }

  get directory(): string {
    return this.#options.directory;
  }

  get mounting(): Mounting {
    return this.#options.mounting;
  }

  /** @throws KoineError `sandbox-failed` when the source is missing or not readable by the sandbox's user */
  async acquire(source: string, options: { readonly writable: boolean }): Promise<StagedSource> {
    // What is staged already is mounted, which keeps its folder in the kernel's memory: on the path of a cold start this reads no disk.
    const found = statSync(source, { throwIfNoEntry: false });
    if (found === undefined) throw new KoineError("sandbox-failed", { detail: `there is nothing at ${source}` });
    const isFolder = found.isDirectory();
    if (this.#options.foreignUser && !options.writable && (found.mode & (isFolder ? 0o005 : 0o004)) === 0) {
      throw new KoineError("sandbox-failed", { detail: `${source} is not readable for other users` });
    }
    const key = `${options.writable ? "w" : "r"}:${source}`;
    const identity = `${found.dev}:${found.ino}`;
    let entry = this.#entries.get(key);
    if (entry === undefined || entry.identity !== identity) {
      const path = join(this.#sourcesFolder, String(++this.#lastSource));
      entry = { key, path, isFolder, identity, references: 0, ready: this.#stage(source, path, isFolder, options) };
    }
    // Setting it again moves it to the end: the order of the map is that of use.
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    entry.references++;
    try {
      await entry.ready;
    } catch (thrown) {
      this.#entries.delete(key);
      throw new KoineError("sandbox-failed", { detail: `${source} cannot be mounted` }, { cause: thrown });
    }
    const held = entry;
    return { path: held.path, isFolder, release: () => this.#release(held) };
  }

  /** Unmounts everything; running sandboxes keep what they have. */
  async close(): Promise<void> {
    this.#entries.clear();
    // Unmounting the staging area lazily takes all mounts below with it.
    await this.#options.mounting.detach(this.directory);
    await rm(this.directory, { recursive: true, force: true });
  }

  async #stage(
    source: string,
    path: string,
    isFolder: boolean,
    options: { readonly writable: boolean },
  ): Promise<void> {
    makePoint(path, isFolder);
    await this.#options.mounting.bind(source, path);
    await this.#options.mounting.restrict(path, { readOnly: !options.writable });
  }

  #release(entry: Entry): void {
    entry.references--;
    if (entry.references > 0) return;
    // One that was replaced by a newer source on the same path is of no more use.
    if (this.#entries.get(entry.key) !== entry) return this.#discard(entry);
    const idle = [...this.#entries.values()].filter((other) => other.references === 0);
    for (const oldest of idle.slice(0, Math.max(0, idle.length - this.#idleSourcesMax))) {
      this.#entries.delete(oldest.key);
      this.#discard(oldest);
    }
  }

  #discard(entry: Entry): void {
    void this.#options.mounting.detach(entry.path).then(
      () => removePoint(entry.path, entry.isFolder),
      // A mount that stays costs a few kilobytes until the platform ends.
      () => {},
    );
  }
}

const LEFT_MOUNTS_MAX = 16;

/** A platform that was killed in this very mount namespace has left its staging area mounted. */
async function detachAll({ directory, mounting }: StagingOptions): Promise<void> {
  try {
    for (let count = 0; count < LEFT_MOUNTS_MAX; count++) await mounting.detach(directory);
  } catch {
    // Nothing is mounted there any more.
  }
}

/** A root folder of one sandbox under construction; remembers what it made, so that removing never reaches into a mount. */
export class RootFolder {
  readonly path: string;
  readonly #made: { readonly path: string; readonly isFolder: boolean }[] = [];

  constructor(path: string) {
    this.path = path;
    this.#make(path, true);
  }

  /** Makes an empty file or folder, and the folders above it, at an absolute path inside; answers the path outside. */
  makePoint(inside: string, isFolder: boolean): string {
    const path = join(this.path, inside);
    const missing: string[] = [];
    for (let folder = dirname(path); folder.startsWith(this.path) && !exists(folder); folder = dirname(folder)) {
      missing.unshift(folder);
    }
    for (const folder of missing) this.#make(folder, true);
    if (!exists(path)) this.#make(path, isFolder);
    return path;
  }

  makeLink(inside: string, to: string): void {
    const path = join(this.path, inside);
    symlinkSync(to, path);
    this.#made.push({ path, isFolder: false });
  }

  /** Leaves alone what is still mounted. */
  remove(): void {
    for (const { path, isFolder } of this.#made.toReversed()) removePoint(path, isFolder);
  }

  #make(path: string, isFolder: boolean): void {
    makePoint(path, isFolder);
    this.#made.push({ path, isFolder });
  }
}

/** The first of the folders that users other than the platform's can reach; null when none. */
export async function firstReachable(folders: readonly string[]): Promise<string | null> {
  for (const folder of folders) {
    if (await isReachable(dirname(folder))) return folder;
  }
  return null;
}

async function isReachable(folder: string): Promise<boolean> {
  try {
    await access(folder, constants.W_OK);
    for (let above = folder; ; above = dirname(above)) {
      if (((await stat(above)).mode & 0o001) === 0) return false;
      if (above === dirname(above)) return true;
    }
  } catch {
    return false;
  }
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

function makePoint(path: string, isFolder: boolean): void {
  if (isFolder) mkdirSync(path, { mode: 0o755 });
  else writeFileSync(path, "", { flag: "wx", mode: 0o644 });
}

function removePoint(path: string, isFolder: boolean): void {
  try {
    if (isFolder) rmdirSync(path);
    else unlinkSync(path);
  } catch {
    // Still mounted or gone already.
  }
}
