import { z } from "zod";
import { DEFAULT_NAMESPACE } from "../../../core/function.ts";
import { accountIdOf, parseArn } from "../account.ts";
import type { IamAccess, SessionCredentials } from "../iam/access.ts";
import type { IamDirectory, Role } from "../iam/directory.ts";
import { checkedPolicy, document } from "../iam/operations/shapes.ts";
import { evaluate } from "../iam/policy.ts";
import { AwsError } from "../wire/error.ts";
import { type CallContext, operation, type Service } from "../wire/service.ts";

export interface StsParts {
  readonly directory: IamDirectory;
  readonly access: IamAccess;
}

const ANONYMOUS_ROLE_ID = "AROALOCALROLE0000000";

/** The Security Token Service: who am I, and keys for a while. */
export function createSts({ directory, access }: StsParts): Service {
  const operations = [
    operation("GetCallerIdentity", { action: null, input: z.object({}) }, async (_, { principal }) => ({
      body: { UserId: principal.userId, Account: principal.accountId, Arn: principal.arn },
    })),
    operation(
      "GetSessionToken",
      {
        action: null,
        input: z.object({ DurationSeconds: z.coerce.number().int().min(900).max(129_600).default(43_200) }),
      },
      async ({ DurationSeconds }, { principal }) => {
        // Or a session could outlive its end, and what narrows it.
        if (principal.session !== null)
          throw new AwsError("AccessDenied", "Cannot call GetSessionToken with session credentials", { status: 403 });
        return {
          body: { Credentials: shape(access.openSession(principal, { seconds: DurationSeconds, policy: null })) },
        };
      },
    ),
    operation(
      "AssumeRole",
      {
        action: "sts:AssumeRole",
        input: z.object({
          RoleArn: z.string().min(20).max(2_048),
          RoleSessionName: z.string().regex(/^[\w+=,.@-]{2,64}$/),
          DurationSeconds: z.coerce.number().int().min(900).max(43_200).default(3_600),
          Policy: document.optional(),
          ExternalId: z.string().max(1_224).optional(),
        }),
        resource: ({ RoleArn }) => RoleArn,
      },
      async ({ RoleArn, RoleSessionName, DurationSeconds, Policy, ExternalId }, context) => {
        const role = assumable({ directory, access }, RoleArn, { context, ExternalId });
        if (DurationSeconds > role.maxSessionSeconds)
          throw new AwsError(
            "ValidationError",
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
          );
        const principal = access.inRole(context.principal.namespace, role, RoleSessionName);
        const policy = Policy === undefined ? null : checkedPolicy(Policy);
        const credentials = access.openSession(principal, { seconds: DurationSeconds, policy });
        const AssumedRoleUser = { AssumedRoleId: principal.userId, Arn: principal.arn };
        return { body: { Credentials: shape(credentials), AssumedRoleUser, PackedPolicySize: 0 } };
      },
    ),
    operation(
      "GetAccessKeyInfo",
      { action: "sts:GetAccessKeyInfo", input: z.object({ AccessKeyId: z.string().min(16).max(128) }) },
      async ({ AccessKeyId }) => ({
        body: { Account: accountIdOf(directory.holderOf(AccessKeyId)?.namespace ?? DEFAULT_NAMESPACE) },
      }),
    ),
  ];
  return {
    name: "sts",
    protocols: ["query"],
    target: null,
    queryVersion: "2011-06-15",
    xmlNamespace: "https://sts.amazonaws.com/doc/2011-06-15/",
    operations: new Map(operations.map((each) => [each.name, each])),
    route: () => null,
    queryErrors: { ValidationException: "ValidationError", AccessDeniedException: "AccessDenied" },
  };
}

/**
 * A role that the caller may take on. While nobody has keys, everybody is the operator, and a role that was never made stands for itself:
 * tools name roles that exist in the cloud only.
 */
function assumable(
  { directory, access }: StsParts,
  roleArn: string,
  { context, ExternalId }: { readonly context: CallContext; readonly ExternalId: string | undefined },
): Role {
  const { principal } = context;
  const refused = new AwsError(
    "AccessDenied",
    `User: ${principal.arn} is not authorized to perform: sts:AssumeRole on resource: ${roleArn}`,
    {
      status: 403,
    },
  );
  const arn = parseArn(roleArn);
  const name = arn?.resource.startsWith("role/") === true ? arn.resource.split("/").at(-1) : undefined;
  if (name === undefined) throw new AwsError("ValidationError", `${roleArn} is invalid`);
  const role = arn?.accountId === principal.accountId ? directory.find("role", principal.namespace, name) : null;
  if (role === null) {
    if (access.configured) throw refused;
    const none = { inline: {}, attached: [], tags: {}, description: "", createdAtMs: context.nowMs };
    return { kind: "role", path: "/", name, id: ANONYMOUS_ROLE_ID, trust: "{}", maxSessionSeconds: 43_200, ...none };
  }
  if (!access.configured) return role;
  const decision = evaluate([access.parsed(role.trust)], {
    principalArn: principal.arn,
    principalAccountId: principal.accountId,
    action: "sts:AssumeRole",
    resource: roleArn,
    conditions: ExternalId === undefined ? {} : { "sts:ExternalId": ExternalId },
  });
  if (decision !== "allow") throw refused;
  return role;
}

function shape(credentials: SessionCredentials): Readonly<Record<string, unknown>> {
  return {
    AccessKeyId: credentials.accessKeyId,
    SecretAccessKey: credentials.secretAccessKey,
    SessionToken: credentials.sessionToken,
    Expiration: new Date(credentials.expiresAtMs),
  };
}
