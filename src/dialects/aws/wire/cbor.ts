import { decode, encode, Token, Type } from "cborg";
import { AwsError } from "./error.ts";

/** Tag 1: a time as seconds since the epoch. */
const TIME = 1;

/** A body of Smithy's RPC protocol version 2. @throws AwsError `SerializationException` */
export function readCbor(body: Uint8Array): Record<string, unknown> {
  if (body.length === 0) return {};
  try {
    const tags: ((inner: unknown) => unknown)[] = [];
    tags[TIME] = (seconds) => new Date(Number(seconds) * 1_000);
    const decoded: unknown = decode(body, { tags, allowIndefinite: true });
    if (typeof decoded === "object" && decoded !== null && !Array.isArray(decoded))
      return decoded as Record<string, unknown>;
  } catch {
    // Told below.
  }
  throw new AwsError("SerializationException", "The body is not a CBOR map.");
}

export function writeCbor(body: unknown): Uint8Array {
  return encode(withoutUndefined(body), {
    typeEncoders: {
      Date: (date: unknown) => [new Token(Type.tag, TIME), new Token(Type.float, (date as Date).getTime() / 1_000)],
    },
    float64: true,
  });
}

/** As in JSON: members without a value are left out. */
function withoutUndefined(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutUndefined);
  if (typeof value !== "object" || value === null || value instanceof Date || value instanceof Uint8Array) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, inner]) => (inner === undefined ? [] : [[key, withoutUndefined(inner)]])),
  );
}
