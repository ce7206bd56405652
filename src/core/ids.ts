import { getRandomValues } from "node:crypto";

/**
 * Ids that sort by time: UUID version 7 (RFC 9562). Random digits come from a pool that is refilled 512 ids at a time and the time is written
 * once a millisecond, so that an id costs a few short texts on the path of an invocation.
 */
const ID_DIGITS = 16;
const pool = new Uint8Array((ID_DIGITS / 2) * 512);
let digits = "";
let digitsAt = 0;
let lastMs = 0;
let sequence = 0;
/** Of `lastMs`: everything before the sequence. */
let prefix = "";

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));
const DIGIT = "0123456789abcdef";
/** The two bits that say which kind of UUID it is, and two random ones. */
const VARIANT = "89ab";

/** A new time-ordered id, 36 characters, lower case; later calls in one process sort after earlier ones. */
export function newId(nowMs: number = Date.now()): string {
  if (digitsAt === digits.length) refill();
  if (nowMs > lastMs) begin(nowMs);
  else if (sequence < 0xfff) sequence++;
  else begin(lastMs + 1);
  const at = digitsAt;
  digitsAt += ID_DIGITS;
  const variant = VARIANT.charAt(digits.charCodeAt(at) & 3);
  return `${prefix}${DIGIT.charAt(sequence >> 8)}${HEX[sequence & 0xff] ?? ""}-${variant}${digits.slice(at + 1, at + 4)}-${digits.slice(at + 4, at + ID_DIGITS)}`;
}

function begin(ms: number): void {
  lastMs = ms;
  sequence = 0;
  const time = ms.toString(16).padStart(12, "0");
  prefix = `${time.slice(0, 8)}-${time.slice(8)}-7`;
}

function refill(): void {
  getRandomValues(pool);
  digits = Buffer.from(pool.buffer).toString("hex");
  digitsAt = 0;
}

const ID_PATTERN = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

export function isId(text: string): boolean {
  return ID_PATTERN.test(text);
}
