import { z } from "zod";
import { KoineError } from "../../../core/errors.ts";
import { compilePattern } from "../../../platform/event-pattern.ts";
import { accountIdOf, parseArn } from "../account.ts";
import type { LambdaFunctions } from "../lambda/functions.ts";
import { functionArn, invalid, parseFunctionName } from "../lambda/names.ts";
import { flag, functionName, page, paged, tagsSchema } from "../lambda/operations/inputs.ts";
import type { Queues } from "../sqs/queues.ts";
import { AwsError } from "../wire/error.ts";
import { type CallContext, type Operation, operation } from "../wire/service.ts";
import type { Mapping, Mappings, MappingSettings } from "./records.ts";

const members = {
  BatchSize: z.int().min(1).max(10_000).optional(),
  MaximumBatchingWindowInSeconds: z.int().min(0).max(300).optional(),
  Enabled: flag,
  FilterCriteria: z
    .object({
      Filters: z
        .array(z.object({ Pattern: z.string().max(4_096) }))
        .max(10)
        .optional(),
    })
    .optional(),
  FunctionResponseTypes: z.array(z.literal("ReportBatchItemFailures")).max(1).optional(),
  ScalingConfig: z.object({ MaximumConcurrency: z.int().min(2).max(1_000).optional() }).optional(),
  MetricsConfig: z.looseObject({}).optional(),
  KMSKeyArn: z.string().optional(),
  LoggingConfig: z.looseObject({}).optional(),
  ProvisionedPollerConfig: z.looseObject({}).optional(),
};

const uuid = z.object({ UUID: z.string() });
const BATCH_DEFAULT = 10;
const FIFO_BATCH_MAX = 10;

/** Event source mappings: of queues, which this dialect has itself. */
export function mappingOperations(
  mappings: Mappings,
  queues: Queues,
  functions: LambdaFunctions,
): readonly Operation[] {
  const resource = (
    { UUID }: { readonly UUID: string },
    { principal, region }: Pick<CallContext, "principal" | "region">,
  ): string => `arn:aws:lambda:${region}:${accountIdOf(principal.namespace)}:event-source-mapping:${UUID}`;
  return [
    operation(
      "CreateEventSourceMapping",
      {
        action: "lambda:CreateEventSourceMapping",
        input: z.object({
          FunctionName: functionName,
          EventSourceArn: z.string().optional(),
          Tags: tagsSchema.optional(),
          ...members,
        }),
      },
      async (input, context) => {
        const name = parseFunctionName(input.FunctionName, undefined, context);
        await functions.find(name, context);
        const eventSourceArn = checkedSource(queues, input.EventSourceArn, context);
        const exists = mappings
          .list(name.namespace)
          .find(
            (each) =>
              each.eventSourceArn === eventSourceArn &&
              each.functionName === name.name &&
              each.qualifier === name.qualifier,
          );
        if (exists !== undefined)
          throw new AwsError(
            "ResourceConflictException",
            `An event source mapping with SQS arn ("${eventSourceArn}") and function ("${name.name}") already exists. Please update or delete the existing mapping with UUID ${exists.uuid}`,
            {
              status: 409,
            },
          );
        const mapping = await mappings.create({
          namespace: name.namespace,
          eventSourceArn,
          functionName: name.name,
          qualifier: name.qualifier,
          settings: settingsOf(input, eventSourceArn),
          tags: input.Tags ?? {},
          modifiedAtMs: context.nowMs,
        });
        return { status: 202, body: shape(mapping, context.region, "Creating") };
      },
    ),
    operation(
      "GetEventSourceMapping",
      { action: "lambda:GetEventSourceMapping", input: uuid, resource },
      async ({ UUID }, { principal, region }) => ({
        body: shape(mappings.get(principal.namespace, UUID), region),
      }),
    ),
    operation(
      "ListEventSourceMappings",
      {
        action: "lambda:ListEventSourceMappings",
        input: z.object({ ...page, EventSourceArn: z.string().optional(), FunctionName: z.string().optional() }),
      },
      async (input, context) => {
        const name =
          input.FunctionName === undefined ? null : parseFunctionName(input.FunctionName, undefined, context);
        const all = mappings
          .list(context.principal.namespace)
          .filter(
            (each) =>
              (input.EventSourceArn === undefined || each.eventSourceArn === input.EventSourceArn) &&
              (name === null ||
                (each.functionName === name.name && (name.qualifier === null || each.qualifier === name.qualifier))),
          );
        const { items, next } = paged(all, input, (each) => each.uuid);
        return { body: { EventSourceMappings: items.map((each) => shape(each, context.region)), ...next } };
      },
    ),
    operation(
      "UpdateEventSourceMapping",
      {
        action: "lambda:UpdateEventSourceMapping",
        input: uuid.extend({ FunctionName: functionName.optional(), ...members }),
        resource,
      },
      async (input, context) => {
        const before = mappings.get(context.principal.namespace, input.UUID);
        const name =
          input.FunctionName === undefined ? null : parseFunctionName(input.FunctionName, undefined, context);
        if (name !== null) await functions.find(name, context);
        const mapping: Mapping = {
          ...before,
          ...(name === null ? {} : { functionName: name.name, qualifier: name.qualifier }),
          settings: settingsOf(input, before.eventSourceArn, before.settings),
          modifiedAtMs: context.nowMs,
        };
        await mappings.put(mapping);
        return { status: 202, body: shape(mapping, context.region, "Updating") };
      },
    ),
    operation(
      "DeleteEventSourceMapping",
      { action: "lambda:DeleteEventSourceMapping", input: uuid, resource },
      async ({ UUID }, { principal, region }) => {
        const mapping = mappings.get(principal.namespace, UUID);
        await mappings.remove(mapping);
        return { status: 202, body: shape(mapping, region, "Deleting") };
      },
    ),
  ];
}

