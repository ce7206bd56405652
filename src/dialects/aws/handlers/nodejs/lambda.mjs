import { linesBelongTo, logFailure, patchConsole } from "./lambda-console.mjs";
import { createContext, detailsOf, traceIdOf } from "./lambda-context.mjs";
import { startExtensions } from "./lambda-extensions.mjs";
import { httpEvent, sendHttpResult } from "./lambda-http.mjs";
import { emptyLoop, rememberLoop } from "./lambda-loop.mjs";
import { STREAMING, installAwslambda, runStreaming } from "./lambda-stream.mjs";

/**
 * Handler model `lambda`: `exports.handler = async (event, context[, callback])`. HTTP calls arrive as API Gateway payload 2.0, other
 * calls as their JSON. See docs/handler-models.md.
 *
 * @typedef {import("../../../../../bootstrap/nodejs/call.mjs").Call} Call
 * @typedef {import("../../../../../bootstrap/nodejs/load.mjs").Instance} Instance
 * @typedef {((...given: any[]) => unknown) & { [STREAMING]?: unknown }} LambdaHandler
 */
export const model = "lambda";

/**
 * What module-level code may look for. Under `auto` only a handler that is called `handler` is taken for a Lambda function beforehand,
 * so that libraries which look for Lambda's variables are not misled in functions of other models.
 *
 * @param {Instance} instance
 * @param {{ explicit: boolean }} options
 */
export function prepare(instance, { explicit }) {
  installAwslambda();
  if (explicit || instance.exportName === "handler") setVariables(instance);
  if (!explicit) return;
  if (process.env["AWS_LAMBDA_RUNTIME_API"] !== undefined) startExtensions();
  rememberLoop();
  patchConsole();
  // Folders of layers were not there when this process looked at the variable.
  if (process.env["NODE_PATH"] !== undefined) {
    const loader = /** @type {{ _initPaths?: () => void }} */ (
      /** @type {unknown} */ (process.getBuiltinModule("node:module").Module)
    );
    loader._initPaths?.();
  }
}

/**
 * @param {Record<string, unknown>} exports
 * @param {string | null} exportName
 * @param {{ explicit: boolean }} options
 * @returns {LambdaHandler | null}
 */
export function select(exports, exportName, { explicit }) {
  /** @type {unknown} */
  let value = exports;
  for (const name of (exportName ?? "handler").split(".")) {
    value = /** @type {Record<string, unknown> | null | undefined} */ (value)?.[name];
  }
  if (exportName === null && value === undefined && explicit) value = exports["default"];
  return typeof value === "function" ? /** @type {LambdaHandler} */ (value) : null;
}

/**
 * @param {LambdaHandler} handler
 * @param {Instance} instance
 */
export function adapt(handler, instance) {
  setVariables(instance);
  const streaming = handler[STREAMING] !== undefined;
  const mayCallBack = callsBack(handler);
  return async (/** @type {Call} */ call) => {
    const body = await call.readAll();
    const { head } = call;
    linesBelongTo(head.id, detailsOf(call).tenantId);
    process.env["_X_AMZN_TRACE_ID"] = traceIdOf(call);
    const event = head.kind === "http" ? httpEvent(head, body) : eventOf(body, head, instance);
    const created = createContext(call, instance);
    const alone = instance.instanceConcurrency === 1;
    let result;
    try {
      if (streaming) {
        await runStreaming(handler, event, { call, context: created.context });
        return;
      }
      result = await run(handler, event, { created, mayCallBack, alone });
    } catch (thrown) {
      logFailure(thrown);
      throw thrown;
    }
    if (head.kind === "http") {
      sendHttpResult(call, result, instance);
    } else {
      call.respond(200, ["content-type", "application/json"]);
      call.end(toJson(result, instance));
    }
  };
}

/** @param {Instance} instance @param {() => Call} makeCall */
export async function rehearse(instance, makeCall) {
  const handler = select({ handler: async () => ({ statusCode: 200, body: "ok" }) }, null, { explicit: false });
  if (handler === null) return;
  callsBack(handler);
  setVariables(instance, {});
  await rehearsed(handler, instance)(makeCall());
}

/** As `adapt`, but without leaving traces in the environment. @param {LambdaHandler} handler @param {Instance} instance */
function rehearsed(handler, instance) {
  return async (/** @type {Call} */ call) => {
    const { head } = call;
    const event = head.kind === "http" ? httpEvent(head, await call.readAll()) : null;
    const result = await run(handler, event, {
      created: createContext(call, instance),
      mayCallBack: false,
      alone: false,
    });
    sendHttpResult(call, result, instance);
  };
}

/** @param {Instance} instance @param {Record<string, string | undefined>} [env] */
function setVariables(instance, env = process.env) {
  env["AWS_LAMBDA_FUNCTION_NAME"] ??= instance.function.name;
  env["AWS_LAMBDA_FUNCTION_VERSION"] ??= String(instance.function.version);
  env["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] ??= String(Math.round(instance.memoryBytesMax / 1_048_576));
  env["LAMBDA_TASK_ROOT"] ??= instance.codePath;
  env["_HANDLER"] ??= instance.handler;
}

/**
 * Whether a handler that answers nothing may still answer later, by its callback or by `context.succeed` and the like.
 * @param {LambdaHandler} handler
 */
function callsBack(handler) {
  return handler.length >= 3 || /\b(succeed|fail|done|arguments)\b/.test(Function.prototype.toString.call(handler));
}

/**
 * @param {LambdaHandler} handler
 * @param {unknown} event
 * @param {{ created: ReturnType<typeof createContext>, mayCallBack: boolean, alone: boolean }} options
 */
async function run(handler, event, { created, mayCallBack, alone }) {
  const { context } = created;
  const returned = handler(event, context, created.callback);
  if (isThenable(returned)) return Promise.race([created.called, returned]);
  // As in Lambda, what a function without a promise returns counts only when it has no callback to answer by.
  if (!mayCallBack && !created.wasCalled()) return returned;
  const result = await created.called;
  // With other calls beside it the loop says nothing about this one.
  if (alone && context.callbackWaitsForEmptyEventLoop) await emptyLoop();
  return result;
}

/**
 * @param {Buffer} body
 * @param {{ contentType: string }} head
 * @param {Instance} instance
 * @returns {unknown}
 */
function eventOf(body, head, instance) {
  if (body.length === 0) return {};
  try {
    const event = JSON.parse(body.toString("utf8"));
    // A batch of a trigger's events is a list of records, as batches of other sources are.
    return head.contentType.startsWith("application/cloudevents-batch+json") ? { Records: event } : event;
  } catch (error) {
    const detail = error instanceof Error ? error.message : "";
    throw instance.invalidResponse(`a lambda handler takes JSON, and the payload is none: ${detail}`);
  }
}

/**
 * @param {unknown} result
 * @param {Instance} instance
 */
function toJson(result, instance) {
  try {
    return JSON.stringify(result) ?? "null";
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    throw instance.invalidResponse(`the result cannot be written as JSON: ${detail}`);
  }
}

/** @param {unknown} value @returns {value is PromiseLike<unknown>} */
function isThenable(value) {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}
