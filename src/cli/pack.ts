import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { lstat, readdir, readFile, readlink, realpath, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import dockerIgnore from "@balena/dockerignore";
import ignore from "ignore";
import {
  checkEntryPath,
  checkLinkTarget,
  invalidEntry,
  packageDigest,
  PackagePaths,
  type PackageEntry,
} from "../core/code-package.ts";
import { KoineError } from "../core/errors.ts";
import type { Digest } from "../core/function.ts";
import { limits } from "../core/limits.ts";
import { zipPackage } from "./zip.ts";

/** A folder or file, ready to be uploaded. */
export interface PackedCode {
  /** The same that the platform computes from the archive. */
  readonly digest: Digest;
  readonly files: number;
  /** Sum of all files, unpacked. */
  readonly bytes: number;
  /** Sentences that the user should see. */
  readonly warnings: readonly string[];
  /** Paths of all files and links in the package. */
  readonly paths: readonly string[];
  /** A zip archive of it, made while it is read; needed only when the platform lacks the digest. */
  archive(): Readable;
}

/** One thing on disk that goes into the package. */
export type PackSource =
  | {
      readonly kind: "file";
      readonly path: string;
      readonly onDisk: string;
      readonly bytes: number;
      readonly executable: boolean;
    }
  | { readonly kind: "link"; readonly path: string; readonly target: string };

export interface PackOptions {
  /** It is to be built into an image by this file in it: then .dockerignore says what is left out, and nothing else does. */
  readonly dockerfile?: string;
}

/** Tells what is left out; folders end with `/`. */
interface Ignored {
  ignores(path: string): boolean;
}

/** What is left out unless `.koineignore` brings it back with `!`. */
const IGNORED = [
  ".git/",
  ".koine/",
  ".koineignore",
  ".env",
  ".env.*",
  "**/node_modules/.cache/",
  "*.log",
  "__pycache__/",
  ".venv/",
  ".DS_Store",
];

const LARGE_BYTES = 50 * 1_000_000;
const FILES_AT_A_TIME = 8;

/**
 * Reads a folder, or a single file, and computes the digest of the package it makes.
 * @throws KoineError `invalid-package` that names what cannot be packed, `limit-exceeded`
 */
export async function packCode(path: string, options: PackOptions = {}): Promise<PackedCode> {
  const root = await realpath(path).catch((thrown: unknown) => {
    throw unreadable(path, thrown);
  });
  const sources = (await stat(root)).isDirectory()
    ? await walkFolder(root, options)
    : [await singleFile(root, basename(path))];
  if (sources.length === 0) {
    throw new KoineError("invalid-package", { detail: `there is no file to deploy in '${path}'` });
  }
  const entries = await describe(sources);
  const bytes = sources.reduce((sum, source) => sum + bytesOf(source), 0);
  return {
    digest: packageDigest(entries),
    files: sources.length,
    bytes,
    warnings: bytes > LARGE_BYTES ? [largeWarning(sources, bytes)] : [],
    paths: sources.map((source) => source.path),
    archive: () => zipPackage(sources),
  };
}

async function singleFile(onDisk: string, name: string): Promise<PackSource> {
  checkEntryPath(name);
  const stats = await stat(onDisk);
  if (!stats.isFile()) throw invalidEntry(name, "it is neither a file nor a folder");
  return { kind: "file", path: name, onDisk, bytes: stats.size, executable: isExecutable(stats.mode) };
}

/** All that is not ignored, in order of path. */
async function walkFolder(root: string, { dockerfile }: PackOptions): Promise<readonly PackSource[]> {
  const ignored = dockerfile === undefined ? await readIgnoreFile(root) : await readDockerIgnore(root, dockerfile);
  const paths = new PackagePaths();
  const sources: PackSource[] = [];
  let bytes = 0;
  const waiting = [""];
  for (let folder = waiting.pop(); folder !== undefined; folder = waiting.pop()) {
    const names = await readdir(join(root, folder)).catch((thrown: unknown) => {
      throw unreadable(folder, thrown);
    });
    for (const name of names) {
      const path = folder === "" ? name : `${folder}/${name}`;
      const found = await inspect(root, path, ignored);
      if (found === null) continue;
      if (found === "folder") {
        waiting.push(path);
        continue;
      }
      paths.add(path, found.kind);
      sources.push(found);
      bytes += bytesOf(found);
      checkLimit("The number of files in the code package", sources.length, limits.packageFilesMax);
      checkLimit("The size of the code package in bytes", bytes, limits.packageBytesMax);
    }
  }
  return sources.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** What a path of the folder contributes; null when it is ignored. */
async function inspect(root: string, path: string, ignored: Ignored): Promise<PackSource | "folder" | null> {
  const onDisk = join(root, path);
  const stats = await lstat(onDisk).catch((thrown: unknown) => {
    // Nothing is found under a name that is not valid Unicode: it was changed when it was read.
    checkEntryPath(path);
    throw unreadable(path, thrown);
  });
  if (ignored.ignores(stats.isDirectory() ? `${path}/` : path)) return null;
  checkEntryPath(path);
  if (stats.isDirectory()) return "folder";
  if (stats.isFile()) {
    return { kind: "file", path, onDisk, bytes: stats.size, executable: isExecutable(stats.mode) };
  }
  if (!stats.isSymbolicLink()) {
    throw invalidEntry(path, "it is a device, a pipe or a socket; exclude it in .koineignore");
  }
  const target = await readlink(onDisk);
  checkLinkTarget(path, target);
  return { kind: "link", path, target };
}

async function readIgnoreFile(root: string): Promise<Ignored> {
  const patterns = (await contentOf(root, ".koineignore")) ?? "";
  return ignore({ ignorecase: false }).add(IGNORED).add(patterns);
}

/** By Docker's rules, which differ: patterns begin at the root, and a file can come back from a folder that is left out. */
async function readDockerIgnore(root: string, dockerfile: string): Promise<Ignored> {
  const patterns =
    (await contentOf(root, `${dockerfile}.dockerignore`)) ?? (await contentOf(root, ".dockerignore")) ?? "";
  const left = dockerIgnore.default({ ignorecase: false }).add(patterns);
  const comesBack = /^\s*!/m.test(patterns);
  return {
    ignores(path) {
      if (path === dockerfile || path === ".koine/") return path !== dockerfile;
      if (path.endsWith("/")) return !comesBack && !dockerfile.startsWith(path) && left.ignores(path.slice(0, -1));
      return left.ignores(path);
    },
  };
}

/** null: there is no such file. */
async function contentOf(root: string, name: string): Promise<string | null> {
  return await readFile(join(root, name), "utf8").catch((thrown: unknown) => {
    if (thrown instanceof Error && "code" in thrown && thrown.code === "ENOENT") return null;
    throw unreadable(name, thrown);
  });
}

/** The manifest: every file is read and hashed, a few at a time. */
async function describe(sources: readonly PackSource[]): Promise<readonly PackageEntry[]> {
  const entries: PackageEntry[] = [];
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let source = sources[next++]; source !== undefined; source = sources[next++]) {
      if (source.kind === "link") entries.push(source);
      else {
        const { path, executable } = source;
        entries.push({ kind: "file", path, executable, sha256: await hashFile(source.onDisk, path) });
      }
    }
  };
  await Promise.all(Array.from({ length: FILES_AT_A_TIME }, lane));
  return entries;
}

