import { z } from "zod";
import { AwsError } from "../../wire/error.ts";
import { type Operation, operation } from "../../wire/service.ts";
import { checkRevision, type Found, ignoreMissing, type LambdaFunctions, refOf } from "../functions.ts";
import { functionArn, invalid, parseFunctionName } from "../names.ts";
import { LATEST, type LambdaAlias, newRevisionId } from "../records.ts";
import { one, page, paged, resourceOf, revisionId } from "./inputs.ts";

const aliasName = z
  .string()
  .regex(/^(?![0-9]+$)[\w-]{1,128}$/, "Member must be letters, digits, '-' and '_', and no number");
const named = one.extend({ Name: aliasName });
const version = z.string().regex(/^(?:\$LATEST|[1-9]\d*)$/);
const routing = z.object({ AdditionalVersionWeights: z.record(version, z.number().min(0).max(1)).optional() });
const settings = {
  Description: z.string().max(256).optional(),
  RoutingConfig: routing.optional(),
};

export function aliasOperations(functions: LambdaFunctions): readonly Operation[] {
  const findFunction = async (
    input: { readonly FunctionName: string },
    context: Parameters<Operation["run"]>[1],
  ): Promise<Found> => await functions.find(parseFunctionName(input.FunctionName, undefined, context), context);
  const aliasOf = (found: Found, name: string, region: string): LambdaAlias => {
    const alias = found.record.aliases.find((each) => each.name === name);
    if (alias !== undefined) return alias;
    const arn = functionArn(found.name.namespace, found.name.name, { region, qualifier: name });
    throw new AwsError("ResourceNotFoundException", `Cannot find alias arn: ${arn}`, { status: 404 });
  };
  return [
    operation(
      "CreateAlias",
      {
        action: "lambda:CreateAlias",
        input: named.extend({ FunctionVersion: version, ...settings }),
        resource: resourceOf,
      },
      async (input, context) => {
        const found = await findFunction(input, context);
        if (found.record.aliases.some((alias) => alias.name === input.Name)) {
          const arn = functionArn(found.name.namespace, found.name.name, {
            region: context.region,
            qualifier: input.Name,
          });
          throw new AwsError("ResourceConflictException", `Alias already exists: ${arn}`, { status: 409 });
        }
        const alias = await put(functions, found, {
          name: input.Name,
          version: input.FunctionVersion,
          description: input.Description ?? "",
          weights: input.RoutingConfig?.AdditionalVersionWeights ?? {},
          revisionId: newRevisionId(),
        });
        return { status: 201, body: shape(found, alias, context.region) };
      },
    ),
    operation(
      "UpdateAlias",
      {
        action: "lambda:UpdateAlias",
        input: named.extend({ FunctionVersion: version.optional(), RevisionId: revisionId, ...settings }),
        resource: resourceOf,
      },
      async (input, context) => {
        const found = await findFunction(input, context);
        const before = aliasOf(found, input.Name, context.region);
        checkRevision(before.revisionId, input.RevisionId);
        const alias = await put(functions, found, {
          name: input.Name,
          version: input.FunctionVersion ?? before.version,
          description: input.Description ?? before.description,
          weights:
            input.RoutingConfig === undefined ? before.weights : (input.RoutingConfig.AdditionalVersionWeights ?? {}),
          revisionId: newRevisionId(),
        });
        return { body: shape(found, alias, context.region) };
      },
    ),
    operation("GetAlias", { action: "lambda:GetAlias", input: named, resource: resourceOf }, async (input, context) => {
      const found = await findFunction(input, context);
      return { body: shape(found, aliasOf(found, input.Name, context.region), context.region) };
    }),
    operation(
      "ListAliases",
      {
        action: "lambda:ListAliases",
        input: one.extend({ ...page, FunctionVersion: version.optional() }),
        resource: resourceOf,
      },
      async (input, context) => {
        const found = await findFunction(input, context);
        const all = found.record.aliases.filter(
          (alias) => input.FunctionVersion === undefined || alias.version === input.FunctionVersion,
        );
        const { items, next } = paged(all, input, ({ name }) => name);
        return { body: { Aliases: items.map((alias) => shape(found, alias, context.region)), ...next } };
      },
    ),
    operation(
      "DeleteAlias",
      { action: "lambda:DeleteAlias", input: named, resource: resourceOf },
      async (input, context) => {
        const found = await findFunction(input, context);
        if (found.record.aliases.some((alias) => alias.name === input.Name)) {
          await functions.change(found, (record) => ({
            ...record,
            aliases: record.aliases.filter(({ name }) => name !== input.Name),
          }));
          await functions.platform.deleteAlias(refOf(found.name), input.Name).catch(ignoreMissing);
        }
        return { status: 204, body: null };
      },
    ),
  ];
}

/** Keeps an alias, and makes one of the platform of the same name, so that every way to the function knows it. */
async function put(functions: LambdaFunctions, found: Found, alias: LambdaAlias): Promise<LambdaAlias> {
  const { record } = found;
  const numberOf = (wanted: string): number => {
    const snapshot = wanted === LATEST ? record.latest : record.published.find((each) => each.version === wanted);
    if (snapshot !== undefined) return snapshot.number;
    throw new AwsError("ResourceNotFoundException", `Function not found: ${found.name.name}:${wanted}`, {
      status: 404,
    });
  };
  const weights = Object.entries(alias.weights);
  if (weights.length > 1) throw invalid("Number of items in AdditionalVersionWeights cannot be greater than 1.");
  const [additional] = weights;
  if (additional !== undefined && additional[0] === alias.version)
    throw invalid(
      `Invalid function version ${additional[0]}. Function version ${additional[0]} is already included in routing configuration.`,
    );
  if (additional !== undefined && (alias.version === LATEST || additional[0] === LATEST))
    throw invalid("$LATEST is not supported for an alias pointing to more than 1 version");
  await functions.platform.putAlias(refOf(found.name), alias.name, {
    version: numberOf(alias.version),
    ...(additional === undefined ? {} : { additional: { version: numberOf(additional[0]), weight: additional[1] } }),
  });
  await functions.change(found, (before) => ({
    ...before,
    aliases: [...before.aliases.filter(({ name }) => name !== alias.name), alias].sort((a, b) =>
      a.name < b.name ? -1 : 1,
    ),
  }));
  return alias;
}

function shape({ name }: Found, alias: LambdaAlias, region: string): Record<string, unknown> {
  return {
    AliasArn: functionArn(name.namespace, name.name, { region, qualifier: alias.name }),
    Name: alias.name,
    FunctionVersion: alias.version,
    Description: alias.description,
    ...(Object.keys(alias.weights).length === 0 ? {} : { RoutingConfig: { AdditionalVersionWeights: alias.weights } }),
    RevisionId: alias.revisionId,
  };
}
