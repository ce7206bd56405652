import { z } from "zod";
import { AwsError } from "../../wire/error.ts";
import { type Operation, operation } from "../../wire/service.ts";
import { applyAttributes, type QueueSettings, tellAttributes } from "../attributes.ts";
import { attributeMap, queue, recordOf, resourceOf } from "../inputs.ts";
import { arnOf, type Queues, urlOf } from "../queues.ts";

const queueName = z
  .string()
  .regex(
    /^[\w-]{1,80}$|^[\w-]{1,75}\.fifo$/,
    "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length",
  );
const tags = z.record(z.string().max(128), z.string().max(256));
const pageSize = z.coerce.number().int().min(1).max(1_000).default(1_000);
const PURGE_MS = 60_000;

export function queueOperations(queues: Queues): readonly Operation[] {
  return [...life(queues), ...attributes(queues), ...tagging(queues), ...permissions(queues)];
}

function life(queues: Queues): readonly Operation[] {
  const purgedAtMs = new Map<string, number>();
  const byName = (
    { QueueName }: { readonly QueueName: string },
    context: Parameters<Operation["resource"]>[1],
  ): string => resourceOf({ QueueUrl: QueueName }, context);
  return [
    operation(
      "CreateQueue",
      {
        action: "sqs:CreateQueue",
        input: z.object({
          QueueName: queueName,
          Attributes: attributeMap.default({}),
          tags: tags.optional(),
          Tags: tags.optional(),
        }),
        resource: byName,
      },
      async (input, context) => {
        const { principal, region, request } = context;
        const { QueueName: name, Attributes } = input;
        const isFifo = name.endsWith(".fifo");
        if (isFifo !== (Attributes["FifoQueue"] === "true"))
          throw isFifo
            ? new AwsError("InvalidParameterValue", "The queue name ends with .fifo, so FifoQueue must be true.")
            : new AwsError(
                "InvalidParameterValue",
                "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo suffix and be 1 to 80 in length.",
              );
        const found = queues.find(principal.namespace, name);
        const settings = applyAttributes(Attributes, found?.settings);
        if (found !== null && !sameSettings(settings, found.settings))
          throw new AwsError(
            "QueueNameExists",
            "A queue already exists with the same name and a different value for an attribute.",
          );
        const record =
          found ??
          (await queues.create({
            namespace: principal.namespace,
            name,
            region,
            settings,
            tags: input.tags ?? input.Tags ?? {},
          }));
        return { body: { QueueUrl: urlOf(record, request.headers.origin) } };
      },
    ),
    operation(
      "DeleteQueue",
      { action: "sqs:DeleteQueue", input: queue, resource: resourceOf },
      async (input, context) => {
        await queues.delete(recordOf(queues, input, context));
        return { body: null };
      },
    ),
    operation(
      "GetQueueUrl",
      {
        action: "sqs:GetQueueUrl",
        input: z.object({ QueueName: z.string().max(80), QueueOwnerAWSAccountId: z.string().optional() }),
        resource: byName,
      },
      async ({ QueueName }, context) => {
        const record = recordOf(queues, { QueueUrl: QueueName }, context);
        return { body: { QueueUrl: urlOf(record, context.request.headers.origin) } };
      },
    ),
    operation(
      "ListQueues",
      {
        action: "sqs:ListQueues",
        input: z.object({
          QueueNamePrefix: z.string().default(""),
          MaxResults: pageSize,
          NextToken: z.string().optional(),
        }),
      },
      async ({ QueueNamePrefix, MaxResults, NextToken }, context) => {
        const all = queues.list(context.principal.namespace).filter(({ name }) => name.startsWith(QueueNamePrefix));
        const from = NextToken === undefined ? 0 : all.findIndex(({ name }) => name > NextToken);
        const shown = from < 0 ? [] : all.slice(from, from + MaxResults);
        const more = from >= 0 && from + shown.length < all.length;
        const QueueUrls = shown.map((record) => urlOf(record, context.request.headers.origin));
        return {
          body: {
            ...(QueueUrls.length === 0 ? {} : { QueueUrls }),
            ...(more ? { NextToken: shown.at(-1)?.name } : {}),
          },
        };
      },
    ),
    operation(
      "PurgeQueue",
      { action: "sqs:PurgeQueue", input: queue, resource: resourceOf },
      async (input, context) => {
        const record = recordOf(queues, input, context);
        const before = purgedAtMs.get(record.generation);
        if (before !== undefined && context.nowMs - before < PURGE_MS)
          throw new AwsError(
            "PurgeQueueInProgress",
            `Only one PurgeQueue operation on ${record.name} is allowed every 60 seconds.`,
            { status: 403 },
          );
        purgedAtMs.set(record.generation, context.nowMs);
        await (await queues.messages(record)).purge();
        return { body: null };
      },
    ),
    operation(
      "ListDeadLetterSourceQueues",
      { action: "sqs:ListDeadLetterSourceQueues", input: queue.extend({ MaxResults: pageSize }), resource: resourceOf },
      async (input, context) => {
        const arn = arnOf(recordOf(queues, input, context));
        const sources = queues
          .list(context.principal.namespace)
          .filter(({ settings }) => settings.redrive?.deadLetterTargetArn === arn);
        return { body: { queueUrls: sources.map((record) => urlOf(record, context.request.headers.origin)) } };
      },
    ),
  ];
}