async function hashFile(onDisk: string, path: string): Promise<string> {
  const hash = createHash("sha256");
  try {
    await pipeline(createReadStream(onDisk, { highWaterMark: 256 * 1024 }), async (chunks: AsyncIterable<Buffer>) => {
      for await (const chunk of chunks) hash.update(chunk);
    });
  } catch (thrown) {
    throw unreadable(path, thrown);
  }
  return hash.digest("hex");
}

/** Only the owner's bit counts: the others depend on who checked the files out, and how. */
function isExecutable(mode: number): boolean {
  return (mode & 0o100) !== 0;
}

function bytesOf(source: PackSource): number {
  return source.kind === "file" ? source.bytes : 0;
}

function unreadable(path: string, thrown: unknown): KoineError {
  const code = thrown instanceof Error && "code" in thrown ? thrown.code : undefined;
  const reasons: Readonly<Record<string, string>> = {
    EACCES: "it cannot be read: permission denied",
    EPERM: "it cannot be read: permission denied",
    ENOENT: "there is no such file or folder",
    ELOOP: "it is a link to itself",
  };
  const reason = typeof code === "string" ? reasons[code] : undefined;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return invalidEntry(path, reason ?? `it cannot be read: ${message}`, thrown);
}

function checkLimit(what: string, value: number, allowed: number): void {
  if (value > allowed) throw new KoineError("limit-exceeded", { what, value, allowed });
}

/** Names the three largest parts: folders of the root, and single dependencies. */
function largeWarning(sources: readonly PackSource[], bytes: number): string {
  const parts = new Map<string, number>();
  for (const source of sources) {
    const names = source.path.split("/");
    const depth = names[0] !== "node_modules" ? 1 : names[1]?.startsWith("@") === true ? 3 : 2;
    const part = names.slice(0, depth).join("/");
    parts.set(part, (parts.get(part) ?? 0) + bytesOf(source));
  }
  const largest = [...parts].sort((a, b) => b[1] - a[1]).slice(0, 3);
  const shown = largest.map(([part, partBytes]) => `${part} (${megabytes(partBytes)})`).join(", ");
  return (
    `The package has ${megabytes(bytes)} in ${sources.length} files; the largest: ${shown}. ` +
    "What the function does not need can be excluded in .koineignore."
  );
}

function megabytes(bytes: number): string {
  return `${(bytes / 1_000_000).toFixed(1)} MB`;
}
