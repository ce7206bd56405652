import { z } from "zod";
import { AwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import { newIdentifier, type Role } from "../directory.ts";
import type { IamParts } from "../iam.ts";
import {
  arnOf,
  checkedPolicy,
  document,
  name,
  page,
  paged,
  path,
  roleShape,
  tagList,
  tagRecord,
  tags,
} from "./shapes.ts";

const one = z.object({ RoleName: name });
const description = z.string().max(1_000);
const sessionSeconds = z.coerce.number().int().min(3_600).max(43_200);

export function roleOperations({ directory }: IamParts): readonly Operation[] {
  const resource = (
    { RoleName }: { readonly RoleName: string },
    { principal }: Pick<CallContext, "principal">,
  ): string => arnOf(principal.namespace, "role", { path: "/", name: RoleName });
  const get = (context: CallContext, given: string): Role => directory.get("role", context.principal.namespace, given);
  const change = async (context: CallContext, given: string, by: (role: Role) => Partial<Role>): Promise<Role> => {
    const role = get(context, given);
    const changed = { ...role, ...by(role) };
    await directory.replace(context.principal.namespace, changed);
    return changed;
  };
  return [
    operation(
      "CreateRole",
      {
        action: "iam:CreateRole",
        input: one.extend({
          Path: path,
          AssumeRolePolicyDocument: document,
          Description: description.default(""),
          MaxSessionDuration: sessionSeconds.default(3_600),
          Tags: tags,
        }),
        resource,
      },
      async (input, { principal, nowMs }) => {
        const role: Role = {
          kind: "role",
          path: input.Path,
          name: input.RoleName,
          id: newIdentifier("AROA"),
          createdAtMs: nowMs,
          tags: tagRecord(input.Tags),
          inline: {},
          attached: [],
          trust: checkedPolicy(input.AssumeRolePolicyDocument),
          description: input.Description,
          maxSessionSeconds: input.MaxSessionDuration,
        };
        await directory.create(principal.namespace, role);
        return { body: { Role: roleShape(principal.namespace, role) } };
      },
    ),
    operation("GetRole", { action: "iam:GetRole", input: one, resource }, async ({ RoleName }, context) => ({
      body: { Role: roleShape(context.principal.namespace, get(context, RoleName)) },
    })),
    operation(
      "ListRoles",
      { action: "iam:ListRoles", input: z.object({ ...page, PathPrefix: z.string().default("/") }) },
      async (input, { principal }) => {
        const all = directory
          .list("role", principal.namespace)
          .filter((role) => role.path.startsWith(input.PathPrefix));
        const { items, rest } = paged(all, input, (role) => role.name);
        return { body: { Roles: items.map((role) => roleShape(principal.namespace, role)), ...rest } };
      },
    ),
    operation(
      "UpdateRole",
      {
        action: "iam:UpdateRole",
        input: one.extend({ Description: description.optional(), MaxSessionDuration: sessionSeconds.optional() }),
        resource,
      },
      async ({ RoleName, Description, MaxSessionDuration }, context) => {
        await change(context, RoleName, (role) => ({
          description: Description ?? role.description,
          maxSessionSeconds: MaxSessionDuration ?? role.maxSessionSeconds,
        }));
        return { body: {} };
      },
    ),
    operation(
      "UpdateRoleDescription",
      { action: "iam:UpdateRoleDescription", input: one.extend({ Description: description }), resource },
      async ({ RoleName, Description }, context) => {
        const role = await change(context, RoleName, () => ({ description: Description }));
        return { body: { Role: roleShape(context.principal.namespace, role) } };
      },
    ),
    operation(
      "UpdateAssumeRolePolicy",
      { action: "iam:UpdateAssumeRolePolicy", input: one.extend({ PolicyDocument: document }), resource },
      async ({ RoleName, PolicyDocument }, context) => {
        await change(context, RoleName, () => ({ trust: checkedPolicy(PolicyDocument) }));
        return { body: null };
      },
    ),
    operation("DeleteRole", { action: "iam:DeleteRole", input: one, resource }, async ({ RoleName }, context) => {
      const role = get(context, RoleName);
      if (role.attached.length > 0 || Object.keys(role.inline).length > 0)
        throw new AwsError("DeleteConflict", "Cannot delete entity, must detach all policies first.", { status: 409 });
      await directory.remove(context.principal.namespace, role);
      return { body: null };
    }),
    operation(
      "TagRole",
      { action: "iam:TagRole", input: one.extend({ Tags: tags }), resource },
      async ({ RoleName, Tags }, context) => {
        await change(context, RoleName, (role) => ({ tags: { ...role.tags, ...tagRecord(Tags) } }));
        return { body: null };
      },
    ),
    operation(
      "UntagRole",
      { action: "iam:UntagRole", input: one.extend({ TagKeys: z.array(z.string()) }), resource },
      async ({ RoleName, TagKeys }, context) => {
        await change(context, RoleName, (role) => ({
          tags: Object.fromEntries(Object.entries(role.tags).filter(([key]) => !TagKeys.includes(key))),
        }));
        return { body: null };
      },
    ),
    operation("ListRoleTags", { action: "iam:ListRoleTags", input: one, resource }, async ({ RoleName }, context) => ({
      body: { Tags: tagList(get(context, RoleName).tags), IsTruncated: false },
    })),
    operation(
      "ListInstanceProfilesForRole",
      { action: "iam:ListInstanceProfilesForRole", input: one, resource },
      async ({ RoleName }, context) => {
        get(context, RoleName);
        return { body: { InstanceProfiles: [], IsTruncated: false } };
      },
    ),
  ];
}