function checkedSource(queues: Queues, arn: string | undefined, { principal }: CallContext): string {
  const service = arn === undefined ? undefined : parseArn(arn)?.service;
  if (arn === undefined || service === undefined) throw invalid("EventSourceArn must be the ARN of a queue.");
  if (service !== "sqs")
    throw invalid(
      `Unrecognized event source: there is no service '${service}' here that events could come from; queues (sqs) can be a source.`,
    );
  if (queues.findByArn(principal.namespace, arn) === null)
    throw invalid(
      `Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error Message: The specified queue does not exist: ${arn}`,
    );
  return arn;
}

const STORED = ["MetricsConfig", "KMSKeyArn", "LoggingConfig", "ProvisionedPollerConfig"];

function settingsOf(
  input: z.output<z.ZodObject<typeof members>>,
  arn: string,
  before?: MappingSettings,
): MappingSettings {
  const patterns =
    input.FilterCriteria === undefined
      ? (before?.patterns ?? [])
      : (input.FilterCriteria.Filters ?? []).map(({ Pattern }) => Pattern);
  for (const pattern of patterns) checkPattern(pattern);
  const batchSize = input.BatchSize ?? before?.batchSize ?? BATCH_DEFAULT;
  const windowSeconds = input.MaximumBatchingWindowInSeconds ?? before?.windowSeconds ?? 0;
  if (arn.endsWith(".fifo") && (batchSize > FIFO_BATCH_MAX || windowSeconds > 0))
    throw invalid(`FIFO queues allow at most ${FIFO_BATCH_MAX} messages in a batch and no batching window.`);
  if (batchSize > FIFO_BATCH_MAX && windowSeconds < 1)
    throw invalid("Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10");
  const scaling = input.ScalingConfig;
  return {
    batchSize,
    windowSeconds,
    enabled: input.Enabled ?? before?.enabled ?? true,
    patterns,
    reportBatchItemFailures:
      input.FunctionResponseTypes === undefined
        ? (before?.reportBatchItemFailures ?? false)
        : input.FunctionResponseTypes.length > 0,
    maximumConcurrency:
      scaling === undefined ? (before?.maximumConcurrency ?? null) : (scaling.MaximumConcurrency ?? null),
    stored: {
      ...before?.stored,
      ...Object.fromEntries(
        Object.entries(input).filter(([key, value]) => STORED.includes(key) && value !== undefined),
      ),
    },
  };
}

function checkPattern(pattern: string): void {
  try {
    compilePattern({ data: JSON.parse(pattern) as unknown });
  } catch (thrown) {
    const detail = thrown instanceof KoineError ? thrown.message : "it is not JSON";
    throw invalid(`Invalid filter pattern definition. ${detail}`);
  }
}

function shape(mapping: Mapping, region: string, state?: string): Record<string, unknown> {
  const { settings, namespace } = mapping;
  return {
    UUID: mapping.uuid,
    EventSourceMappingArn: `arn:aws:lambda:${region}:${accountIdOf(namespace)}:event-source-mapping:${mapping.uuid}`,
    EventSourceArn: mapping.eventSourceArn,
    FunctionArn: functionArn(namespace, mapping.functionName, { region, qualifier: mapping.qualifier }),
    BatchSize: settings.batchSize,
    MaximumBatchingWindowInSeconds: settings.windowSeconds,
    State: state ?? (settings.enabled ? "Enabled" : "Disabled"),
    StateTransitionReason: "USER_INITIATED",
    LastModified: mapping.modifiedAtMs / 1_000,
    LastProcessingResult: mapping.lastResult,
    FunctionResponseTypes: settings.reportBatchItemFailures ? ["ReportBatchItemFailures"] : [],
    ...(settings.patterns.length === 0
      ? {}
      : { FilterCriteria: { Filters: settings.patterns.map((Pattern) => ({ Pattern })) } }),
    ...(settings.maximumConcurrency === null
      ? {}
      : { ScalingConfig: { MaximumConcurrency: settings.maximumConcurrency } }),
    ...settings.stored,
  };
}
