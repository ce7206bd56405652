const fs = process.getBuiltinModule("node:fs");
const net = process.getBuiltinModule("node:net");

/** The instance's end of docs/frames.md: cuts what comes into frames, joins what goes into one write per loop turn. */
export const frameType = Object.freeze({
  specialise: 1,
  invoke: 2,
  data: 3,
  credit: 4,
  cancel: 5,
  ping: 6,
  shutdown: 7,
  ready: 16,
  specialised: 17,
  loadFailed: 18,
  head: 19,
  end: 20,
  failed: 21,
  log: 22,
  pong: 23,
  codeCache: 24,
});
export const LAST = 1;
/** Bytes of a body that may be under way per stream and direction. */
export const WINDOW_BYTES = 256 * 1024;

const HEADER_BYTES = 12;
const FRAME_BYTES_MAX = 16 * 1024 * 1024;
const SCRATCH_BYTES = 65_536;
/** Payloads below this size are copied beside their header: cheaper than one more buffer in the write. */
const COPIED_BYTES_MAX = 4_096;
/** Log bytes that may wait to be written; what exceeds them is counted and dropped, so that a flood cannot fill the memory. */
const LOG_BACKLOG_BYTES_MAX = 4 * 1024 * 1024;
/** One LOG frame is extended up to this size. */
const LOG_FRAME_BYTES_MAX = 32 * 1024;
const LOG_HEAD_BYTES = 9;
/** Answers that are written together at most: the engine can work on the first while the handler makes more. */
const ENDS_MAX = 8;
/** Writes at a time, and bytes of each, that are begun for that reason: more would let a backlog grow where it is not counted. */
const EARLY_WRITES_MAX = 8;
const EARLY_BYTES_MAX = 65_536;
/** Time in which a process that exits may hand over its last output, in milliseconds. */
const FINAL_WRITE_MS_MAX = 1_000;

// Taken before user code can replace them.
const { writeSync, closeSync, close } = fs;
const now = Date.now;

/**
 * @typedef {(type: number, stream: number, flags: number, payload: Buffer) => void} OnFrame
 * @typedef {{ writeQueueSize?: number }} StreamHandle
 */

