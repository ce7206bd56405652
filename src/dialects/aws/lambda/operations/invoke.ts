import { z } from "zod";
import type { ErrorReport } from "../../../../core/errors.ts";
import type {
  Exchange,
  Invocation,
  InvocationFigures,
  Outcome,
  Responder,
  ResponseHead,
} from "../../../../core/invocation.ts";
import { AnswerHead } from "../../../dialect.ts";
import { AwsError, toAwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import { eventStreamMessage } from "../eventstream.ts";
import { arnOfFound, type Found, type LambdaFunctions, refOf } from "../functions.ts";
import { functionArn, parseFunctionName } from "../names.ts";
import type { Outcomes } from "../outcomes.ts";
import type { Snapshot } from "../records.ts";
import { qualified, resourceOf } from "./inputs.ts";

const PAYLOAD_BYTES_MAX = 6 * 1024 * 1024;
const ASYNC_PAYLOAD_BYTES_MAX = 1024 * 1024;
const LOG_TAIL_BYTES = 4 * 1024;
const LOG_LINES_MAX = 10_000;
const EVENT_STREAM = "application/vnd.amazon.eventstream";

export function invokeOperations(functions: LambdaFunctions, outcomes: Outcomes): readonly Operation[] {
  return [
    operation(
      "Invoke",
      { action: "lambda:InvokeFunction", input: qualified, resource: resourceOf },
      async (input, context) => {
        const found = await functions.find(parseFunctionName(input.FunctionName, input.Qualifier, context), context);
        const type = context.request.headers.get("x-amz-invocation-type") ?? "RequestResponse";
        switch (type) {
          case "RequestResponse":
            return await invokeNow(functions, found, context);
          case "Event":
            return await invokeLater(functions, outcomes, { found, context });
          case "DryRun":
            return { status: 204, body: null };
          default:
            throw new AwsError("InvalidParameterValueException", `Invocation type not supported: ${type}`);
        }
      },
    ),
    operation(
      "InvokeAsync",
      { action: "lambda:InvokeAsync", input: z.object({ FunctionName: z.string() }), resource: resourceOf },
      async (input, context) => {
        const found = await functions.find(parseFunctionName(input.FunctionName, undefined, context), context);
        await invokeLater(functions, outcomes, { found, context });
        return { status: 202, body: { Status: 202 } };
      },
    ),
    operation(
      "InvokeWithResponseStream",
      { action: "lambda:InvokeFunction", input: qualified, resource: resourceOf },
      async (input, context) => {
        const found = await functions.find(parseFunctionName(input.FunctionName, input.Qualifier, context), context);
        if (context.request.headers.get("x-amz-invocation-type") === "DryRun") return { status: 204, body: null };
        await stream(functions, found, context);
        return null;
      },
    ),
  ];
}

/** The version that this one call gets: of an alias with weights now this one, now that. */
export function chooseVersion({ record, snapshot, alias }: Found, random: number): Snapshot {
  const [weighted] = Object.entries(alias?.weights ?? {});
  if (weighted === undefined || random >= weighted[1]) return snapshot;
  return record.published.find(({ version }) => version === weighted[0]) ?? snapshot;
}

function invocationOf(
  found: Found,
  chosen: Snapshot,
  of: { readonly context: CallContext; readonly mode: "sync" | "async" },
): Invocation {
  const { context, mode } = of;
  const { request, body, region } = context;
  const { namespace, name } = found.name;
  const isAsync = mode === "async";
  const bytesMax = isAsync ? ASYNC_PAYLOAD_BYTES_MAX : PAYLOAD_BYTES_MAX;
  if (body.length > bytesMax)
    throw new AwsError(
      "RequestTooLargeException",
      `Request must be smaller than ${bytesMax} bytes for the InvokeFunction operation`,
      { status: 413 },
    );
  checkJson(body);
  const lambda = {
    invokedFunctionArn:
      found.name.qualifier === null ? functionArn(namespace, name, { region }) : arnOfFound(found, region),
    functionVersion: chosen.version,
    logGroupName: `/aws/lambda/${name}`,
    ...clientContext(request.headers.get("x-amz-client-context")),
    ...traceOf(request.headers.get("x-amzn-trace-id")),
  };
  return {
    id: request.id,
    ref: {
      ...refOf(found.name),
      ...(chosen.number === found.record.latest.number ? {} : { qualifier: String(chosen.number) }),
    },
    call: { kind: "event", contentType: "application/json", context: { lambda } },
    mode,
    attempt: 1,
    receivedAtMs: request.receivedAtMs,
    body,
    bodyComplete: true,
    impatient: !isAsync,
  };
}

function checkJson(body: Buffer): void {
  if (body.length === 0) return;
  try {
    JSON.parse(body.toString("utf8"));
  } catch (thrown) {
    const detail = thrown instanceof Error ? thrown.message : "";
    throw new AwsError("InvalidRequestContentException", `Could not parse request body into json: ${detail}`);
  }
}

function clientContext(header: string | undefined): { readonly clientContext?: unknown } {
  if (header === undefined || header === "") return {};
  try {
    return { clientContext: JSON.parse(Buffer.from(header, "base64").toString("utf8")) as unknown };
  } catch {
    throw new AwsError("InvalidRequestContentException", "Client context must be a valid Base64-encoded JSON object.");
  }
}

function traceOf(header: string | undefined): { readonly traceId?: string } {
  return header === undefined ? {} : { traceId: header };
}

async function invokeLater(
  functions: LambdaFunctions,
  outcomes: Outcomes,
  { found, context }: { readonly found: Found; readonly context: CallContext },
): Promise<{ status: number; body: null }> {
  const chosen = chooseVersion(found, Math.random());
  const invocation = invocationOf(found, chosen, { context, mode: "async" });
  await functions.platform.enqueue(invocation, outcomes.options(found, chosen, context.region));
  return { status: 202, body: null };
}

async function invokeNow(functions: LambdaFunctions, found: Found, context: CallContext): Promise<null> {
  const { request } = context;
  const chosen = chooseVersion(found, Math.random());
  const invocation = invocationOf(found, chosen, { context, mode: "sync" });
  const version = functions.platform.resolve(invocation.ref);
  const answer = new WholeAnswer(PAYLOAD_BYTES_MAX);
  const { outcome } = await answer.of((responder) => {
    const exchange = functions.platform.invoke(invocation, version, responder);
    request.response.listener = { flowed: () => {}, left: () => exchange.cancel() };
    return exchange;
  });
  if (outcome.kind === "rejected") throw throttled(outcome.error);
  if (outcome.kind === "failed" && outcome.fault === "platform")
    throw toAwsError(new AwsError("ServiceException", outcome.error.message, { status: 500 }));
  const headers = [
    "X-Amz-Executed-Version",
    chosen.version,
    "x-amzn-RequestId",
    request.id,
    "Content-Type",
    "application/json",
  ];
  if (request.headers.get("x-amz-log-type") === "Tail")
    headers.push("X-Amz-Log-Result", await logTail(functions, found, request.id));
  if (outcome.kind === "succeeded" && !answer.exceeded) {
    request.response.send(new AnswerHead(200, headers), answer.bytes());
    return null;
  }
  const payload = answer.exceeded
    ? tooLarge(answer.size)
    : errorPayload(outcome, { requestId: request.id, timeoutMs: version.spec.timeoutMs });
  request.response.send(
    new AnswerHead(200, ["X-Amz-Function-Error", "Unhandled", ...headers]),
    JSON.stringify(payload),
  );
  return null;
}

async function stream(functions: LambdaFunctions, found: Found, context: CallContext): Promise<void> {
  const { request } = context;
  const chosen = chooseVersion(found, Math.random());
  const invocation = invocationOf(found, chosen, { context, mode: "sync" });
  const version = functions.platform.resolve(invocation.ref);
  const wantsLog = request.headers.get("x-amz-log-type") === "Tail";
  await new Promise<void>((resolve) => {
    const begin = (): void => {
      if (request.response.begun) return;
      const headers = [
        "X-Amz-Executed-Version",
        chosen.version,
        "x-amzn-RequestId",
        request.id,
        "Content-Type",
        EVENT_STREAM,
      ];
      request.response.begin(new AnswerHead(200, headers));
    };
    const chunkOf = (payload: Buffer): Buffer =>
      eventStreamMessage(
        { ":event-type": "PayloadChunk", ":content-type": "application/octet-stream", ":message-type": "event" },
        payload,
      );
    const finish = async (outcome: Outcome): Promise<void> => {
      const failure =
        outcome.kind === "succeeded"
          ? null
          : errorPayload(outcome, { requestId: request.id, timeoutMs: version.spec.timeoutMs });
      const told = {
        ...(failure === null ? {} : { ErrorCode: failure.errorType, ErrorDetails: failure.errorMessage }),
        ...(wantsLog ? { LogResult: await logTail(functions, found, request.id) } : {}),
      };
      const headers = {
        ":event-type": "InvokeComplete",
        ":content-type": "application/json",
        ":message-type": "event",
      };
      request.response.write(eventStreamMessage(headers, Buffer.from(JSON.stringify(told))));
      request.response.end();
      resolve();
    };
    const responder: Responder = {
      head: () => begin(),
      body: (chunk) => {
        begin();
        return request.response.write(chunkOf(chunk));
      },
      bodyEnded: () => {},
      ended: (outcome) => {
        if (outcome.kind === "rejected" && !request.response.begun) {
          const error = throttled(outcome.error);
          request.response.send(
            new AnswerHead(error.status, ["x-amzn-ErrorType", error.code, "Content-Type", "application/json"]),
            JSON.stringify({ Message: error.message, ...error.members }),
          );
          resolve();
          return;
        }
        begin();
        functions.platform.parts.supervise("end a streamed answer", finish(outcome));
      },
    };
    const exchange = functions.platform.invoke(invocation, version, responder);
    request.response.listener = { flowed: () => exchange.resume(), left: () => exchange.cancel() };
  });
}

/** Runs a function with an event of a service, and waits for its answer. */
export async function runEvent(
  platform: LambdaFunctions["platform"],
  of: {
    readonly id: string;
    readonly ref: Invocation["ref"];
    readonly payload: Buffer;
    readonly context: Readonly<Record<string, unknown>>;
    readonly signal: AbortSignal;
  },
): Promise<{ readonly outcome: Outcome; readonly body: Buffer }> {
  const answer = new WholeAnswer(PAYLOAD_BYTES_MAX);
  const version = platform.resolve(of.ref);
  const { outcome } = await answer.of((responder) =>
    platform.invoke(
      {
        id: of.id,
        ref: of.ref,
        call: { kind: "event", contentType: "application/json", context: { lambda: of.context } },
        mode: "sync",
        attempt: 1,
        receivedAtMs: platform.parts.clock.nowMs(),
        body: of.payload,
        bodyComplete: true,
        impatient: true,
      },
      version,
      responder,
    ),
  );
  return { outcome, body: answer.bytes() };
}

/** Keeps an answer up to a bound; what comes after it is counted only. */
class WholeAnswer implements Responder {
  readonly #bytesMax: number;
  readonly #chunks: Buffer[] = [];
  size = 0;
  #resolve: (end: { readonly outcome: Outcome; readonly figures: InvocationFigures }) => void = () => {};

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get exceeded(): boolean {
    return this.size > this.#bytesMax;
  }

  async of(
    start: (responder: Responder) => Exchange,
  ): Promise<{ readonly outcome: Outcome; readonly figures: InvocationFigures }> {
    return await new Promise((resolve) => {
      this.#resolve = resolve;
      start(this);
    });
  }

  head(_head: ResponseHead): void {}

  body(chunk: Buffer): boolean {
    this.size += chunk.length;
    if (!this.exceeded) this.#chunks.push(chunk);
    return true;
  }

  bodyEnded(): void {}

  ended(outcome: Outcome, figures: InvocationFigures): void {
    this.#resolve({ outcome, figures });
  }

  bytes(): Buffer {
    return this.#chunks.length === 1 && this.#chunks[0] !== undefined ? this.#chunks[0] : Buffer.concat(this.#chunks);
  }
}

function throttled(error: ErrorReport): AwsError {
  if (error.code !== "too-many-requests") return new AwsError("ServiceException", error.message, { status: 500 });
  return new AwsError("TooManyRequestsException", "Rate Exceeded.", {
    status: 429,
    members: { Reason: "ReservedFunctionConcurrentInvocationLimitExceeded", retryAfterSeconds: "1" },
  });
}

interface ErrorPayload {
  readonly errorType: string;
  readonly errorMessage: string;
  readonly [member: string]: unknown;
}

function tooLarge(size: number): ErrorPayload {
  return {
    errorType: "Function.ResponseSizeTooLarge",
    errorMessage: `Response payload size (${size} bytes) exceeded maximum allowed payload size (${PAYLOAD_BYTES_MAX} bytes).`,
  };
}

/** What a caller gets of a failed call: what the handler threw, or how its process ended. */
export function errorPayload(
  outcome: Outcome,
  of: { readonly requestId: string; readonly timeoutMs: number },
): ErrorPayload {
  const { requestId, timeoutMs } = of;
  if (outcome.kind === "succeeded") throw new Error("a success has no error");
  const { error } = outcome;
  if (outcome.kind === "timedOut") {
    const seconds = (timeoutMs / 1_000).toFixed(2);
    return {
      errorType: "Sandbox.Timedout",
      errorMessage: `RequestId: ${requestId} Error: Task timed out after ${seconds} seconds`,
    };
  }
  if (error.cause !== undefined) {
    const { type, message, stack, told } = error.cause;
    if (told !== undefined) return { errorType: type, errorMessage: message, ...(JSON.parse(told) as object) };
    const shape = traceShape(stack);
    return "trace" in shape
      ? { errorType: type, errorMessage: message, ...shape }
      : { errorMessage: message, errorType: type, requestId, ...shape };
  }
  switch (error.code) {
    case "function-exited":
      return {
        errorType: "Runtime.ExitError",
        errorMessage: `RequestId: ${requestId} Error: Runtime exited without providing a reason`,
      };
    case "out-of-memory":
      return {
        errorType: "Runtime.OutOfMemory",
        errorMessage: `RequestId: ${requestId} Error: Runtime exited with error: signal: killed`,
      };
    case "handler-not-found":
      return { errorType: "Runtime.HandlerNotFound", errorMessage: error.message };
    case "handler-load-failed":
      return { errorType: "Runtime.ImportModuleError", errorMessage: error.message };
    default:
      return { errorType: "Runtime.Unknown", errorMessage: `RequestId: ${requestId} Error: ${error.message}` };
  }
}

/** Node's runtime tells a stack as `trace`, Python's as `stackTrace` of frames. */
function traceShape(stack: string | undefined): Record<string, unknown> {
  if (stack === undefined) return { trace: [] };
  if (!stack.startsWith("Traceback")) return { trace: stack.split("\n") };
  // Of errors that led to each other the last is the one that came out.
  const [, ...lines] = stack.slice(stack.lastIndexOf("Traceback (most recent call last):")).split("\n");
  const frames: string[] = [];
  for (const line of lines) {
    if (line.startsWith('  File "')) frames.push(`${line}\n`);
    else if (line.startsWith("    ")) frames.push(`${frames.pop() ?? ""}${line}\n`);
    else break;
  }
  return { stackTrace: frames };
}

async function logTail(functions: LambdaFunctions, found: Found, activationId: string): Promise<string> {
  const { namespace, name } = found.name;
  const lines = await functions.platform.logs({ namespace, package: "", name, activationId, limit: LOG_LINES_MAX });
  const text = Buffer.from(lines.map(({ line }) => `${line}\n`).join(""));
  return text.subarray(Math.max(0, text.length - LOG_TAIL_BYTES)).toString("base64");
}
