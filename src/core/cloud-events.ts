import { KoineError } from "./errors.ts";
import type { CloudEvent } from "./event.ts";

/** The JSON and HTTP forms of CloudEvents 1.0: structured, batch and binary mode. */
export const CLOUD_EVENT = "application/cloudevents+json";
export const CLOUD_EVENT_BATCH = "application/cloudevents-batch+json";

const REQUIRED = ["id", "source", "type"] as const;
const OPTIONAL = ["time", "subject", "datacontenttype", "dataschema"] as const;
const KNOWN: ReadonlySet<string> = new Set(["specversion", "data", "data_base64", ...REQUIRED, ...OPTIONAL]);
const EXTENSION_NAME = /^[a-z0-9]{1,64}$/;
const RFC_3339 = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)$/;
const ATTRIBUTE_LENGTH_MAX = 4_096;
const EXTENSIONS_MAX = 64;

/** The event as its JSON format has it: extensions beside attributes, bytes as `data_base64`. */
export function toStructured(event: CloudEvent): Record<string, unknown> {
  const { extensions, data, ...attributes } = event;
  if (data === undefined) return { ...extensions, ...attributes };
  if (Buffer.isBuffer(data)) return { ...extensions, ...attributes, data_base64: data.toString("base64") };
  return { ...extensions, ...attributes, data };
}

/** @throws KoineError `invalid-event` that names what is wrong */
export function fromStructured(value: unknown): CloudEvent {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw wrong("it is not a JSON object");
  const given = value as Readonly<Record<string, unknown>>;
  const attributes: Record<string, unknown> = {};
  for (const [name, attribute] of Object.entries(given))
    if (name !== "data" && name !== "data_base64" && attribute !== null) attributes[name] = attribute;
  if (given["data"] !== undefined && given["data_base64"] !== undefined)
    throw wrong("it has both data and data_base64");
  const base64 = given["data_base64"];
  if (base64 === undefined) return checked(attributes, given["data"]);
  if (typeof base64 !== "string") throw wrong("data_base64 is not a text");
  return checked(attributes, Buffer.from(base64, "base64"));
}

/** What a request is read from. */
export interface HttpMessage {
  /** The value of a field by its lower-case name. */
  header(name: string): string | undefined;
  /** Names and values in turn. */
  readonly rawHeaders: readonly string[];
  readonly body: Buffer;
}

/** Whether a message says of itself that it is an event, or several. */
export function isCloudEvent(message: Pick<HttpMessage, "header">): boolean {
  const type = mediaType(message.header("content-type"));
  return type === CLOUD_EVENT || type === CLOUD_EVENT_BATCH || message.header("ce-specversion") !== undefined;
}

/** The events of a message in whichever mode it is in. @throws KoineError `invalid-event`, `unsupported-media-type` */
export function eventsOf(message: HttpMessage): readonly CloudEvent[] {
  const type = mediaType(message.header("content-type"));
  if (type === CLOUD_EVENT) return [fromStructured(parse(message.body))];
  if (type === CLOUD_EVENT_BATCH) {
    const batch = parse(message.body);
    if (!Array.isArray(batch)) throw wrong("a batch is a JSON array");
    return batch.map(fromStructured);
  }
  if (type.startsWith("application/cloudevents"))
    throw new KoineError("unsupported-media-type", {
      type,
      expected: `${CLOUD_EVENT}, ${CLOUD_EVENT_BATCH}, or ce- headers`,
    });
  return [fromBinary(message)];
}

/** An event as headers and a body. */
export function toBinary(event: CloudEvent): { readonly headers: readonly string[]; readonly body: Buffer } {
  const { extensions, data, datacontenttype, ...attributes } = event;
  const headers = Object.entries({ ...extensions, ...attributes }).flatMap(([name, value]) => [
    `ce-${name}`,
    encodeHeader(String(value)),
  ]);
  if (data === undefined) return { headers, body: Buffer.alloc(0) };
  const type = datacontenttype ?? "application/json";
  const body = Buffer.isBuffer(data)
    ? data
    : Buffer.from(typeof data === "string" && !isJson(type) ? data : JSON.stringify(data));
  return { headers: [...headers, "content-type", type], body };
}

