import { z } from "zod";
import { AwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import type { IamParts } from "../iam.ts";
import { name, page, paged } from "./shapes.ts";

const KEYS_PER_USER_MAX = 2;
const keyId = z.string().regex(/^\w{16,128}$/);

export function keyOperations({ directory }: IamParts): readonly Operation[] {
  const userOf = ({ principal }: CallContext, given: string | undefined): string => {
    const own = /:user\/(?:.*\/)?([^/]+)$/.exec(principal.arn)?.[1];
    const wanted = given ?? own;
    if (wanted === undefined)
      throw new AwsError("ValidationException", "Must specify userName when calling with non-User credentials");
    return directory.get("user", principal.namespace, wanted).name;
  };
  const keyOf = (context: CallContext, user: string, id: string) => {
    const key = directory.get("key", context.principal.namespace, id);
    if (key.user === user) return key;
    throw new AwsError("NoSuchEntity", `The Access Key with id ${id} cannot be found.`, { status: 404 });
  };
  return [
    operation(
      "CreateAccessKey",
      { action: "iam:CreateAccessKey", input: z.object({ UserName: name.optional() }) },
      async ({ UserName }, context) => {
        const user = userOf(context, UserName);
        const { namespace } = context.principal;
        if (directory.list("key", namespace).filter((key) => key.user === user).length >= KEYS_PER_USER_MAX)
          throw new AwsError("LimitExceeded", `Cannot exceed quota for AccessKeysPerUser: ${KEYS_PER_USER_MAX}`, {
            status: 409,
          });
        const { key, secretAccessKey } = await directory.createKey(namespace, user, context.nowMs);
        const CreateDate = new Date(key.createdAtMs);
        const told = {
          UserName: user,
          AccessKeyId: key.name,
          Status: key.status,
          SecretAccessKey: secretAccessKey,
          CreateDate,
        };
        return { body: { AccessKey: told } };
      },
    ),
    operation(
      "ListAccessKeys",
      { action: "iam:ListAccessKeys", input: z.object({ UserName: name.optional(), ...page }) },
      async (input, context) => {
        const user = userOf(context, input.UserName);
        const all = directory.list("key", context.principal.namespace).filter((key) => key.user === user);
        const { items, rest } = paged(all, input, (key) => key.name);
        const told = items.map((key) => ({
          UserName: user,
          AccessKeyId: key.name,
          Status: key.status,
          CreateDate: new Date(key.createdAtMs),
        }));
        return { body: { AccessKeyMetadata: told, ...rest } };
      },
    ),
    operation(
      "UpdateAccessKey",
      {
        action: "iam:UpdateAccessKey",
        input: z.object({ UserName: name.optional(), AccessKeyId: keyId, Status: z.enum(["Active", "Inactive"]) }),
      },
      async ({ UserName, AccessKeyId, Status }, context) => {
        const key = keyOf(context, userOf(context, UserName), AccessKeyId);
        await directory.replace(context.principal.namespace, { ...key, status: Status });
        return { body: null };
      },
    ),
    operation(
      "DeleteAccessKey",
      { action: "iam:DeleteAccessKey", input: z.object({ UserName: name.optional(), AccessKeyId: keyId }) },
      async ({ UserName, AccessKeyId }, context) => {
        await directory.remove(context.principal.namespace, keyOf(context, userOf(context, UserName), AccessKeyId));
        return { body: null };
      },
    ),
    operation(
      "GetAccessKeyLastUsed",
      { action: "iam:GetAccessKeyLastUsed", input: z.object({ AccessKeyId: keyId }) },
      async ({ AccessKeyId }, { principal }) => {
        const { user } = directory.get("key", principal.namespace, AccessKeyId);
        return { body: { UserName: user, AccessKeyLastUsed: { ServiceName: "N/A", Region: "N/A" } } };
      },
    ),
  ];
}
