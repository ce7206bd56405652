import { getRandomValues } from "node:crypto";

/**
 * Ids that sort by time: UUID version 7 (RFC 9562). Random bytes come from a pool that is refilled 512 ids at a time, so that an
 * id costs no system call on the path of an invocation.
 */
const POOL_BYTES = 10 * 512;
const pool = new Uint8Array(POOL_BYTES);
let poolOffset = POOL_BYTES;
let lastMs = 0;
let sequence = 0;

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/** A new time-ordered id, 36 characters, lower case; later calls in one process sort after earlier ones. */
export function newId(nowMs: number = Date.now()): string {
  if (poolOffset + 10 > POOL_BYTES) {
    getRandomValues(pool);
    poolOffset = 0;
  }
  if (nowMs > lastMs) {
    lastMs = nowMs;
    sequence = 0;
  } else {
    sequence++;
    if (sequence > 0xfff) {
      lastMs++;
      sequence = 0;
    }
  }
  const time = lastMs.toString(16).padStart(12, "0");
  const at = poolOffset;
  poolOffset += 10;
  const byte = (index: number): string => HEX[pool[at + index] ?? 0] ?? "00";
  const variant = HEX[0x80 | ((pool[at] ?? 0) & 0x3f)] ?? "80";
  return (
    `${time.slice(0, 8)}-${time.slice(8)}-7${sequence.toString(16).padStart(3, "0")}-${variant}${byte(1)}-` +
    `${byte(2)}${byte(3)}${byte(4)}${byte(5)}${byte(6)}${byte(7)}`
  );
}

const ID_PATTERN = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

export function isId(text: string): boolean {
  return ID_PATTERN.test(text);
}
