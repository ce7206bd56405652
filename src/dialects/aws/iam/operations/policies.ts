import { z } from "zod";
import { AwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import { type ManagedPolicy, newIdentifier } from "../directory.ts";
import type { IamParts } from "../iam.ts";
import { vendorPolicies, vendorPolicy } from "../managed.ts";
import { evaluate } from "../policy.ts";
import { arnOf, checkedPolicy, document, name, page, paged, path, policyShape, tagRecord, tags } from "./shapes.ts";

const VERSIONS_MAX = 5;
const arn = z.string().min(20).max(2_048);
const one = z.object({ PolicyArn: arn });
const version = one.extend({ VersionId: z.string().regex(/^v[1-9]\d*$/) });
const flag = z.union([z.boolean(), z.enum(["true", "false"]).transform((text) => text === "true")]);

export function policyOperations(parts: IamParts): readonly Operation[] {
  return [...lifeOperations(parts), ...versionOperations(parts), ...simulation(parts)];
}

interface Tools {
  get(context: CallContext, policyArn: string): ManagedPolicy;
  attachments(
    namespace: string,
    policyArn: string,
  ): readonly { readonly kind: "user" | "role"; readonly name: string; readonly id: string }[];
}

function toolsOf({ directory }: IamParts): Tools {
  return {
    get: (context, policyArn) => {
      if (vendorPolicy(policyArn) === null)
        return directory.get("policy", context.principal.namespace, policyArn.split("/").at(-1) ?? "");
      const named = policyArn.split(":policy/").at(-1) ?? "";
      const slash = named.lastIndexOf("/");
      return {
        kind: "policy",
        path: slash < 0 ? "/" : `/${named.slice(0, slash + 1)}`,
        name: named.slice(slash + 1),
        id: "ANPAVENDORPOLICY0000",
        description: "",
        createdAtMs: 0,
        updatedAtMs: 0,
        tags: {},
        defaultVersion: "v1",
        versions: [{ id: "v1", document: JSON.stringify(vendorPolicy(policyArn)), createdAtMs: 0 }],
      };
    },
    attachments: (namespace, policyArn) =>
      [...directory.list("user", namespace), ...directory.list("role", namespace)]
        .filter(({ attached }) => attached.includes(policyArn))
        .map(({ kind, name: bearer, id }) => ({ kind, name: bearer, id })),
  };
}

const resource = ({ PolicyArn }: { readonly PolicyArn: string }): string => PolicyArn;

function lifeOperations(parts: IamParts): readonly Operation[] {
  const { directory } = parts;
  const { get, attachments } = toolsOf(parts);
  return [
    operation(
      "CreatePolicy",
      {
        action: "iam:CreatePolicy",
        input: z.object({
          PolicyName: name,
          Path: path,
          PolicyDocument: document,
          Description: z.string().max(1_000).default(""),
          Tags: tags,
        }),
      },
      async (input, { principal, nowMs }) => {
        const policy: ManagedPolicy = {
          kind: "policy",
          path: input.Path,
          name: input.PolicyName,
          id: newIdentifier("ANPA"),
          description: input.Description,
          createdAtMs: nowMs,
          updatedAtMs: nowMs,
          tags: tagRecord(input.Tags),
          defaultVersion: "v1",
          versions: [{ id: "v1", document: checkedPolicy(input.PolicyDocument), createdAtMs: nowMs }],
        };
        await directory.create(principal.namespace, policy);
        return { body: { Policy: policyShape(principal.namespace, policy, 0) } };
      },
    ),
    operation("GetPolicy", { action: "iam:GetPolicy", input: one, resource }, async ({ PolicyArn }, context) => {
      const policy = get(context, PolicyArn);
      const { namespace } = context.principal;
      const told = policyShape(namespace, policy, attachments(namespace, PolicyArn).length);
      return { body: { Policy: { ...told, Arn: PolicyArn } } };
    }),
    operation(
      "ListPolicies",
      {
        action: "iam:ListPolicies",
        input: z.object({
          ...page,
          Scope: z.enum(["All", "AWS", "Local"]).default("All"),
          OnlyAttached: flag.default(false),
          PathPrefix: z.string().default("/"),
        }),
      },
      async (input, context) => {
        const { namespace } = context.principal;
        const own = directory.list("policy", namespace).map((policy) => arnOf(namespace, "policy", policy));
        const vendor = [...vendorPolicies.keys()].map((each) => `arn:aws:iam::aws:policy/${each}`);
        const all = [...(input.Scope === "Local" ? [] : vendor), ...(input.Scope === "AWS" ? [] : own)].sort();
        const found = all.filter((each) => !input.OnlyAttached || attachments(namespace, each).length > 0);
        const shown = found.filter((each) => get(context, each).path.startsWith(input.PathPrefix));
        const { items, rest } = paged(shown, input, (each) => each);
        const told = items.map((each) => ({
          ...policyShape(namespace, get(context, each), attachments(namespace, each).length),
          Arn: each,
        }));
        return { body: { Policies: told, ...rest } };
      },
    ),
    operation("DeletePolicy", { action: "iam:DeletePolicy", input: one, resource }, async ({ PolicyArn }, context) => {
      const { namespace } = context.principal;
      const policy = directory.get("policy", namespace, PolicyArn.split("/").at(-1) ?? "");
      if (attachments(namespace, PolicyArn).length > 0)
        throw new AwsError("DeleteConflict", "Cannot delete a policy attached to entities.", { status: 409 });
      if (policy.versions.length > 1)
        throw new AwsError(
          "DeleteConflict",
          "This policy has more than one version. Before you delete a policy, you must delete the policy's versions.",
          {
            status: 409,
          },
        );
      await directory.remove(namespace, policy);
      return { body: null };
    }),
    operation(
      "ListEntitiesForPolicy",
      { action: "iam:ListEntitiesForPolicy", input: one, resource },
      async ({ PolicyArn }, context) => {
        get(context, PolicyArn);
        const all = attachments(context.principal.namespace, PolicyArn);
        const of = (kind: "user" | "role"): typeof all => all.filter((each) => each.kind === kind);
        return {
          body: {
            PolicyGroups: [],
            PolicyUsers: of("user").map((user) => ({ UserName: user.name, UserId: user.id })),
            PolicyRoles: of("role").map((role) => ({ RoleName: role.name, RoleId: role.id })),
            IsTruncated: false,
          },
        };
      },
    ),
  ];
}

function versionOperations(parts: IamParts): readonly Operation[] {
  const { directory } = parts;
  const { get } = toolsOf(parts);
  const noSuch = (VersionId: string): AwsError =>
    new AwsError("NoSuchEntity", `Policy version ${VersionId} does not exist or is not attachable.`, { status: 404 });
  const own = (context: CallContext, policyArn: string): ManagedPolicy =>
    directory.get("policy", context.principal.namespace, policyArn.split("/").at(-1) ?? "");
  const shape = (policy: ManagedPolicy, id: string, withDocument: boolean) => {
    const found = policy.versions.find((each) => each.id === id);
    if (found === undefined) throw noSuch(id);
    return {
      VersionId: id,
      IsDefaultVersion: policy.defaultVersion === id,
      CreateDate: new Date(found.createdAtMs),
      ...(withDocument ? { Document: encodeURIComponent(found.document) } : {}),
    };
  };
  return [
    operation(
      "CreatePolicyVersion",
      {
        action: "iam:CreatePolicyVersion",
        input: one.extend({ PolicyDocument: document, SetAsDefault: flag.default(false) }),
        resource,
      },
      async ({ PolicyArn, PolicyDocument, SetAsDefault }, context) => {
        const policy = own(context, PolicyArn);
        if (policy.versions.length >= VERSIONS_MAX)
          throw new AwsError("LimitExceeded", `A managed policy can have up to ${VERSIONS_MAX} versions.`, {
            status: 409,
          });
        const id = `v${Math.max(...policy.versions.map((each) => Number(each.id.slice(1)))) + 1}`;
        const added = { id, document: checkedPolicy(PolicyDocument), createdAtMs: context.nowMs };
        const changed = {
          ...policy,
          versions: [...policy.versions, added],
          defaultVersion: SetAsDefault ? id : policy.defaultVersion,
          updatedAtMs: context.nowMs,
        };
        await directory.replace(context.principal.namespace, changed);
        return { body: { PolicyVersion: shape(changed, id, false) } };
      },
    ),
    operation(
      "GetPolicyVersion",
      { action: "iam:GetPolicyVersion", input: version, resource },
      async ({ PolicyArn, VersionId }, context) => ({
        body: { PolicyVersion: shape(get(context, PolicyArn), VersionId, true) },
      }),
    ),
    operation(
      "ListPolicyVersions",
      { action: "iam:ListPolicyVersions", input: one.extend(page), resource },
      async (input, context) => {
        const policy = get(context, input.PolicyArn);
        return {
          body: {
            Versions: policy.versions.map(({ id }) => shape(policy, id, false)).toReversed(),
            IsTruncated: false,
          },
        };
      },
    ),
    operation(
      "SetDefaultPolicyVersion",
      { action: "iam:SetDefaultPolicyVersion", input: version, resource },
      async ({ PolicyArn, VersionId }, context) => {
        const policy = own(context, PolicyArn);
        shape(policy, VersionId, false);
        await directory.replace(context.principal.namespace, { ...policy, defaultVersion: VersionId });
        return { body: null };
      },
    ),
    operation(
      "DeletePolicyVersion",
      { action: "iam:DeletePolicyVersion", input: version, resource },
      async ({ PolicyArn, VersionId }, context) => {
        const policy = own(context, PolicyArn);
        shape(policy, VersionId, false);
        if (policy.defaultVersion === VersionId)
          throw new AwsError("DeleteConflict", "Cannot delete the default version of a policy.", { status: 409 });
        await directory.replace(context.principal.namespace, {
          ...policy,
          versions: policy.versions.filter(({ id }) => id !== VersionId),
        });
        return { body: null };
      },
    ),
  ];
}

function simulation({ access }: IamParts): readonly Operation[] {
  return [
    operation(
      "SimulateCustomPolicy",
      {
        action: "iam:SimulateCustomPolicy",
        input: z.object({
          PolicyInputList: z.array(document).min(1),
          ActionNames: z.array(z.string()).min(1).max(100),
          ResourceArns: z.array(z.string()).max(100).default(["*"]),
        }),
      },
      async ({ PolicyInputList, ActionNames, ResourceArns }, { principal }) => {
        const policies = PolicyInputList.map((text) => access.parsed(checkedPolicy(text)));
        const results = ActionNames.flatMap((action) =>
          ResourceArns.map((each) => {
            const asked = {
              principalArn: principal.arn,
              principalAccountId: principal.accountId,
              action,
              resource: each,
              conditions: {},
            };
            const decision = { allow: "allowed", deny: "explicitDeny", none: "implicitDeny" }[
              evaluate(policies, asked)
            ];
            return { EvalActionName: action, EvalResourceName: each, EvalDecision: decision };
          }),
        );
        return { body: { EvaluationResults: results, IsTruncated: false } };
      },
    ),
  ];
}
