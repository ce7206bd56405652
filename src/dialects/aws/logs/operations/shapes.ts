import { z } from "zod";
import { accountIdOf } from "../../account.ts";
import { AwsError } from "../../wire/error.ts";
import type { CallContext } from "../../wire/service.ts";
import { type LogGroup, type LogGroups, newGroup } from "../groups.ts";
import type { LogLines } from "../lines.ts";

export const groupName = z.string().regex(/^[\w./#-]{1,512}$/, "Member must be 1 to 512 letters, digits and ./#_-");
export const streamName = z.string().regex(/^[^:*]{1,512}$/);
export const tags = z.record(z.string().max(128), z.string().max(256));

type Named = { readonly logGroupName?: string | undefined; readonly logGroupIdentifier?: string | undefined };

/** A group by its name or ARN. @throws AwsError `InvalidParameterException` */
export function nameOf(input: Named): string {
  const given = input.logGroupName ?? input.logGroupIdentifier;
  if (given === undefined)
    throw new AwsError("InvalidParameterException", "Either logGroupName or logGroupIdentifier is required.");
  return given.startsWith("arn:") ? (/:log-group:([^:]+)/.exec(given)?.[1] ?? given) : given;
}

/** A group that somebody made, or that of a function. @throws AwsError `ResourceNotFoundException` */
export async function groupOf(
  groups: LogGroups,
  lines: LogLines,
  of: { readonly name: string; readonly context: Pick<CallContext, "principal"> },
): Promise<LogGroup> {
  const { namespace } = of.context.principal;
  const found = await groups.find(namespace, of.name);
  if (found !== null) return found;
  if (lines.functionOf(namespace, of.name) !== null) return newGroup(of.name, 0, 0);
  throw new AwsError("ResourceNotFoundException", "The specified log group does not exist.", { status: 400 });
}

export function groupArn(name: string, { principal, region }: Pick<CallContext, "principal" | "region">): string {
  return `arn:aws:logs:${region}:${accountIdOf(principal.namespace)}:log-group:${name}`;
}

export function resourceOf(input: Named, context: Pick<CallContext, "principal" | "region">): string {
  return `${groupArn(nameOf(input), context)}:*`;
}

/** A place to go on from, opaque to clients. */
export function writeToken(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

/** @throws AwsError `InvalidParameterException` */
export function readToken<Value>(schema: z.ZodType<Value>, token: string): Value {
  try {
    return schema.parse(JSON.parse(Buffer.from(token, "base64url").toString("utf8")));
  } catch {
    throw new AwsError("InvalidParameterException", "The specified nextToken is invalid.");
  }
}
