import { BlockList, isIP } from "node:net";
import { z } from "zod";

const text = z.union([z.string(), z.array(z.string())]);
const conditionValues = z.union([
  z.string(),
  z.number(),
  z.boolean(),
  z.array(z.union([z.string(), z.number(), z.boolean()])),
]);
const principal = z.union([z.literal("*"), z.record(z.string(), text)]);

const statement = z
  .strictObject({
    Sid: z.string().optional(),
    Effect: z.enum(["Allow", "Deny"]),
    Principal: principal.optional(),
    NotPrincipal: principal.optional(),
    Action: text.optional(),
    NotAction: text.optional(),
    Resource: text.optional(),
    NotResource: text.optional(),
    Condition: z.record(z.string(), z.record(z.string(), conditionValues)).optional(),
  })
  .refine((given) => (given.Action === undefined) !== (given.NotAction === undefined), "needs Action or NotAction");

/** A policy document in IAM's grammar. */
export const policyDocument = z.strictObject({
  Version: z.enum(["2012-10-17", "2008-10-17"]).optional(),
  Id: z.string().optional(),
  Statement: z.union([statement, z.array(statement)]),
});

export type PolicyDocument = z.output<typeof policyDocument>;
type Statement = z.output<typeof statement>;

/** What a policy is asked about. */
export interface PolicyRequest {
  readonly principalArn: string;
  readonly principalAccountId: string;
  /** `lambda.amazonaws.com` where a service asks; null for people and roles. */
  readonly principalService?: string | null;
  readonly action: string;
  readonly resource: string;
  /** Condition keys, compared without regard to case; a key may have many values. */
  readonly conditions: Readonly<Record<string, string | readonly string[]>>;
}

export type Decision = "allow" | "deny" | "none";

/** An explicit denial outweighs every permission; nothing said is no permission. */
export function evaluate(policies: readonly PolicyDocument[], request: PolicyRequest): Decision {
  let decision: Decision = "none";
  for (const policy of policies) {
    for (const each of Array.isArray(policy.Statement) ? policy.Statement : [policy.Statement]) {
      if (!applies(each, request)) continue;
      if (each.Effect === "Deny") return "deny";
      decision = "allow";
    }
  }
  return decision;
}

function applies(given: Statement, request: PolicyRequest): boolean {
  const { Action, NotAction, Resource, NotResource, Principal, NotPrincipal, Condition } = given;
  const variables = (pattern: string): string => substitute(pattern, request);
  if (Action !== undefined && !list(Action).some((pattern) => like(pattern, request.action, true))) return false;
  if (NotAction !== undefined && list(NotAction).some((pattern) => like(pattern, request.action, true))) return false;
  if (Resource !== undefined && !list(Resource).some((pattern) => like(variables(pattern), request.resource)))
    return false;
  if (NotResource !== undefined && list(NotResource).some((pattern) => like(variables(pattern), request.resource)))
    return false;
  if (Principal !== undefined && !isPrincipal(Principal, request)) return false;
  if (NotPrincipal !== undefined && isPrincipal(NotPrincipal, request)) return false;
  return Object.entries(Condition ?? {}).every(([operator, keys]) =>
    Object.entries(keys).every(([key, values]) =>
      holds(
        operator,
        valuesOf(request, key),
        list(values).map((value) => variables(String(value))),
      ),
    ),
  );
}

function isPrincipal(principals: NonNullable<Statement["Principal"]>, request: PolicyRequest): boolean {
  if (principals === "*") return true;
  return Object.entries(principals).some(([kind, names]) =>
    list(names).some((name) => {
      if (name === "*") return kind === "AWS" || kind === "Service";
      if (kind === "Service") return name === request.principalService;
      if (kind !== "AWS") return false;
      const account = /^(?:arn:aws[\w-]*:iam::)?(\d{12})(?::root)?$/.exec(name)?.[1];
      return account === undefined ? name === request.principalArn : account === request.principalAccountId;
    }),
  );
}

/** `${aws:username}` and its like become the request's values; what the request does not have matches nothing. */
function substitute(pattern: string, request: PolicyRequest): string {
  if (!pattern.includes("${")) return pattern;
  return pattern.replaceAll(/\$\{([^}]*)\}/g, (whole, name: string) => {
    if (name === "*" || name === "?" || name === "$") return name;
    return valuesOf(request, name)?.[0] ?? whole;
  });
}

function valuesOf(request: PolicyRequest, key: string): readonly string[] | undefined {
  const lower = key.toLowerCase();
  const found = Object.entries(request.conditions).find(([name]) => name.toLowerCase() === lower)?.[1];
  if (found !== undefined) return typeof found === "string" ? [found] : found;
  if (lower === "aws:principalarn") return [request.principalArn];
  if (lower === "aws:principalaccount") return [request.principalAccountId];
  if (lower === "aws:username")
    return request.principalArn.includes(":user/") ? [request.principalArn.split("/").at(-1) ?? ""] : undefined;
  return undefined;
}

type Test = (given: string, wanted: string) => boolean;

const number =
  (test: (a: number, b: number) => boolean): Test =>
  (a, b) =>
    test(Number(a), Number(b));
