import { isUtf8 } from "node:buffer";
import { createHash } from "node:crypto";
import { chmod, mkdir, open, symlink, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { crc32, createInflateRaw, inflateRaw } from "node:zlib";
import {
  fromRandomAccessReaderPromise,
  getFileNameLowLevel,
  RandomAccessReader,
  type Entry,
  type ZipFile,
} from "yauzl";
import { checkLinkTarget, invalidEntry, packageDigest, PackagePaths, type PackageEntry } from "../core/code-package.ts";
import { KoineError } from "../core/errors.ts";
import type { Digest } from "../core/function.ts";
import { concurrently } from "./concurrently.ts";

export interface PackageLimits {
  /** Largest archive, in bytes. */
  readonly archiveBytesMax: number;
  /** Largest sum of all files, in bytes. */
  readonly packageBytesMax: number;
  readonly packageFilesMax: number;
  readonly packagePathBytesMax: number;
}

export interface UnpackedPackage {
  readonly digest: Digest;
  /** Sum of all files. */
  readonly bytes: number;
  readonly files: number;
}

interface PlannedEntry {
  readonly kind: "file" | "link";
  readonly path: string;
  readonly executable: boolean;
  readonly entry: Entry;
}

const FILES_AT_A_TIME = 8;
/** Entries up to this size are read and inflated in one piece, in bytes. */
const SMALL_BYTES_MAX = 1024 * 1024;
const UTF8_NAME_FLAG = 0x800;
const EXECUTABLE_BY_OWNER = 0o100;

const inflate = promisify<Buffer, { maxOutputLength: number }, Buffer>(inflateRaw);

/**
 * Unpacks a zip archive of a code package into a folder, which it makes. Nothing in the archive is believed: the whole directory is checked before
 * the first byte is written, sizes and checksums are compared with what is found, and links are made when all files are there. Every file
 * is on disk when it resolves. After a failure the folder holds some of the files; the caller removes it.
 * @throws KoineError `invalid-package`, `limit-exceeded`
 */
export async function unpackArchive(
  archivePath: string,
  folder: string,
  options: { readonly limits: PackageLimits; readonly signal: AbortSignal },
): Promise<UnpackedPackage> {
  await using handle = await open(archivePath, "r");
  try {
    const reader = new ArchiveReader(handle, (await handle.stat()).size);
    const zip = await fromRandomAccessReaderPromise(reader, reader.sizeBytes, {
      decodeStrings: false,
      autoClose: false,
    });
    const plan = await readPlan(zip, options);
    return await unpackPlan(plan, { zip, handle, folder, signal: options.signal });
  } catch (thrown) {
    if (thrown instanceof KoineError || options.signal.aborted || isSystemError(thrown)) throw thrown;
    const detail = `the archive cannot be read: ${thrown instanceof Error ? thrown.message : String(thrown)}`;
    throw new KoineError("invalid-package", { detail }, { cause: thrown });
  }
}

/** Reads for yauzl; positions come from the archive and may be anything, which `fs.read` would answer by throwing. */
class ArchiveReader extends RandomAccessReader {
  readonly sizeBytes: number;
  readonly #handle: FileHandle;

  constructor(handle: FileHandle, sizeBytes: number) {
    super();
    this.#handle = handle;
    this.sizeBytes = sizeBytes;
  }

  override read(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
    callback: (error: Error | null) => void,
  ): void {
    if (!Number.isSafeInteger(position) || position < 0 || position + length > this.sizeBytes) {
      setImmediate(callback, new Error("it is truncated, or points outside of itself"));
      return;
    }
    readFully(this.#handle, buffer.subarray(offset, offset + length), position).then(
      () => setImmediate(callback, null),
      (error: Error) => setImmediate(callback, error),
    );
  }

  /** The handle is closed by whoever opened it. */
  override close(callback: (error: Error | null) => void): void {
    setImmediate(callback, null);
  }
}

/** The archive's directory, checked: what is declared fits the limits, and every path may be in a package. */
async function readPlan(
  zip: ZipFile,
  options: { readonly limits: PackageLimits; readonly signal: AbortSignal },
): Promise<readonly PlannedEntry[]> {
  const { limits, signal } = options;
  const plan: PlannedEntry[] = [];
  const paths = new PackagePaths();
  let entries = 0;
  let bytes = 0;
  for await (const entry of zip.eachEntry()) {
    signal.throwIfAborted();
    entries++;
    bytes += entry.uncompressedSize;
    if (entries > 2 * limits.packageFilesMax || plan.length >= limits.packageFilesMax) {
      throw limitExceeded("The number of files in the code package", zip.entryCount, limits.packageFilesMax);
    }
    if (bytes > limits.packageBytesMax) {
      throw limitExceeded("The size of the unpacked code package in bytes", bytes, limits.packageBytesMax);
    }
    const { name, kind } = identify(entry);
    if (name === "" && kind === "folder") continue;
    paths.add(name, kind);
    if (kind === "folder") continue;
    checkContent(entry, { name, kind, limits });
    plan.push({ kind, path: name, executable: (unixMode(entry) & EXECUTABLE_BY_OWNER) !== 0, entry });
  }
  if (plan.length === 0) throw new KoineError("invalid-package", { detail: "there is no file in it" });
  return plan;
}

/** Name and kind of an entry. The kind is read from the Unix mode whatever system the archive says it is from. */
function identify(entry: Entry): { readonly name: string; readonly kind: "file" | "link" | "folder" } {
  // Some packers write UTF-8 without saying so; text in code page 437 is as good as never valid UTF-8.
  const flags = isUtf8(entry.fileNameRaw) ? entry.generalPurposeBitFlag | UTF8_NAME_FLAG : entry.generalPurposeBitFlag;
  const raw = getFileNameLowLevel(flags, entry.fileNameRaw, entry.extraFields, true);
  const relative = raw.startsWith("./") ? raw.slice(2) : raw;
  const slash = relative.endsWith("/") || raw === "./";
  const name = relative.endsWith("/") ? relative.slice(0, -1) : relative;
  const type = unixMode(entry) & 0o170000;
  switch (type) {
    case 0o000000:
    case 0o100000:
      return { name, kind: slash ? "folder" : "file" };
    case 0o040000:
      return { name, kind: "folder" };
    case 0o120000:
      return { name, kind: "link" };
    default:
      throw invalidEntry(name, "it is a device, a pipe or a socket");
  }
}

function unixMode(entry: Entry): number {
  return entry.externalFileAttributes >>> 16;
}

function checkContent(
  entry: Entry,
  about: { readonly name: string; readonly kind: "file" | "link"; readonly limits: PackageLimits },
): void {
  if (entry.isEncrypted()) throw invalidEntry(about.name, "it is encrypted");
  if (entry.compressionMethod !== 0 && entry.compressionMethod !== 8) {
    throw invalidEntry(about.name, `its compression method ${entry.compressionMethod} is not known; use deflate`);
  }
  if (about.kind === "link" && entry.uncompressedSize > about.limits.packagePathBytesMax) {
    throw invalidEntry(about.name, `the link's target is longer than ${about.limits.packagePathBytesMax} bytes`);
  }
}

interface Unpacking {
  readonly zip: ZipFile;
  readonly handle: FileHandle;
  readonly folder: string;
  readonly signal: AbortSignal;
}

async function unpackPlan(plan: readonly PlannedEntry[], work: Unpacking): Promise<UnpackedPackage> {
  await makeFolders(plan, work.folder);
  const entries: PackageEntry[] = [];
  let bytes = 0;
  await concurrently(
    plan.filter((planned) => planned.kind === "file"),
    FILES_AT_A_TIME,
    async (planned) => {
      work.signal.throwIfAborted();
      const sha256 = await unpackFile(planned, work);
      bytes += planned.entry.uncompressedSize;
      entries.push({ kind: "file", path: planned.path, executable: planned.executable, sha256 });
    },
  );
  for (const planned of plan.filter(({ kind }) => kind === "link")) {
    work.signal.throwIfAborted();
    const content = await readSmall(planned, work);
    if (!isUtf8(content)) throw invalidEntry(planned.path, "the link's target is not valid Unicode");
    const target = content.toString();
    checkLinkTarget(planned.path, target);
    await symlink(target, join(work.folder, planned.path));
    entries.push({ kind: "link", path: planned.path, target });
  }
  return { digest: packageDigest(entries), bytes, files: entries.length };
}

/** Folders get their mode by chmod because the one given to mkdir() is cut by the process's umask. */
async function makeFolders(plan: readonly PlannedEntry[], folder: string): Promise<void> {
  await mkdir(folder);
  await chmod(folder, 0o755);
  const made = new Set<string>();
  for (const { path } of plan) {
    for (let slash = path.indexOf("/"); slash >= 0; slash = path.indexOf("/", slash + 1)) {
      const parent = path.slice(0, slash);
      if (made.has(parent)) continue;
      made.add(parent);
      await mkdir(join(folder, parent));
      await chmod(join(folder, parent), 0o755);
    }
  }
}

/** Writes one file and answers the SHA-256 of its content. */
async function unpackFile(planned: PlannedEntry, work: Unpacking): Promise<string> {
  await using file = await open(join(work.folder, planned.path), "wx", 0o600);
  const hash = createHash("sha256");
  if (Math.max(planned.entry.compressedSize, planned.entry.uncompressedSize) <= SMALL_BYTES_MAX) {
    const content = await readSmall(planned, work);
    hash.update(content);
    if (content.length > 0) await file.writeFile(content);
  } else {
    await unpackLarge(planned, work, async (chunk) => {
      hash.update(chunk);
      await file.writeFile(chunk);
    });
  }
  await file.chmod(planned.executable ? 0o755 : 0o644);
  await file.datasync();
  return hash.digest("hex");
}

async function readSmall(planned: PlannedEntry, work: Unpacking): Promise<Buffer> {
  const { entry, path } = planned;
  const start = await contentStart(planned, work);
  const stored = await readFully(work.handle, Buffer.allocUnsafe(entry.compressedSize), start);
  const content =
    entry.compressionMethod === 0 ? stored : await inflateSmall(stored, path, Math.max(1, entry.uncompressedSize));
  if (content.length !== entry.uncompressedSize) throw invalidEntry(path, "it is not as large as it says");
  if (crc32(content) !== entry.crc32) throw invalidEntry(path, "its checksum is wrong");
  return content;
}

async function inflateSmall(stored: Buffer, path: string, maxOutputLength: number): Promise<Buffer> {
  try {
    return await inflate(stored, { maxOutputLength });
  } catch (thrown) {
    const larger = thrown instanceof Error && "code" in thrown && thrown.code === "ERR_BUFFER_TOO_LARGE";
    throw invalidEntry(path, larger ? "it is not as large as it says" : "its compressed content is damaged", thrown);
  }
}

async function unpackLarge(
  planned: PlannedEntry,
  work: Unpacking,
  write: (chunk: Buffer) => Promise<void>,
): Promise<void> {
  const { entry, path } = planned;
  const start = await contentStart(planned, work);
  const end = start + entry.compressedSize - 1;
  const stored = work.handle.createReadStream({ start, end, autoClose: false, highWaterMark: 256 * 1024 });
  let bytes = 0;
  let checksum = 0;
  const sink = async (source: AsyncIterable<Buffer>): Promise<void> => {
    for await (const chunk of source) {
      bytes += chunk.length;
      if (bytes > entry.uncompressedSize) throw invalidEntry(path, "it is not as large as it says");
      checksum = crc32(chunk, checksum);
      await write(chunk);
    }
  };
  const { signal } = work;
  if (entry.compressionMethod === 0) await pipeline(stored, sink, { signal });
  else await pipeline(stored, createInflateRaw({ chunkSize: 256 * 1024 }), sink, { signal });
  if (bytes !== entry.uncompressedSize) throw invalidEntry(path, "it is not as large as it says");
  if (checksum !== entry.crc32) throw invalidEntry(path, "its checksum is wrong");
}

async function contentStart(planned: PlannedEntry, work: Unpacking): Promise<number> {
  const header = await work.zip.readLocalFileHeaderPromise(planned.entry, { minimal: true });
  return header.fileDataStart;
}

async function readFully(handle: FileHandle, buffer: Buffer, position: number): Promise<Buffer> {
  let filled = 0;
  while (filled < buffer.length) {
    const { bytesRead } = await handle.read(buffer, filled, buffer.length - filled, position + filled);
    if (bytesRead === 0) throw new Error("it is truncated");
    filled += bytesRead;
  }
  return buffer;
}

function limitExceeded(what: string, value: number, allowed: number): KoineError {
  return new KoineError("limit-exceeded", { what, value, allowed });
}

/** Failures of the disk are not the archive's fault. */
function isSystemError(thrown: unknown): boolean {
  return thrown instanceof Error && "syscall" in thrown;
}