/** What calls and logs need of a connection; a rehearsal has one that leads nowhere. */
export class Outbox {
  #scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);
  #start = 0;
  #at = 0;
  /** @type {Buffer[]} */
  #pieces = [];
  #piecesBytes = 0;
  #scheduled = false;
  /** Answers that ended since the last write. */
  #ends = 0;
  /** Where the last frame begins, if that is a LOG that can be extended; else -1. */
  #logAt = -1;
  #logStream = 0;
  #logSource = 0;
  #droppedBytes = 0;
  #flush = () => {
    this.#scheduled = false;
    this.write();
  };

  /** Hands what waits to the channel; nothing here. */
  write() {
    this.take();
  }

  /** Hands it over before the turn has ended. */
  writeEarly() {
    this.write();
  }

  get waitingBytes() {
    return this.#piecesBytes + this.#at - this.#start;
  }

  /**
   * @param {number} type
   * @param {number} stream
   * @param {number} flags
   * @param {Buffer | null} payload must not be changed afterwards
   */
  frame(type, stream, flags, payload) {
    const length = payload === null ? 0 : payload.length;
    this.#header(type, stream, flags, length, HEADER_BYTES);
    if (payload !== null && length > 0) this.#bytes(payload);
    this.#schedule();
    if (type === frameType.end && ++this.#ends >= ENDS_MAX) this.writeEarly();
  }

  /**
   * @param {number} type
   * @param {number} stream
   * @param {unknown} value
   */
  json(type, stream, value) {
    this.text(type, stream, 0, JSON.stringify(value));
  }

  /**
   * @param {number} type
   * @param {number} stream
   * @param {number} flags
   * @param {string} text
   */
  text(type, stream, flags, text) {
    const room = HEADER_BYTES + text.length * 3;
    if (room > SCRATCH_BYTES) {
      this.frame(type, stream, flags, Buffer.from(text));
      return;
    }
    this.#header(type, stream, flags, 0, room);
    const bytes = this.#scratch.write(text, this.#at, "utf8");
    this.#scratch.writeUInt32LE(bytes, this.#at - HEADER_BYTES);
    this.#at += bytes;
    this.#schedule();
  }

  /**
   * @param {number} stream
   * @param {number} bytes
   */
  credit(stream, bytes) {
    this.#header(frameType.credit, stream, 0, 4, HEADER_BYTES + 4);
    this.#at = this.#scratch.writeUInt32LE(bytes, this.#at);
    this.#schedule();
  }

  /**
   * @param {number} stream
   * @param {1 | 2} source stdout or stderr
   * @param {Buffer} bytes
   */
  log(stream, source, bytes) {
    if (bytes.length === 0) return;
    const room = LOG_BACKLOG_BYTES_MAX - this.waitingBytes;
    if (bytes.length > room) {
      if (this.#droppedBytes === 0) {
        if (room > 0) this.#logFrames(stream, source, bytes.subarray(0, room));
        // Said at once as well, since nothing more may follow.
        this.#logFrames(
          stream,
          2,
          Buffer.from("\n[output is dropped from here on: written faster than it can be read]\n"),
        );
      }
      this.#droppedBytes += this.#droppedBytes === 0 ? bytes.length - Math.max(0, room) : bytes.length;
      return;
    }
    if (this.#droppedBytes > 0) {
      const notice = `\n[${this.#droppedBytes} bytes of output were dropped: written faster than they could be read]\n`;
      this.#droppedBytes = 0;
      this.#logFrames(stream, 2, Buffer.from(notice));
    }
    if (this.#logAt >= 0 && this.#logStream === stream && this.#logSource === source && this.#extendLog(bytes)) return;
    this.#logFrames(stream, source, bytes);
  }

  /** @returns {Buffer[]} everything that waits, in order */
  take() {
    this.#ends = 0;
    this.#seal();
    const pieces = this.#pieces;
    this.#pieces = [];
    this.#piecesBytes = 0;
    return pieces;
  }

  /** Uses the scratch from its beginning again. Only when nothing that was taken from it is still to be written. */
  rewind() {
    if (this.waitingBytes > 0) return;
    this.#start = 0;
    this.#at = 0;
    this.#logAt = -1;
  }

  /**
   * @param {number} stream
   * @param {1 | 2} source
   * @param {Buffer} bytes
   */
  #logFrames(stream, source, bytes) {
    for (let from = 0; from < bytes.length; from += LOG_FRAME_BYTES_MAX) {
      const part = bytes.subarray(from, from + LOG_FRAME_BYTES_MAX);
      this.#header(frameType.log, stream, 0, LOG_HEAD_BYTES + part.length, HEADER_BYTES + LOG_HEAD_BYTES + part.length);
      const begin = this.#at - HEADER_BYTES;
      this.#at = this.#scratch.writeDoubleLE(now(), this.#at);
      this.#at = this.#scratch.writeUInt8(source, this.#at);
      part.copy(this.#scratch, this.#at);
      this.#at += part.length;
      this.#logAt = begin;
      this.#logStream = stream;
      this.#logSource = source;
    }
    this.#schedule();
  }

  /** @param {Buffer} bytes */
  #extendLog(bytes) {
    const length = this.#at - this.#logAt - HEADER_BYTES + bytes.length;
    if (length > LOG_FRAME_BYTES_MAX || SCRATCH_BYTES - this.#at < bytes.length) return false;
    bytes.copy(this.#scratch, this.#at);
    this.#at += bytes.length;
    this.#scratch.writeUInt32LE(length, this.#logAt);
    return true;
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#flush);
  }

  /**
   * @param {number} type
   * @param {number} stream
   * @param {number} flags
   * @param {number} length
   * @param {number} room
   */
  #header(type, stream, flags, length, room) {
    if (SCRATCH_BYTES - this.#at < room) this.#renew();
    const scratch = this.#scratch;
    const at = this.#at;
    scratch.writeUInt32LE(length, at);
    scratch.writeUInt32LE(stream, at + 4);
    this.#at = scratch.writeUInt32LE(type | (flags << 8), at + 8);
    this.#logAt = -1;
  }

  /** @param {Buffer} payload */
  #bytes(payload) {
    if (payload.length > COPIED_BYTES_MAX) {
      this.#seal();
      this.#pieces.push(payload);
      this.#piecesBytes += payload.length;
      return;
    }
    if (SCRATCH_BYTES - this.#at < payload.length) this.#renew();
    payload.copy(this.#scratch, this.#at);
    this.#at += payload.length;
  }

  #seal() {
    if (this.#at > this.#start) {
      this.#pieces.push(this.#scratch.subarray(this.#start, this.#at));
      this.#piecesBytes += this.#at - this.#start;
    }
    this.#start = this.#at;
    this.#logAt = -1;
  }

  #renew() {
    this.#seal();
    this.#scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);
    this.#start = 0;
    this.#at = 0;
  }
}

/** The channel to the engine. It belongs to this module: user code never sees the socket. */
export class Connection extends Outbox {
  /** @type {import("node:net").Socket} */
  #socket;
  /** @type {number} */
  #fd;
  /** @type {OnFrame} */
  #onFrame;
  /** @type {Buffer | null} */
  #partial = null;
  /** Writes that the socket has not finished. */
  #writes = 0;
  /** What the socket was given and may not have written yet. @type {Buffer[]} */
  #submitted = [];

