/**
 * @typedef {import("../../../../../bootstrap/nodejs/call.mjs").Call} Call
 * @typedef {import("../../../../../bootstrap/nodejs/load.mjs").Instance} Instance
 *
 * @typedef {object} LambdaDetails what the AWS dialect may add to a call, in the context of its head under `lambda`
 * @property {string} [invokedFunctionArn]
 * @property {string} [logGroupName]
 * @property {string} [logStreamName]
 * @property {unknown} [clientContext]
 * @property {unknown} [identity]
 * @property {string} [tenantId]
 * @property {string} [functionVersion]
 * @property {string} [traceId]
 */

/**
 * The `context` of one call, the `callback` beside it, and the promise that both settle.
 *
 * @param {Call} call
 * @param {Instance} instance
 */
export function createContext(call, instance) {
  const { name, version } = instance.function;
  const details = detailsOf(call);
  let settled = false;
  /** @type {PromiseWithResolvers<unknown> | null} */
  let deferred = null;
  /** @type {{ error: unknown } | { result: unknown } | null} */
  let outcome = null;
  const settle = (/** @type {{ error: unknown } | { result: unknown }} */ ended) => {
    if (settled) return;
    settled = true;
    outcome = ended;
    if (deferred !== null) resolve(deferred, ended);
  };
  const callback = (/** @type {unknown} */ error, /** @type {unknown} */ result) => {
    settle(error === undefined || error === null ? { result } : { error });
  };
  const context = {
    callbackWaitsForEmptyEventLoop: true,
    functionName: name,
    functionVersion: details.functionVersion ?? process.env["AWS_LAMBDA_FUNCTION_VERSION"] ?? String(version),
    memoryLimitInMB: String(Math.round(instance.memoryBytesMax / 1_048_576)),
    logGroupName: process.env["AWS_LAMBDA_LOG_GROUP_NAME"] ?? details.logGroupName ?? `/aws/lambda/${name}`,
    logStreamName: details.logStreamName ?? process.env["AWS_LAMBDA_LOG_STREAM_NAME"] ?? `[${version}]`,
    clientContext: details.clientContext,
    identity: details.identity,
    invokedFunctionArn: details.invokedFunctionArn ?? arn(name, version),
    awsRequestId: call.head.id,
    tenantId: details.tenantId,
    getRemainingTimeInMillis: () => Math.floor(call.remainingMs()),
    done: callback,
    fail: (/** @type {unknown} */ error) => settle({ error: error ?? new Error("handled") }),
    succeed: (/** @type {unknown} */ result) => settle({ result }),
  };
  return {
    context,
    callback,
    wasCalled: () => settled,
    /** Settles as the callback, `done`, `fail` or `succeed` say; never when none of them is called. */
    get called() {
      if (deferred === null) {
        deferred = Promise.withResolvers();
        if (outcome !== null) resolve(deferred, outcome);
      }
      return deferred.promise;
    },
  };
}

/**
 * @param {PromiseWithResolvers<unknown>} deferred
 * @param {{ error: unknown } | { result: unknown }} outcome
 */
function resolve(deferred, outcome) {
  if ("error" in outcome) deferred.reject(outcome.error);
  else deferred.resolve(outcome.result);
}

/** @param {Call} call @returns {LambdaDetails} */
export function detailsOf(call) {
  const { context } = /** @type {{ context?: Record<string, unknown> }} */ (call.head);
  const lambda = context?.["lambda"];
  return typeof lambda === "object" && lambda !== null ? lambda : {};
}

/** The caller's trace goes on; else one begins. @param {Call} call */
export function traceIdOf(call) {
  const given = detailsOf(call).traceId ?? headerOf(call, "x-amzn-trace-id");
  if (given !== undefined) return given;
  const { id } = call.head;
  const digits = id.replaceAll("-", "").padEnd(32, "0");
  const seconds = Math.floor(Date.now() / 1_000).toString(16);
  return `Root=1-${seconds}-${digits.slice(8, 32)};Parent=${digits.slice(-16)};Sampled=0`;
}

/** @param {Call} call @param {string} name in lower case */
function headerOf({ head }, name) {
  if (head.kind !== "http") return undefined;
  const at = head.headers.findIndex((text, index) => index % 2 === 0 && text.toLowerCase() === name);
  return at < 0 ? undefined : head.headers[at + 1];
}

/**
 * @param {string} name
 * @param {number} version
 */
function arn(name, version) {
  return `arn:aws:lambda:${process.env["AWS_REGION"] ?? "us-east-1"}:000000000000:function:${name}:${version}`;
}
