import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Random } from "./random.ts";

/** As `enum` in shim.c. */
const KINDS = [
  "opened",
  "written",
  "truncated",
  "created",
  "renamed",
  "unlinked",
  "synced",
  "directory-synced",
] as const;
type Kind = (typeof KINDS)[number];

interface Change {
  readonly kind: Kind;
  /** Its place in the log. */
  readonly at: number;
  readonly inode: string;
  /** An offset, a size, or for a sync how many records there were when it began. */
  readonly number: number;
  readonly path: string;
  readonly bytes: Buffer;
}

const HEAD_BYTES = 32;
const SECTOR_BYTES = 512;
/** What the platform can make anew from the blobs, and what belongs to processes that are gone. */
const NOT_KEPT = ["packages", "runtimes", "sandboxes"];

/**
 * A disk whose power can go: it knows what every file of a directory held when a platform began, and from the log of the shim what was done to it and
 * what was synced. What was synced stays. Of the rest any part may be there: of what was written, any of its sectors; of what was created, renamed and
 * removed, as much as happened first.
 */
export class Disk {
  readonly #directory: string;
  readonly #log: string;
  #before = new Map<string, Buffer>();

  constructor(directory: string, log: string) {
    this.#directory = directory;
    this.#log = log;
  }

  /** A platform is going to start. */
  begins(): void {
    rmSync(this.#log, { force: true });
    this.#before = this.#read();
  }

  /** The power goes; answers how many changes it took, wholly or in part. @throws Error when the log does not lead to what the directory holds, for then nothing follows from it */
  cut(random: Random): number {
    const changes = readLog(this.#log);
    const now = this.#read();
    this.#check(changes, now);
    const decide = sharesOf(changes, random);
    const shares = new Map(changes.map((change) => [change, decide(change)]));
    const how = { shareOf: (change: Change) => shares.get(change) ?? "lost", random };
    const files = this.#made(changes, how);
    for (const path of now.keys()) if (!files.has(path)) rmSync(path);
    for (const [path, bytes] of files) {
      if (now.get(path)?.equals(bytes) === true) continue;
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, bytes);
    }
    return changes.filter((change) => shares.get(change) !== "whole").length;
  }

  /** All changes together must make what is there; the newest may have been noted and not made. */
  #check(changes: readonly Change[], now: ReadonlyMap<string, Buffer>): void {
    const how = { shareOf: () => "whole" as const, random: new Random(0) };
    const difference = differenceOf(this.#made(changes, how), now);
    if (difference === null) return;
    if (differenceOf(this.#made(changes.slice(0, -1), how), now) === null) return;
    throw new Error(`the log of changes is not whole: ${difference}`);
  }

  #made(changes: readonly Change[], how: ReplayOptions): ReadonlyMap<string, Buffer> {
    const { files } = new Replay(this.#before, changes, how);
    return new Map([...files].filter(([path]) => this.#isKept(path)));
  }

  #isKept(path: string): boolean {
    return !NOT_KEPT.some((name) => path.startsWith(join(this.#directory, name, "/")));
  }

  #read(): Map<string, Buffer> {
    if (!existsSync(this.#directory)) return new Map();
    const entries = readdirSync(this.#directory, { recursive: true, withFileTypes: true });
    const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
    return new Map(paths.filter((path) => this.#isKept(path)).map((path) => [path, readFileSync(path)]));
  }
}

/** How much of a change is there after a cut. */
type Share = "whole" | "torn" | "lost";

function sharesOf(changes: readonly Change[], random: Random): (change: Change) => Share {
  const synced = new Map<string, number>();
  for (const { kind, inode, number, path } of changes) {
    if (kind === "synced") synced.set(inode, Math.max(number, synced.get(inode) ?? 0));
    if (kind === "directory-synced") synced.set(path, Math.max(number, synced.get(path) ?? 0));
  }
  const isSynced = (change: Change): boolean => change.at < (synced.get(syncedWith(change)) ?? 0);
  // What happens to names is written in its order, so it is lost from some point on.
  const names = changes.filter((change) => isOfNames(change) && !isSynced(change));
  const namesKept = new Set(names.slice(0, random.between(0, names.length)));
  // Now and then all that was not synced goes: the worst that a disk may do.
  const nothingStays = random.chance(0.35);
  return (change) => {
    if (isSynced(change) || namesKept.has(change)) return "whole";
    if (nothingStays || isOfNames(change) || random.chance(0.4)) return "lost";
    return change.kind === "written" && random.chance(0.4) ? "torn" : "whole";
  };
}

function isOfNames({ kind }: Change): boolean {
  return kind === "created" || kind === "renamed" || kind === "unlinked";
}

/** What must be synced for a change to be durable: the directory of a name, or the file itself. */
function syncedWith(change: Change): string {
  if (!isOfNames(change)) return change.inode;
  return dirname(change.kind === "renamed" ? change.bytes.toString() : change.path);
}

/** A file's bytes, which may grow often. */
class Content {
  length: number;
  #bytes: Buffer;

  constructor(bytes: Buffer) {
    this.#bytes = Buffer.from(bytes);
    this.length = bytes.length;
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.length);
  }

  resize(length: number): void {
    if (length > this.#bytes.length) {
      const larger = Buffer.alloc(Math.max(length, this.#bytes.length * 2));
      this.bytes.copy(larger);
      this.#bytes = larger;
    }
    if (length < this.length) this.#bytes.fill(0, length, this.length);
    this.length = length;
  }

  write(offset: number, bytes: Buffer): void {
    this.resize(Math.max(this.length, offset + bytes.length));
    bytes.copy(this.#bytes, offset);
  }
}

interface ReplayOptions {
  readonly shareOf: (change: Change) => Share;
  readonly random: Random;
}

/** The files of a directory after changes were made to it. */
class Replay {
  readonly #random: Random;
  readonly #paths = new Map<string, Content>();
  /** Inodes are used again, so this is of now. */
  readonly #inodes = new Map<string, Content>();

  constructor(before: ReadonlyMap<string, Buffer>, changes: readonly Change[], how: ReplayOptions) {
    this.#random = how.random;
    for (const [path, bytes] of before) this.#paths.set(path, new Content(bytes));
    for (const change of changes) this.#apply(change, how.shareOf(change));
  }

  get files(): ReadonlyMap<string, Buffer> {
    return new Map([...this.#paths].map(([path, content]) => [path, content.bytes]));
  }

  #apply(change: Change, share: Share): void {
    const { kind, inode, number, path, bytes } = change;
    switch (kind) {
      case "opened": {
        // A name that the platform sees, and that was lost: what is written there has no name.
        this.#inodes.set(inode, this.#inodes.get(inode) ?? this.#paths.get(path) ?? new Content(Buffer.alloc(0)));
        return;
      }
      case "created": {
        // The content is there without its name, as long as somebody has it open.
        const content = new Content(Buffer.alloc(0));
        this.#inodes.set(inode, content);
        if (share !== "lost") this.#paths.set(path, content);
        return;
      }
      case "written":
        if (share !== "lost") this.#write(this.#inodes.get(inode), change, share);
        return;
      case "truncated":
        if (share !== "lost") this.#inodes.get(inode)?.resize(number);
        return;
      case "renamed": {
        const moved = this.#paths.get(path);
        if (share === "lost" || moved === undefined) return;
        this.#paths.delete(path);
        this.#paths.set(bytes.toString(), moved);
        return;
      }
      case "unlinked":
        if (share !== "lost") this.#paths.delete(path);
        return;
      case "synced":
      case "directory-synced":
        return;
      default:
        kind satisfies never;
    }
  }

  #write(content: Content | undefined, { number: offset, bytes }: Change, share: Share): void {
    if (share === "whole") return content?.write(offset, bytes);
    for (let from = 0; from < bytes.length; from += SECTOR_BYTES)
      if (this.#random.chance(0.5)) content?.write(offset + from, bytes.subarray(from, from + SECTOR_BYTES));
  }
}

function readLog(file: string): readonly Change[] {
  const log = existsSync(file) ? readFileSync(file) : Buffer.alloc(0);
  const changes: Change[] = [];
  for (let at = 0; at + HEAD_BYTES <= log.length;) {
    const kind = KINDS[log.readUInt32LE(at)];
    const pathLength = log.readUInt32LE(at + 4);
    const length = Number(log.readBigUInt64LE(at + 24));
    const pathAt = at + HEAD_BYTES;
    const bytesAt = pathAt + pathLength;
    if (kind === undefined) throw new Error(`the log of changes is damaged at ${at}`);
    changes.push({
      kind,
      at: changes.length,
      inode: String(log.readBigUInt64LE(at + 8)),
      number: Number(log.readBigUInt64LE(at + 16)),
      path: log.toString("utf8", pathAt, bytesAt),
      bytes: log.subarray(bytesAt, bytesAt + length),
    });
    at = bytesAt + length;
  }
  return changes;
}

function differenceOf(expected: ReadonlyMap<string, Buffer>, found: ReadonlyMap<string, Buffer>): string | null {
  for (const path of new Set([...expected.keys(), ...found.keys()])) {
    const [one, other] = [expected.get(path), found.get(path)];
    if (one === undefined || other === undefined) return `${path} is ${one === undefined ? "there" : "gone"}`;
    if (!one.equals(other))
      return `${path} has ${other.length} bytes, other ones than the ${one.length} that were written`;
  }
  return null;
}
