import { crc32 } from "node:zlib";

/** One message of `application/vnd.amazon.eventstream`: text headers and a payload, each part with its checksum. */
export function eventStreamMessage(headers: Readonly<Record<string, string>>, payload: Buffer): Buffer {
  const fields = Object.entries(headers).map(([name, value]) => {
    const field = Buffer.alloc(1 + name.length + 3 + Buffer.byteLength(value));
    field.writeUInt8(name.length, 0);
    field.write(name, 1, "latin1");
    field.writeUInt8(STRING, 1 + name.length);
    field.writeUInt16BE(Buffer.byteLength(value), 2 + name.length);
    field.write(value, 4 + name.length, "utf8");
    return field;
  });
  const headersBytes = fields.reduce((sum, field) => sum + field.length, 0);
  const prelude = Buffer.alloc(12);
  prelude.writeUInt32BE(12 + headersBytes + payload.length + 4, 0);
  prelude.writeUInt32BE(headersBytes, 4);
  prelude.writeUInt32BE(crc32(prelude.subarray(0, 8)), 8);
  const message = Buffer.concat([prelude, ...fields, payload]);
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32BE(crc32(message));
  return Buffer.concat([message, checksum]);
}

/** The type of a header whose value is text. */
const STRING = 7;
