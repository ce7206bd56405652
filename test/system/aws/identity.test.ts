import {
  AttachRolePolicyCommand,
  AttachUserPolicyCommand,
  CreateAccessKeyCommand,
  CreatePolicyCommand,
  CreatePolicyVersionCommand,
  CreateRoleCommand,
  CreateUserCommand,
  DeleteAccessKeyCommand,
  DeletePolicyCommand,
  DeletePolicyVersionCommand,
  DeleteRoleCommand,
  DeleteRolePolicyCommand,
  DeleteUserCommand,
  DeleteUserPolicyCommand,
  DetachRolePolicyCommand,
  DetachUserPolicyCommand,
  GetAccessKeyLastUsedCommand,
  GetPolicyCommand,
  GetPolicyVersionCommand,
  GetRoleCommand,
  GetRolePolicyCommand,
  GetUserCommand,
  GetUserPolicyCommand,
  IAMClient,
  ListAccessKeysCommand,
  ListAttachedRolePoliciesCommand,
  ListAttachedUserPoliciesCommand,
  ListEntitiesForPolicyCommand,
  ListInstanceProfilesForRoleCommand,
  ListPoliciesCommand,
  ListPolicyVersionsCommand,
  ListRolePoliciesCommand,
  ListRolesCommand,
  ListRoleTagsCommand,
  ListUserPoliciesCommand,
  ListUsersCommand,
  ListUserTagsCommand,
  PutRolePolicyCommand,
  PutUserPolicyCommand,
  SetDefaultPolicyVersionCommand,
  SimulateCustomPolicyCommand,
  TagRoleCommand,
  TagUserCommand,
  UntagRoleCommand,
  UntagUserCommand,
  UpdateAccessKeyCommand,
  UpdateAssumeRolePolicyCommand,
  UpdateRoleCommand,
  UpdateRoleDescriptionCommand,
  UpdateUserCommand,
} from "@aws-sdk/client-iam";
import {
  AssumeRoleCommand,
  GetAccessKeyInfoCommand,
  GetCallerIdentityCommand,
  GetSessionTokenCommand,
  STSClient,
} from "@aws-sdk/client-sts";
import assert from "node:assert/strict";
import { test } from "node:test";
import { type RunningPlatform, startPlatform } from "../platform.ts";

interface Keys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

const ANY_KEYS: Keys = { accessKeyId: "test", secretAccessKey: "test" };

function iam({ url }: RunningPlatform, credentials: Keys = ANY_KEYS): IAMClient {
  return new IAMClient({ endpoint: url, region: "us-east-1", credentials, maxAttempts: 1 });
}

function sts({ url }: RunningPlatform, credentials: Keys = ANY_KEYS): STSClient {
  return new STSClient({ endpoint: url, region: "us-east-1", credentials, maxAttempts: 1 });
}

const document = (...Statement: readonly object[]): string => JSON.stringify({ Version: "2012-10-17", Statement });
const trustOf = (principal: object): string =>
  document({ Effect: "Allow", Principal: principal, Action: "sts:AssumeRole" });
const named = (name: string) => (thrown: unknown) => thrown instanceof Error && thrown.name === name;

/** A user with a key, as an administrator makes one. */
async function makeUser(admin: IAMClient, name: string, policy: string): Promise<Keys> {
  await admin.send(new CreateUserCommand({ UserName: name }));
  await admin.send(new PutUserPolicyCommand({ UserName: name, PolicyName: "own", PolicyDocument: policy }));
  const { AccessKey } = await admin.send(new CreateAccessKeyCommand({ UserName: name }));
  return { accessKeyId: AccessKey?.AccessKeyId ?? "", secretAccessKey: AccessKey?.SecretAccessKey ?? "" };
}

test("without keys of its own, the platform takes every key as the root of account 000000000000", async () => {
  await using platform = await startPlatform();
  const identity = await sts(platform).send(new GetCallerIdentityCommand({}));
  assert.equal(identity.Account, "000000000000");
  assert.equal(identity.Arn, "arn:aws:iam::000000000000:root");
  const { Credentials } = await sts(platform).send(
    new AssumeRoleCommand({ RoleArn: "arn:aws:iam::000000000000:role/of-the-cloud", RoleSessionName: "dev" }),
  );
  const session = {
    accessKeyId: Credentials?.AccessKeyId ?? "",
    secretAccessKey: Credentials?.SecretAccessKey ?? "",
    sessionToken: Credentials?.SessionToken ?? "",
  };
  const assumed = await sts(platform, session).send(new GetCallerIdentityCommand({}));
  assert.equal(assumed.Arn, "arn:aws:sts::000000000000:assumed-role/of-the-cloud/dev");
});

