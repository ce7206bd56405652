const { inspect } = process.getBuiltinModule("node:util");

/**
 * What user code threw, as the engine is told it.
 * @typedef {"handler-load-failed" | "handler-syntax-error" | "handler-not-found" | "unknown-handler-model" | "handler-failed" | "invalid-response"} ErrorCode
 * @typedef {{ code: ErrorCode, message: string, type?: string, stack?: string, detail?: string, exports?: string[], retryable?: false }} ErrorJson
 */

const TEXT_LENGTH_MAX = 8_192;
const STACK_LENGTH_MAX = 32_768;

/** An error that names its code itself. */
export class ReportedError extends Error {
  /** @param {ErrorJson} report */
  constructor(report) {
    super(report.message);
    this.name = "ReportedError";
    this.report = report;
  }
}

/**
 * What an adapter throws when a handler's answer cannot be used.
 * @param {string} message
 */
export function invalidResponse(message) {
  return new ReportedError({ code: "invalid-response", message });
}

/**
 * @param {unknown} thrown anything at all
 * @param {ErrorCode} code unless the error names its own
 * @returns {ErrorJson}
 */
export function describeThrown(thrown, code) {
  try {
    if (thrown instanceof ReportedError) return cut(thrown.report);
    if (isError(thrown)) {
      const type = String(thrown.name || thrown.constructor?.name || "Error");
      const vain = /** @type {{ retryable?: unknown }} */ (thrown).retryable === false;
      const report = { code, type, message: String(thrown.message), stack: stackOf(thrown) };
      return cut(vain ? { ...report, retryable: false } : report);
    }
    return cut({ code, type: typeName(thrown), message: printable(thrown) });
  } catch {
    // A getter or a proxy that throws when looked at.
    return { code, type: typeof thrown, message: "something that cannot be printed was thrown" };
  }
}

/** @param {unknown} value @returns {value is Error} also of another realm */
export function isError(value) {
  return value instanceof Error || Object.prototype.toString.call(value) === "[object Error]";
}

/** @param {unknown} value a value for a person to read, in one or few lines */
export function printable(value) {
  return typeof value === "string" ? value : inspect(value, { depth: 3, breakLength: 120 });
}

/** @param {Error} error with its causes */
function stackOf(error) {
  const stack = String(error.stack ?? "");
  return error.cause === undefined ? stack : `${stack}\n[cause]: ${inspect(error.cause, { depth: 2 })}`;
}

/** @param {unknown} value */
function typeName(value) {
  if (value === null) return "null";
  if (typeof value !== "object") return typeof value;
  const name = value.constructor?.name;
  return typeof name === "string" && name !== "" ? name : "object";
}

/** @param {ErrorJson} report @returns {ErrorJson} */
function cut(report) {
  const { stack, detail, exports } = report;
  return {
    ...report,
    message: report.message.slice(0, TEXT_LENGTH_MAX),
    ...(stack === undefined ? {} : { stack: stack.slice(0, STACK_LENGTH_MAX) }),
    ...(detail === undefined ? {} : { detail: detail.slice(0, TEXT_LENGTH_MAX) }),
    ...(exports === undefined ? {} : { exports: exports.slice(0, 100).map((name) => name.slice(0, 100)) }),
  };
}
