import { createHash } from "node:crypto";
import { z } from "zod";
import { AwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import { arnOfFound, type Found, type LambdaFunctions } from "../functions.ts";
import { parseFunctionName } from "../names.ts";
import { type FunctionUrl, LATEST } from "../records.ts";
import { one, page, paged, qualified, resourceOf } from "./inputs.ts";

const cors = z.object({
  AllowCredentials: z.boolean().optional(),
  AllowHeaders: z.array(z.string().max(1_024)).max(100).optional(),
  AllowMethods: z.array(z.string().max(6)).max(6).optional(),
  AllowOrigins: z.array(z.string().max(253)).max(100).optional(),
  ExposeHeaders: z.array(z.string().max(1_024)).max(100).optional(),
  MaxAge: z.int().min(0).max(86_400).optional(),
});
const settings = {
  AuthType: z.enum(["NONE", "AWS_IAM"]),
  Cors: cors.optional(),
  InvokeMode: z.enum(["BUFFERED", "RESPONSE_STREAM"]).optional(),
};

/** Addresses of functions: `http://ID.lambda-url.REGION.localhost:PORT/`, which resolves to this machine everywhere. */
export function urlOperations(functions: LambdaFunctions): readonly Operation[] {
  const find = async (
    input: { readonly FunctionName: string; readonly Qualifier?: string | undefined },
    context: CallContext,
  ): Promise<Found> => await functions.find(parseFunctionName(input.FunctionName, input.Qualifier, context), context);
  const keyOf = (found: Found): string => found.name.qualifier ?? LATEST;
  const get = (found: Found, key: string): FunctionUrl => {
    const url = found.record.urls[key];
    if (url !== undefined) return url;
    throw new AwsError("ResourceNotFoundException", "The resource you requested does not exist.", { status: 404 });
  };
  const put = async (found: Found, key: string, url: FunctionUrl): Promise<void> => {
    await functions.change(found, (record) => ({ ...record, urls: { ...record.urls, [key]: url } }));
    await functions.urls.put(found.name, key, url);
  };
  return [
    operation(
      "CreateFunctionUrlConfig",
      { action: "lambda:CreateFunctionUrlConfig", input: qualified.extend(settings), resource: resourceOf },
      async (input, context) => {
        const found = await find(input, context);
        const key = keyOf(found);
        if (found.record.urls[key] !== undefined)
          throw new AwsError(
            "ResourceConflictException",
            `Failed to create function url config for [functionArn = ${arnOfFound(found, context.region)}]. Error message:  FunctionUrlConfig exists for this Lambda function`,
            {
              status: 409,
            },
          );
        const url: FunctionUrl = {
          urlId: urlIdOf(found.name.namespace, found.name.name, key),
          authType: input.AuthType,
          invokeMode: input.InvokeMode ?? "BUFFERED",
          cors: input.Cors ?? null,
          createdAtMs: context.nowMs,
          modifiedAtMs: context.nowMs,
        };
        await put(found, key, url);
        return { status: 201, body: shape(found, url, context) };
      },
    ),
    operation(
      "UpdateFunctionUrlConfig",
      {
        action: "lambda:UpdateFunctionUrlConfig",
        input: qualified.extend({ ...settings, AuthType: settings.AuthType.optional() }),
        resource: resourceOf,
      },
      async (input, context) => {
        const found = await find(input, context);
        const before = get(found, keyOf(found));
        const url: FunctionUrl = {
          ...before,
          authType: input.AuthType ?? before.authType,
          invokeMode: input.InvokeMode ?? before.invokeMode,
          cors: input.Cors ?? before.cors,
          modifiedAtMs: context.nowMs,
        };
        await put(found, keyOf(found), url);
        return { body: shape(found, url, context) };
      },
    ),
    operation(
      "GetFunctionUrlConfig",
      { action: "lambda:GetFunctionUrlConfig", input: qualified, resource: resourceOf },
      async (input, context) => {
        const found = await find(input, context);
        return { body: shape(found, get(found, keyOf(found)), context) };
      },
    ),
    operation(
      "DeleteFunctionUrlConfig",
      { action: "lambda:DeleteFunctionUrlConfig", input: qualified, resource: resourceOf },
      async (input, context) => {
        const found = await find(input, context);
        const key = keyOf(found);
        const { urlId } = get(found, key);
        await functions.change(found, ({ urls: { [key]: _gone, ...urls }, ...record }) => ({ ...record, urls }));
        await functions.urls.remove(urlId);
        return { status: 204, body: null };
      },
    ),
    operation(
      "ListFunctionUrlConfigs",
      { action: "lambda:ListFunctionUrlConfigs", input: one.extend(page), resource: resourceOf },
      async (input, context) => {
        const found = await find(input, context);
        const { items, next } = paged(Object.entries(found.record.urls), input, ([key]) => key);
        const told = await Promise.all(
          items.map(async ([key, url]) =>
            shape(await functions.find({ ...found.name, qualifier: key }, context), url, context),
          ),
        );
        return { body: { FunctionUrlConfigs: told, ...next } };
      },
    ),
  ];
}

function shape(found: Found, url: FunctionUrl, context: CallContext): Record<string, unknown> {
  const { port } = new URL(context.request.headers.origin);
  const host = `${url.urlId}.lambda-url.${context.region}.localhost`;
  return {
    FunctionUrl: `http://${host}${port === "" ? "" : `:${port}`}/`,
    FunctionArn: arnOfFound(found, context.region),
    AuthType: url.authType,
    InvokeMode: url.invokeMode,
    ...(url.cors === null ? {} : { Cors: url.cors }),
    CreationTime: new Date(url.createdAtMs).toISOString(),
    LastModifiedTime: new Date(url.modifiedAtMs).toISOString(),
  };
}

/** Lasts as long as the name: an address that somebody wrote down works again after the function was made anew. */
function urlIdOf(namespace: string, name: string, key: string): string {
  const digest = createHash("sha256")
    .update(JSON.stringify([namespace, name, key]))
    .digest();
  return [...digest.subarray(0, 32)].map((byte) => "abcdefghijklmnopqrstuvwxyz234567"[byte & 31]).join("");
}
