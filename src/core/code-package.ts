import { createHash } from "node:crypto";
import { KoineError } from "./errors.ts";
import type { Digest } from "./function.ts";
import { limits } from "./limits.ts";

/**
 * What a CodePackage consists of, and the digest that addresses it. The digest is over the tree, not over an archive of it, so that
 * the CLI can ask whether the platform has a package before it packs one, and equal trees are equal however they were packed.
 * Folders are not part of it: a folder exists where there is something in it.
 */
export type PackageEntry =
  | { readonly kind: "file"; readonly path: string; readonly executable: boolean; readonly sha256: string }
  | { readonly kind: "link"; readonly path: string; readonly target: string };

/** A file of compiled code, as a runtime writes it when it is told where; `path` is relative, of plain names. */
export interface CodeCacheFile {
  readonly path: string;
  readonly content: Buffer;
}

const DIGEST_PATTERN = /^sha256:[0-9a-f]{64}$/;
const COMPONENT_BYTES_MAX = 255;

/** The content digest of a package; the order of the entries does not matter. Their paths must have passed `PackagePaths`. */
export function packageDigest(entries: Iterable<PackageEntry>): Digest {
  const lines = Array.from(entries, (entry) => ({ key: Buffer.from(entry.path), text: manifestLine(entry) }));
  lines.sort((a, b) => Buffer.compare(a.key, b.key));
  const hash = createHash("sha256").update("koine package 1\0");
  for (const line of lines) hash.update(line.text);
  return `sha256:${hash.digest("hex")}`;
}

export function isDigest(text: string): boolean {
  return DIGEST_PATTERN.test(text);
}

/** Four fields, each ended by NUL, which no path and no link target can hold: no two manifests have the same text. */
function manifestLine(entry: PackageEntry): string {
  switch (entry.kind) {
    case "file":
      return `file\0${entry.executable ? "executable" : "plain"}\0${entry.path}\0${entry.sha256}\0`;
    case "link":
      return `link\0plain\0${entry.path}\0${entry.target}\0`;
    default:
      return entry satisfies never;
  }
}

/**
 * Whether a path may be in a package: relative, with `/` between plain names.
 * @throws KoineError `invalid-package` that names the entry
 */
export function checkEntryPath(path: string): void {
  const fault = pathFault(path);
  if (fault !== null) throw invalidEntry(path, fault);
}

/**
 * Whether a link may be in a package. Its target may go up only at its beginning: the folders above a link are real ones, so that
 * every step of such a target stays inside, whatever other links it passes; `link/..` would not.
 * @throws KoineError `invalid-package` that names the entry
 */
export function checkLinkTarget(path: string, target: string): void {
  const fault = targetFault(path, target);
  if (fault !== null) throw invalidEntry(path, fault);
}

type EntryKind = "file" | "link" | "folder";

/** The paths of one package so far; refuses those that would meet on a file system, or be written through a link. */
export class PackagePaths {
  /** By the path as a file system that ignores case would see it. */
  readonly #taken = new Map<string, { readonly path: string; readonly kind: EntryKind }>();

  /** @throws KoineError `invalid-package` that names the entry */
  add(path: string, kind: EntryKind): void {
    checkEntryPath(path);
    for (let slash = path.indexOf("/"); slash >= 0; slash = path.indexOf("/", slash + 1)) {
      this.#take(path.slice(0, slash), "folder", path);
    }
    this.#take(path, kind, path);
  }

  #take(path: string, kind: EntryKind, entry: string): void {
    const key = path.normalize("NFC").toLowerCase();
    const other = this.#taken.get(key);
    if (other === undefined) {
      this.#taken.set(key, { path, kind });
      return;
    }
    if (kind === "folder" && other.kind === "folder" && other.path === path) return;
    if (other.kind === "link" && path !== entry)
      throw invalidEntry(entry, `it lies below the link ${quoted(other.path)}`);
    if (other.path === path) throw invalidEntry(entry, "there are two entries of that name");
    throw invalidEntry(entry, `its name differs from ${quoted(other.path)} only in case or in Unicode form`);
  }
}

/** An `invalid-package` error about one entry; `fault` continues the sentence "entry 'x': …". */
export function invalidEntry(path: string, fault: string, cause?: unknown): KoineError {
  return new KoineError("invalid-package", { detail: `entry ${quoted(path)}: ${fault}`, entry: path }, { cause });
}

function pathFault(path: string): string | null {
  if (path === "") return "its name is empty";
  if (!path.isWellFormed() || path.includes("\uFFFD")) return "its name is not valid Unicode";
  if (path.includes("\0")) return "its name holds a NUL character";
  if (path.includes("\\")) return "its name holds a backslash";
  if (path.startsWith("/")) return "its path is absolute";
  if (/^[A-Za-z]:/.test(path)) return "its path begins with a drive letter";
  if (Buffer.byteLength(path) > limits.packagePathBytesMax) {
    return `its path is longer than ${limits.packagePathBytesMax} bytes`;
  }
  for (const name of path.split("/")) {
    if (name === "..") return "its path leaves the package";
    if (name === "" || name === ".") return "its path has an empty or '.' component";
    if (Buffer.byteLength(name) > COMPONENT_BYTES_MAX)
      return `a name in it is longer than ${COMPONENT_BYTES_MAX} bytes`;
  }
  return null;
}

function targetFault(path: string, target: string): string | null {
  if (target === "") return "the link has no target";
  if (!target.isWellFormed() || target.includes("\uFFFD")) return "the link's target is not valid Unicode";
  if (target.includes("\0") || target.includes("\\")) return "the link's target holds a NUL character or a backslash";
  if (target.startsWith("/") || /^[A-Za-z]:/.test(target)) return `the link is absolute: ${quoted(target)}`;
  if (Buffer.byteLength(target) > limits.packagePathBytesMax) {
    return `the link's target is longer than ${limits.packagePathBytesMax} bytes`;
  }
  let depth = path.split("/").length - 1;
  let descended = false;
  for (const name of target.split("/")) {
    if (name === "" || name === ".") continue;
    if (name !== "..") descended = true;
    else if (descended) return `the link goes up after it went down: ${quoted(target)}`;
    else if (--depth < 0) return `the link leaves the package: ${quoted(target)}`;
  }
  return null;
}

/** Control characters in a name must not reach a terminal. */
function quoted(text: string): string {
  const shown = text.length > 200 ? `${text.slice(0, 200)}…` : text;
  return `'${shown.replaceAll(/[\u0000-\u001F\u007F-\u009F]/g, (character) => JSON.stringify(character).slice(1, -1))}'`;
}
