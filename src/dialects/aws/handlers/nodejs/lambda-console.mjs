const { format } = process.getBuiltinModule("node:util");

/** In the order of their weight. */
const LEVELS = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
const METHODS = /** @type {const} */ ({
  log: "INFO",
  info: "INFO",
  warn: "WARN",
  error: "ERROR",
  debug: "DEBUG",
  trace: "TRACE",
  fatal: "FATAL",
});

/** The call that writes; an instance of these functions serves one at a time. @type {{ id: string | undefined, tenantId: string | undefined }} */
const current = { id: undefined, tenantId: undefined };
let isJson = false;
let levelMin = 0;

/** @param {string} id @param {string} [tenantId] */
export function linesBelongTo(id, tenantId) {
  current.id = id;
  current.tenantId = tenantId;
}

/** Has `console` write lines as Lambda's runtime does, where the function's environment says in which form. */
export function patchConsole() {
  const form = process.env["AWS_LAMBDA_LOG_FORMAT"];
  if (form === undefined) return;
  isJson = form === "JSON";
  levelMin = isJson ? Math.max(0, LEVELS.indexOf(process.env["AWS_LAMBDA_LOG_LEVEL"] ?? "")) : 0;
  for (const [method, level] of Object.entries(METHODS)) {
    Object.assign(console, { [method]: (/** @type {unknown[]} */ ...given) => write(level, given) });
  }
}

/** The line that tells of an error which a handler did not catch. @param {unknown} thrown */
export function logFailure(thrown) {
  if (process.env["AWS_LAMBDA_LOG_FORMAT"] === undefined) return;
  const described = describe(thrown);
  if (isJson) write("ERROR", [described]);
  else {
    const { stackTrace, ...rest } = described;
    write("ERROR", ["Invoke Error ", JSON.stringify({ ...rest, stack: stackTrace })].map(String), "\t");
  }
}

/**
 * @param {string} level
 * @param {unknown[]} given
 * @param {string} [joint] between what is given, instead of what `format` puts there
 */
function write(level, given, joint) {
  if (LEVELS.indexOf(level) < levelMin) return;
  const timestamp = new Date().toISOString();
  if (isJson) {
    process.stdout.write(`${jsonLine(timestamp, level, given)}\n`);
    return;
  }
  const text = joint === undefined ? format(...given) : given.join(joint);
  process.stdout.write(`${timestamp}\t${current.id}\t${level}\t${text}\n`);
}

/**
 * @param {string} timestamp
 * @param {string} level
 * @param {unknown[]} given
 */
function jsonLine(timestamp, level, given) {
  const head = { timestamp, level, requestId: current.id, tenantId: current.tenantId };
  if (given.length === 1) {
    try {
      return JSON.stringify({ ...head, message: given[0] }, (_, value) =>
        value instanceof Error ? describe(value) : value,
      );
    } catch {
      // Values that refer to themselves have no JSON.
    }
  }
  const error = given.find((each) => each instanceof Error);
  return JSON.stringify({ ...head, message: format(...given), ...(error === undefined ? {} : describe(error)) });
}

/** @param {unknown} thrown */
function describe(thrown) {
  if (!(thrown instanceof Error)) return { errorType: typeof thrown, errorMessage: String(thrown), stackTrace: [] };
  const stackTrace = typeof thrown.stack === "string" ? thrown.stack.split("\n") : [];
  return { errorType: thrown.name, errorMessage: thrown.message, stackTrace };
}
