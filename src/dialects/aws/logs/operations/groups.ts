import { z } from "zod";
import { AwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import { type LogGroup, type LogGroups, newGroup } from "../groups.ts";
import type { LogLines } from "../lines.ts";
import { groupArn, groupName, groupOf, nameOf, readToken, resourceOf, tags, writeToken } from "./shapes.ts";

const RETENTION_DAYS = [
  1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
];

export function groupOperations(groups: LogGroups, lines: LogLines): readonly Operation[] {
  return [...life(groups, lines), ...retention(groups, lines), ...tagging(groups, lines)];
}

function life(groups: LogGroups, lines: LogLines): readonly Operation[] {
  const one = z.object({ logGroupName: groupName });
  return [
    operation(
      "CreateLogGroup",
      {
        action: "logs:CreateLogGroup",
        input: one.extend({
          tags: tags.optional(),
          kmsKeyId: z.string().optional(),
          logGroupClass: z.string().optional(),
        }),
        resource: resourceOf,
      },
      async (input, { principal, nowMs }) => {
        const { logGroupName: name } = input;
        const known = await groups.find(principal.namespace, name);
        if (known !== null)
          throw new AwsError("ResourceAlreadyExistsException", "The specified log group already exists");
        // What a function wrote before its group was made by hand is in it.
        const sinceMs = lines.functionOf(principal.namespace, name) === null ? nowMs : 0;
        await groups.change(principal.namespace, name, () => ({
          ...newGroup(name, nowMs, sinceMs),
          tags: input.tags ?? {},
        }));
        return { body: null };
      },
    ),
    operation(
      "DeleteLogGroup",
      { action: "logs:DeleteLogGroup", input: one, resource: resourceOf },
      async ({ logGroupName: name }, context) => {
        await groupOf(groups, lines, { name, context });
        const { namespace } = context.principal;
        // The group of a function is there again with its next line.
        if (lines.functionOf(namespace, name) === null) await groups.remove(namespace, name);
        else await groups.change(namespace, name, () => newGroup(name, context.nowMs));
        return { body: null };
      },
    ),
    operation(
      "DescribeLogGroups",
      {
        action: "logs:DescribeLogGroups",
        input: z.object({
          logGroupNamePrefix: z.string().default(""),
          logGroupNamePattern: z.string().default(""),
          limit: z.int().min(1).max(50).default(50),
          nextToken: z.string().optional(),
        }),
      },
      async (input, context) => {
        const { namespace } = context.principal;
        const made = new Map((await groups.list(namespace)).map((group) => [group.name, group]));
        const names = [...new Set([...made.keys(), ...lines.functionGroups(namespace)])]
          .filter((name) => name.startsWith(input.logGroupNamePrefix) && name.includes(input.logGroupNamePattern))
          .sort();
        const after = input.nextToken === undefined ? "" : readToken(z.string(), input.nextToken);
        const from = names.filter((name) => name > after);
        const shown = from.slice(0, input.limit);
        const last = shown.at(-1);
        return {
          body: {
            logGroups: shown.map((name) => shape(made.get(name) ?? newGroup(name, 0, 0), context)),
            ...(shown.length < from.length && last !== undefined ? { nextToken: writeToken(last) } : {}),
          },
        };
      },
    ),
  ];
}

function shape(group: LogGroup, context: CallContext): Record<string, unknown> {
  const arn = groupArn(group.name, context);
  return {
    logGroupName: group.name,
    creationTime: group.createdAtMs,
    ...(group.retentionDays === null ? {} : { retentionInDays: group.retentionDays }),
    metricFilterCount: 0,
    arn: `${arn}:*`,
    logGroupArn: arn,
    storedBytes: 0,
    logGroupClass: "STANDARD",
  };
}

function retention(groups: LogGroups, lines: LogLines): readonly Operation[] {
  const one = z.object({ logGroupName: groupName });
  const set = async (name: string, context: CallContext, retentionDays: number | null): Promise<{ body: null }> => {
    const group = await groupOf(groups, lines, { name, context });
    await groups.change(context.principal.namespace, name, (before) => ({ ...(before ?? group), retentionDays }));
    return { body: null };
  };
  const days = z
    .int()
    .refine((value) => RETENTION_DAYS.includes(value), `Member must be one of ${RETENTION_DAYS.join(", ")}`);
  return [
    operation(
      "PutRetentionPolicy",
      { action: "logs:PutRetentionPolicy", input: one.extend({ retentionInDays: days }), resource: resourceOf },
      async ({ logGroupName, retentionInDays }, context) => await set(logGroupName, context, retentionInDays),
    ),
    operation(
      "DeleteRetentionPolicy",
      { action: "logs:DeleteRetentionPolicy", input: one, resource: resourceOf },
      async ({ logGroupName }, context) => await set(logGroupName, context, null),
    ),
  ];
}

function tagging(groups: LogGroups, lines: LogLines): readonly Operation[] {
  const change = async (
    name: string,
    context: CallContext,
    by: (before: LogGroup["tags"]) => LogGroup["tags"],
  ): Promise<{ body: null }> => {
    const group = await groupOf(groups, lines, { name, context });
    await groups.change(context.principal.namespace, name, (before) => ({
      ...(before ?? group),
      tags: by((before ?? group).tags),
    }));
    return { body: null };
  };
  const without = (gone: readonly string[]) => (before: LogGroup["tags"]) =>
    Object.fromEntries(Object.entries(before).filter(([key]) => !gone.includes(key)));
  const byName = z.object({ logGroupName: groupName });
  const byArn = z.object({ resourceArn: z.string() });
  const arnResource = ({ resourceArn }: { readonly resourceArn: string }): string => resourceArn;
  const nameIn = (arn: string): string => nameOf({ logGroupIdentifier: arn });
  return [
    operation(
      "TagLogGroup",
      { action: "logs:TagLogGroup", input: byName.extend({ tags }), resource: resourceOf },
      async (input, context) => await change(input.logGroupName, context, (before) => ({ ...before, ...input.tags })),
    ),
    operation(
      "UntagLogGroup",
      { action: "logs:UntagLogGroup", input: byName.extend({ tags: z.array(z.string()) }), resource: resourceOf },
      async (input, context) => await change(input.logGroupName, context, without(input.tags)),
    ),
    operation(
      "ListTagsLogGroup",
      { action: "logs:ListTagsLogGroup", input: byName, resource: resourceOf },
      async ({ logGroupName: name }, context) => ({
        body: { tags: (await groupOf(groups, lines, { name, context })).tags },
      }),
    ),
    operation(
      "TagResource",
      { action: "logs:TagResource", input: byArn.extend({ tags }), resource: arnResource },
      async (input, context) =>
        await change(nameIn(input.resourceArn), context, (before) => ({ ...before, ...input.tags })),
    ),
    operation(
      "UntagResource",
      { action: "logs:UntagResource", input: byArn.extend({ tagKeys: z.array(z.string()) }), resource: arnResource },
      async (input, context) => await change(nameIn(input.resourceArn), context, without(input.tagKeys)),
    ),
    operation(
      "ListTagsForResource",
      { action: "logs:ListTagsForResource", input: byArn, resource: arnResource },
      async ({ resourceArn }, context) => ({
        body: { tags: (await groupOf(groups, lines, { name: nameIn(resourceArn), context })).tags },
      }),
    ),
  ];
}
