/** Bytes of netlink messages, as the kernel takes and gives them: numbers of the header in this machine's order (little-endian). */
export interface Message {
  readonly type: number;
  readonly flags: number;
  /** Family header and attributes. */
  readonly body: Buffer;
}

export const REQUEST = 1;
export const ACK = 4;
export const CREATE = 0x400;
export const APPEND = 0x800;

const HEADER_BYTES = 16;
const ATTRIBUTE_HEADER_BYTES = 4;
const NESTED = 0x8000;
const TYPE_MASK = 0x3fff;
const ERROR = 2;

/** One attribute; `value` is bytes or, for a nested one, the attributes in it. */
export function attribute(type: number, value: Buffer | readonly Buffer[]): Buffer {
  const isNested = !Buffer.isBuffer(value);
  const content = isNested ? Buffer.concat(value) : value;
  const bytes = Buffer.alloc(aligned(ATTRIBUTE_HEADER_BYTES + content.length));
  bytes.writeUInt16LE(ATTRIBUTE_HEADER_BYTES + content.length, 0);
  bytes.writeUInt16LE(isNested ? type | NESTED : type, 2);
  content.copy(bytes, ATTRIBUTE_HEADER_BYTES);
  return bytes;
}

export function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
}

/** In network order, as netfilter wants its numbers. */
export function netWord(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

export function netShort(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

/** With its closing zero. */
export function text0(text: string): Buffer {
  return Buffer.from(`${text}\0`);
}

/** Joins messages for one send; they are numbered from `firstNumber` on. */
export function encode(messages: readonly Message[], firstNumber: number): Buffer {
  return Buffer.concat(
    messages.map(({ type, flags, body }, index) => {
      const bytes = Buffer.alloc(aligned(HEADER_BYTES + body.length));
      bytes.writeUInt32LE(HEADER_BYTES + body.length, 0);
      bytes.writeUInt16LE(type, 4);
      bytes.writeUInt16LE(flags, 6);
      bytes.writeUInt32LE(firstNumber + index, 8);
      body.copy(bytes, HEADER_BYTES);
      return bytes;
    }),
  );
}

export interface Answer {
  readonly number: number;
  readonly type: number;
  /** 0: acknowledged; a positive error number; null: this is content, not an acknowledgement. */
  readonly error: number | null;
  readonly body: Buffer;
}

/** What one receive gave. */
export function decode(bytes: Buffer): Answer[] {
  const answers: Answer[] = [];
  for (let at = 0; at + HEADER_BYTES <= bytes.length;) {
    const length = bytes.readUInt32LE(at);
    if (length < HEADER_BYTES || at + length > bytes.length) break;
    const type = bytes.readUInt16LE(at + 4);
    const body = bytes.subarray(at + HEADER_BYTES, at + length);
    answers.push({
      number: bytes.readUInt32LE(at + 8),
      type,
      error: type === ERROR ? -body.readInt32LE(0) : null,
      body,
    });
    at += aligned(length);
  }
  return answers;
}

/** The value of an attribute among those in `bytes`, found by the types that lead to it. */
export function attributeIn(bytes: Buffer, path: readonly number[]): Buffer | null {
  const [wanted, ...deeper] = path;
  for (let at = 0; at + ATTRIBUTE_HEADER_BYTES <= bytes.length;) {
    const length = bytes.readUInt16LE(at);
    if (length < ATTRIBUTE_HEADER_BYTES || at + length > bytes.length) return null;
    if ((bytes.readUInt16LE(at + 2) & TYPE_MASK) === wanted) {
      const value = bytes.subarray(at + ATTRIBUTE_HEADER_BYTES, at + length);
      return deeper.length === 0 ? value : attributeIn(value, deeper);
    }
    at += aligned(length);
  }
  return null;
}

function aligned(length: number): number {
  return (length + 3) & ~3;
}
