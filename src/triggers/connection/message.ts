import { eventsOf } from "../../core/cloud-events.ts";
import { KoineError } from "../../core/errors.ts";
import type { CloudEvent } from "../../core/event.ts";
import { eventOf } from "./content.ts";

const HEADERS_LENGTH_MAX = 4_096;
const EXTENSION_NAME = /^[a-z0-9]{1,64}$/;

/** A broker's message, whichever broker it is. */
export interface BrokerMessage {
  /** Null: a message without content, which a log uses to say that a key is gone. */
  readonly payload: Buffer | null;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly contentType?: string | undefined;
  /** What names of headers begin with when they are attributes of a CloudEvent, by the binding of the broker's protocol. */
  readonly attributePrefixes: readonly string[];
}

/**
 * A message as an event. One that is a CloudEvent, in binary or structured mode, is that event; anything else becomes the data of one with these
 * attributes, and its headers the extension `headers`, a JSON object.
 */
export function messageEvent(message: BrokerMessage, attributes: Parameters<typeof eventOf>[1]): CloudEvent {
  const binary = binaryModeEvent(message);
  if (binary !== null) return { ...binary, extensions: { ...attributes.extensions, ...binary.extensions } };
  const headers = message.headers.length === 0 ? "" : JSON.stringify(Object.fromEntries(message.headers));
  const extensions = {
    ...attributes.extensions,
    ...(headers === "" || headers.length > HEADERS_LENGTH_MAX ? {} : { headers }),
  };
  if (message.payload === null) return { specversion: "1.0", ...attributes, extensions };
  return eventOf(message.payload, { ...attributes, extensions });
}

/** Null for a message that does not say of itself that it is an event, or says so and is not. */
function binaryModeEvent({ payload, headers, contentType, attributePrefixes }: BrokerMessage): CloudEvent | null {
  const rawHeaders: string[] = [];
  for (const [name, value] of headers) {
    const prefix = attributePrefixes.find((start) => name.startsWith(start));
    const attribute = prefix === undefined ? "" : name.slice(prefix.length);
    // The binding for HTTP, which reads them, has percent-encoded values.
    if (EXTENSION_NAME.test(attribute)) rawHeaders.push(`ce-${attribute}`, encodeURIComponent(value));
  }
  if (!rawHeaders.includes("ce-specversion")) return null;
  try {
    const header = (name: string): string | undefined => (name === "content-type" ? contentType : undefined);
    // Without a type of content it is looked at.
    if (contentType === undefined && payload !== null && payload.length > 0) {
      const [event] = eventsOf({ header: () => undefined, rawHeaders, body: Buffer.alloc(0) });
      return event === undefined ? null : { ...eventOf(payload, event), ...event };
    }
    const [event] = eventsOf({ header, rawHeaders, body: payload ?? Buffer.alloc(0) });
    return event ?? null;
  } catch (thrown) {
    if (thrown instanceof KoineError) return null;
    throw thrown;
  }
}
