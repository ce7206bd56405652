import { randomBytes } from "node:crypto";
import { z } from "zod";
import type { Values } from "../../../../store/store.ts";
import { accountIdOf } from "../../account.ts";
import { AwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import type { LambdaFunctions } from "../functions.ts";
import { functionArn } from "../names.ts";
import { page, paged } from "./inputs.ts";

interface SigningConfig {
  readonly id: string;
  readonly description: string;
  readonly publishers: unknown;
  readonly policies: unknown;
  readonly modifiedAtMs: number;
}

const COLLECTION = "aws.lambda.code-signing";
const CONFIGS_MAX = 1_000;
const members = {
  Description: z.string().max(256).optional(),
  AllowedPublishers: z.object({ SigningProfileVersionArns: z.array(z.string()).max(20) }).optional(),
  CodeSigningPolicies: z.object({ UntrustedArtifactOnDeployment: z.enum(["Warn", "Enforce"]).optional() }).optional(),
};
const named = z.object({ CodeSigningConfigArn: z.string().max(200) });
const resource = ({ CodeSigningConfigArn }: { readonly CodeSigningConfigArn: string }): string => CodeSigningConfigArn;

/** Code signing configurations: kept and told again, so that templates which name them deploy; nothing here checks signatures of code. */
export function codeSigningOperations(functions: LambdaFunctions, values: Values): readonly Operation[] {
  const arnOf = ({ id }: SigningConfig, { principal, region }: CallContext): string =>
    `arn:aws:lambda:${region}:${accountIdOf(principal.namespace)}:code-signing-config:${id}`;
  const keyOf = (arn: string, { principal }: CallContext): string => `${principal.namespace}/${arn.split(":").at(-1)}`;
  const shape = (config: SigningConfig, context: CallContext) => ({
    CodeSigningConfigId: config.id,
    CodeSigningConfigArn: arnOf(config, context),
    Description: config.description,
    AllowedPublishers: config.publishers,
    CodeSigningPolicies: config.policies,
    LastModified: new Date(config.modifiedAtMs).toISOString().replace("Z", "+0000"),
  });
  const find = async (arn: string, context: CallContext): Promise<SigningConfig> => {
    const entry = await values.get(COLLECTION, keyOf(arn, context));
    if (entry !== null) return entry.value as SigningConfig;
    throw new AwsError("ResourceNotFoundException", `The code signing configuration ${arn} does not exist.`, {
      status: 404,
    });
  };
  const put = async (config: SigningConfig, { principal }: CallContext): Promise<void> => {
    const key = `${principal.namespace}/${config.id}`;
    await values.commit([{ collection: COLLECTION, key, value: config, expect: "any" }]);
  };
  const usersOf = (arn: string, { principal, region }: CallContext): readonly string[] =>
    [...functions.records.all()]
      .filter(({ namespace, record }) => {
        const stored = record.stored["codeSigning"]?.["CodeSigningConfigArn"];
        return namespace === principal.namespace && stored === arn;
      })
      .map(({ namespace, name }) => functionArn(namespace, name, { region }));
  return [
    operation(
      "CreateCodeSigningConfig",
      { action: "lambda:CreateCodeSigningConfig", input: z.object(members) },
      async (input, context) => {
        const config: SigningConfig = {
          id: `csc-${randomBytes(9).toString("hex").slice(0, 17)}`,
          description: input.Description ?? "",
          publishers: input.AllowedPublishers ?? { SigningProfileVersionArns: [] },
          policies: { UntrustedArtifactOnDeployment: "Warn", ...input.CodeSigningPolicies },
          modifiedAtMs: context.nowMs,
        };
        await put(config, context);
        return { status: 201, body: { CodeSigningConfig: shape(config, context) } };
      },
    ),
    operation(
      "GetCodeSigningConfig",
      { action: "lambda:GetCodeSigningConfig", input: named, resource },
      async ({ CodeSigningConfigArn }, context) => ({
        body: { CodeSigningConfig: shape(await find(CodeSigningConfigArn, context), context) },
      }),
    ),
    operation(
      "UpdateCodeSigningConfig",
      { action: "lambda:UpdateCodeSigningConfig", input: named.extend(members), resource },
      async (input, context) => {
        const before = await find(input.CodeSigningConfigArn, context);
        const config: SigningConfig = {
          ...before,
          description: input.Description ?? before.description,
          publishers: input.AllowedPublishers ?? before.publishers,
          policies: input.CodeSigningPolicies ?? before.policies,
          modifiedAtMs: context.nowMs,
        };
        await put(config, context);
        return { body: { CodeSigningConfig: shape(config, context) } };
      },
    ),
    operation(
      "DeleteCodeSigningConfig",
      { action: "lambda:DeleteCodeSigningConfig", input: named, resource },
      async ({ CodeSigningConfigArn: arn }, context) => {
        await find(arn, context);
        if (usersOf(arn, context).length > 0)
          throw new AwsError("ResourceConflictException", `Functions use the configuration ${arn} still.`, {
            status: 409,
          });
        const key = keyOf(arn, context);
        await values.commit([{ collection: COLLECTION, key, value: null, expect: "any" }]);
        return { status: 204, body: null };
      },
    ),
    operation(
      "ListCodeSigningConfigs",
      { action: "lambda:ListCodeSigningConfigs", input: z.object(page) },
      async (input, context) => {
        const prefix = `${context.principal.namespace}/`;
        const all = await values.list(COLLECTION, { prefix, limit: CONFIGS_MAX });
        const { items, next } = paged(all, input, ({ key }) => key);
        return {
          body: { CodeSigningConfigs: items.map(({ value }) => shape(value as SigningConfig, context)), ...next },
        };
      },
    ),
    operation(
      "ListFunctionsByCodeSigningConfig",
      { action: "lambda:ListFunctionsByCodeSigningConfig", input: named.extend(page), resource },
      async (input, context) => {
        await find(input.CodeSigningConfigArn, context);
        const { items, next } = paged(usersOf(input.CodeSigningConfigArn, context), input, (arn) => arn);
        return { body: { FunctionArns: items, ...next } };
      },
    ),
  ];
}
