import { z } from "zod";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import { configurationMembers, configurationOf, configurationShape } from "../configuration.ts";
import type { Found, LambdaFunctions } from "../functions.ts";
import { parseFunctionName } from "../names.ts";
import type { Outcomes } from "../outcomes.ts";
import { LATEST, type LambdaRecord, type Snapshot } from "../records.ts";
import { flag, one, page, paged, qualified, resourceOf, revisionId, tagsSchema } from "./inputs.ts";

const code = z.object({
  ZipFile: z.string().optional(),
  S3Bucket: z.string().optional(),
  S3Key: z.string().optional(),
  S3ObjectVersion: z.string().optional(),
  ImageUri: z.string().optional(),
});

/** The address at which the archive of a code package can be fetched for a while, by whoever knows it. */
export type CodeLocation = (digest: string, context: CallContext) => string;

export function functionOperations(
  functions: LambdaFunctions,
  outcomes: Outcomes,
  locate: CodeLocation,
): readonly Operation[] {
  return [...changing(functions, outcomes), ...reading(functions, locate)];
}

export function shapeOf(
  found: Pick<Found, "name">,
  snapshot: Snapshot,
  of: { readonly region: string; readonly qualified: boolean; readonly pending?: "create" | "update" | null },
): Record<string, unknown> {
  const { namespace, name } = found.name;
  return configurationShape({ namespace, name, region: of.region, qualified: of.qualified }, snapshot, {
    pending: of.pending ?? null,
  });
}

const deadLetters = { member: "TargetArn", functions: false };

function changing(functions: LambdaFunctions, outcomes: Outcomes): readonly Operation[] {
  const publishNow = async (found: Found, context: CallContext): Promise<Snapshot> =>
    await functions.publish(found, { description: undefined, codeSha256: undefined, revisionId: undefined }, context);
  return [
    operation(
      "CreateFunction",
      {
        action: "lambda:CreateFunction",
        input: z.object({
          FunctionName: one.shape.FunctionName,
          ...configurationMembers,
          Role: configurationMembers.Role.unwrap(),
          Code: code,
          PackageType: z.enum(["Zip", "Image"]).optional(),
          Publish: flag,
          Tags: tagsSchema.optional(),
          CodeSigningConfigArn: z.string().optional(),
        }),
        resource: resourceOf,
      },
      async (input, context) => {
        const name = parseFunctionName(input.FunctionName, undefined, context);
        outcomes.check(name.namespace, input.DeadLetterConfig?.TargetArn, deadLetters);
        const record = await functions.create(
          name,
          { configuration: configurationOf(input), code: input.Code, tags: input.Tags ?? {} },
          context,
        );
        const found: Found = { name, record, snapshot: record.latest, alias: null };
        const shown = input.Publish === true ? await publishNow(found, context) : record.latest;
        return {
          status: 201,
          body: shapeOf(found, shown, {
            region: context.region,
            qualified: shown.version !== LATEST,
            pending: "create",
          }),
        };
      },
    ),
    operation(
      "UpdateFunctionCode",
      {
        action: "lambda:UpdateFunctionCode",
        input: one.extend({
          ...code.shape,
          Publish: flag,
          DryRun: flag,
          RevisionId: revisionId,
          Architectures: configurationMembers.Architectures,
        }),
        resource: resourceOf,
      },
      async (input, context) => {
        const found = await functions.find(parseFunctionName(input.FunctionName, undefined, context), context);
        const shown = (snapshot: Snapshot) =>
          shapeOf(found, snapshot, {
            region: context.region,
            qualified: snapshot.version !== LATEST,
            pending: "update",
          });
        if (input.DryRun === true) return { body: shown(found.record.latest) };
        const architectures =
          input.Architectures === undefined ? {} : { configuration: { Architectures: input.Architectures } };
        const record = await functions.update(
          found,
          { code: input, ...architectures, revisionId: input.RevisionId },
          context,
        );
        const changed = { ...found, record };
        return { body: shown(input.Publish === true ? await publishNow(changed, context) : record.latest) };
      },
    ),
    operation(
      "UpdateFunctionConfiguration",
      {
        action: "lambda:UpdateFunctionConfiguration",
        input: one.extend({ ...configurationMembers, RevisionId: revisionId }),
        resource: resourceOf,
      },
      async (input, context) => {
        const found = await functions.find(parseFunctionName(input.FunctionName, undefined, context), context);
        outcomes.check(found.name.namespace, input.DeadLetterConfig?.TargetArn, deadLetters);
        const record = await functions.update(found, { configuration: input, revisionId: input.RevisionId }, context);
        return { body: shapeOf(found, record.latest, { region: context.region, qualified: false, pending: "update" }) };
      },
    ),
    operation(
      "PublishVersion",
      {
        action: "lambda:PublishVersion",
        input: one.extend({
          CodeSha256: z.string().optional(),
          Description: z.string().max(256).optional(),
          RevisionId: revisionId,
        }),
        resource: resourceOf,
      },
      async (input, context) => {
        const found = await functions.find(parseFunctionName(input.FunctionName, undefined, context), context);
        const options = { description: input.Description, codeSha256: input.CodeSha256, revisionId: input.RevisionId };
        const snapshot = await functions.publish(found, options, context);
        return { status: 201, body: shapeOf(found, snapshot, { region: context.region, qualified: true }) };
      },
    ),
    operation(
      "DeleteFunction",
      { action: "lambda:DeleteFunction", input: qualified, resource: resourceOf },
      async (input, context) => {
        await functions.delete(
          await functions.find(parseFunctionName(input.FunctionName, input.Qualifier, context), context),
        );
        return { status: 204, body: null };
      },
    ),
  ];
}

