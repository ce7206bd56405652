import { randomUUID } from "node:crypto";
import { mkdir, open, readdir, rename, rm, stat, unlink, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { KoineError } from "../core/errors.ts";
import type { Blobs } from "./store.ts";

/**
 * Blobs as files of a directory that only this process writes. A blob is written under another name and renamed when it is whole and on disk; what a
 * crash left half-written is removed here.
 * @throws KoineError `data-directory-unusable`, `storage-full`
 */
export async function openFileBlobs(directory: string): Promise<Blobs> {
  const blobs = new FileBlobs(directory);
  try {
    await rm(blobs.incoming, { recursive: true, force: true });
    await mkdir(blobs.incoming, { recursive: true, mode: 0o700 });
    await syncDirectory(directory);
  } catch (thrown) {
    const error = toStorageError(thrown);
    if (error.code === "storage-full") throw error;
    throw new KoineError("data-directory-unusable", { directory, detail: messageOf(thrown) }, { cause: thrown });
  }
  return blobs;
}

class FileBlobs implements Blobs {
  readonly incoming: string;
  readonly #directory: string;
  /** The last publication under way per key: of two that put the same key at a time, one must see the other. */
  readonly #publishing = new Map<string, Promise<unknown>>();

  constructor(directory: string) {
    this.#directory = directory;
    this.incoming = join(directory, ".incoming");
  }

  async put(key: string, source: Readable): Promise<{ readonly bytes: number }> {
    // A source that breaks before it is read must not end the process; reading it tells of the error.
    source.on("error", () => {});
    const path = this.#pathOf(key);
    const existing = await sizeOf(path);
    if (existing !== null) {
      // A source is always read to its end, so that an HTTP request which sends what is there already can be answered.
      await readToEnd(source);
      return { bytes: existing };
    }
    const temporary = join(this.incoming, randomUUID());
    try {
      await writeWhole(temporary, source);
      return { bytes: await this.#publish(temporary, path) };
    } catch (thrown) {
      await rm(temporary, { force: true });
      throw thrown;
    }
  }

  async open(key: string): Promise<Readable | null> {
    const file = await unlessMissing(open(this.#pathOf(key), "r"));
    return file === null ? null : file.createReadStream();
  }

  async has(key: string): Promise<boolean> {
    return (await sizeOf(this.#pathOf(key))) !== null;
  }

  async delete(key: string): Promise<void> {
    await unlessMissing(unlink(this.#pathOf(key)));
  }

  async list(): Promise<readonly string[]> {
    const names = await onDisk(readdir(this.#directory));
    return names.filter((name) => !name.startsWith(".")).map((name) => decodeURIComponent(name));
  }

  async #publish(temporary: string, path: string): Promise<number> {
    const before = this.#publishing.get(path) ?? Promise.resolve();
    const publication = before.then(async () => {
      const first = await sizeOf(path);
      if (first !== null) {
        await onDisk(unlink(temporary));
        return first;
      }
      await onDisk(rename(temporary, path));
      await onDisk(syncDirectory(this.#directory));
      return (await sizeOf(path)) ?? 0;
    });
    const settled = publication.catch(() => {});
    this.#publishing.set(path, settled);
    try {
      return await publication;
    } finally {
      if (this.#publishing.get(path) === settled) this.#publishing.delete(path);
    }
  }

  #pathOf(key: string): string {
    return join(this.#directory, encode(key));
  }
}

const NAME_BYTES_MAX = 255;

/** A file name for any key: no separators, no leading dot; `:` stays, for digests are what keys usually are. */
function encode(key: string): string {
  const name = encodeURIComponent(key).replaceAll("%3A", ":").replace(/^\./, "%2E");
  if (name === "" || name.length > NAME_BYTES_MAX) {
    throw new KoineError("invalid-request", { detail: "a blob's key is empty or too long" });
  }
  return name;
}

async function writeWhole(path: string, source: Readable): Promise<void> {
  const file = await onDisk(open(path, "wx", 0o600));
  try {
    for await (const chunk of source) await writeChunk(file, Buffer.from(chunk));
    await onDisk(file.datasync());
  } finally {
    await file.close();
  }
}

async function writeChunk(file: FileHandle, chunk: Buffer): Promise<void> {
  for (let offset = 0; offset < chunk.byteLength;) {
    const { bytesWritten } = await onDisk(file.write(chunk, offset));
    offset += bytesWritten;
  }
}

async function readToEnd(source: Readable): Promise<void> {
  for await (const _ of source);
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function sizeOf(path: string): Promise<number | null> {
  return (await unlessMissing(stat(path)))?.size ?? null;
}

async function unlessMissing<Value>(operation: Promise<Value>): Promise<Value | null> {
  try {
    return await operation;
  } catch (thrown) {
    if (codeOf(thrown) === "ENOENT") return null;
    throw toStorageError(thrown);
  }
}

/** Names the store's failures as such, and leaves those of a source that is being read alone. */
async function onDisk<Value>(operation: Promise<Value>): Promise<Value> {
  try {
    return await operation;
  } catch (thrown) {
    throw toStorageError(thrown);
  }
}

function toStorageError(thrown: unknown): KoineError {
  const code = codeOf(thrown);
  if (code === "ENOSPC" || code === "EDQUOT") return new KoineError("storage-full", {}, { cause: thrown });
  return new KoineError("storage-failed", { detail: messageOf(thrown) }, { cause: thrown });
}

function codeOf(thrown: unknown): unknown {
  return thrown instanceof Error && "code" in thrown ? thrown.code : undefined;
}

function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
