import { z } from "zod";
import { AwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import { arnOfFound, type Found, type LambdaFunctions, refOf } from "../functions.ts";
import { functionArn, invalid, parseFunctionName } from "../names.ts";
import type { Outcomes } from "../outcomes.ts";
import { LATEST } from "../records.ts";
import { one, page, paged, qualified, qualifier, resourceOf, tagsSchema } from "./inputs.ts";
import { parseArn } from "../../account.ts";

/** Settings that functions have beside their code and configuration. */
export function settingOperations(functions: LambdaFunctions, outcomes: Outcomes): readonly Operation[] {
  return [
    ...concurrency(functions),
    ...eventInvoke(functions, outcomes),
    ...tagging(functions),
    ...storedOnly(functions),
  ];
}

type Named = { readonly FunctionName: string; readonly Qualifier?: string | undefined };

async function find(functions: LambdaFunctions, input: Named, context: CallContext): Promise<Found> {
  return await functions.find(parseFunctionName(input.FunctionName, input.Qualifier, context), context);
}

function concurrency(functions: LambdaFunctions): readonly Operation[] {
  const set = async (input: Named, context: CallContext, count: number | null): Promise<void> => {
    const found = await find(functions, input, context);
    await functions.change(found, (before) => ({ ...before, reservedConcurrency: count }));
    await functions.platform.reserveConcurrency(refOf(found.name), count ?? undefined);
  };
  return [
    operation(
      "PutFunctionConcurrency",
      {
        action: "lambda:PutFunctionConcurrency",
        input: one.extend({ ReservedConcurrentExecutions: z.int().min(0) }),
        resource: resourceOf,
      },
      async (input, context) => {
        await set(input, context, input.ReservedConcurrentExecutions);
        return { body: { ReservedConcurrentExecutions: input.ReservedConcurrentExecutions } };
      },
    ),
    operation(
      "GetFunctionConcurrency",
      { action: "lambda:GetFunctionConcurrency", input: one, resource: resourceOf },
      async (input, context) => {
        const { reservedConcurrency } = (await find(functions, input, context)).record;
        return { body: reservedConcurrency === null ? {} : { ReservedConcurrentExecutions: reservedConcurrency } };
      },
    ),
    operation(
      "DeleteFunctionConcurrency",
      { action: "lambda:DeleteFunctionConcurrency", input: one, resource: resourceOf },
      async (input, context) => {
        await set(input, context, null);
        return { status: 204, body: null };
      },
    ),
  ];
}

const destination = z.object({ Destination: z.string().max(350).optional() });
const invokeSettings = {
  MaximumRetryAttempts: z.int().min(0).max(2).optional(),
  MaximumEventAgeInSeconds: z.int().min(60).max(21_600).optional(),
  DestinationConfig: z.object({ OnSuccess: destination.optional(), OnFailure: destination.optional() }).optional(),
};

function eventInvoke(functions: LambdaFunctions, outcomes: Outcomes): readonly Operation[] {
  const input = qualified.extend(invokeSettings);
  const settingsOf = (given: z.output<typeof input>) =>
    Object.fromEntries(
      Object.keys(invokeSettings).flatMap((key) => (key in given ? [[key, given[key as keyof typeof given]]] : [])),
    );
  const shape = (found: Found, region: string, key: string) => {
    const entry = found.record.eventInvoke[key];
    const { namespace, name } = found.name;
    const arn = functionArn(namespace, name, { region, qualifier: key });
    const FunctionArn = key === LATEST ? `${arn}:${LATEST}` : arn;
    if (entry === undefined)
      throw new AwsError("ResourceNotFoundException", `The function ${FunctionArn} doesn't have an EventInvokeConfig`, {
        status: 404,
      });
    return {
      FunctionArn,
      LastModified: entry.modifiedAtMs / 1_000,
      DestinationConfig: { OnSuccess: {}, OnFailure: {} },
      ...entry.settings,
    };
  };
  const put = async (given: z.output<typeof input>, context: CallContext, keep: boolean) => {
    const found = await find(functions, given, context);
    const key = found.name.qualifier ?? LATEST;
    for (const side of ["OnSuccess", "OnFailure"] as const) {
      const of = { member: `${side} destination`, functions: true };
      outcomes.check(found.name.namespace, given.DestinationConfig?.[side]?.Destination, of);
    }
    if (keep) shape(found, context.region, key);
    const record = await functions.change(found, (before) => ({
      ...before,
      eventInvoke: {
        ...before.eventInvoke,
        [key]: {
          settings: { ...(keep ? before.eventInvoke[key]?.settings : {}), ...settingsOf(given) },
          modifiedAtMs: context.nowMs,
        },
      },
    }));
    return { body: shape({ ...found, record }, context.region, key) };
  };
  return [
    operation(
      "PutFunctionEventInvokeConfig",
      { action: "lambda:PutFunctionEventInvokeConfig", input, resource: resourceOf },
      async (given, context) => await put(given, context, false),
    ),
    operation(
      "UpdateFunctionEventInvokeConfig",
      { action: "lambda:UpdateFunctionEventInvokeConfig", input, resource: resourceOf },
      async (given, context) => await put(given, context, true),
    ),
    operation(
      "GetFunctionEventInvokeConfig",
      { action: "lambda:GetFunctionEventInvokeConfig", input: qualified, resource: resourceOf },
      async (given, context) => {
        const found = await find(functions, given, context);
        return { body: shape(found, context.region, found.name.qualifier ?? LATEST) };
      },
    ),
    operation(
      "DeleteFunctionEventInvokeConfig",
      { action: "lambda:DeleteFunctionEventInvokeConfig", input: qualified, resource: resourceOf },
      async (given, context) => {
        const found = await find(functions, given, context);
        const key = found.name.qualifier ?? LATEST;
        shape(found, context.region, key);
        await functions.change(found, ({ eventInvoke: { [key]: _gone, ...kept }, ...before }) => ({
          ...before,
          eventInvoke: kept,
        }));
        return { status: 204, body: null };
      },
    ),
    operation(
      "ListFunctionEventInvokeConfigs",
      { action: "lambda:ListFunctionEventInvokeConfigs", input: one.extend(page), resource: resourceOf },
      async (given, context) => {
        const found = await find(functions, given, context);
        const { items, next } = paged(Object.keys(found.record.eventInvoke), given, (key) => key);
        return { body: { FunctionEventInvokeConfigs: items.map((key) => shape(found, context.region, key)), ...next } };
      },
    ),
  ];
}

/** The owners of tags that this service does not keep with its functions: event source mappings, by their ARN. */
function tagging(functions: LambdaFunctions): readonly Operation[] {
  const input = z.object({ Resource: z.string().min(1).max(1_024) });
  const found = async (resource: string, context: CallContext): Promise<Found> => {
    const arn = parseArn(resource);
    if (arn?.service !== "lambda" || !arn.resource.startsWith("function:"))
      throw invalid(`The resource ARN '${resource}' is not one of a function.`);
    return await functions.find(parseFunctionName(resource, undefined, context), context);
  };
  const resource = ({ Resource }: { readonly Resource: string }): string => Resource;
  return [
    operation("ListTags", { action: "lambda:ListTags", input, resource }, async ({ Resource }, context) => ({
      body: { Tags: (await found(Resource, context)).record.tags },
    })),
    operation(
      "TagResource",
      { action: "lambda:TagResource", input: input.extend({ Tags: tagsSchema }), resource },
      async ({ Resource, Tags }, context) => {
        const of = await found(Resource, context);
        await functions.change(of, (record) => ({ ...record, tags: { ...record.tags, ...Tags } }));
        return { status: 204, body: null };
      },
    ),
    operation(
      "UntagResource",
      {
        action: "lambda:UntagResource",
        input: input.extend({ tagKeys: z.union([z.string(), z.array(z.string())]) }),
        resource,
      },
      async ({ Resource, tagKeys }, context) => {
        const of = await found(Resource, context);
        const gone = new Set(typeof tagKeys === "string" ? [tagKeys] : tagKeys);
        await functions.change(of, (record) => ({
          ...record,
          tags: Object.fromEntries(Object.entries(record.tags).filter(([key]) => !gone.has(key))),
        }));
        return { status: 204, body: null };
      },
    ),
  ];
}

/** What is kept and told again, and changes nothing: what the platform has no use for. */
function storedOnly(functions: LambdaFunctions): readonly Operation[] {
  const keep = async (
    input: Named,
    context: CallContext,
    of: { readonly key: string; readonly settings: Readonly<Record<string, unknown>> | null },
  ) => {
    const found = await find(functions, input, context);
    await functions.change(found, ({ stored, ...before }) => {
      const { [of.key]: _before, ...others } = stored;
      return { ...before, stored: of.settings === null ? others : { ...others, [of.key]: of.settings } };
    });
    return found;
  };
  const read = async (input: Named, context: CallContext, key: string) => {
    const found = await find(functions, input, context);
    return { found, settings: found.record.stored[key] };
  };
  const management = qualified.extend({
    UpdateRuntimeOn: z.enum(["Auto", "Manual", "FunctionUpdate"]),
    RuntimeVersionArn: z.string().optional(),
  });
  const signing = z.object({
    FunctionName: one.shape.FunctionName,
    Qualifier: qualifier,
    CodeSigningConfigArn: z.string(),
  });
  return [
    operation(
      "PutRuntimeManagementConfig",
      { action: "lambda:PutRuntimeManagementConfig", input: management, resource: resourceOf },
      async (input, context) => {
        const { UpdateRuntimeOn, RuntimeVersionArn } = input;
        const found = await keep(input, context, {
          key: "runtimeManagement",
          settings: { UpdateRuntimeOn, RuntimeVersionArn },
        });
        return {
          body: {
            UpdateRuntimeOn,
            FunctionArn: arnOfFound(found, context.region),
            ...(RuntimeVersionArn === undefined ? {} : { RuntimeVersionArn }),
          },
        };
      },
    ),
    operation(
      "GetRuntimeManagementConfig",
      { action: "lambda:GetRuntimeManagementConfig", input: qualified, resource: resourceOf },
      async (input, context) => {
        const { found, settings } = await read(input, context, "runtimeManagement");
        return { body: { UpdateRuntimeOn: "Auto", ...settings, FunctionArn: arnOfFound(found, context.region) } };
      },
    ),
    operation(
      "PutFunctionRecursionConfig",
      {
        action: "lambda:PutFunctionRecursionConfig",
        input: one.extend({ RecursiveLoop: z.enum(["Allow", "Terminate"]) }),
        resource: resourceOf,
      },
      async (input, context) => {
        const { RecursiveLoop } = input;
        await keep(input, context, { key: "recursion", settings: { RecursiveLoop } });
        return { body: { RecursiveLoop } };
      },
    ),
    operation(
      "GetFunctionRecursionConfig",
      { action: "lambda:GetFunctionRecursionConfig", input: one, resource: resourceOf },
      async (input, context) => ({
        body: { RecursiveLoop: "Terminate", ...(await read(input, context, "recursion")).settings },
      }),
    ),
    operation(
      "PutFunctionCodeSigningConfig",
      { action: "lambda:PutFunctionCodeSigningConfig", input: signing, resource: resourceOf },
      async (input, context) => {
        const { CodeSigningConfigArn } = input;
        const found = await keep(input, context, { key: "codeSigning", settings: { CodeSigningConfigArn } });
        return { body: { CodeSigningConfigArn, FunctionName: found.name.name } };
      },
    ),
    operation(
      "GetFunctionCodeSigningConfig",
      { action: "lambda:GetFunctionCodeSigningConfig", input: one, resource: resourceOf },
      async (input, context) => {
        const { found, settings } = await read(input, context, "codeSigning");
        return { body: { ...settings, FunctionName: found.name.name } };
      },
    ),
    operation(
      "DeleteFunctionCodeSigningConfig",
      { action: "lambda:DeleteFunctionCodeSigningConfig", input: one, resource: resourceOf },
      async (input, context) => {
        await keep(input, context, { key: "codeSigning", settings: null });
        return { status: 204, body: null };
      },
    ),
    operation(
      "PutFunctionScalingConfig",
      {
        action: "lambda:PutFunctionScalingConfig",
        input: qualified.extend({ FunctionScalingConfig: z.looseObject({}).optional() }),
        resource: resourceOf,
      },
      async (input, context) => {
        await keep(input, context, {
          key: "scaling",
          settings: { FunctionScalingConfig: input.FunctionScalingConfig },
        });
        return { status: 202, body: { FunctionState: "Active" } };
      },
    ),
    operation(
      "GetFunctionScalingConfig",
      { action: "lambda:GetFunctionScalingConfig", input: qualified, resource: resourceOf },
      async (input, context) => {
        const { found, settings } = await read(input, context, "scaling");
        const config = settings?.["FunctionScalingConfig"] ?? {};
        return {
          body: {
            FunctionArn: arnOfFound(found, context.region),
            AppliedFunctionScalingConfig: config,
            RequestedFunctionScalingConfig: config,
          },
        };
      },
    ),
  ];
}