test("once there is a key, only known keys with the right secret are taken, and each may do what its policies say", async () => {
  await using platform = await startPlatform();
  const admin = await makeUser(iam(platform), "admin", document({ Effect: "Allow", Action: "*", Resource: "*" }));
  await assert.rejects(iam(platform).send(new ListUsersCommand({})), named("UnrecognizedClientException"));
  const forged = { ...admin, secretAccessKey: `${admin.secretAccessKey}x` };
  await assert.rejects(iam(platform, forged).send(new ListUsersCommand({})), named("SignatureDoesNotMatch"));
  const reader = await makeUser(
    iam(platform, admin),
    "reader",
    document(
      { Effect: "Allow", Action: "iam:List*", Resource: "*" },
      { Effect: "Deny", Action: "iam:ListRoles", Resource: "*" },
    ),
  );
  const client = iam(platform, reader);
  assert.deepEqual(
    (await client.send(new ListUsersCommand({}))).Users?.map(({ UserName }) => UserName),
    ["admin", "reader"],
  );
  await assert.rejects(client.send(new ListRolesCommand({})), named("AccessDenied"));
  await assert.rejects(client.send(new CreateUserCommand({ UserName: "mallory" })), named("AccessDenied"));
  assert.equal(
    (await sts(platform, reader).send(new GetCallerIdentityCommand({}))).Arn,
    "arn:aws:iam::000000000000:user/reader",
  );

  await platform.kill9();
  await platform.restart();
  assert.equal((await iam(platform, admin).send(new GetUserCommand({}))).User?.UserName, "admin");
  await iam(platform, admin).send(
    new UpdateAccessKeyCommand({ UserName: "reader", AccessKeyId: reader.accessKeyId, Status: "Inactive" }),
  );
  await assert.rejects(iam(platform, reader).send(new ListUsersCommand({})), named("UnrecognizedClientException"));
  assert.ok(!platform.output.includes(admin.secretAccessKey));
});

test("a role is assumed by whom it trusts, and its session may do what role and session policy both allow", async () => {
  await using platform = await startPlatform();
  const admin = await makeUser(iam(platform), "admin", document({ Effect: "Allow", Action: "*", Resource: "*" }));
  const other = await makeUser(
    iam(platform, admin),
    "other",
    document({ Effect: "Allow", Action: "sts:*", Resource: "*" }),
  );
  const trust = trustOf({ AWS: "arn:aws:iam::000000000000:user/admin" });
  const made = await iam(platform, admin).send(
    new CreateRoleCommand({ RoleName: "deployer", AssumeRolePolicyDocument: trust }),
  );
  await iam(platform, admin).send(
    new AttachRolePolicyCommand({ RoleName: "deployer", PolicyArn: "arn:aws:iam::aws:policy/IAMReadOnlyAccess" }),
  );
  const assume = { RoleArn: made.Role?.Arn, RoleSessionName: "ci" };
  await assert.rejects(sts(platform, other).send(new AssumeRoleCommand(assume)), named("AccessDenied"));
  const keysOf = async (Policy?: string): Promise<Keys> => {
    const { Credentials } = await sts(platform, admin).send(
      new AssumeRoleCommand({ ...assume, ...(Policy === undefined ? {} : { Policy }) }),
    );
    assert.ok((Credentials?.Expiration?.getTime() ?? 0) > Date.now());
    return {
      accessKeyId: Credentials?.AccessKeyId ?? "",
      secretAccessKey: Credentials?.SecretAccessKey ?? "",
      sessionToken: Credentials?.SessionToken ?? "",
    };
  };
  const wide = iam(platform, await keysOf());
  assert.equal((await wide.send(new GetRoleCommand({ RoleName: "deployer" }))).Role?.RoleName, "deployer");
  await assert.rejects(wide.send(new DeleteRoleCommand({ RoleName: "deployer" })), named("AccessDenied"));
  const narrow = iam(platform, await keysOf(document({ Effect: "Allow", Action: "iam:ListRoles", Resource: "*" })));
  assert.equal((await narrow.send(new ListRolesCommand({}))).Roles?.length, 1);
  await assert.rejects(narrow.send(new GetRoleCommand({ RoleName: "deployer" })), named("AccessDenied"));
  const renewing = sts(platform, await keysOf(document({ Effect: "Allow", Action: "iam:ListRoles", Resource: "*" })));
  await assert.rejects(renewing.send(new GetSessionTokenCommand({})), named("AccessDenied"));
});