const date =
  (test: (a: number, b: number) => boolean): Test =>
  (a, b) =>
    test(timeOf(a), timeOf(b));
const sameText: Test = (a, b) => a === b;
const sameLetters: Test = (a, b) => a.toLowerCase() === b.toLowerCase();
const likeText: Test = (given, pattern) => like(pattern, given);
const inRange: Test = (given, range) => isInRange(given, range);

/** Tests by operator; those that deny hold when none of the wanted values does. */
const operators: Readonly<Record<string, { readonly test: Test; readonly negated?: true }>> = {
  StringEquals: { test: sameText },
  StringNotEquals: { test: sameText, negated: true },
  StringEqualsIgnoreCase: { test: sameLetters },
  StringNotEqualsIgnoreCase: { test: sameLetters, negated: true },
  StringLike: { test: likeText },
  StringNotLike: { test: likeText, negated: true },
  ArnEquals: { test: likeText },
  ArnLike: { test: likeText },
  ArnNotEquals: { test: likeText, negated: true },
  ArnNotLike: { test: likeText, negated: true },
  NumericEquals: { test: number((a, b) => a === b) },
  NumericNotEquals: { test: number((a, b) => a === b), negated: true },
  NumericLessThan: { test: number((a, b) => a < b) },
  NumericLessThanEquals: { test: number((a, b) => a <= b) },
  NumericGreaterThan: { test: number((a, b) => a > b) },
  NumericGreaterThanEquals: { test: number((a, b) => a >= b) },
  DateEquals: { test: date((a, b) => a === b) },
  DateNotEquals: { test: date((a, b) => a === b), negated: true },
  DateLessThan: { test: date((a, b) => a < b) },
  DateLessThanEquals: { test: date((a, b) => a <= b) },
  DateGreaterThan: { test: date((a, b) => a > b) },
  DateGreaterThanEquals: { test: date((a, b) => a >= b) },
  Bool: { test: sameLetters },
  BinaryEquals: { test: sameText },
  IpAddress: { test: inRange },
  NotIpAddress: { test: inRange, negated: true },
};

/** Operators that `validatePolicy` knows, for error texts. */
export const conditionOperators: readonly string[] = [...Object.keys(operators), "Null"];

/** The operator without what changes its meaning for lists and for absent keys; null when there is none of this name. */
export function parseOperator(
  text_: string,
): { readonly name: string; readonly all: boolean; readonly any: boolean; readonly ifExists: boolean } | null {
  const set = /^(ForAllValues|ForAnyValue):(.*)$/.exec(text_);
  const rest = set?.[2] ?? text_;
  const ifExists = rest.endsWith("IfExists");
  const name = ifExists ? rest.slice(0, -"IfExists".length) : rest;
  if (name !== "Null" && !Object.hasOwn(operators, name)) return null;
  return { name, all: set?.[1] === "ForAllValues", any: set?.[1] === "ForAnyValue", ifExists };
}

function holds(operator: string, given: readonly string[] | undefined, wanted: readonly string[]): boolean {
  const parsed = parseOperator(operator);
  if (parsed === null) return false;
  if (parsed.name === "Null") return wanted.some((value) => (given === undefined) === (value === "true"));
  const found = operators[parsed.name];
  if (found === undefined) return false;
  if (given === undefined || given.length === 0)
    return parsed.ifExists || parsed.all || (found.negated === true && !parsed.any);
  const matches = (value: string): boolean => {
    const any = wanted.some((pattern) => found.test(value, pattern));
    return found.negated === true ? !any : any;
  };
  if (parsed.all || (found.negated === true && !parsed.any)) return given.every(matches);
  return given.some(matches);
}

/** `*` stands for any text, `?` for any one character. Linear in the text for any pattern. */
export function like(pattern: string, given: string, ignoreCase = false): boolean {
  const wanted = ignoreCase ? pattern.toLowerCase() : pattern;
  const value = ignoreCase ? given.toLowerCase() : given;
  let at = 0;
  let star = -1;
  let resume = 0;
  for (let index = 0; index < value.length;) {
    const next = wanted[at];
    if (next === "*") {
      star = at++;
      resume = index;
    } else if (next === "?" || next === value[index]) {
      at++;
      index++;
    } else if (star >= 0) {
      at = star + 1;
      index = ++resume;
    } else return false;
  }
  while (wanted[at] === "*") at++;
  return at === wanted.length;
}

function timeOf(value: string): number {
  return /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value);
}

function isInRange(address: string, range: string): boolean {
  const [network = "", prefix] = range.split("/");
  const family = isIP(network);
  if (family === 0 || isIP(address) !== family) return false;
  const blocks = new BlockList();
  const kind = family === 4 ? "ipv4" : "ipv6";
  blocks.addSubnet(network, prefix === undefined ? (family === 4 ? 32 : 128) : Number(prefix), kind);
  return blocks.check(address, kind);
}

function list<Item>(given: Item | readonly Item[]): readonly Item[] {
  return Array.isArray(given) ? (given as readonly Item[]) : [given as Item];
}
