import { z } from "zod";
import { AwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import type { Found, LambdaFunctions } from "../functions.ts";
import { functionArn, invalid, parseFunctionName } from "../names.ts";
import type { ProvisionedConcurrency } from "../provisioned.ts";
import { LATEST, type LambdaRecord } from "../records.ts";
import { one, page, paged, resourceOf } from "./inputs.ts";

const named = one.extend({ Qualifier: z.string().min(1).max(128) });

/** Provisioned concurrency: instances of a published version, or of the one that an alias names, which are there before anybody calls. */
export function provisionedOperations(
  functions: LambdaFunctions,
  provisioned: ProvisionedConcurrency,
): readonly Operation[] {
  const find = async (
    input: { readonly FunctionName: string; readonly Qualifier?: string },
    context: CallContext,
  ): Promise<Found> => await functions.find(parseFunctionName(input.FunctionName, input.Qualifier, context), context);
  const shape = (found: Found, record: LambdaRecord, qualifier: string): Record<string, unknown> => {
    const entry = record.provisioned[qualifier];
    if (entry === undefined) throw missing();
    const { count, modifiedAtMs } = entry;
    const { available, allocated, status, reason } = provisioned.state(found.name, { record, qualifier, count });
    return {
      RequestedProvisionedConcurrentExecutions: count,
      AvailableProvisionedConcurrentExecutions: available,
      AllocatedProvisionedConcurrentExecutions: allocated,
      Status: status,
      ...(reason === null ? {} : { StatusReason: reason }),
      LastModified: new Date(modifiedAtMs).toISOString().replace("Z", "+0000"),
    };
  };
  return [
    operation(
      "PutProvisionedConcurrencyConfig",
      {
        action: "lambda:PutProvisionedConcurrencyConfig",
        input: named.extend({ ProvisionedConcurrentExecutions: z.int().min(1) }),
        resource: resourceOf,
      },
      async (input, context) => {
        const { Qualifier, ProvisionedConcurrentExecutions: count } = input;
        if (Qualifier === LATEST)
          throw invalid("Provisioned Concurrency Configs cannot be applied to unpublished function versions.");
        const found = await find(input, context);
        const { reservedConcurrency } = found.record;
        if (reservedConcurrency !== null && count > reservedConcurrency)
          throw invalid(
            `Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function`,
          );
        checkOnce(found, Qualifier);
        const record = await functions.change(found, (before) => ({
          ...before,
          provisioned: { ...before.provisioned, [Qualifier]: { count, modifiedAtMs: context.nowMs } },
        }));
        return { status: 202, body: shape(found, record, Qualifier) };
      },
    ),
    operation(
      "GetProvisionedConcurrencyConfig",
      { action: "lambda:GetProvisionedConcurrencyConfig", input: named, resource: resourceOf },
      async (input, context) => {
        const found = await find(input, context);
        return { body: shape(found, found.record, input.Qualifier) };
      },
    ),
    operation(
      "DeleteProvisionedConcurrencyConfig",
      { action: "lambda:DeleteProvisionedConcurrencyConfig", input: named, resource: resourceOf },
      async (input, context) => {
        const found = await find(input, context);
        await functions.change(found, ({ provisioned: { [input.Qualifier]: _gone, ...kept }, ...before }) => ({
          ...before,
          provisioned: kept,
        }));
        return { status: 204, body: null };
      },
    ),
    operation(
      "ListProvisionedConcurrencyConfigs",
      { action: "lambda:ListProvisionedConcurrencyConfigs", input: one.extend(page), resource: resourceOf },
      async (input, context) => {
        const found = await find({ FunctionName: input.FunctionName }, context);
        const { items, next } = paged(Object.keys(found.record.provisioned), input, (key) => key);
        const { namespace, name } = found.name;
        const told = items.map((key) => ({
          FunctionArn: functionArn(namespace, name, { region: context.region, qualifier: key }),
          ...shape(found, found.record, key),
        }));
        return { body: { ProvisionedConcurrencyConfigs: told, ...next } };
      },
    ),
  ];
}

/** A version has one setting: its own, or that of an alias which names it. */
function checkOnce({ record, snapshot }: Found, qualifier: string): void {
  const other = Object.keys(record.provisioned).find((key) => {
    const version = record.aliases.find(({ name }) => name === key)?.version ?? key;
    return key !== qualifier && version === snapshot.version;
  });
  if (other === undefined) return;
  throw new AwsError(
    "ResourceConflictException",
    `Alias and version cannot both have Provisioned Concurrency: '${other}' has it for version ${snapshot.version} already`,
    { status: 409 },
  );
}

function missing(): AwsError {
  return new AwsError(
    "ProvisionedConcurrencyConfigNotFoundException",
    "No Provisioned Concurrency Config found for this function",
    { status: 404 },
  );
}