test("every operation on users, roles and policies answers the SDK as it expects", async () => {
  await using platform = await startPlatform();
  const client = iam(platform);
  const policy = document({ Effect: "Allow", Action: "sqs:*", Resource: "*" });

  await client.send(new CreateUserCommand({ UserName: "ada", Path: "/team/", Tags: [{ Key: "a", Value: "1" }] }));
  await assert.rejects(client.send(new CreateUserCommand({ UserName: "ada" })), named("EntityAlreadyExistsException"));
  await assert.rejects(client.send(new GetUserCommand({ UserName: "nobody" })), named("NoSuchEntityException"));
  await client.send(new UpdateUserCommand({ UserName: "ada", NewPath: "/others/" }));
  await client.send(new TagUserCommand({ UserName: "ada", Tags: [{ Key: "b", Value: "2" }] }));
  await client.send(new UntagUserCommand({ UserName: "ada", TagKeys: ["a"] }));
  assert.deepEqual((await client.send(new ListUserTagsCommand({ UserName: "ada" }))).Tags, [{ Key: "b", Value: "2" }]);
  assert.equal(
    (await client.send(new GetUserCommand({ UserName: "ada" }))).User?.Arn,
    "arn:aws:iam::000000000000:user/others/ada",
  );
  await client.send(new PutUserPolicyCommand({ UserName: "ada", PolicyName: "p", PolicyDocument: policy }));
  const own = await client.send(new GetUserPolicyCommand({ UserName: "ada", PolicyName: "p" }));
  assert.equal(decodeURIComponent(own.PolicyDocument ?? ""), policy);
  assert.deepEqual((await client.send(new ListUserPoliciesCommand({ UserName: "ada" }))).PolicyNames, ["p"]);
  await assert.rejects(
    client.send(
      new PutUserPolicyCommand({
        UserName: "ada",
        PolicyName: "q",
        PolicyDocument: '{"Statement":[{"Effect":"Maybe"}]}',
      }),
    ),
    named("MalformedPolicyDocumentException"),
  );

  const made = (
    await client.send(new CreatePolicyCommand({ PolicyName: "queues", PolicyDocument: policy, Description: "d" }))
  ).Policy;
  const PolicyArn = made?.Arn ?? "";
  await client.send(new AttachUserPolicyCommand({ UserName: "ada", PolicyArn }));
  assert.equal(
    (await client.send(new ListAttachedUserPoliciesCommand({ UserName: "ada" }))).AttachedPolicies?.[0]?.PolicyName,
    "queues",
  );
  assert.equal((await client.send(new GetPolicyCommand({ PolicyArn }))).Policy?.AttachmentCount, 1);
  assert.equal((await client.send(new ListEntitiesForPolicyCommand({ PolicyArn }))).PolicyUsers?.[0]?.UserName, "ada");
  const next = await client.send(
    new CreatePolicyVersionCommand({ PolicyArn, PolicyDocument: policy, SetAsDefault: true }),
  );
  assert.equal(next.PolicyVersion?.VersionId, "v2");
  assert.equal((await client.send(new ListPolicyVersionsCommand({ PolicyArn }))).Versions?.length, 2);
  await client.send(new SetDefaultPolicyVersionCommand({ PolicyArn, VersionId: "v1" }));
  await client.send(new DeletePolicyVersionCommand({ PolicyArn, VersionId: "v2" }));
  assert.equal(
    (await client.send(new GetPolicyVersionCommand({ PolicyArn, VersionId: "v1" }))).PolicyVersion?.IsDefaultVersion,
    true,
  );
  assert.deepEqual(
    (await client.send(new ListPoliciesCommand({ Scope: "Local" }))).Policies?.map(({ Arn }) => Arn),
    [PolicyArn],
  );
  const first = await client.send(new ListPoliciesCommand({ Scope: "AWS", MaxItems: 5 }));
  assert.equal(first.IsTruncated, true);
  const second = await client.send(new ListPoliciesCommand({ Scope: "AWS", MaxItems: 5, Marker: first.Marker }));
  assert.equal(new Set([...(first.Policies ?? []), ...(second.Policies ?? [])].map(({ Arn }) => Arn)).size, 10);

  const keys = (await client.send(new CreateAccessKeyCommand({ UserName: "ada" }))).AccessKey;
  const asRoot = iam(platform, { accessKeyId: keys?.AccessKeyId ?? "", secretAccessKey: keys?.SecretAccessKey ?? "" });
  await assert.rejects(asRoot.send(new ListUsersCommand({})), named("AccessDenied"));
  assert.equal(
    (
      await sts(platform, { accessKeyId: keys?.AccessKeyId ?? "", secretAccessKey: keys?.SecretAccessKey ?? "" }).send(
        new GetSessionTokenCommand({}),
      )
    ).Credentials?.AccessKeyId?.startsWith("ASIA"),
    true,
  );
});

