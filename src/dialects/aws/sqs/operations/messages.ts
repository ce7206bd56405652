import { z } from "zod";
import { AwsError, toAwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import { checkedMessage, outgoing, queue, recordOf, resourceOf, seconds } from "../inputs.ts";
import { md5, md5OfAttributes, type MessageAttribute, sizeOf } from "../message.ts";
import type { MessageQueue, Outgoing, Received, Sent } from "../queue.ts";
import type { Queues } from "../queues.ts";

const BATCH_MAX = 10;
const BATCH_BYTES_MAX = 1_048_576;
const VISIBILITY_SECONDS_MAX = 43_200;
const handle = z.string().min(1).max(1_024);
const entryId = z.string().regex(/^[\w-]{1,80}$/);
const names = z.array(z.string()).default([]);

export function messageOperations(queues: Queues): readonly Operation[] {
  const open = async (input: { readonly QueueUrl: string }, context: CallContext): Promise<MessageQueue> =>
    await queues.messages(recordOf(queues, input, context));
  return [...sending(open), ...receiving(open), ...settling(open)];
}

type Open = (input: { readonly QueueUrl: string }, context: CallContext) => Promise<MessageQueue>;

function sentShape(of: Outgoing, sent: Sent, fifo: boolean): Record<string, unknown> {
  const attributes = md5OfAttributes(of.attributes);
  return {
    MessageId: sent.id,
    MD5OfMessageBody: md5(of.body),
    ...(attributes === null ? {} : { MD5OfMessageAttributes: attributes }),
    ...(fifo ? { SequenceNumber: sequenceText(sent.sequence) } : {}),
  };
}

/** Twenty digits, as sequence numbers of the service have. */
function sequenceText(sequence: number): string {
  return String(10n ** 19n + BigInt(sequence));
}

function sending(open: Open): readonly Operation[] {
  return [
    operation(
      "SendMessage",
      { action: "sqs:SendMessage", input: queue.extend(outgoing), resource: resourceOf },
      async (input, context) => {
        const messages = await open(input, context);
        const message = checkedMessage(input, messages, context);
        const [sent] = await messages.send([message]);
        if (sent === undefined) throw new Error("nothing was sent");
        return { body: sentShape(message, sent, messages.settings.fifo) };
      },
    ),
    operation(
      "SendMessageBatch",
      {
        action: "sqs:SendMessage",
        input: queue.extend({ Entries: z.array(z.object({ Id: entryId, ...outgoing })).default([]) }),
        resource: resourceOf,
      },
      async (input, context) => {
        const messages = await open(input, context);
        checkEntries(input.Entries);
        const bytes = input.Entries.reduce(
          (sum, { MessageBody, MessageAttributes = {} }) => sum + sizeOf(MessageBody, MessageAttributes),
          0,
        );
        if (bytes > BATCH_BYTES_MAX)
          throw new AwsError(
            "BatchRequestTooLong",
            `Batch requests cannot be longer than ${BATCH_BYTES_MAX} bytes. You have sent ${bytes} bytes.`,
          );
        const good: { readonly Id: string; readonly message: Outgoing }[] = [];
        const Failed: Record<string, unknown>[] = [];
        for (const entry of input.Entries) {
          try {
            good.push({ Id: entry.Id, message: checkedMessage(entry, messages, context) });
          } catch (thrown) {
            Failed.push(failure(entry.Id, thrown));
          }
        }
        const sent = await messages.send(good.map(({ message }) => message));
        const Successful = good.flatMap(({ Id, message }, index) => {
          const each = sent[index];
          return each === undefined ? [] : [{ Id, ...sentShape(message, each, messages.settings.fifo) }];
        });
        return { body: { Successful, ...(Failed.length === 0 ? {} : { Failed }) } };
      },
    ),
  ];
}

function receiving(open: Open): readonly Operation[] {
  return [
    operation(
      "ReceiveMessage",
      {
        action: "sqs:ReceiveMessage",
        input: queue.extend({
          AttributeNames: names,
          MessageSystemAttributeNames: names,
          MessageAttributeNames: names,
          MaxNumberOfMessages: z.coerce.number().int().min(1).max(BATCH_MAX).default(1),
          VisibilityTimeout: seconds(VISIBILITY_SECONDS_MAX).optional(),
          WaitTimeSeconds: seconds(20).optional(),
        }),
        resource: resourceOf,
      },
      async (input, context) => {
        const messages = await open(input, context);
        const { visibilitySeconds, receiveWaitSeconds } = messages.settings;
        const received = await messages.receive({
          limit: input.MaxNumberOfMessages,
          visibilityMs: (input.VisibilityTimeout ?? visibilitySeconds) * 1_000,
          waitMs: (input.WaitTimeSeconds ?? receiveWaitSeconds) * 1_000,
          signal: context.signal,
        });
        // Nobody is there to take them any more: others need not wait until they become visible by themselves.
        if (context.signal.aborted)
          await Promise.all(received.map(({ receiptHandle }) => messages.changeVisibility(receiptHandle, 0)));
        const system = [...input.AttributeNames, ...input.MessageSystemAttributeNames];
        if (received.length === 0) return { body: {} };
        return { body: { Messages: received.map((each) => receivedShape(each, system, input.MessageAttributeNames)) } };
      },
    ),
  ];
}

function receivedShape(
  received: Received,
  system: readonly string[],
  wanted: readonly string[],
): Record<string, unknown> {
  const { message, receiptHandle } = received;
  const told = Object.entries(systemAttributes(received)).filter(
    ([name]) => system.includes("All") || system.includes(name),
  );
  const attributes = Object.fromEntries(
    Object.entries(message.attributes).filter(([name]) => wanted.some((pattern) => selects(pattern, name))),
  );
  const digest = md5OfAttributes(attributes);
  return {
    MessageId: message.id,
    ReceiptHandle: receiptHandle,
    MD5OfBody: md5(message.body),
    Body: message.body,
    ...(told.length === 0 ? {} : { Attributes: Object.fromEntries(told) }),
    ...(digest === null
      ? {}
      : { MD5OfMessageAttributes: digest, MessageAttributes: attributes satisfies Record<string, MessageAttribute> }),
  };
}

/** What the service itself tells of a message. */
export function systemAttributes({ message, state }: Pick<Received, "message" | "state">): Record<string, string> {
  return {
    SenderId: message.senderId,
    SentTimestamp: String(message.sentAtMs),
    ApproximateReceiveCount: String(state.receiveCount),
    ApproximateFirstReceiveTimestamp: String(state.firstReceivedAtMs ?? message.sentAtMs),
    ...(message.groupId === null ? {} : { MessageGroupId: message.groupId }),
    ...(message.deduplicationId === null
      ? {}
      : { MessageDeduplicationId: message.deduplicationId, SequenceNumber: sequenceText(message.sequence) }),
    ...(message.traceHeader === null ? {} : { AWSTraceHeader: message.traceHeader }),
    ...(message.sourceArn === null ? {} : { DeadLetterQueueSourceArn: message.sourceArn }),
  };
}

function selects(pattern: string, name: string): boolean {
  return (
    pattern === "All" ||
    pattern === ".*" ||
    (pattern.endsWith(".*") ? name.startsWith(pattern.slice(0, -2)) : pattern === name)
  );
}

function settling(open: Open): readonly Operation[] {
  const visibility = seconds(VISIBILITY_SECONDS_MAX);
  return [
    operation(
      "DeleteMessage",
      { action: "sqs:DeleteMessage", input: queue.extend({ ReceiptHandle: handle }), resource: resourceOf },
      async (input, context) => {
        await (await open(input, context)).delete(input.ReceiptHandle);
        return { body: null };
      },
    ),
    operation(
      "DeleteMessageBatch",
      {
        action: "sqs:DeleteMessage",
        input: queue.extend({ Entries: z.array(z.object({ Id: entryId, ReceiptHandle: handle })).default([]) }),
        resource: resourceOf,
      },
      async (input, context) => {
        const messages = await open(input, context);
        return {
          body: await inBatch(input.Entries, async ({ ReceiptHandle }) => await messages.delete(ReceiptHandle)),
        };
      },
    ),
    operation(
      "ChangeMessageVisibility",
      {
        action: "sqs:ChangeMessageVisibility",
        input: queue.extend({ ReceiptHandle: handle, VisibilityTimeout: visibility }),
        resource: resourceOf,
      },
      async (input, context) => {
        await (await open(input, context)).changeVisibility(input.ReceiptHandle, input.VisibilityTimeout * 1_000);
        return { body: null };
      },
    ),
    operation(
      "ChangeMessageVisibilityBatch",
      {
        action: "sqs:ChangeMessageVisibility",
        input: queue.extend({
          Entries: z.array(z.object({ Id: entryId, ReceiptHandle: handle, VisibilityTimeout: visibility })).default([]),
        }),
        resource: resourceOf,
      },
      async (input, context) => {
        const messages = await open(input, context);
        return {
          body: await inBatch(
            input.Entries,
            async ({ ReceiptHandle, VisibilityTimeout }) =>
              await messages.changeVisibility(ReceiptHandle, VisibilityTimeout * 1_000),
          ),
        };
      },
    ),
  ];
}

function checkEntries(entries: readonly { readonly Id: string }[]): void {
  if (entries.length === 0)
    throw new AwsError("EmptyBatchRequest", "There should be at least one entry in the request.");
  if (entries.length > BATCH_MAX)
    throw new AwsError(
      "TooManyEntriesInBatchRequest",
      `Maximum number of entries per request are ${BATCH_MAX}. You have sent ${entries.length}.`,
    );
  if (new Set(entries.map(({ Id }) => Id)).size < entries.length)
    throw new AwsError("BatchEntryIdsNotDistinct", "Two or more batch entries in the request have the same Id.");
}

async function inBatch<Entry extends { readonly Id: string }>(
  entries: readonly Entry[],
  run: (entry: Entry) => Promise<void>,
): Promise<Record<string, unknown>> {
  checkEntries(entries);
  const results = await Promise.all(
    entries.map(async (entry) => {
      try {
        await run(entry);
        return null;
      } catch (thrown) {
        return failure(entry.Id, thrown);
      }
    }),
  );
  const Failed = results.filter((result) => result !== null);
  const Successful = entries.filter((_, index) => results[index] === null).map(({ Id }) => ({ Id }));
  return { Successful, ...(Failed.length === 0 ? {} : { Failed }) };
}

function failure(Id: string, thrown: unknown): Record<string, unknown> {
  const error = toAwsError(thrown);
  return { Id, Code: error.code, Message: error.message, SenderFault: error.type === "Sender" };
}
