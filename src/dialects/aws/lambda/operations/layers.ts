import { z } from "zod";
import { accountIdOf, parseArn } from "../../account.ts";
import { AwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import { checkRevision } from "../functions.ts";
import type { LayerVersion, Layers } from "../layers.ts";
import { invalid } from "../names.ts";
import { newRevisionId } from "../records.ts";
import type { CodeLocation } from "./functions.ts";
import { page, paged, revisionId } from "./inputs.ts";

const layerName = z.string().regex(/^(?:arn:aws[\w-]*:lambda:[\w-]+:\d{12}:layer:)?[\w-]{1,140}$/);
const one = z.object({ LayerName: layerName });
const version = one.extend({ VersionNumber: z.coerce.number().int().min(1) });
const filters = { CompatibleRuntime: z.string().optional(), CompatibleArchitecture: z.string().optional() };

export function layerOperations(layers: Layers, locate: CodeLocation): readonly Operation[] {
  return [...publishing(layers, locate), ...reading(layers, locate), ...permissions(layers)];
}

interface Address {
  readonly name: string;
  readonly arn: string;
}

function addressOf(given: string, context: Pick<CallContext, "principal" | "region">): Address {
  const name = given.split(":").at(-1) ?? given;
  return { name, arn: `arn:aws:lambda:${context.region}:${accountIdOf(context.principal.namespace)}:layer:${name}` };
}

const resource = (
  { LayerName }: { readonly LayerName: string },
  context: Pick<CallContext, "principal" | "region">,
): string => addressOf(LayerName, context).arn;

async function get(
  layers: Layers,
  input: { readonly LayerName: string; readonly VersionNumber: number },
  context: CallContext,
): Promise<{ address: Address; found: LayerVersion }> {
  const address = addressOf(input.LayerName, context);
  const layer = await layers.find(context.principal.namespace, address.name);
  const found = layer?.versions.find(({ number }) => number === input.VersionNumber);
  if (found !== undefined) return { address, found };
  throw new AwsError(
    "ResourceNotFoundException",
    `Layer version ${address.arn}:${input.VersionNumber} does not exist.`,
    { status: 404 },
  );
}

function shape({ arn }: Address, found: LayerVersion): Record<string, unknown> {
  return {
    LayerVersionArn: `${arn}:${found.number}`,
    Version: found.number,
    Description: found.description,
    CreatedDate: new Date(found.createdAtMs).toISOString().replace("Z", "+0000"),
    CompatibleRuntimes: found.compatibleRuntimes,
    CompatibleArchitectures: found.compatibleArchitectures,
    ...(found.licenseInfo === null ? {} : { LicenseInfo: found.licenseInfo }),
  };
}

function withContent(address: Address, found: LayerVersion, location: string): Record<string, unknown> {
  return {
    ...shape(address, found),
    LayerArn: address.arn,
    Content: { Location: location, CodeSha256: found.sha256, CodeSize: found.size },
  };
}

function publishing(layers: Layers, locate: CodeLocation): readonly Operation[] {
  return [
    operation(
      "PublishLayerVersion",
      {
        action: "lambda:PublishLayerVersion",
        input: one.extend({
          Description: z.string().max(256).default(""),
          Content: z.object({
            ZipFile: z.string().optional(),
            S3Bucket: z.string().optional(),
            S3Key: z.string().optional(),
          }),
          CompatibleRuntimes: z.array(z.string()).max(15).default([]),
          CompatibleArchitectures: z.array(z.string()).max(2).default([]),
          LicenseInfo: z.string().max(512).optional(),
        }),
        resource,
      },
      async (input, context) => {
        const address = addressOf(input.LayerName, context);
        if (input.Content.ZipFile === undefined)
          throw invalid("There is no object store here that holds the layer: send the archive itself as ZipFile.");
        const made = await layers.publish(
          address.name,
          Buffer.from(input.Content.ZipFile, "base64"),
          {
            description: input.Description,
            compatibleRuntimes: input.CompatibleRuntimes,
            compatibleArchitectures: input.CompatibleArchitectures,
            licenseInfo: input.LicenseInfo ?? null,
          },
          context,
        );
        return { status: 201, body: withContent(address, made, locate(made.digest, context)) };
      },
    ),
    operation(
      "DeleteLayerVersion",
      { action: "lambda:DeleteLayerVersion", input: version, resource },
      async (input, context) => {
        const { name } = addressOf(input.LayerName, context);
        const { namespace } = context.principal;
        if ((await layers.find(namespace, name)) !== null)
          await layers.change(namespace, name, (layer) => ({
            ...layer,
            versions: layer.versions.filter(({ number }) => number !== input.VersionNumber),
          }));
        return { status: 204, body: null };
      },
    ),
  ];
}

function reading(layers: Layers, locate: CodeLocation): readonly Operation[] {
  const fits =
    (input: {
      readonly CompatibleRuntime?: string | undefined;
      readonly CompatibleArchitecture?: string | undefined;
    }) =>
    (each: LayerVersion): boolean =>
      (input.CompatibleRuntime === undefined || each.compatibleRuntimes.includes(input.CompatibleRuntime)) &&
      (input.CompatibleArchitecture === undefined ||
        each.compatibleArchitectures.includes(input.CompatibleArchitecture));
  return [
    operation(
      "GetLayerVersion",
      { action: "lambda:GetLayerVersion", input: version, resource },
      async (input, context) => {
        const { address, found } = await get(layers, input, context);
        return { body: withContent(address, found, locate(found.digest, context)) };
      },
    ),
    operation(
      "GetLayerVersionByArn",
      { action: "lambda:GetLayerVersion", input: z.object({ Arn: z.string() }), resource: ({ Arn }) => Arn },
      async ({ Arn }, context) => {
        const [, name, number] = /^layer:([\w-]+):(\d+)$/.exec(parseArn(Arn)?.resource ?? "") ?? [];
        if (name === undefined || number === undefined) throw invalid(`'${Arn}' is not the ARN of a layer version.`);
        const { address, found } = await get(layers, { LayerName: name, VersionNumber: Number(number) }, context);
        return { body: withContent(address, found, locate(found.digest, context)) };
      },
    ),
    operation(
      "ListLayers",
      { action: "lambda:ListLayers", input: z.object({ ...page, ...filters }) },
      async (input, context) => {
        const all = await layers.list(context.principal.namespace);
        const matching = all.flatMap((layer) => {
          const newest = layer.versions.filter(fits(input)).at(-1);
          return newest === undefined ? [] : [{ layer, newest }];
        });
        const { items, next } = paged(matching, input, ({ layer }) => layer.name);
        const told = items.map(({ layer, newest }) => {
          const address = addressOf(layer.name, context);
          return { LayerName: layer.name, LayerArn: address.arn, LatestMatchingVersion: shape(address, newest) };
        });
        return { body: { Layers: told, ...next } };
      },
    ),
    operation(
      "ListLayerVersions",
      { action: "lambda:ListLayerVersions", input: one.extend({ ...page, ...filters }), resource },
      async (input, context) => {
        const address = addressOf(input.LayerName, context);
        const layer = await layers.find(context.principal.namespace, address.name);
        const all = (layer?.versions ?? []).filter(fits(input)).toReversed();
        const { items, next } = paged(all, input, ({ number }) => String(number));
        return { body: { LayerVersions: items.map((each) => shape(address, each)), ...next } };
      },
    ),
  ];
}

function permissions(layers: Layers): readonly Operation[] {
  const change = async (
    context: CallContext,
    of: { readonly address: Address; readonly found: LayerVersion },
    statements: LayerVersion["statements"],
  ): Promise<string> => {
    const policyRevisionId = newRevisionId();
    await layers.change(context.principal.namespace, of.address.name, (layer) => ({
      ...layer,
      versions: layer.versions.map((each) =>
        each.number === of.found.number ? { ...each, statements, policyRevisionId } : each,
      ),
    }));
    return policyRevisionId;
  };
  const statementId = z.string().regex(/^[\w-]{1,100}$/);
  return [
    operation(
      "AddLayerVersionPermission",
      {
        action: "lambda:AddLayerVersionPermission",
        input: version.extend({
          StatementId: statementId,
          Action: z.literal("lambda:GetLayerVersion"),
          Principal: z.string().min(1),
          OrganizationId: z.string().optional(),
          RevisionId: revisionId,
        }),
        resource,
      },
      async (input, context) => {
        const of = await get(layers, input, context);
        checkRevision(of.found.policyRevisionId, input.RevisionId);
        if (of.found.statements.some(({ Sid }) => Sid === input.StatementId))
          throw new AwsError(
            "ResourceConflictException",
            `The statement id (${input.StatementId}) provided already exists.`,
            { status: 409 },
          );
        const { Principal } = input;
        const statement = {
          Sid: input.StatementId,
          Effect: "Allow",
          Principal:
            Principal === "*"
              ? "*"
              : { AWS: /^\d{12}$/.test(Principal) ? `arn:aws:iam::${Principal}:root` : Principal },
          Action: input.Action,
          Resource: `${of.address.arn}:${of.found.number}`,
          ...(input.OrganizationId === undefined
            ? {}
            : { Condition: { StringEquals: { "aws:PrincipalOrgID": input.OrganizationId } } }),
        };
        const RevisionId = await change(context, of, [...of.found.statements, statement]);
        return { status: 201, body: { Statement: JSON.stringify(statement), RevisionId } };
      },
    ),
    operation(
      "GetLayerVersionPolicy",
      { action: "lambda:GetLayerVersionPolicy", input: version, resource },
      async (input, context) => {
        const { found } = await get(layers, input, context);
        if (found.statements.length === 0)
          throw new AwsError("ResourceNotFoundException", "No policy is associated with the given resource.", {
            status: 404,
          });
        const Policy = JSON.stringify({ Version: "2012-10-17", Id: "default", Statement: found.statements });
        return { body: { Policy, RevisionId: found.policyRevisionId } };
      },
    ),
    operation(
      "RemoveLayerVersionPermission",
      {
        action: "lambda:RemoveLayerVersionPermission",
        input: version.extend({ StatementId: statementId, RevisionId: revisionId }),
        resource,
      },
      async (input, context) => {
        const of = await get(layers, input, context);
        checkRevision(of.found.policyRevisionId, input.RevisionId);
        if (!of.found.statements.some(({ Sid }) => Sid === input.StatementId))
          throw new AwsError(
            "ResourceNotFoundException",
            `Statement ${input.StatementId} is not found in resource policy.`,
            { status: 404 },
          );
        await change(
          context,
          of,
          of.found.statements.filter(({ Sid }) => Sid !== input.StatementId),
        );
        return { status: 204, body: null };
      },
    ),
  ];
}
