import { limits } from "../core/limits.ts";
import type { EncodedHead } from "./frame-json.ts";

/** The bytes of docs/frames.md: types, an incremental reader, and an outbox that joins frames into few writes. */
export const FRAME_HEADER_BYTES = 12;

/** Flag: the payload completes the body. */
export const LAST = 1;

export const frameType = {
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
} as const;

export interface FrameHeader {
  type: number;
  stream: number;
  flags: number;
  /** Bytes of the payload. */
  length: number;
}

/** What a reader hands its frames to. A text as an answer says how the frame breaks the rules, and ends the reading. */
export interface FrameSink {
  /** Comes before any payload is kept; the header object is used again for the next frame. */
  header(header: FrameHeader): string | null;
  /** A part of a DATA frame as it arrived; `complete` with the frame's last part. */
  data(header: FrameHeader, piece: Buffer, complete: boolean): string | null;
  /** Any other frame, whole. */
  frame(header: FrameHeader, payload: Buffer): string | null;
}

const EMPTY = Buffer.alloc(0);

/**
 * Cuts a byte stream into frames, however it was split on the way. Payloads are views of what arrived; only a frame other than DATA
 * that came in several chunks is copied together. What is kept between chunks never exceeds what was received of one frame.
 */
export class FrameReader {
  readonly #sink: FrameSink;
  readonly #header: FrameHeader = { type: 0, stream: 0, flags: 0, length: 0 };
  readonly #partialHeader = Buffer.alloc(FRAME_HEADER_BYTES);
  #partialHeaderBytes = 0;
  /** Bytes still missing of the current payload; -1 between frames. */
  #missing = -1;
  #parts: Buffer[] = [];
  #stopped = false;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /** Nothing is handed to the sink from now on, not even the rest of a chunk that is being read. */
  stop(): void {
    this.#stopped = true;
    this.#parts = [];
  }

