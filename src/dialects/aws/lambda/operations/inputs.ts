import { z } from "zod";
import type { CallContext } from "../../wire/service.ts";
import { functionArn, parseFunctionName } from "../names.ts";

/** Members that most operations share. */
export const functionName = z.string().min(1).max(256);
export const qualifier = z.string().min(1).max(128).optional();
export const revisionId = z.string().optional();
export const one = z.object({ FunctionName: functionName });
export const qualified = one.extend({ Qualifier: qualifier });
export const tagsSchema = z.record(z.string().min(1).max(128), z.string().max(256));

/** A page of a list: `Marker` says after which key to go on. */
export const page = {
  Marker: z.string().max(2_048).optional(),
  MaxItems: z.coerce.number().int().min(1).max(10_000).default(50),
};

const PAGE_MAX = 50;

export function paged<Item>(
  items: readonly Item[],
  input: { readonly Marker?: string | undefined; readonly MaxItems: number },
  keyOf: (item: Item) => string,
): { readonly items: readonly Item[]; readonly next: { readonly NextMarker?: string } } {
  const after = input.Marker === undefined ? null : Buffer.from(input.Marker, "base64url").toString("utf8");
  const from = after === null ? 0 : items.findIndex((item) => keyOf(item) === after) + 1;
  const shown = items.slice(from, from + Math.min(input.MaxItems, PAGE_MAX));
  const last = shown.at(-1);
  const more = last !== undefined && from + shown.length < items.length;
  return { items: shown, next: more ? { NextMarker: Buffer.from(keyOf(last)).toString("base64url") } : {} };
}

/** What policies are evaluated on: the function's ARN, with the qualifier where one was given. */
export function resourceOf(
  input: { readonly FunctionName: string; readonly Qualifier?: string | undefined },
  context: Pick<CallContext, "principal" | "region">,
): string {
  const { namespace, name, qualifier: given } = parseFunctionName(input.FunctionName, input.Qualifier, context);
  return functionArn(namespace, name, { region: context.region, qualifier: given });
}

export const flag = z.union([z.boolean(), z.enum(["true", "false"]).transform((text) => text === "true")]).optional();