/** A queue that is created again must be asked for as it is. */
function sameSettings(a: QueueSettings, b: QueueSettings): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function attributes(queues: Queues): readonly Operation[] {
  return [
    operation(
      "GetQueueAttributes",
      {
        action: "sqs:GetQueueAttributes",
        input: queue.extend({ AttributeNames: z.array(z.string()).default([]) }),
        resource: resourceOf,
      },
      async (input, context) => {
        const record = recordOf(queues, input, context);
        const counts = (await queues.messages(record)).counts();
        const all: Record<string, string> = {
          ...tellAttributes(record.settings),
          QueueArn: arnOf(record),
          CreatedTimestamp: String(Math.floor(record.createdAtMs / 1_000)),
          LastModifiedTimestamp: String(Math.floor(record.modifiedAtMs / 1_000)),
          ApproximateNumberOfMessages: String(counts.visible),
          ApproximateNumberOfMessagesNotVisible: String(counts.inFlight),
          ApproximateNumberOfMessagesDelayed: String(counts.delayed),
        };
        const wanted = input.AttributeNames;
        const shown = Object.entries(all).filter(([name]) => wanted.includes("All") || wanted.includes(name));
        return { body: shown.length === 0 ? {} : { Attributes: Object.fromEntries(shown) } };
      },
    ),
    operation(
      "SetQueueAttributes",
      { action: "sqs:SetQueueAttributes", input: queue.extend({ Attributes: attributeMap }), resource: resourceOf },
      async (input, context) => {
        const record = recordOf(queues, input, context);
        if (
          input.Attributes["FifoQueue"] !== undefined &&
          (input.Attributes["FifoQueue"] === "true") !== record.settings.fifo
        )
          throw new AwsError("InvalidAttributeName", "You can't change the type of an existing queue.");
        await queues.change(record, { settings: applyAttributes(input.Attributes, record.settings) });
        return { body: null };
      },
    ),
  ];
}

function tagging(queues: Queues): readonly Operation[] {
  return [
    operation(
      "TagQueue",
      { action: "sqs:TagQueue", input: queue.extend({ Tags: tags }), resource: resourceOf },
      async (input, context) => {
        const record = recordOf(queues, input, context);
        await queues.change(record, { tags: { ...record.tags, ...input.Tags } });
        return { body: null };
      },
    ),
    operation(
      "UntagQueue",
      { action: "sqs:UntagQueue", input: queue.extend({ TagKeys: z.array(z.string()) }), resource: resourceOf },
      async (input, context) => {
        const record = recordOf(queues, input, context);
        const kept = Object.entries(record.tags).filter(([key]) => !input.TagKeys.includes(key));
        await queues.change(record, { tags: Object.fromEntries(kept) });
        return { body: null };
      },
    ),
    operation(
      "ListQueueTags",
      { action: "sqs:ListQueueTags", input: queue, resource: resourceOf },
      async (input, context) => ({
        body: { Tags: recordOf(queues, input, context).tags },
      }),
    ),
  ];
}

/** Statements of the queue's policy, one by one. */
function permissions(queues: Queues): readonly Operation[] {
  const change = async (
    input: { readonly QueueUrl: string },
    context: Parameters<Operation["run"]>[1],
    by: (statements: readonly Record<string, unknown>[]) => readonly unknown[],
  ) => {
    const record = recordOf(queues, input, context);
    const before = JSON.parse(record.settings.stored["Policy"] ?? "{}") as {
      Statement?: readonly Record<string, unknown>[];
    };
    const Policy = JSON.stringify({
      Version: "2012-10-17",
      Id: `${arnOf(record)}/policy`,
      Statement: by(before.Statement ?? []),
    });
    await queues.change(record, { settings: applyAttributes({ Policy }, record.settings) });
  };
  const label = z.string().regex(/^[\w-]{1,80}$/);
  return [
    operation(
      "AddPermission",
      {
        action: "sqs:AddPermission",
        input: queue.extend({
          Label: label,
          AWSAccountIds: z.array(z.string()).min(1),
          Actions: z.array(z.string()).min(1),
        }),
        resource: resourceOf,
      },
      async (input, context) => {
        await change(input, context, (statements) => {
          if (statements.some(({ Sid }) => Sid === input.Label))
            throw new AwsError(
              "InvalidParameterValue",
              `Value ${input.Label} for parameter Label is invalid. Reason: Already exists.`,
            );
          const Principal = { AWS: input.AWSAccountIds.map((account) => `arn:aws:iam::${account}:root`) };
          const Action = input.Actions.map((action) => `sqs:${action}`);
          return [
            ...statements,
            { Sid: input.Label, Effect: "Allow", Principal, Action, Resource: resourceOf(input, context) },
          ];
        });
        return { body: null };
      },
    ),
    operation(
      "RemovePermission",
      { action: "sqs:RemovePermission", input: queue.extend({ Label: label }), resource: resourceOf },
      async (input, context) => {
        await change(input, context, (statements) => {
          if (!statements.some(({ Sid }) => Sid === input.Label))
            throw new AwsError(
              "InvalidParameterValue",
              `Value ${input.Label} for parameter Label is invalid. Reason: can't find label on existing policy.`,
            );
          return statements.filter(({ Sid }) => Sid !== input.Label);
        });
        return { body: null };
      },
    ),
  ];
}