  /** Answers how the peer broke the rules, or null. After a violation nothing more is read. */
  push(chunk: Buffer): string | null {
    let at = 0;
    while (!this.#stopped) {
      if (this.#missing < 0) {
        if (at === chunk.length) return null;
        at = this.#readHeader(chunk, at);
        if (this.#partialHeaderBytes > 0) return null;
        const refused = this.#refuse();
        if (refused !== null) return this.#violation(refused);
        this.#missing = this.#header.length;
      }
      const available = Math.min(this.#missing, chunk.length - at);
      if (available === 0 && this.#missing > 0) return null;
      const piece = available === 0 ? EMPTY : chunk.subarray(at, at + available);
      at += available;
      const broken = this.#payload(piece);
      if (broken !== null) return this.#violation(broken);
    }
    return null;
  }

  #payload(piece: Buffer): string | null {
    this.#missing -= piece.length;
    const complete = this.#missing === 0;
    if (complete) this.#missing = -1;
    if (this.#header.type === frameType.data) return this.#sink.data(this.#header, piece, complete);
    if (!complete) {
      this.#parts.push(piece);
      return null;
    }
    if (this.#parts.length === 0) return this.#sink.frame(this.#header, piece);
    this.#parts.push(piece);
    const whole = Buffer.concat(this.#parts);
    this.#parts = [];
    return this.#sink.frame(this.#header, whole);
  }

  #readHeader(chunk: Buffer, at: number): number {
    if (this.#partialHeaderBytes === 0 && chunk.length - at >= FRAME_HEADER_BYTES) {
      this.#parseHeader(chunk, at);
      return at + FRAME_HEADER_BYTES;
    }
    const taken = Math.min(FRAME_HEADER_BYTES - this.#partialHeaderBytes, chunk.length - at);
    chunk.copy(this.#partialHeader, this.#partialHeaderBytes, at, at + taken);
    this.#partialHeaderBytes += taken;
    if (this.#partialHeaderBytes === FRAME_HEADER_BYTES) {
      this.#partialHeaderBytes = 0;
      this.#parseHeader(this.#partialHeader, 0);
    }
    return at + taken;
  }

  #reserved = 0;

  #parseHeader(bytes: Buffer, at: number): void {
    const header = this.#header;
    header.length = bytes.readUInt32LE(at);
    header.stream = bytes.readUInt32LE(at + 4);
    const rest = bytes.readUInt32LE(at + 8);
    header.type = rest & 0xff;
    header.flags = (rest >>> 8) & 0xff;
    this.#reserved = rest >>> 16;
  }

  #refuse(): string | null {
    const { type, flags, length } = this.#header;
    if (this.#reserved !== 0) return "reserved bytes of a frame are not 0";
    if (length > limits.frameBytesMax) return `a frame of ${length} bytes`;
    if ((flags & ~LAST) !== 0) return `unknown flags ${flags}`;
    if (flags !== 0 && type !== frameType.data && type !== frameType.invoke) return `flags on a frame of type ${type}`;
    return this.#sink.header(this.#header);
  }

  #violation(reason: string): string {
    this.stop();
    return reason;
  }
}

/** Payloads below this size are copied beside their header: that is cheaper than one more buffer in the write. */
const COPIED_BYTES_MAX = 4_096;
const SCRATCH_BYTES = 65_536;

/**
 * Frames that wait to be written. Headers and small payloads gather in one scratch buffer, large payloads stay where they are, so
 * that a loop turn's frames leave in one write of few buffers. A payload must not be changed after it was handed over.
 */
export class Outbox {
  #scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);
  #start = 0;
  #at = 0;
  #pieces: Buffer[] = [];

  get empty(): boolean {
    return this.#pieces.length === 0 && this.#start === this.#at;
  }

  /** A frame whose payload is bytes that exist already. */
  frame(type: number, stream: number, flags: number, payload: Buffer): void {
    this.#header(type, stream, flags, payload.length, FRAME_HEADER_BYTES);
    this.#bytes(payload);
  }

  /** A frame of up to eight bytes: two unsigned 32-bit numbers, of which the first `length` bytes count. */
  numbers(type: number, stream: number, length: 0 | 4 | 8, low = 0, high = 0): void {
    this.#header(type, stream, 0, length, FRAME_HEADER_BYTES + 8);
    if (length >= 4) this.#scratch.writeUInt32LE(low, this.#at);
    if (length === 8) this.#scratch.writeUInt32LE(high, this.#at + 4);
    this.#at += length;
  }

  /** A frame of the length of a head (as INVOKE has it), the head, which begins as text and ends as bytes, and a body. */
  headed(type: number, stream: number, flags: number, head: EncodedHead, body: Buffer): void {
    const { text, rest } = head;
    // Three bytes per UTF-16 unit is the most that UTF-8 takes, so the text is encoded in place without measuring it first.
    const room = FRAME_HEADER_BYTES + 4 + text.length * 3;
    if (room > SCRATCH_BYTES) {
      const bytes = Buffer.from(text);
      const headBytes = bytes.length + rest.length;
      this.#header(type, stream, flags, 4 + headBytes + body.length, FRAME_HEADER_BYTES + 4);
      this.#at = this.#scratch.writeUInt32LE(headBytes, this.#at);
      this.#bytes(bytes);
    } else {
      this.#header(type, stream, flags, 0, room);
      const headerAt = this.#at - FRAME_HEADER_BYTES;
      const textBytes = this.#scratch.write(text, this.#at + 4, "utf8");
      this.#scratch.writeUInt32LE(textBytes + rest.length, this.#at);
      this.#scratch.writeUInt32LE(4 + textBytes + rest.length + body.length, headerAt);
      this.#at += 4 + textBytes;
    }
    this.#bytes(rest);
    this.#bytes(body);
  }

  /** Everything that waits, in order; the outbox is empty afterwards. */
  take(): Buffer[] {
    this.#seal();
    const pieces = this.#pieces;
    this.#pieces = [];
    return pieces;
  }

  /** Uses the scratch from its beginning again. Only when nothing that was taken from it is still to be written. */
  rewind(): void {
    if (!this.empty) return;
    this.#start = 0;
    this.#at = 0;
  }

  #header(type: number, stream: number, flags: number, length: number, room: number): void {
    if (SCRATCH_BYTES - this.#at < room) this.#renew();
    const scratch = this.#scratch;
    scratch.writeUInt32LE(length, this.#at);
    scratch.writeUInt32LE(stream, this.#at + 4);
    scratch.writeUInt32LE(type | (flags << 8), this.#at + 8);
    this.#at += FRAME_HEADER_BYTES;
  }

  #bytes(payload: Buffer): void {
    if (payload.length === 0) return;
    if (payload.length > COPIED_BYTES_MAX) {
      this.#seal();
      this.#pieces.push(payload);
      return;
    }
    if (SCRATCH_BYTES - this.#at < payload.length) this.#renew();
    payload.copy(this.#scratch, this.#at);
    this.#at += payload.length;
  }

  #seal(): void {
    if (this.#at > this.#start) this.#pieces.push(this.#scratch.subarray(this.#start, this.#at));
    this.#start = this.#at;
  }

  #renew(): void {
    this.#seal();
    this.#scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);
    this.#start = 0;
    this.#at = 0;
  }
}
