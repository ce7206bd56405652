import type { Message } from "@platformatic/kafka";
import { type CloudEvent, PARTITION_KEY } from "../../core/event.ts";
import { textOf } from "../connection/content.ts";
import { messageEvent } from "../connection/message.ts";

/** A record as an event: its value becomes the data. */
export function recordEvent(
  message: Message,
  { brokers, orderBy }: { readonly brokers: readonly string[]; readonly orderBy: "partition" | "key" },
): CloudEvent {
  const { topic, partition, offset, timestamp } = message;
  // The library's types say that there is always a key and a value.
  const key = (message.key as Buffer | null | undefined) ?? null;
  const payload = (message.value as Buffer | null | undefined) ?? null;
  const headers = message.headerEntries.flatMap(([name, value]) => {
    const text = textOf(value);
    return text === null ? [] : [[name.toString(), text] as const];
  });
  const keyText = key === null ? null : (textOf(key) ?? key.toString("base64"));
  const attributes = {
    // A topic that is made anew counts from zero again: the time tells its records from those of before.
    id: `${partition}-${offset}-${timestamp}`,
    source: sourceOf(brokers, topic),
    type: "koine.kafka.record",
    subject: topic,
    time: new Date(Number(timestamp)).toISOString(),
    extensions: {
      [PARTITION_KEY]: orderBy === "key" && keyText !== null ? keyText : `${topic}/${partition}`,
      ...(keyText === null ? {} : { key: keyText }),
      partition,
      offset: String(offset),
    },
  };
  const contentType = headers.find(([name]) => name === "content-type")?.[1];
  return messageEvent({ payload, headers, contentType, attributePrefixes: ["ce_"] }, attributes);
}

export function sourceOf([broker = ""]: readonly string[], topic: string): string {
  return `kafka://${broker}/${topic}`;
}