/** Bytes as the value that `data` is for their content type. @throws KoineError `invalid-event` when they are said to be JSON and are not */
export function dataOf(contentType: string | undefined, body: Buffer): unknown {
  if (body.length === 0) return undefined;
  if (isJson(contentType)) return parse(body);
  const type = mediaType(contentType);
  if (type.startsWith("text/") || /[/+]xml$/.test(type) || type === "application/x-www-form-urlencoded")
    return body.toString("utf8");
  return body;
}

function fromBinary(message: HttpMessage): CloudEvent {
  const attributes: Record<string, unknown> = {};
  for (let index = 0; index + 1 < message.rawHeaders.length; index += 2) {
    const name = (message.rawHeaders[index] ?? "").toLowerCase();
    if (name.startsWith("ce-")) attributes[name.slice(3)] = decodeHeader(message.rawHeaders[index + 1] ?? "");
  }
  const contentType = message.header("content-type");
  if (contentType !== undefined) attributes["datacontenttype"] = contentType;
  if (attributes["specversion"] === undefined) throw wrong("neither its content type nor ce- headers say so");
  return checked(attributes, dataOf(contentType, message.body));
}

function checked(attributes: Readonly<Record<string, unknown>>, data: unknown): CloudEvent {
  if (attributes["specversion"] !== "1.0") throw wrong(`specversion is not "1.0"`);
  const known: Record<string, string> = {};
  for (const name of REQUIRED) known[name] = textOf(name, attributes[name]);
  for (const name of OPTIONAL) if (attributes[name] !== undefined) known[name] = textOf(name, attributes[name]);
  if (known["time"] !== undefined && !RFC_3339.test(known["time"])) throw wrong("time is not in the form of RFC 3339");
  const others = Object.entries(attributes).filter(([name]) => !KNOWN.has(name));
  if (others.length > EXTENSIONS_MAX) throw wrong(`it has more than ${EXTENSIONS_MAX} extensions`);
  const extensions: Record<string, string | number | boolean> = {};
  for (const [name, value] of others) {
    if (!EXTENSION_NAME.test(name))
      throw wrong(`'${name.slice(0, 64)}' is not a name of an attribute: lower-case letters and digits`);
    if (typeof value === "number" || typeof value === "boolean") extensions[name] = value;
    else extensions[name] = textOf(name, value);
  }
  const { id = "", source = "", type = "", ...optional } = known;
  return {
    specversion: "1.0",
    id,
    source,
    type,
    ...optional,
    ...(others.length === 0 ? {} : { extensions }),
    ...(data === undefined ? {} : { data }),
  };
}

function textOf(name: string, value: unknown): string {
  if (typeof value !== "string") throw wrong(value === undefined ? `${name} is missing` : `${name} is not a text`);
  if (value === "") throw wrong(`${name} is empty`);
  if (value.length > ATTRIBUTE_LENGTH_MAX) throw wrong(`${name} is longer than ${ATTRIBUTE_LENGTH_MAX} characters`);
  return value;
}

function isJson(contentType: string | undefined): boolean {
  return (
    contentType === undefined ||
    /^(?:application\/json|text\/json|[\w.+-]+\/[\w.+-]+\+json)$/.test(mediaType(contentType))
  );
}

function mediaType(contentType: string | undefined): string {
  return (contentType ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
}

function parse(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString("utf8"));
  } catch (thrown) {
    throw wrong(`its JSON cannot be read: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
  }
}

/** As the HTTP binding says: what is not printable ASCII, and space, quote and percent, as percent-encoded UTF-8. */
function encodeHeader(value: string): string {
  return value.replaceAll(/[^\u0021\u0023\u0024\u0026-\u007e]/gu, (char) =>
    [...Buffer.from(char)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join(""),
  );
}

function decodeHeader(value: string): string {
  const unquoted = /^"(.*)"$/.exec(value)?.[1]?.replaceAll(/\\(.)/g, "$1") ?? value;
  try {
    return decodeURIComponent(unquoted);
  } catch {
    throw wrong(`the header value '${value.slice(0, 100)}' is not percent-encoded UTF-8`);
  }
}

function wrong(detail: string): KoineError {
  return new KoineError("invalid-event", { detail });
}
