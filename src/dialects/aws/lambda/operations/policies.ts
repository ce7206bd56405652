import { z } from "zod";
import { AwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import { checkRevision, type Found, type LambdaFunctions } from "../functions.ts";
import { functionArn, parseFunctionName } from "../names.ts";
import { LATEST, newRevisionId, type PolicyStatement } from "../records.ts";
import { qualified, resourceOf, revisionId } from "./inputs.ts";

const POLICY_BYTES_MAX = 20_480;
const statementId = z.string().regex(/^[\w-]{1,100}$/);

/** Resource policies: who from elsewhere, services above all, may invoke a function. */
export function policyOperations(functions: LambdaFunctions): readonly Operation[] {
  const find = async (
    input: { readonly FunctionName: string; readonly Qualifier?: string | undefined },
    context: CallContext,
  ): Promise<Found> => await functions.find(parseFunctionName(input.FunctionName, input.Qualifier, context), context);
  const keyOf = (found: Found): string => found.name.qualifier ?? LATEST;
  const missing = (what: string): AwsError => new AwsError("ResourceNotFoundException", what, { status: 404 });
  return [
    operation(
      "AddPermission",
      {
        action: "lambda:AddPermission",
        input: qualified.extend({
          StatementId: statementId,
          Action: z.string().regex(/^(?:lambda:\w+|\*)$/),
          Principal: z.string().min(1).max(256),
          SourceArn: z.string().optional(),
          SourceAccount: z
            .string()
            .regex(/^\d{12}$/)
            .optional(),
          EventSourceToken: z.string().optional(),
          FunctionUrlAuthType: z.enum(["NONE", "AWS_IAM"]).optional(),
          InvokedViaFunctionUrl: z.boolean().optional(),
          PrincipalOrgID: z.string().optional(),
          RevisionId: revisionId,
        }),
        resource: resourceOf,
      },
      async (input, context) => {
        const found = await find(input, context);
        const key = keyOf(found);
        const before = found.record.policies[key];
        if (input.RevisionId !== undefined) checkRevision(before?.revisionId ?? "", input.RevisionId);
        if (before?.statements.some(({ Sid }) => Sid === input.StatementId) === true)
          throw new AwsError(
            "ResourceConflictException",
            `The statement id (${input.StatementId}) provided already exists. Please provide a new statement id, or remove the existing statement.`,
            {
              status: 409,
            },
          );
        const statement = statementOf(
          input,
          functionArn(found.name.namespace, found.name.name, {
            region: context.region,
            qualifier: found.name.qualifier,
          }),
        );
        const statements = [...(before?.statements ?? []), statement];
        if (Buffer.byteLength(JSON.stringify(statements)) > POLICY_BYTES_MAX)
          throw new AwsError(
            "PolicyLengthExceededException",
            `The final policy size is bigger than the limit (${POLICY_BYTES_MAX}).`,
          );
        const entry = { statements, revisionId: newRevisionId() };
        await functions.change(found, (record) => ({ ...record, policies: { ...record.policies, [key]: entry } }));
        return { status: 201, body: { Statement: JSON.stringify(statement) } };
      },
    ),
    operation(
      "GetPolicy",
      { action: "lambda:GetPolicy", input: qualified, resource: resourceOf },
      async (input, context) => {
        const found = await find(input, context);
        const policy = found.record.policies[keyOf(found)];
        if (policy === undefined || policy.statements.length === 0)
          throw missing("The resource you requested does not exist.");
        const Policy = JSON.stringify({ Version: "2012-10-17", Id: "default", Statement: policy.statements });
        return { body: { Policy, RevisionId: policy.revisionId } };
      },
    ),
    operation(
      "RemovePermission",
      {
        action: "lambda:RemovePermission",
        input: qualified.extend({ StatementId: statementId, RevisionId: revisionId }),
        resource: resourceOf,
      },
      async (input, context) => {
        const found = await find(input, context);
        const key = keyOf(found);
        const policy = found.record.policies[key];
        if (policy === undefined || !policy.statements.some(({ Sid }) => Sid === input.StatementId))
          throw missing(`Statement ${input.StatementId} is not found in resource policy.`);
        checkRevision(policy.revisionId, input.RevisionId);
        const statements = policy.statements.filter(({ Sid }) => Sid !== input.StatementId);
        await functions.change(found, (record) => ({
          ...record,
          policies: { ...record.policies, [key]: { statements, revisionId: newRevisionId() } },
        }));
        return { status: 204, body: null };
      },
    ),
  ];
}

function statementOf(
  input: {
    readonly StatementId: string;
    readonly Action: string;
    readonly Principal: string;
    readonly SourceArn?: string | undefined;
    readonly SourceAccount?: string | undefined;
    readonly EventSourceToken?: string | undefined;
    readonly FunctionUrlAuthType?: string | undefined;
    readonly PrincipalOrgID?: string | undefined;
  },
  resource: string,
): PolicyStatement {
  const { Principal } = input;
  const principal = /^[\w-]+(?:\.[\w-]+)*\.amazonaws\.com(?:\.cn)?$/.test(Principal)
    ? { Service: Principal }
    : { AWS: /^\d{12}$/.test(Principal) ? `arn:aws:iam::${Principal}:root` : Principal };
  const condition = {
    ...(input.SourceArn === undefined ? {} : { ArnLike: { "AWS:SourceArn": input.SourceArn } }),
    ...stringEquals({
      "AWS:SourceAccount": input.SourceAccount,
      "lambda:EventSourceToken": input.EventSourceToken,
      "lambda:FunctionUrlAuthType": input.FunctionUrlAuthType,
      "aws:PrincipalOrgID": input.PrincipalOrgID,
    }),
  };
  return {
    Sid: input.StatementId,
    Effect: "Allow",
    Principal: Principal === "*" ? "*" : principal,
    Action: input.Action,
    Resource: resource,
    ...(Object.keys(condition).length === 0 ? {} : { Condition: condition }),
  };
}

function stringEquals(keys: Readonly<Record<string, string | undefined>>): Record<string, unknown> {
  const given = Object.entries(keys).filter(([, value]) => value !== undefined);
  return given.length === 0 ? {} : { StringEquals: Object.fromEntries(given) };
}