function reading(functions: LambdaFunctions, locate: CodeLocation): readonly Operation[] {
  return [
    operation(
      "GetFunction",
      { action: "lambda:GetFunction", input: qualified, resource: resourceOf },
      async (input, context) => {
        const found = await functions.find(parseFunctionName(input.FunctionName, input.Qualifier, context), context);
        const { record, snapshot } = found;
        const isImage = snapshot.code.packageType === "Image";
        const { imageUri } = snapshot.code;
        return {
          body: {
            Configuration: shapeOf(found, snapshot, {
              region: context.region,
              qualified: found.name.qualifier !== null,
            }),
            Code: isImage
              ? { RepositoryType: "ECR", ImageUri: imageUri, ResolvedImageUri: imageUri }
              : { RepositoryType: "S3", Location: locate(snapshot.code.digest, context) },
            ...(Object.keys(record.tags).length === 0 ? {} : { Tags: record.tags }),
            ...(record.reservedConcurrency === null
              ? {}
              : { Concurrency: { ReservedConcurrentExecutions: record.reservedConcurrency } }),
          },
        };
      },
    ),
    operation(
      "GetFunctionConfiguration",
      { action: "lambda:GetFunctionConfiguration", input: qualified, resource: resourceOf },
      async (input, context) => {
        const found = await functions.find(parseFunctionName(input.FunctionName, input.Qualifier, context), context);
        return {
          body: shapeOf(found, found.snapshot, { region: context.region, qualified: found.name.qualifier !== null }),
        };
      },
    ),
    operation(
      "ListFunctions",
      {
        action: "lambda:ListFunctions",
        input: z.object({ ...page, FunctionVersion: z.enum(["ALL"]).optional(), MasterRegion: z.string().optional() }),
      },
      async (input, context) => {
        const { namespace } = context.principal;
        const names = [...functions.platform.parts.catalogue.all()]
          .filter(({ record }) => record.namespace === namespace && record.package === "")
          .map(({ record }) => record.name)
          .sort();
        const { items, next } = paged(names, input, (name) => name);
        const shown: unknown[] = [];
        for (const name of items) {
          const record = functions.record({ namespace, name });
          if (record === null) continue;
          for (const snapshot of versionsOf(record, input.FunctionVersion === "ALL"))
            shown.push(
              shapeOf({ name: { namespace, name, qualifier: null } }, snapshot, {
                region: context.region,
                qualified: input.FunctionVersion === "ALL",
              }),
            );
        }
        return { body: { Functions: shown, ...next } };
      },
    ),
    operation(
      "ListVersionsByFunction",
      { action: "lambda:ListVersionsByFunction", input: one.extend(page), resource: resourceOf },
      async (input, context) => {
        const found = await functions.find(parseFunctionName(input.FunctionName, undefined, context), context);
        const { items, next } = paged(versionsOf(found.record, true), input, ({ version }) => version);
        return {
          body: {
            Versions: items.map((snapshot) => shapeOf(found, snapshot, { region: context.region, qualified: true })),
            ...next,
          },
        };
      },
    ),
    operation(
      "GetAccountSettings",
      { action: "lambda:GetAccountSettings", input: z.object({}) },
      async (_, { principal }) => {
        const { limits, catalogue } = functions.platform.parts;
        const own = [...catalogue.all()].filter(({ record }) => record.namespace === principal.namespace);
        let codeBytes = 0;
        let reserved = 0;
        for (const { record } of own) {
          const kept = functions.records.find(record.namespace, record.name);
          codeBytes += [kept?.latest, ...(kept?.published ?? [])].reduce(
            (sum, each) => sum + (each?.code.size ?? 0),
            0,
          );
          reserved += kept?.reservedConcurrency ?? 0;
        }
        return {
          body: {
            AccountLimit: {
              TotalCodeSize: 80_530_636_800,
              CodeSizeUnzipped: limits.packageBytesMax,
              CodeSizeZipped: limits.archiveBytesMax,
              ConcurrentExecutions: limits.instancesMax,
              UnreservedConcurrentExecutions: Math.max(0, limits.instancesMax - reserved),
            },
            AccountUsage: { TotalCodeSize: codeBytes, FunctionCount: own.length },
          },
        };
      },
    ),
  ];
}

function versionsOf(record: LambdaRecord, all: boolean): readonly Snapshot[] {
  return all ? [record.latest, ...record.published] : [record.latest];
}
