import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { crc32 } from "node:zlib";

/** Length, checksum and number of a record. */
const HEAD_BYTES = 16;
/** Room that there must be after a record could not be written. */
const PROBE_BYTES = 256 * 1024;

/**
 * Records one behind the other, each on disk when `append` returns. They are overwritten from the beginning once they are of no use any more: a salt, which is new each
 * time, and numbers without a gap tell what was written since from what lies there still.
 */
export class RedoFile {
  readonly #path: string;
  readonly #file: number;
  #end = 0;
  #salt = 0;
  #hasFailed = false;
  readonly #head = Buffer.alloc(HEAD_BYTES);

  /** Made when it is not there. */
  constructor(path: string) {
    this.#path = path;
    this.#file = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    syncDirectory(dirname(path));
  }

  /** Bytes of the records that count. */
  get length(): number {
    return this.#end;
  }

  /** From now on the records have this salt and begin anew. */
  startAnew(salt: number): void {
    this.#salt = salt;
    this.#end = 0;
  }

  /** Gives back the room of records that are of no use any more: a full disk is to be told by the next one, not by the commit after it. */
  shrink(): void {
    if (this.#end === 0 && fstatSync(this.#file).size > 0) ftruncateSync(this.#file);
  }

  append(number: number, record: Buffer): void {
    this.#head.writeUInt32LE(record.length, 0);
    this.#head.writeDoubleLE(number, 8);
    this.#head.writeUInt32LE(this.#checksum(record), 4);
    if (this.#hasFailed) this.#probe();
    try {
      this.#write(this.#head, this.#end);
      this.#write(record, this.#end + HEAD_BYTES);
      fdatasyncSync(this.#file);
    } catch (thrown) {
      this.#hasFailed = true;
      ftruncateSync(this.#file, this.#end);
      throw thrown;
    }
    this.#end += HEAD_BYTES + record.length;
  }

  /** The records after `number` that were written with the salt, in order, up to the first that is not whole; what is appended next follows them. */
  *read(salt: number, number: number): Iterable<{ readonly number: number; readonly record: Buffer }> {
    this.startAnew(salt);
    const { size } = fstatSync(this.#file);
    for (let next = number + 1; this.#end + HEAD_BYTES <= size; next++) {
      const length = this.#read(this.#head, this.#end) ? this.#head.readUInt32LE(0) : 0;
      if (this.#head.readDoubleLE(8) !== next || this.#end + HEAD_BYTES + length > size) return;
      const record = Buffer.allocUnsafeSlow(length);
      if (!this.#read(record, this.#end + HEAD_BYTES)) return;
      if (this.#head.readUInt32LE(4) !== this.#checksum(record)) return;
      yield { number: next, record };
      // Only then: who stops before a record will overwrite it.
      this.#end += HEAD_BYTES + length;
    }
  }

  /** A small record may fit where a larger one did not, and then the database could not commit it: there must be room again before any is taken. */
  #probe(): void {
    try {
      this.#write(Buffer.alloc(PROBE_BYTES), this.#end);
      this.#hasFailed = false;
    } finally {
      ftruncateSync(this.#file, this.#end);
    }
  }

  close(): void {
    closeSync(this.#file);
  }

  /** Closes a file whose records are of no use any more. */
  remove(): void {
    this.close();
    try {
      unlinkSync(this.#path);
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== "ENOENT") throw thrown;
    }
  }

  /** Of the head without the checksum's own place, and the record. */
  #checksum(record: Buffer): number {
    const length = crc32(this.#head.subarray(0, 4), this.#salt);
    return crc32(record, crc32(this.#head.subarray(8), length));
  }

  #write(bytes: Buffer, at: number): void {
    for (let done = 0; done < bytes.length;) done += writeSync(this.#file, bytes, done, bytes.length - done, at + done);
  }

  #read(bytes: Buffer, at: number): boolean {
    for (let done = 0; done < bytes.length;) {
      const count = readSync(this.#file, bytes, done, bytes.length - done, at + done);
      if (count === 0) return false;
      done += count;
    }
    return true;
  }
}

/** A file that was made is there after a power cut only when its directory was synced as well. */
function syncDirectory(path: string): void {
  const directory = openSync(path, constants.O_RDONLY);
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}
