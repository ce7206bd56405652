import { z } from "zod";
import { AwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import { newIdentifier, type User } from "../directory.ts";
import type { IamParts } from "../iam.ts";
import { arnOf, name, page, paged, path, tagList, tagRecord, tags, userShape } from "./shapes.ts";

const one = z.object({ UserName: name });

export function userOperations({ directory }: IamParts): readonly Operation[] {
  const resource = (
    { UserName }: { readonly UserName?: string | undefined },
    { principal }: Pick<CallContext, "principal">,
  ): string => (UserName === undefined ? "*" : arnOf(principal.namespace, "user", { path: "/", name: UserName }));
  const get = (context: CallContext, given: string): User => directory.get("user", context.principal.namespace, given);
  return [
    operation(
      "CreateUser",
      { action: "iam:CreateUser", input: z.object({ UserName: name, Path: path, Tags: tags }), resource },
      async ({ UserName, Path, Tags }, { principal, nowMs }) => {
        const user: User = {
          kind: "user",
          path: Path,
          name: UserName,
          id: newIdentifier("AIDA"),
          createdAtMs: nowMs,
          tags: tagRecord(Tags),
          inline: {},
          attached: [],
        };
        await directory.create(principal.namespace, user);
        return { body: { User: userShape(principal.namespace, user) } };
      },
    ),
    operation(
      "GetUser",
      { action: "iam:GetUser", input: z.object({ UserName: name.optional() }), resource },
      async ({ UserName }, context) => {
        const { principal, nowMs } = context;
        const own = /:user\/(?:.*\/)?([^/]+)$/.exec(principal.arn)?.[1];
        const wanted = UserName ?? own;
        if (wanted !== undefined) return { body: { User: userShape(principal.namespace, get(context, wanted)) } };
        return {
          body: { User: { UserId: principal.userId, Arn: principal.arn, Path: "/", CreateDate: new Date(nowMs) } },
        };
      },
    ),
    operation(
      "ListUsers",
      { action: "iam:ListUsers", input: z.object({ ...page, PathPrefix: z.string().default("/") }) },
      async (input, { principal }) => {
        const all = directory
          .list("user", principal.namespace)
          .filter((user) => user.path.startsWith(input.PathPrefix));
        const { items, rest } = paged(all, input, (user) => user.name);
        return { body: { Users: items.map((user) => userShape(principal.namespace, user)), ...rest } };
      },
    ),
    operation(
      "UpdateUser",
      { action: "iam:UpdateUser", input: one.extend({ NewPath: path.optional() }), resource },
      async ({ UserName, NewPath }, context) => {
        const user = get(context, UserName);
        await directory.replace(context.principal.namespace, { ...user, path: NewPath ?? user.path });
        return { body: null };
      },
    ),
    operation("DeleteUser", { action: "iam:DeleteUser", input: one, resource }, async ({ UserName }, context) => {
      const user = get(context, UserName);
      const { namespace } = context.principal;
      const holds = directory.list("key", namespace).some((key) => key.user === UserName);
      if (holds || user.attached.length > 0 || Object.keys(user.inline).length > 0)
        throw new AwsError("DeleteConflict", "Cannot delete entity, must remove its access keys and policies first.", {
          status: 409,
        });
      await directory.remove(namespace, user);
      return { body: null };
    }),
    operation(
      "TagUser",
      { action: "iam:TagUser", input: one.extend({ Tags: tags }), resource },
      async ({ UserName, Tags }, context) => {
        const user = get(context, UserName);
        await directory.replace(context.principal.namespace, { ...user, tags: { ...user.tags, ...tagRecord(Tags) } });
        return { body: null };
      },
    ),
    operation(
      "UntagUser",
      { action: "iam:UntagUser", input: one.extend({ TagKeys: z.array(z.string()) }), resource },
      async ({ UserName, TagKeys }, context) => {
        const user = get(context, UserName);
        const kept = Object.fromEntries(Object.entries(user.tags).filter(([key]) => !TagKeys.includes(key)));
        await directory.replace(context.principal.namespace, { ...user, tags: kept });
        return { body: null };
      },
    ),
    operation("ListUserTags", { action: "iam:ListUserTags", input: one, resource }, async ({ UserName }, context) => ({
      body: { Tags: tagList(get(context, UserName).tags), IsTruncated: false },
    })),
  ];
}
