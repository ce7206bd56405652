import { isName } from "../../../core/function.ts";
import { accountIdOf } from "../account.ts";
import { AwsError } from "../wire/error.ts";
import type { CallContext } from "../wire/service.ts";
import { LATEST } from "./records.ts";

/** A function as callers name it. */
export interface FunctionName {
  readonly namespace: string;
  readonly name: string;
  /** From the name itself or beside it; null: none. */
  readonly qualifier: string | null;
}

const NAME =
  /^(?:arn:aws[\w-]*:lambda:(?<region>[\w-]+):(?<arnAccount>\d{12}):function:|(?<account>\d{12}):function:|function:)?(?<name>[\w-]+)(?::(?<qualifier>\$LATEST|[\w-]+))?$/;

/**
 * A name, a partial ARN or an ARN, with an optional qualifier.
 * @throws AwsError `InvalidParameterValueException`, `ResourceNotFoundException` for another account's
 */
export function parseFunctionName(
  text: string,
  given: string | undefined,
  { principal }: Pick<CallContext, "principal">,
): FunctionName {
  const groups = NAME.exec(text)?.groups;
  const name = groups?.["name"];
  if (groups === undefined || name === undefined || !isName(name))
    throw new AwsError(
      "InvalidParameterValueException",
      `1 validation error detected: Value '${text}' at 'functionName' failed to satisfy constraint: a name of letters, digits, '-' and '_' that begins and ends with a letter or digit, or its ARN`,
    );
  const account = groups["arnAccount"] ?? groups["account"];
  if (account !== undefined && account !== principal.accountId)
    throw new AwsError("ResourceNotFoundException", `Function not found: ${text}`, { status: 404 });
  const inName = groups["qualifier"];
  if (inName !== undefined && given !== undefined && inName !== given)
    throw new AwsError(
      "InvalidParameterValueException",
      "The derived qualifier from the function name does not match the specified qualifier.",
    );
  return { namespace: principal.namespace, name, qualifier: inName ?? given ?? null };
}

/** `arn:aws:lambda:REGION:ACCOUNT:function:NAME[:QUALIFIER]` */
export function functionArn(
  namespace: string,
  name: string,
  of: { readonly region: string; readonly qualifier?: string | null },
): string {
  const suffix =
    of.qualifier === undefined || of.qualifier === null || of.qualifier === LATEST ? "" : `:${of.qualifier}`;
  return `arn:aws:lambda:${of.region}:${accountIdOf(namespace)}:function:${name}${suffix}`;
}

export function notFound(name: FunctionName, region: string): AwsError {
  return new AwsError(
    "ResourceNotFoundException",
    `Function not found: ${functionArn(name.namespace, name.name, { region, qualifier: name.qualifier })}`,
    {
      status: 404,
    },
  );
}

export function invalid(message: string): AwsError {
  return new AwsError("InvalidParameterValueException", message);
}