test("roles and what is attached to them can be told, changed and removed", async () => {
  await using platform = await startPlatform();
  const client = iam(platform);
  const trust = trustOf({ Service: "lambda.amazonaws.com" });
  const RoleName = "worker";
  await client.send(
    new CreateRoleCommand({ RoleName, AssumeRolePolicyDocument: trust, Tags: [{ Key: "x", Value: "y" }] }),
  );
  await client.send(new UpdateRoleCommand({ RoleName, Description: "one", MaxSessionDuration: 7_200 }));
  await client.send(new UpdateRoleDescriptionCommand({ RoleName, Description: "two" }));
  await client.send(new UpdateAssumeRolePolicyCommand({ RoleName, PolicyDocument: trust }));
  await client.send(new TagRoleCommand({ RoleName, Tags: [{ Key: "z", Value: "1" }] }));
  await client.send(new UntagRoleCommand({ RoleName, TagKeys: ["x"] }));
  const { Role } = await client.send(new GetRoleCommand({ RoleName }));
  assert.equal(Role?.Description, "two");
  assert.equal(Role?.MaxSessionDuration, 7_200);
  assert.equal(decodeURIComponent(Role?.AssumeRolePolicyDocument ?? ""), trust);
  assert.deepEqual((await client.send(new ListRoleTagsCommand({ RoleName }))).Tags, [{ Key: "z", Value: "1" }]);
  await client.send(
    new PutRolePolicyCommand({
      RoleName,
      PolicyName: "p",
      PolicyDocument: document({ Effect: "Allow", Action: "*", Resource: "*" }),
    }),
  );
  assert.equal((await client.send(new GetRolePolicyCommand({ RoleName, PolicyName: "p" }))).RoleName, RoleName);
  assert.deepEqual((await client.send(new ListRolePoliciesCommand({ RoleName }))).PolicyNames, ["p"]);
  const PolicyArn = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole";
  await client.send(new AttachRolePolicyCommand({ RoleName, PolicyArn }));
  assert.deepEqual((await client.send(new ListAttachedRolePoliciesCommand({ RoleName }))).AttachedPolicies, [
    { PolicyName: "AWSLambdaBasicExecutionRole", PolicyArn },
  ]);
  assert.deepEqual((await client.send(new ListInstanceProfilesForRoleCommand({ RoleName }))).InstanceProfiles, []);
  await assert.rejects(client.send(new DeleteRoleCommand({ RoleName })), named("DeleteConflictException"));
  await client.send(new DetachRolePolicyCommand({ RoleName, PolicyArn }));
  await client.send(new DeleteRolePolicyCommand({ RoleName, PolicyName: "p" }));
  await client.send(new DeleteRoleCommand({ RoleName }));
  await assert.rejects(client.send(new GetRoleCommand({ RoleName })), named("NoSuchEntityException"));

  const simulated = await client.send(
    new SimulateCustomPolicyCommand({
      PolicyInputList: [document({ Effect: "Allow", Action: "sqs:*", Resource: "*" })],
      ActionNames: ["sqs:SendMessage", "lambda:InvokeFunction"],
    }),
  );
  assert.deepEqual(
    simulated.EvaluationResults?.map(({ EvalDecision }) => EvalDecision),
    ["allowed", "implicitDeny"],
  );

  await client.send(new CreateUserCommand({ UserName: "bob" }));
  const made = (
    await client.send(
      new CreatePolicyCommand({
        PolicyName: "all",
        PolicyDocument: document({ Effect: "Allow", Action: "*", Resource: "*" }),
      }),
    )
  ).Policy;
  await client.send(new AttachUserPolicyCommand({ UserName: "bob", PolicyArn: made?.Arn }));
  const { AccessKey } = await client.send(new CreateAccessKeyCommand({ UserName: "bob" }));
  const keys = { accessKeyId: AccessKey?.AccessKeyId ?? "", secretAccessKey: AccessKey?.SecretAccessKey ?? "" };
  const bob = iam(platform, keys);
  assert.equal((await bob.send(new ListAccessKeysCommand({}))).AccessKeyMetadata?.length, 1);
  assert.equal((await bob.send(new GetAccessKeyLastUsedCommand({ AccessKeyId: keys.accessKeyId }))).UserName, "bob");
  assert.equal(
    (await sts(platform, keys).send(new GetAccessKeyInfoCommand({ AccessKeyId: keys.accessKeyId }))).Account,
    "000000000000",
  );
  await assert.rejects(bob.send(new DeleteUserCommand({ UserName: "bob" })), named("DeleteConflictException"));
  await bob.send(new DeleteUserPolicyCommand({ UserName: "bob", PolicyName: "none" })).catch(() => {});
  await assert.rejects(bob.send(new DeletePolicyCommand({ PolicyArn: made?.Arn })), named("DeleteConflictException"));
  await bob.send(new DeleteAccessKeyCommand({ AccessKeyId: keys.accessKeyId }));
  await client.send(new DetachUserPolicyCommand({ UserName: "bob", PolicyArn: made?.Arn }));
  await client.send(new DeletePolicyCommand({ PolicyArn: made?.Arn }));
  await client.send(new DeleteUserCommand({ UserName: "bob" }));
  assert.deepEqual((await client.send(new ListUsersCommand({}))).Users, []);
});
