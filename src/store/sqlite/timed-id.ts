/** Ids that begin with their time (`newId`) as 16 bytes: these compare as the ids do, and so as their times. */
export const TIMED_ID_BYTES = 16;

const LENGTH = 36;
/** Places of the digits in the text. */
const DIGITS_AT = Uint8Array.of(0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34);
const DASHES_AT = Uint8Array.of(8, 13, 18, 23);
const VERSION_AT = 14;
const DASH = 0x2d;
const SEVEN = 0x37;
/** What a digit's character is worth; negative for all other characters. */
const WORTH = Int8Array.from({ length: 128 }, (_, code) => "0123456789abcdef".indexOf(String.fromCharCode(code)));

export function isTimedId(text: string): boolean {
  return writeTimedId(text, Buffer.allocUnsafe(TIMED_ID_BYTES), 0);
}

/** Writes an id's bytes; false when the text is none, and then what was written means nothing. */
export function writeTimedId(text: string, bytes: Uint8Array, at: number): boolean {
  if (text.length !== LENGTH || text.charCodeAt(VERSION_AT) !== SEVEN) return false;
  for (const dashAt of DASHES_AT) if (text.charCodeAt(dashAt) !== DASH) return false;
  let worths = 0;
  for (let index = 0; index < TIMED_ID_BYTES; index++) {
    const digitAt = DIGITS_AT[index] ?? 0;
    const high = WORTH[text.charCodeAt(digitAt)] ?? -1;
    const low = WORTH[text.charCodeAt(digitAt + 1)] ?? -1;
    worths |= high | low;
    bytes[at + index] = (high << 4) | low;
  }
  return worths >= 0;
}

export function timedIdBytes(text: string): Buffer {
  const bytes = Buffer.allocUnsafe(TIMED_ID_BYTES);
  writeTimedId(text, bytes, 0);
  return bytes;
}

export function readTimedId(bytes: Buffer, at: number): string {
  const hex = bytes.toString("hex", at, at + TIMED_ID_BYTES);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** When an id was made, in milliseconds since the epoch. */
export function timeOfId(bytes: Buffer, at: number): number {
  return bytes.readUInt16BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 2);
}

/** Slots of one generation; half of them are used at most. */
const SLOTS = 1 << 17;

/**
 * Tells of most ids at once that they were never seen. It remembers the last ones only; of what is older than those it cannot tell.
 */
export class SeenIds {
  #young = new Uint32Array(SLOTS);
  #old = new Uint32Array(SLOTS);
  #youngCount = 0;
  #youngLastMs = 0;
  #oldLastMs = 0;
  /** Up to this time ids may have been seen that are not remembered. */
  #horizonMs: number;

  constructor(horizonMs: number) {
    this.#horizonMs = horizonMs;
  }

  /** False: it was not seen. */
  maybe(bytes: Buffer, at: number): boolean {
    if (timeOfId(bytes, at) <= this.#horizonMs) return true;
    const key = keyOf(bytes, at);
    return slotOf(this.#young, key) < 0 || slotOf(this.#old, key) < 0;
  }

  add(bytes: Buffer, at: number): void {
    const key = keyOf(bytes, at);
    const slot = slotOf(this.#young, key);
    if (slot < 0) return;
    this.#young[slot] = key;
    this.#youngLastMs = Math.max(this.#youngLastMs, timeOfId(bytes, at));
    if (++this.#youngCount === SLOTS / 2) this.#age();
  }

  #age(): void {
    this.#horizonMs = Math.max(this.#horizonMs, this.#oldLastMs);
    this.#oldLastMs = this.#youngLastMs;
    this.#youngLastMs = 0;
    this.#youngCount = 0;
    const emptied = this.#old;
    this.#old = this.#young;
    this.#young = emptied.fill(0);
  }
}

/** Four of the bytes that are random; 0 stands for an empty slot. */
function keyOf(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at + TIMED_ID_BYTES - 4) || 1;
}

/** The slot where a key belongs; negative when it is there already. */
function slotOf(slots: Uint32Array, key: number): number {
  for (let slot = key & (SLOTS - 1); ; slot = (slot + 1) & (SLOTS - 1)) {
    const found = slots[slot];
    if (found === 0 || found === undefined) return slot;
    if (found === key) return -1;
  }
}