  /**
   * @param {number} fd
   * @param {OnFrame} onFrame may throw: a broken rule ends the process
   * @param {() => void} onEnd
   */
  constructor(fd, onFrame, onEnd) {
    super();
    this.#fd = fd;
    this.#onFrame = onFrame;
    const socket = new net.Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
    this.#socket = socket;
    socket.on("data", (/** @type {Buffer} */ chunk) => this.#read(chunk));
    socket.on("end", onEnd);
    socket.on("error", onEnd);
  }

  /** @override */
  write() {
    if (this.#writes === 0 && this.waitingBytes > 0) this.#submit();
  }

  /** @override */
  writeEarly() {
    if (this.#writes < EARLY_WRITES_MAX && this.waitingBytes <= EARLY_BYTES_MAX) this.#submit();
  }

  #submit() {
    const pieces = this.take();
    this.#submitted.push(...pieces);
    this.#writes++;
    const socket = this.#socket;
    const last = pieces.length - 1;
    const written = () => {
      this.#writes--;
      if (this.#writes > 0) return;
      this.#submitted = [];
      this.rewind();
      this.write();
    };
    if (last > 0) socket.cork();
    for (let index = 0; index < last; index++) socket.write(/** @type {Buffer} */ (pieces[index]));
    socket.write(/** @type {Buffer} */ (pieces[last]), written);
    if (last > 0) socket.uncork();
  }

  /** Writes everything that waits without giving the event loop another turn: for a process that is about to exit. */
  writeFinally() {
    const handle = /** @type {{ _handle?: StreamHandle | null }} */ (/** @type {unknown} */ (this.#socket))._handle;
    const unwritten = Buffer.concat(this.#submitted);
    const queued = Math.min(handle?.writeQueueSize ?? 0, unwritten.length);
    const rest = Buffer.concat([unwritten.subarray(unwritten.length - queued), ...this.take()]);
    this.#submitted = [];
    const giveUpMs = now() + FINAL_WRITE_MS_MAX;
    for (let at = 0; at < rest.length;) {
      try {
        at += writeSync(this.#fd, rest, at);
      } catch (error) {
        const busy = /** @type {{ code?: string }} */ (error).code === "EAGAIN";
        if (!busy || now() > giveUpMs) return;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2);
      }
    }
  }

  /** Code that closes every descriptor it finds must not cut the function off from its engine. */
  guard() {
    const fd = this.#fd;
    const refuse = () =>
      Object.assign(new Error("EBADF: bad file descriptor, close"), { code: "EBADF", syscall: "close" });
    fs.closeSync = (number) => {
      if (number === fd) throw refuse();
      closeSync(number);
    };
    const guarded = (/** @type {number} */ number, /** @type {import("node:fs").NoParamCallback} */ callback) => {
      if (number === fd) process.nextTick(callback ?? (() => {}), refuse());
      else close(number, callback);
    };
    fs.close = /** @type {typeof fs.close} */ (/** @type {unknown} */ (guarded));
  }

  /** @param {Buffer} chunk */
  #read(chunk) {
    let bytes = chunk;
    if (this.#partial !== null) {
      bytes = this.#append(this.#partial, chunk);
      if (bytes.length < this.#wanted) {
        this.#partial = bytes;
        return;
      }
      this.#partial = null;
    }
    let at = 0;
    this.#wanted = HEADER_BYTES;
    while (bytes.length - at >= HEADER_BYTES) {
      const length = bytes.readUInt32LE(at);
      if (length > FRAME_BYTES_MAX) throw new Error(`a frame of ${length} bytes`);
      const end = at + HEADER_BYTES + length;
      if (end > bytes.length) {
        this.#wanted = HEADER_BYTES + length;
        break;
      }
      const payload = bytes.subarray(at + HEADER_BYTES, end);
      this.#onFrame(bytes.readUInt8(at + 8), bytes.readUInt32LE(at + 4), bytes.readUInt8(at + 9), payload);
      at = end;
    }
    if (at < bytes.length) this.#keep(bytes.subarray(at));
  }

  #wanted = HEADER_BYTES;
  /** Where an incomplete frame gathers: as large as the frame, so that its parts are copied once. */
  #gathering = Buffer.alloc(0);

  /** @param {Buffer} rest */
  #keep(rest) {
    this.#gathering = Buffer.allocUnsafeSlow(Math.max(this.#wanted, rest.length));
    rest.copy(this.#gathering);
    this.#partial = this.#gathering.subarray(0, rest.length);
  }

  /**
   * @param {Buffer} partial
   * @param {Buffer} chunk
   */
  #append(partial, chunk) {
    const length = partial.length + chunk.length;
    if (length > this.#gathering.length) return Buffer.concat([partial, chunk]);
    chunk.copy(this.#gathering, partial.length);
    return this.#gathering.subarray(0, length);
  }
}
