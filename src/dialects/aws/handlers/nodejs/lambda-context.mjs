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
 */

/**
 * The `context` of one call, the `callback` beside it, and the promise that both settle.
 *
 * `callbackWaitsForEmptyEventLoop` is kept but changes nothing: an instance may serve several calls at a time, so that its event loop
 * says nothing about one of them. The answer goes out when the callback is called.
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
    functionVersion: String(version),
    memoryLimitInMB: String(Math.round(instance.memoryBytesMax / 1_048_576)),
    logGroupName: details.logGroupName ?? `/aws/lambda/${name}`,
    logStreamName: details.logStreamName ?? `[${version}]`,
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
function detailsOf(call) {
  const lambda = call.head.kind === "event" ? call.head.context?.["lambda"] : undefined;
  return typeof lambda === "object" && lambda !== null ? lambda : {};
}

/**
 * @param {string} name
 * @param {number} version
 */
function arn(name, version) {
  return `arn:aws:lambda:${process.env["AWS_REGION"] ?? "us-east-1"}:000000000000:function:${name}:${version}`;
}
