import { z } from "zod";
import { accountIdOf } from "../../account.ts";
import { AwsError } from "../../wire/error.ts";
import type { XmlValue } from "../../wire/xml.ts";
import type { ManagedPolicy, Role, User } from "../directory.ts";
import { parseOperator, policyDocument } from "../policy.ts";

/** Members that many operations share, and how entities are told. */
export const name = z.string().regex(/^[\w+=,.@-]{1,128}$/, "Member must be 1 to 128 letters, digits and +=,.@_-");
export const path = z
  .string()
  .regex(/^\/(?:[!-~]*\/)?$/, "Member must begin and end with a slash")
  .max(512)
  .default("/");
export const tags = z
  .array(z.object({ Key: z.string().min(1).max(128), Value: z.string().max(256) }))
  .max(50)
  .default([]);
export const document = z.string().min(1).max(131_072);
export const page = {
  Marker: z.string().max(320).optional(),
  MaxItems: z.coerce.number().int().min(1).max(1_000).default(100),
};

export function tagRecord(given: readonly { readonly Key: string; readonly Value: string }[]): Record<string, string> {
  return Object.fromEntries(given.map(({ Key, Value }) => [Key, Value]));
}

export function tagList(record: Readonly<Record<string, string>>): XmlValue {
  return Object.entries(record).map(([Key, Value]) => ({ Key, Value }));
}

/**
 * The text of a policy as it is kept.
 * @throws AwsError `MalformedPolicyDocument`
 */
export function checkedPolicy(text: string): string {
  let parsed;
  try {
    parsed = policyDocument.safeParse(JSON.parse(text));
  } catch {
    throw malformed("This policy contains invalid Json");
  }
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw malformed(`Syntax errors in policy: ${issue?.path.join(".") ?? ""} ${issue?.message ?? ""}`);
  }
  const { Statement } = parsed.data;
  for (const statement of Array.isArray(Statement) ? Statement : [Statement])
    for (const operator of Object.keys(statement.Condition ?? {}))
      if (parseOperator(operator) === null) throw malformed(`Invalid Condition type : ${operator}`);
  return text;
}

function malformed(message: string): AwsError {
  return new AwsError("MalformedPolicyDocument", message);
}

/** One page of a list, in the shape of all lists of this service. */
export function paged<Item>(
  items: readonly Item[],
  input: { readonly Marker?: string | undefined; readonly MaxItems: number },
  keyOf: (item: Item) => string,
): {
  readonly items: readonly Item[];
  readonly rest: { readonly IsTruncated: boolean; readonly Marker: string | null };
} {
  const { Marker } = input;
  const from = Marker === undefined ? items : items.filter((item) => keyOf(item) > Marker);
  const shown = from.slice(0, input.MaxItems);
  const truncated = shown.length < from.length;
  const last = shown.at(-1);
  return {
    items: shown,
    rest: { IsTruncated: truncated, Marker: truncated && last !== undefined ? keyOf(last) : null },
  };
}

export function userShape(namespace: string, user: User): Record<string, XmlValue> {
  return {
    Path: user.path,
    UserName: user.name,
    UserId: user.id,
    Arn: arnOf(namespace, "user", user),
    CreateDate: new Date(user.createdAtMs),
    ...(Object.keys(user.tags).length === 0 ? {} : { Tags: tagList(user.tags) }),
  };
}

export function roleShape(namespace: string, role: Role): Record<string, XmlValue> {
  return {
    Path: role.path,
    RoleName: role.name,
    RoleId: role.id,
    Arn: arnOf(namespace, "role", role),
    CreateDate: new Date(role.createdAtMs),
    AssumeRolePolicyDocument: encodeURIComponent(role.trust),
    ...(role.description === "" ? {} : { Description: role.description }),
    MaxSessionDuration: role.maxSessionSeconds,
    ...(Object.keys(role.tags).length === 0 ? {} : { Tags: tagList(role.tags) }),
    RoleLastUsed: {},
  };
}

export function policyShape(namespace: string, policy: ManagedPolicy, attachments: number): Record<string, XmlValue> {
  return {
    PolicyName: policy.name,
    PolicyId: policy.id,
    Arn: arnOf(namespace, "policy", policy),
    Path: policy.path,
    DefaultVersionId: policy.defaultVersion,
    AttachmentCount: attachments,
    PermissionsBoundaryUsageCount: 0,
    IsAttachable: true,
    ...(policy.description === "" ? {} : { Description: policy.description }),
    CreateDate: new Date(policy.createdAtMs),
    UpdateDate: new Date(policy.updatedAtMs),
    ...(Object.keys(policy.tags).length === 0 ? {} : { Tags: tagList(policy.tags) }),
  };
}

export function arnOf(
  namespace: string,
  kind: "user" | "role" | "policy",
  entity: { readonly path: string; readonly name: string },
): string {
  return `arn:aws:iam::${accountIdOf(namespace)}:${kind}${entity.path}${entity.name}`;
}
