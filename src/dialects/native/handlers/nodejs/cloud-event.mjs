import { Buffer } from "node:buffer";

/**
 * An event as CloudEvents' binary mode has it: attributes are headers, the data is the body.
 *
 * @param {Buffer} body
 * @returns {{ headers: string[], body: Buffer }}
 */
export function toBinaryMode(body) {
  const { data, data_base64: base64, datacontenttype, ...attributes } = JSON.parse(body.toString("utf8"));
  const headers = Object.entries(attributes).flatMap(([name, value]) => [`ce-${name}`, encodeHeader(String(value))]);
  const type = typeof datacontenttype === "string" ? datacontenttype : "application/json";
  if (base64 === undefined && data === undefined) return { headers, body: Buffer.alloc(0) };
  headers.push("content-type", type);
  if (base64 !== undefined) return { headers, body: Buffer.from(base64, "base64") };
  const isJson = /^[^;]*[/+]json\b/i.test(type);
  return { headers, body: Buffer.from(typeof data === "string" && !isJson ? data : JSON.stringify(data)) };
}

/** What is not printable ASCII, and space, quote and percent, as percent-encoded UTF-8. @param {string} value */
function encodeHeader(value) {
  return value.replaceAll(/[^\u0021\u0023\u0024\u0026-\u007e]/gu, (char) =>
    [...Buffer.from(char)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join(""),
  );
}
