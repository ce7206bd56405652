import { createHash } from "node:crypto";
import { statSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { CodeCacheFile } from "../core/code-package.ts";
import type { Digest, Version } from "../core/function.ts";

export interface CodeCachesOptions {
  /** A folder of this node alone: what is in it can be made again. */
  readonly directory: string;
}

/**
 * Compiled code, so that loading a large package or TypeScript costs no compiling. A cache is made by the check run of a deploy and
 * handed to later instances read-only. Whoever makes one decides what those instances execute, hence one is only for the namespace,
 * package and runtime that it was made by. Interpreters check by themselves whether it was made by their own version from this source.
 */
export class CodeCaches {
  readonly #options: CodeCachesOptions;
  readonly #folders: Map<string, string>;

  private constructor(options: CodeCachesOptions, folders: Map<string, string>) {
    this.#options = options;
    this.#folders = folders;
  }

  /** Opens the folder and removes what an earlier process left half done. */
  static async open(options: CodeCachesOptions): Promise<CodeCaches> {
    const { directory } = options;
    await mkdir(directory, { recursive: true });
    const folders = new Map<string, string>();
    for (const name of await readdir(directory)) {
      if (name.startsWith(TEMPORARY)) await rm(join(directory, name), { recursive: true, force: true });
      else folders.set(name, join(directory, name));
    }
    return new CodeCaches(options, folders);
  }

  /** The folder to be seen inside, or null when there is none. */
  find(version: Version): string | null {
    const name = nameOf(version);
    const folder = this.#folders.get(name);
    if (folder === undefined) return null;
    // On the path of cold starts: one that is in use is mounted, which keeps it in the kernel's memory.
    if (statSync(folder, { throwIfNoEntry: false }) !== undefined) return folder;
    this.#folders.delete(name);
    return null;
  }

  /** Keeps what a check run has compiled. What is there already stays. */
  async keep(version: Version, files: readonly CodeCacheFile[]): Promise<void> {
    const { directory } = this.#options;
    const name = nameOf(version);
    if (files.length === 0 || this.#folders.has(name)) return;
    const folder = await mkdtemp(join(directory, TEMPORARY));
    const made = join(folder, "cache");
    try {
      await mkdir(made, { mode: 0o755 });
      for (const file of files) {
        const path = join(made, file.path);
        await mkdir(dirname(path), { recursive: true, mode: 0o755 });
        await writeFile(path, file.content, { mode: 0o644, flag: "wx" });
      }
      const kept = join(directory, name);
      await chmod(made, 0o755);
      await rename(made, kept);
      this.#folders.set(name, kept);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  /** Removes what was made of a package. Nothing may run from it. */
  async delete(digest: Digest): Promise<void> {
    const prefix = `${hexOf(digest)}.`;
    for (const [name, folder] of this.#folders) {
      if (!name.startsWith(prefix)) continue;
      this.#folders.delete(name);
      await rm(folder, { recursive: true, force: true });
    }
  }
}

const TEMPORARY = "temporary-";

function nameOf(version: Version): string {
  const { code, runtime } = version.spec;
  const parts = [version.namespace, runtime];
  const key = createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 32);
  return `${hexOf(code)}.${key}`;
}

function hexOf(digest: Digest): string {
  return digest.slice("sha256:".length);
}
