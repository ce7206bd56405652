import { fromStructured } from "../../core/cloud-events.ts";
import type { CloudEvent } from "../../core/event.ts";

/** A message's payload as an event has it: JSON when it is JSON, else text, else bytes. */
export function contentOf(payload: Buffer | string): Pick<CloudEvent, "data" | "datacontenttype"> {
  const text = typeof payload === "string" ? payload : textOf(payload);
  if (text === null) return { datacontenttype: "application/octet-stream", data: payload };
  try {
    return { datacontenttype: "application/json", data: JSON.parse(text) as unknown };
  } catch {
    return { datacontenttype: "text/plain", data: text };
  }
}

/**
 * A message as an event: one that holds a CloudEvent in its JSON form is that event, anything else becomes the data of one with these attributes.
 * @param attributes of which `partitionkey` is kept in either case
 */
export function eventOf(
  payload: Buffer | string,
  attributes: Pick<CloudEvent, "id" | "source" | "type" | "time" | "subject" | "extensions">,
): CloudEvent {
  const content = contentOf(payload);
  const own = structured(content.data);
  if (own !== null) return { ...own, extensions: { ...attributes.extensions, ...own.extensions } };
  return { specversion: "1.0", ...attributes, ...content };
}

function structured(data: unknown): CloudEvent | null {
  if (typeof data !== "object" || data === null || !("specversion" in data)) return null;
  try {
    return fromStructured(data);
  } catch {
    return null;
  }
}

/** Null for bytes that are no text. */
export function textOf(bytes: Buffer): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}
