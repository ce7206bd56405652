import { z } from "zod";
import { AwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import type { Role, User } from "../directory.ts";
import type { IamParts } from "../iam.ts";
import { vendorPolicy } from "../managed.ts";
import { arnOf, checkedPolicy, document, name, page, paged } from "./shapes.ts";

const INLINE_MAX = 50;
const ATTACHED_MAX = 20;

/** Policies of users and of roles: the same operations under two names. */
export function bearerOperations(parts: IamParts): readonly Operation[] {
  return [...policiesOf(parts, "User"), ...policiesOf(parts, "Role")];
}

function policiesOf({ directory }: IamParts, what: "User" | "Role"): readonly Operation[] {
  const kind = what === "User" ? "user" : "role";
  const member = what === "User" ? "UserName" : "RoleName";
  const one = z.object({ UserName: name.optional(), RoleName: name.optional() });
  const named = one.extend({ PolicyName: name });
  const attached = one.extend({ PolicyArn: z.string().min(20).max(2_048) });
  const nameIn = (input: {
    readonly UserName?: string | undefined;
    readonly RoleName?: string | undefined;
  }): string => {
    const given = input[member];
    if (given !== undefined) return given;
    throw new AwsError("ValidationException", `1 validation error detected: Value at '${member}' must not be null`);
  };
  const get = (context: CallContext, input: Parameters<typeof nameIn>[0]): User | Role =>
    directory.get<"user" | "role">(kind, context.principal.namespace, nameIn(input));
  const resource = (input: Parameters<typeof nameIn>[0], { principal }: Pick<CallContext, "principal">): string =>
    arnOf(principal.namespace, kind, { path: "/", name: nameIn(input) });
  const missing = (policy: string): AwsError =>
    new AwsError("NoSuchEntity", `The ${kind} policy with name ${policy} cannot be found.`, { status: 404 });
  return [
    operation(
      `Put${what}Policy`,
      { action: `iam:Put${what}Policy`, input: named.extend({ PolicyDocument: document }), resource },
      async (input, context) => {
        const bearer = get(context, input);
        const inline = { ...bearer.inline, [input.PolicyName]: checkedPolicy(input.PolicyDocument) };
        if (Object.keys(inline).length > INLINE_MAX)
          throw new AwsError("LimitExceeded", `At most ${INLINE_MAX} inline policies`, { status: 409 });
        await directory.replace(context.principal.namespace, { ...bearer, inline });
        return { body: null };
      },
    ),
    operation(
      `Get${what}Policy`,
      { action: `iam:Get${what}Policy`, input: named, resource },
      async (input, context) => {
        const bearer = get(context, input);
        const found = bearer.inline[input.PolicyName];
        if (found === undefined) throw missing(input.PolicyName);
        return {
          body: { [member]: bearer.name, PolicyName: input.PolicyName, PolicyDocument: encodeURIComponent(found) },
        };
      },
    ),
    operation(
      `Delete${what}Policy`,
      { action: `iam:Delete${what}Policy`, input: named, resource },
      async (input, context) => {
        const bearer = get(context, input);
        if (bearer.inline[input.PolicyName] === undefined) throw missing(input.PolicyName);
        const { [input.PolicyName]: _gone, ...inline } = bearer.inline;
        await directory.replace(context.principal.namespace, { ...bearer, inline });
        return { body: null };
      },
    ),
    operation(
      `List${what}Policies`,
      { action: `iam:List${what}Policies`, input: one.extend(page), resource },
      async (input, context) => {
        const { items, rest } = paged(Object.keys(get(context, input).inline).sort(), input, (policy) => policy);
        return { body: { PolicyNames: items, ...rest } };
      },
    ),
    operation(
      `Attach${what}Policy`,
      { action: `iam:Attach${what}Policy`, input: attached, resource },
      async (input, context) => {
        const bearer = get(context, input);
        const { PolicyArn } = input;
        const { namespace } = context.principal;
        if (vendorPolicy(PolicyArn) === null) directory.get("policy", namespace, PolicyArn.split("/").at(-1) ?? "");
        if (bearer.attached.includes(PolicyArn)) return { body: null };
        if (bearer.attached.length >= ATTACHED_MAX)
          throw new AwsError("LimitExceeded", `Cannot exceed quota for PoliciesPer${what}: ${ATTACHED_MAX}`, {
            status: 409,
          });
        await directory.replace(namespace, { ...bearer, attached: [...bearer.attached, PolicyArn] });
        return { body: null };
      },
    ),
    operation(
      `Detach${what}Policy`,
      { action: `iam:Detach${what}Policy`, input: attached, resource },
      async (input, context) => {
        const bearer = get(context, input);
        const { PolicyArn } = input;
        if (!bearer.attached.includes(PolicyArn))
          throw new AwsError("NoSuchEntity", `Policy ${PolicyArn} was not found.`, { status: 404 });
        await directory.replace(context.principal.namespace, {
          ...bearer,
          attached: bearer.attached.filter((arn) => arn !== PolicyArn),
        });
        return { body: null };
      },
    ),
    operation(
      `ListAttached${what}Policies`,
      { action: `iam:ListAttached${what}Policies`, input: one.extend(page), resource },
      async (input, context) => {
        const { items, rest } = paged([...get(context, input).attached].sort(), input, (arn) => arn);
        const told = items.map((arn) => ({ PolicyName: arn.split("/").at(-1) ?? "", PolicyArn: arn }));
        return { body: { AttachedPolicies: told, ...rest } };
      },
    ),
  ];
}
