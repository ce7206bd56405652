import { randomBytes } from "node:crypto";
import { KoineError } from "../../core/errors.ts";
import type { Call, HttpCall, RawHeaders, ResponseHead } from "../../core/invocation.ts";
import { answerHeaders, httpAnswer, httpEvent } from "./handlers/nodejs/lambda-http.mjs";

/** What is known of a function when it is launched. */
interface Launched {
  readonly codePath: string;
  readonly handler: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly function: { readonly name: string; readonly version: number };
  readonly memoryBytesMax: number;
  readonly instanceConcurrency: number;
  readonly program?: { readonly codeFolder: string | null };
}

interface Facts {
  readonly id: string;
  readonly deadlineMs: number;
  readonly attempt: number;
  readonly call: Call;
}

const REGION = "us-east-1";
const ACCOUNT = "000000000000";
/** Where images of this platform have their code. */
const IMAGE_TASK_ROOT = "/var/task";

/** How Lambda's own programs and ours name things on the wire of the Runtime API. */
export const runtimeApiWording = {
  headers: {
    responseMode: "lambda-runtime-function-response-mode",
    errorType: "lambda-runtime-function-error-type",
    errorBody: "lambda-runtime-function-error-body",
  },
  preludeType: "application/vnd.awslambda.http-integration-response",

  environment(launched: Launched, address: string): Readonly<Record<string, string>> {
    const { name, version } = launched.function;
    const region = regionOf(launched);
    const group = `/aws/lambda/${name}`;
    const own: Record<string, string> = {
      AWS_LAMBDA_RUNTIME_API: address,
      AWS_LAMBDA_FUNCTION_NAME: name,
      AWS_LAMBDA_FUNCTION_VERSION: String(version),
      AWS_LAMBDA_FUNCTION_MEMORY_SIZE: String(Math.round(launched.memoryBytesMax / 1_048_576)),
      AWS_LAMBDA_INITIALIZATION_TYPE: "on-demand",
      AWS_LAMBDA_LOG_GROUP_NAME: group,
      AWS_LAMBDA_LOG_STREAM_NAME: `[${version}]`,
      AWS_REGION: region,
      AWS_DEFAULT_REGION: region,
      LAMBDA_TASK_ROOT: launched.program?.codeFolder === null ? IMAGE_TASK_ROOT : launched.codePath,
      LAMBDA_RUNTIME_DIR: "/var/runtime",
      _HANDLER: launched.handler,
      TZ: ":UTC",
      ...(launched.instanceConcurrency > 1 ? { AWS_LAMBDA_MAX_CONCURRENCY: String(launched.instanceConcurrency) } : {}),
    };
    // Where to ask for work is not for the function to say; the rest may be.
    return { ...own, ...launched.environment, AWS_LAMBDA_RUNTIME_API: address };
  },

  invocationHeaders(facts: Facts, launched: Launched): RawHeaders {
    const details = detailsOf(facts.call);
    const { name, version } = launched.function;
    const arn = `arn:aws:lambda:${regionOf(launched)}:${ACCOUNT}:function:${name}:${version}`;
    const headers: [string, string | undefined][] = [
      ["Lambda-Runtime-Aws-Request-Id", facts.id],
      ["Lambda-Runtime-Deadline-Ms", String(Math.floor(facts.deadlineMs))],
      ["Lambda-Runtime-Invoked-Function-Arn", textOf(details["invokedFunctionArn"]) ?? arn],
      ["Lambda-Runtime-Trace-Id", traceIdOf(facts)],
      ["Lambda-Runtime-Client-Context", jsonOf(details["clientContext"])],
      ["Lambda-Runtime-Cognito-Identity", jsonOf(details["identity"])],
      ["Lambda-Runtime-Aws-Tenant-Id", textOf(details["tenantId"])],
    ];
    return headers.flatMap(([header, value]) => (value === undefined ? [] : [header, oneLine(value)]));
  },

  eventOf(call: HttpCall, body: Buffer, { id, attempt, deadlineMs }: Facts): Buffer {
    const head = { ...call, headers: [...call.headers], id, attempt, deadlineMs };
    return Buffer.from(JSON.stringify(httpEvent(head, body)));
  },

  answerOf(result: Buffer): { readonly head: ResponseHead; readonly body: Buffer } {
    const { status, headers, body } = httpAnswer(parse(result, "the response"), { invalidResponse });
    return { head: { status, headers }, body: Buffer.from(body) };
  },

  preludeOf(json: Buffer): ResponseHead {
    const prelude = parse(json, "the metadata of the streamed response");
    if (typeof prelude !== "object" || prelude === null) throw invalidResponse("its metadata is not an object");
    const values = prelude as Record<string, unknown>;
    const status = Number(values["statusCode"] ?? 200);
    if (!Number.isInteger(status) || status < 200 || status > 599)
      throw invalidResponse(`statusCode ${String(values["statusCode"])} is not one of 200 to 599`);
    return { status, headers: answerHeaders(values) };
  },
};

function parse(bytes: Buffer, what: string): unknown {
  if (bytes.length === 0) return null;
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch (thrown) {
    throw invalidResponse(`${what} is not JSON: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
  }
}

function invalidResponse(detail: string): KoineError {
  return new KoineError("invalid-response", { detail });
}

function regionOf({ environment }: Launched): string {
  return environment["AWS_REGION"] ?? environment["AWS_DEFAULT_REGION"] ?? REGION;
}

function detailsOf(call: Call): Readonly<Record<string, unknown>> {
  const details = call.context?.["lambda"];
  return typeof details === "object" && details !== null ? (details as Readonly<Record<string, unknown>>) : {};
}

/** The caller's trace goes on; else one begins. */
function traceIdOf({ call }: Facts): string {
  if (call.kind === "http") {
    for (let index = 0; index + 1 < call.headers.length; index += 2)
      if (call.headers[index]?.toLowerCase() === "x-amzn-trace-id") return call.headers[index + 1] ?? "";
  }
  const seconds = Math.floor(Date.now() / 1_000).toString(16);
  return `Root=1-${seconds}-${randomBytes(12).toString("hex")};Parent=${randomBytes(8).toString("hex")};Sampled=0`;
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function jsonOf(value: unknown): string | undefined {
  return value === undefined || value === null ? undefined : JSON.stringify(value);
}

/** As it may stand in a header; JSON keeps its meaning. */
function oneLine(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
