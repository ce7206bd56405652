import { createHash } from "node:crypto";

/** An attribute that a sender gave its message. */
export interface MessageAttribute {
  /** `String`, `Number`, `Binary`, each with an optional `.custom` part. */
  readonly DataType: string;
  readonly StringValue?: string | undefined;
  /** Base64. */
  readonly BinaryValue?: string | undefined;
}

/** What never changes of a message. */
export interface Message {
  readonly id: string;
  /** Grows with every message of the queue; orders FIFO queues. */
  readonly sequence: number;
  readonly body: string;
  readonly attributes: Readonly<Record<string, MessageAttribute>>;
  /** `AWSTraceHeader`, where it was given. */
  readonly traceHeader: string | null;
  readonly senderId: string;
  readonly sentAtMs: number;
  readonly groupId: string | null;
  readonly deduplicationId: string | null;
  /** The queue it came from, where it was moved to a dead-letter queue. */
  readonly sourceArn: string | null;
}

/** What changes of it: how often it was received, and until when nobody else may. */
export interface MessageState {
  readonly receiveCount: number;
  readonly firstReceivedAtMs: number | null;
  readonly visibleAtMs: number;
  /** Of the newest receipt; older ones are worth nothing in a FIFO queue. */
  readonly epoch: number;
}

export function md5(text: string | Buffer): string {
  return createHash("md5").update(text).digest("hex");
}

const STRING_VALUE = Buffer.from([1]);
const BINARY_VALUE = Buffer.from([2]);

/** The digest that clients check: every part with its length in front, attributes in the order of their names. */
export function md5OfAttributes(attributes: Readonly<Record<string, MessageAttribute>>): string | null {
  const names = Object.keys(attributes).sort();
  if (names.length === 0) return null;
  const parts = names.flatMap((name) => {
    const attribute = attributes[name];
    if (attribute === undefined) return [];
    const isBinary = attribute.DataType.startsWith("Binary");
    const value = isBinary
      ? Buffer.from(attribute.BinaryValue ?? "", "base64")
      : Buffer.from(attribute.StringValue ?? "");
    return [...sized(name), ...sized(attribute.DataType), isBinary ? BINARY_VALUE : STRING_VALUE, ...sized(value)];
  });
  return md5(Buffer.concat(parts));
}

function sized(part: string | Buffer): readonly Buffer[] {
  const bytes = Buffer.from(part);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return [length, bytes];
}

/** Bytes that count against the size limit: body, and names, types and values of attributes. */
export function sizeOf(body: string, attributes: Readonly<Record<string, MessageAttribute>>): number {
  return Object.entries(attributes).reduce(
    (sum, [name, { DataType, StringValue = "", BinaryValue = "" }]) =>
      sum +
      Buffer.byteLength(name) +
      Buffer.byteLength(DataType) +
      Buffer.byteLength(StringValue) +
      Buffer.from(BinaryValue, "base64").length,
    Buffer.byteLength(body),
  );
}
