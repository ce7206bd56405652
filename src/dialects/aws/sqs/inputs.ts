import { z } from "zod";
import { AwsError } from "../wire/error.ts";
import type { CallContext } from "../wire/service.ts";
import { accountIdOf } from "../account.ts";
import { sha256 } from "../wire/sigv4.ts";
import { type MessageAttribute, sizeOf } from "./message.ts";
import type { MessageQueue, Outgoing } from "./queue.ts";
import { nameInUrl, type QueueRecord, type Queues } from "./queues.ts";

export const queue = z.object({ QueueUrl: z.string().min(1).max(2_048) });
export const attributeMap = z.record(z.string(), z.coerce.string());
export const seconds = (max: number): z.ZodType<number> => z.coerce.number().int().min(0).max(max);

const attribute = z.object({
  DataType: z.string().regex(/^(?:String|Number|Binary)(?:\..{1,245})?$/),
  StringValue: z.string().optional(),
  BinaryValue: z.string().optional(),
});
const systemAttributes = z.object({ AWSTraceHeader: z.object({ StringValue: z.string().optional() }).optional() });

/** A message as it is sent; alone or in a batch. */
export const outgoing = {
  MessageBody: z.string(),
  DelaySeconds: seconds(900).optional(),
  MessageAttributes: z.record(z.string().regex(/^[\w.-]{1,256}$/), attribute).optional(),
  MessageSystemAttributes: systemAttributes.optional(),
  MessageDeduplicationId: z
    .string()
    .regex(/^[!-~]{1,128}$/)
    .optional(),
  MessageGroupId: z
    .string()
    .regex(/^[!-~]{1,128}$/)
    .optional(),
};

const outgoingSchema = z.object(outgoing);
const ATTRIBUTES_MAX = 10;

/** @throws AwsError `QueueDoesNotExist` */
export function recordOf(
  queues: Queues,
  input: { readonly QueueUrl: string },
  { principal }: Pick<CallContext, "principal">,
): QueueRecord {
  const found = queues.find(principal.namespace, nameInUrl(input.QueueUrl));
  if (found !== null) return found;
  throw new AwsError("QueueDoesNotExist", "The specified queue does not exist.");
}

/** What policies are evaluated on. */
export function resourceOf(
  input: { readonly QueueUrl: string },
  { principal, region }: Pick<CallContext, "principal" | "region">,
): string {
  return `arn:aws:sqs:${region}:${accountIdOf(principal.namespace)}:${nameInUrl(input.QueueUrl)}`;
}

/**
 * A message as the queue takes it.
 * @throws AwsError `InvalidParameterValue`, `MissingParameter`, `InvalidMessageContents`
 */
export function checkedMessage(
  input: z.output<typeof outgoingSchema>,
  messages: MessageQueue,
  context: Pick<CallContext, "principal">,
): Outgoing {
  const { settings } = messages;
  const attributes = input.MessageAttributes ?? {};
  checkBody(input.MessageBody);
  checkAttributes(attributes);
  if (sizeOf(input.MessageBody, attributes) > settings.maximumMessageBytes)
    throw new AwsError(
      "InvalidParameterValue",
      `One or more parameters are invalid. Reason: Message must be shorter than ${settings.maximumMessageBytes} bytes.`,
    );
  const groupId = input.MessageGroupId ?? null;
  let deduplicationId = input.MessageDeduplicationId ?? null;
  if (settings.fifo) {
    if (groupId === null)
      throw new AwsError("MissingParameter", "The request must contain the parameter MessageGroupId.");
    if (input.DelaySeconds !== undefined && input.DelaySeconds > 0)
      throw new AwsError(
        "InvalidParameterValue",
        `Value ${input.DelaySeconds} for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid for this queue type.`,
      );
    if (deduplicationId === null && settings.contentBasedDeduplication) deduplicationId = sha256(input.MessageBody);
    if (deduplicationId === null)
      throw new AwsError(
        "InvalidParameterValue",
        "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly",
      );
  } else if (deduplicationId !== null)
    throw new AwsError(
      "InvalidParameterValue",
      `Value ${deduplicationId} for parameter MessageDeduplicationId is invalid. Reason: The request include parameter that is not valid for this queue type.`,
    );
  return {
    body: input.MessageBody,
    attributes,
    traceHeader: input.MessageSystemAttributes?.AWSTraceHeader?.StringValue ?? null,
    senderId: context.principal.userId,
    delaySeconds: input.DelaySeconds ?? null,
    groupId,
    deduplicationId,
  };
}

function checkBody(body: string): void {
  if (body === "") throw new AwsError("MissingParameter", "The request must contain the parameter MessageBody.");
  // oxlint-disable-next-line no-control-regex -- characters that XML 1.0 cannot hold
  if (/[\u0000-\u0008\u000B\u000C\u000E-\u001F\uFFFE\uFFFF]/.test(body))
    throw new AwsError(
      "InvalidMessageContents",
      "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF",
    );
}

function checkAttributes(attributes: Readonly<Record<string, MessageAttribute>>): void {
  const names = Object.keys(attributes);
  if (names.length > ATTRIBUTES_MAX)
    throw new AwsError(
      "InvalidParameterValue",
      `Number of message attributes [${names.length}] exceeds the allowed maximum [${ATTRIBUTES_MAX}].`,
    );
  for (const [name, { DataType, StringValue, BinaryValue }] of Object.entries(attributes)) {
    const value = DataType.startsWith("Binary") ? BinaryValue : StringValue;
    if (value === undefined || value === "")
      throw new AwsError(
        "InvalidParameterValue",
        `The message attribute '${name}' must contain a non-empty message attribute value.`,
      );
    if (DataType.startsWith("Number") && Number.isNaN(Number(value)))
      throw new AwsError(
        "InvalidParameterValue",
        `Can't cast the value of message (user) attribute '${name}' to a number.`,
      );
  }
}
