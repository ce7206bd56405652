import { AwsError } from "../wire/error.ts";

/** How a queue behaves; times in seconds, as the API has them. */
export interface QueueSettings {
  readonly fifo: boolean;
  readonly delaySeconds: number;
  readonly maximumMessageBytes: number;
  readonly retentionSeconds: number;
  readonly receiveWaitSeconds: number;
  readonly visibilitySeconds: number;
  readonly contentBasedDeduplication: boolean;
  readonly deduplicationScope: "queue" | "messageGroup";
  readonly redrive: { readonly deadLetterTargetArn: string; readonly maxReceiveCount: number } | null;
  /** Attributes that are kept and told again as they were given. */
  readonly stored: Readonly<Record<string, string>>;
}

const defaults: QueueSettings = {
  fifo: false,
  delaySeconds: 0,
  maximumMessageBytes: 1_048_576,
  retentionSeconds: 345_600,
  receiveWaitSeconds: 0,
  visibilitySeconds: 30,
  contentBasedDeduplication: false,
  deduplicationScope: "queue",
  redrive: null,
  stored: {},
};

const STORED = new Set([
  "Policy",
  "RedriveAllowPolicy",
  "KmsMasterKeyId",
  "KmsDataKeyReusePeriodSeconds",
  "SqsManagedSseEnabled",
  "FifoThroughputLimit",
]);

/** Settings after a change by attributes. @throws AwsError `InvalidAttributeName`, `InvalidAttributeValue` */
export function applyAttributes(
  attributes: Readonly<Record<string, string>>,
  before: QueueSettings = defaults,
): QueueSettings {
  let settings = before;
  for (const [name, value] of Object.entries(attributes)) settings = { ...settings, ...one(name, value, settings) };
  if (!settings.fifo && (settings.contentBasedDeduplication || settings.deduplicationScope !== "queue"))
    throw new AwsError(
      "InvalidAttributeName",
      "You can specify the ContentBasedDeduplication only when FifoQueue is set to true.",
    );
  return settings;
}

function one(name: string, value: string, before: QueueSettings): Partial<QueueSettings> {
  switch (name) {
    case "FifoQueue":
      return { fifo: value === "true" };
    case "DelaySeconds":
      return { delaySeconds: whole(name, value, 0, 900) };
    case "MaximumMessageSize":
      return { maximumMessageBytes: whole(name, value, 1_024, 1_048_576) };
    case "MessageRetentionPeriod":
      return { retentionSeconds: whole(name, value, 60, 1_209_600) };
    case "ReceiveMessageWaitTimeSeconds":
      return { receiveWaitSeconds: whole(name, value, 0, 20) };
    case "VisibilityTimeout":
      return { visibilitySeconds: whole(name, value, 0, 43_200) };
    case "ContentBasedDeduplication":
      return { contentBasedDeduplication: value === "true" };
    case "DeduplicationScope":
      return { deduplicationScope: value === "messageGroup" ? "messageGroup" : "queue" };
    case "RedrivePolicy":
      return { redrive: redriveOf(value) };
    default:
      if (STORED.has(name)) return { stored: { ...before.stored, [name]: value } };
      throw new AwsError("InvalidAttributeName", `Unknown Attribute ${name}.`);
  }
}

// oxlint-disable-next-line max-params -- reads as the sentence it checks: name, value, from, to
function whole(name: string, value: string, min: number, max: number): number {
  const number = Number(value);
  if (/^\d+$/.test(value) && number >= min && number <= max) return number;
  throw new AwsError("InvalidAttributeValue", `Invalid value for the parameter ${name}.`);
}

function redriveOf(value: string): QueueSettings["redrive"] {
  if (value === "") return null;
  try {
    const { deadLetterTargetArn, maxReceiveCount } = JSON.parse(value) as Record<string, unknown>;
    const count = Number(maxReceiveCount);
    if (typeof deadLetterTargetArn === "string" && Number.isInteger(count) && count >= 1 && count <= 1_000)
      return { deadLetterTargetArn, maxReceiveCount: count };
  } catch {
    // Told below.
  }
  throw new AwsError(
    "InvalidAttributeValue",
    `Value ${value} for parameter RedrivePolicy is invalid. Reason: it needs deadLetterTargetArn and maxReceiveCount.`,
  );
}

/** Attributes as they are told. */
export function tellAttributes(settings: QueueSettings): Record<string, string> {
  return {
    DelaySeconds: String(settings.delaySeconds),
    MaximumMessageSize: String(settings.maximumMessageBytes),
    MessageRetentionPeriod: String(settings.retentionSeconds),
    ReceiveMessageWaitTimeSeconds: String(settings.receiveWaitSeconds),
    VisibilityTimeout: String(settings.visibilitySeconds),
    SqsManagedSseEnabled: "true",
    ...(settings.redrive === null ? {} : { RedrivePolicy: JSON.stringify(settings.redrive) }),
    ...(settings.fifo
      ? {
          FifoQueue: "true",
          ContentBasedDeduplication: String(settings.contentBasedDeduplication),
          DeduplicationScope: settings.deduplicationScope,
          FifoThroughputLimit: "perQueue",
        }
      : {}),
    ...settings.stored,
  };
}
