import { createHash } from "node:crypto";
import { z } from "zod";
import { type CloudEvent, PARTITION_KEY } from "../../core/event.ts";

const record = z.looseObject({
  eventName: z.string().min(1).max(256),
  eventTime: z.string().max(64).optional(),
  s3: z.looseObject({
    bucket: z.looseObject({ name: z.string().min(1).max(255) }),
    object: z.looseObject({
      key: z.string().min(1).max(4_096),
      size: z.number().optional(),
      eTag: z.string().optional(),
      versionId: z.string().optional(),
      sequencer: z.string().optional(),
    }),
  }),
});

const notification = z.looseObject({ Records: z.array(record).max(1_000) });

/** What stores send to try out a destination. */
const trial = z.looseObject({ Event: z.literal("s3:TestEvent") });
/** Topics that queues subscribe to wrap what they deliver. */
const wrapped = z.looseObject({ Type: z.literal("Notification"), Message: z.string() });

/**
 * The events in a notification of an S3-compatible store, however it came: `s3:ObjectCreated:Put` and the like, one per object, the whole record as data with
 * the key decoded. Null when it is none. The same record is the same event. Events of one object have a key of order in common.
 */
export function objectEventsOf(content: unknown): readonly CloudEvent[] | null {
  const inner = wrapped.safeParse(content);
  if (inner.success) {
    try {
      return objectEventsOf(JSON.parse(inner.data.Message) as unknown);
    } catch {
      return null;
    }
  }
  if (trial.safeParse(content).success) return [];
  const parsed = notification.safeParse(content);
  return parsed.success ? parsed.data.Records.map(objectEvent) : null;
}

function objectEvent(given: z.output<typeof record>): CloudEvent {
  const { bucket, object } = given.s3;
  const key = decodedKey(object.key);
  const type = given.eventName.startsWith("s3:") ? given.eventName : `s3:${given.eventName}`;
  const atMs = Date.parse(given.eventTime ?? "");
  return {
    specversion: "1.0",
    id: createHash("sha256").update(JSON.stringify(given)).digest("base64url"),
    source: `s3://${bucket.name}`,
    type,
    subject: key,
    ...(Number.isNaN(atMs) ? {} : { time: new Date(atMs).toISOString() }),
    datacontenttype: "application/json",
    data: {
      bucket: bucket.name,
      key,
      ...(object.size === undefined ? {} : { bytes: object.size }),
      ...(object.eTag === undefined ? {} : { etag: object.eTag }),
      ...(object.versionId === undefined ? {} : { versionId: object.versionId }),
      ...(object.sequencer === undefined ? {} : { sequencer: object.sequencer }),
      record: given,
    },
    extensions: { [PARTITION_KEY]: `${bucket.name}/${key}` },
  };
}

/** Keys come as forms encode them: a space is a plus. */
function decodedKey(key: string): string {
  try {
    return decodeURIComponent(key.replaceAll("+", " "));
  } catch {
    return key;
  }
}

/** An example, for `koine trigger test`. */
export function sampleObjectEvent(bucket: string): CloudEvent {
  return objectEvent({
    eventName: "ObjectCreated:Put",
    eventTime: "2030-01-31T12:00:00.000Z",
    s3: { bucket: { name: bucket }, object: { key: "reports/january.csv", size: 1_024, eTag: "0123456789abcdef" } },
  });
}
