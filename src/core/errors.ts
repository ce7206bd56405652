/** Who must act. */
export type Fault = "caller" | "function" | "platform";

interface ErrorDefinition {
  readonly fault: Fault;
  /** HTTP status of the native API. */
  readonly status: number;
  /** `{name}` places are filled from the error's values. */
  readonly message: string;
  /** What to do about it. */
  readonly hint: string;
}

const define = <T extends Record<string, ErrorDefinition>>(table: T): T => table;

/** Every error of the platform, once. `docs/errors.md` is generated from this table. */
export const errorTable = define({
  // The caller's
  "invalid-request": {
    fault: "caller",
    status: 400,
    message: "The request is not valid: {detail}",
    hint: "See /openapi.json for the shape that is expected.",
  },
  "invalid-json": {
    fault: "caller",
    status: 400,
    message: "The body is not valid JSON: {detail}",
    hint: "Send UTF-8 JSON with Content-Type: application/json.",
  },
  "invalid-name": {
    fault: "caller",
    status: 400,
    message: "'{name}' is not a valid name",
    hint: "Use letters, digits, '.', '_' and '-', beginning and ending with a letter or digit, at most 64 characters.",
  },
  "invalid-package": {
    fault: "caller",
    status: 400,
    message: "The code package is not valid: {detail}",
    hint: "Send a zip archive whose entries stay inside it: plain files, folders, and links that do not leave the package.",
  },
  "unknown-runtime": {
    fault: "caller",
    status: 400,
    message: "There is no runtime '{runtime}'",
    hint: "Known runtimes: {known}.",
  },
  "unknown-handler-model": {
    fault: "caller",
    status: 400,
    message: "There is no handler model '{model}' for runtime '{runtime}'",
    hint: "Known models: {known}.",
  },
  "unknown-protocol": {
    fault: "caller",
    status: 400,
    message: "There is no protocol '{protocol}'",
    hint: "Known protocols: {known}. docs/custom-runtimes.md says which to take.",
  },
  unauthorized: {
    fault: "caller",
    status: 401,
    message: "This needs a valid token",
    hint: "Send 'Authorization: Bearer TOKEN'; the CLI takes it from KOINE_TOKEN or its context.",
  },
  forbidden: {
    fault: "caller",
    status: 403,
    message: "Not allowed: {detail}",
    hint: "Ask the operator for the right, or call from an allowed host or origin.",
  },
  "function-not-found": {
    fault: "caller",
    status: 404,
    message: "There is no function '{name}'{suggestion}",
    hint: "'koine list' shows what is deployed.",
  },
  "version-not-found": {
    fault: "caller",
    status: 404,
    message: "Function '{name}' has no version or alias '{qualifier}'",
    hint: "'koine versions {name}' shows what there is.",
  },
  "alias-not-found": {
    fault: "caller",
    status: 404,
    message: "Function '{name}' has no alias '{alias}'",
    hint: "'koine alias list {name}' shows what there is.",
  },
  "secret-not-found": {
    fault: "caller",
    status: 404,
    message: "There is no secret '{name}' in namespace '{namespace}'",
    hint: "Set it with 'koine secret set {name}'.",
  },
  "activation-not-found": {
    fault: "caller",
    status: 404,
    message: "There is no activation '{id}'",
    hint: "It may be older than the retention, or of another namespace.",
  },
  "image-not-found": {
    fault: "caller",
    status: 404,
    message: "There is no image '{image}': {detail}",
    hint: "Check name and tag; an image of a private registry needs --registry-secret.",
  },
  "image-access-denied": {
    fault: "caller",
    status: 403,
    message: "The registry does not give out '{image}': {detail}",
    hint: "Set a secret of 'USER:PASSWORD' with 'koine secret set' and name it with --registry-secret.",
  },
  "code-not-found": {
    fault: "caller",
    status: 404,
    message: "There is no code package '{digest}'",
    hint: "Upload it first: POST /v1/code.",
  },
  "not-found": {
    fault: "caller",
    status: 404,
    message: "There is nothing at {path}",
    hint: "Functions are at /fn/NAME, the API is described at /openapi.json.",
  },
  "method-not-allowed": {
    fault: "caller",
    status: 405,
    message: "{method} is not possible on {path}",
    hint: "Allowed: {allowed}.",
  },
  "not-acceptable-state": {
    fault: "caller",
    status: 409,
    message: "{detail}",
    hint: "Look at the current state first, then decide again.",
  },
  conflict: {
    fault: "caller",
    status: 409,
    message: "'{name}' was changed by someone else in between",
    hint: "Read it again and repeat the change.",
  },
  "trigger-not-found": {
    fault: "caller",
    status: 404,
    message: "There is no trigger '{name}'{suggestion}",
    hint: "'koine trigger list' shows what there is.",
  },
  "invalid-trigger": {
    fault: "caller",
    status: 400,
    message: "The trigger of kind '{kind}' is not valid: {detail}",
    hint: "'koine trigger kinds {kind}' shows its settings; docs/triggers.md explains them.",
  },
  "unknown-trigger-kind": {
    fault: "caller",
    status: 400,
    message: "There is no kind of trigger '{kind}'{suggestion}",
    hint: "Known kinds: {known}.",
  },
  "invalid-pattern": {
    fault: "caller",
    status: 400,
    message: "The filter is not valid: {detail}",
    hint: "docs/triggers.md has the pattern language with examples.",
  },
  "hook-unauthorized": {
    fault: "caller",
    status: 401,
    message: "The request is not admitted: {detail}",
    hint: "The sender must sign or identify itself as the trigger's 'auth' setting says; see docs/triggers.md.",
  },
  "invalid-event": {
    fault: "caller",
    status: 400,
    message: "This is not a CloudEvent: {detail}",
    hint: "Send CloudEvents 1.0 in binary, structured or batch mode.",
  },
  "topic-not-found": {
    fault: "caller",
    status: 404,
    message: "There is no topic '{name}'",
    hint: "Make it with 'koine topic create {name}'.",
  },
  "invalid-network-rule": {
    fault: "caller",
    status: 400,
    message: "'{rule}' is not a network rule: {detail}",
    hint: "Write TARGET or TARGET:PORT, such as 10.1.2.0/24:5432, [fd00::1]:5432, db.internal:5432 or localhost:5432.",
  },
  "network-not-allowed": {
    fault: "caller",
    status: 403,
    message: "This platform does not let functions have {what}",
    hint: "A function can have less of the network than the platform gives, never more: start it with 'koine up {option}'.",
  },
  "payload-too-large": {
    fault: "caller",
    status: 413,
    message: "The body of {what} is larger than {limit} bytes",
    hint: "Send less, or send a reference to the data.",
  },
  "request-timed-out": {
    fault: "caller",
    status: 408,
    message: "The request did not arrive within {timeoutMs} ms",
    hint: "Send head and body without long pauses.",
  },
  "headers-too-large": {
    fault: "caller",
    status: 431,
    message: "The head of the request is larger than {limit} bytes",
    hint: "Send less in the headers and the address.",
  },
  "unsupported-media-type": {
    fault: "caller",
    status: 415,
    message: "Content type '{type}' cannot be used here",
    hint: "Expected: {expected}.",
  },
  "limit-exceeded": {
    fault: "caller",
    status: 400,
    message: "{what} is {value}; allowed is {allowed}",
    hint: "See docs/limits.md.",
  },
  "too-many-requests": {
    fault: "caller",
    status: 429,
    message: "Function '{name}' has no free slot and its queue is full",
    hint: "Retry after the time in Retry-After, or raise --concurrency or --max-concurrency.",
  },
  "queue-full": {
    fault: "caller",
    status: 429,
    message: "The queue takes no more work of '{name}': {detail}",
    hint: "Retry after the time in Retry-After; 'koine status' and koine_queue_depth show what waits.",
  },
  "dead-letters-full": {
    fault: "caller",
    status: 429,
    message: "'{name}' has {count} dead letters and takes no more asynchronous work until some are gone",
    hint: "Look at them with 'koine dlq list', then 'koine dlq replay' or 'koine dlq purge'.",
  },
  "dead-letter-not-found": {
    fault: "caller",
    status: 404,
    message: "There is no dead letter '{id}'",
    hint: "It may have been replayed or purged; 'koine dlq list' shows what there is.",
  },
  cancelled: {
    fault: "caller",
    status: 499,
    message: "The invocation was cancelled",
    hint: "Nothing: somebody asked for it.",
  },
  "client-closed-request": {
    fault: "caller",
    status: 499,
    message: "The client went away before the answer was complete",
    hint: "Nothing: the invocation was cancelled.",
  },

  "source-failed": {
    fault: "caller",
    status: 502,
    message: "The event source does not work: {detail}",
    hint: "Check the trigger's settings and whether its server can be reached from the platform.",
  },

  // The function's
  "handler-load-failed": {
    fault: "function",
    status: 502,
    message: "Loading '{handler}' failed: {detail}",
    hint: "The stack is in the error's cause and in 'koine logs'.",
  },
  "handler-syntax-error": {
    fault: "function",
    status: 502,
    message: "'{handler}' has a syntax error: {detail}",
    hint: "Correct the line shown and deploy again.",
  },
  "handler-not-found": {
    fault: "function",
    status: 502,
    message: "'{handler}' was not found: {detail}",
    hint: "Check --handler: FILE or FILE.EXPORT, relative to the package.",
  },
  "handler-load-timeout": {
    fault: "function",
    status: 504,
    message: "'{handler}' did not finish loading within {timeoutMs} ms",
    hint: "Move slow work out of module level, or into the handler.",
  },
  "program-not-ready": {
    fault: "function",
    status: 504,
    message: "The function's program was not ready within {timeoutMs} ms: {detail}",
    hint: "{remedy}",
  },
  "handler-failed": {
    fault: "function",
    status: 502,
    message: "{detail}",
    hint: "The function threw this error; see its stack and logs.",
  },
  "invalid-response": {
    fault: "function",
    status: 502,
    message: "The function's answer cannot be used: {detail}",
    hint: "See docs/handler-models.md for what a handler may return.",
  },
  "batch-partly-failed": {
    fault: "function",
    status: 502,
    message: "The function could not do a part of the batch",
    hint: "Only that part is tried again; see its logs.",
  },
  "answered-error": {
    fault: "function",
    status: 502,
    message: "The function answered {status}",
    hint: "Asynchronous work has succeeded when the answer is below 400; 'koine runs get ID --result' shows the answer.",
  },
  "function-timed-out": {
    fault: "function",
    status: 504,
    message: "The function did not answer within {timeoutMs} ms",
    hint: "Make it faster or raise --timeout.",
  },
  "function-exited": {
    fault: "function",
    status: 502,
    message: "The function's process ended during the call: {detail}",
    hint: "Do not call process.exit or sys.exit in a handler; see the logs for a crash.",
  },
  "out-of-memory": {
    fault: "function",
    status: 502,
    message: "The function used more than its {memory} of memory and was stopped",
    hint: "Raise --memory, or hold less in memory at a time.",
  },
  "too-many-processes": {
    fault: "function",
    status: 502,
    message: "The function tried to run more processes than its limit of {limit}",
    hint: "Start fewer processes or threads.",
  },
  "image-build-failed": {
    fault: "function",
    status: 422,
    message: "The image could not be built: {detail}",
    hint: "The lines above are the builder's; 'docker build .' shows the same.",
  },
  "image-unusable": {
    fault: "function",
    status: 422,
    message: "The image '{image}' cannot run as a function: {detail}",
    hint: "docs/containers.md says what an image needs.",
  },
  "build-failed": {
    fault: "function",
    status: 422,
    message: "Installing dependencies failed: {detail}",
    hint: "The installer's output is in the error's values.",
  },

  "destination-failed": {
    fault: "function",
    status: 502,
    message: "{destination} did not take the delivery: {detail}",
    hint: "Correct the destination, then 'koine dlq replay'.",
  },
  "destination-refused": {
    fault: "caller",
    status: 400,
    message: "'{destination}' cannot be a destination: {detail}",
    hint: "Write function:NAME, topic:NAME or https://…; see docs/events.md.",
  },
  "destination-loop": {
    fault: "function",
    status: 508,
    message: "More than {limit} invocations followed from each other by destinations",
    hint: "Break the circle of --on-success and --on-failure.",
  },

  // The platform's
  "network-unavailable": {
    fault: "platform",
    status: 503,
    message: "The network mode '{mode}' is not to be had on this machine: {detail}",
    hint: "{remedy}",
  },
  "platform-overloaded": {
    fault: "platform",
    status: 503,
    message: "The node has no room for another instance",
    hint: "Retry after the time in Retry-After, or give the node more memory.",
  },
  "engine-failed": {
    fault: "platform",
    status: 503,
    message: "Engine {engine} failed: {detail}",
    hint: "The platform starts it anew: retry. Its log says why it ended.",
  },
  "shutting-down": {
    fault: "platform",
    status: 503,
    message: "The platform is stopping",
    hint: "Retry after the time in Retry-After.",
  },
  "sandbox-failed": {
    fault: "platform",
    status: 500,
    message: "A sandbox could not be started: {detail}",
    hint: "'koine doctor' checks what the machine offers.",
  },
  "registry-unavailable": {
    fault: "platform",
    status: 502,
    message: "The registry of '{image}' cannot be used: {detail}",
    hint: "The engine asks it, not koine: check the engine's network, proxy and certificates, and the image's name.",
  },
  "container-engine-unavailable": {
    fault: "platform",
    status: 503,
    message: "No container engine can be used: {detail}",
    hint: "{remedy}",
  },
  "runtime-unavailable": {
    fault: "platform",
    status: 500,
    message: "Runtime '{runtime}' cannot be used on this machine: {detail}",
    hint: "{remedy}",
  },
  "storage-failed": {
    fault: "platform",
    status: 500,
    message: "The store could not write or read: {detail}",
    hint: "Check disk space and permissions of the data directory.",
  },
  "storage-full": {
    fault: "platform",
    status: 507,
    message: "The disk of the data directory is full",
    hint: "Free space; nothing that was acknowledged is lost.",
  },
  "data-directory-unusable": {
    fault: "platform",
    status: 500,
    message: "The data directory {directory} cannot be used: {detail}",
    hint: "Choose another with --data, or give this user the right to write there.",
  },
  "data-directory-in-use": {
    fault: "platform",
    status: 500,
    message: "Another koine is running on the data directory {directory}",
    hint: "Stop it, or choose another directory with --data.",
  },
  "data-version-newer": {
    fault: "platform",
    status: 500,
    message: "The data directory {directory} was written by a newer koine (format {found}, this one knows {known})",
    hint: "Upgrade koine, or choose another directory with --data.",
  },
  "secret-key-unusable": {
    fault: "platform",
    status: 500,
    message: "Secrets cannot be read or written: {detail}",
    hint: "Restore the key file {keyFile} from a backup, or set the secrets again.",
  },
  "port-in-use": {
    fault: "platform",
    status: 500,
    message: "Port {port} on {host} is already in use",
    hint: "Stop what listens there, or choose another with --port.",
  },
  "unsafe-host": {
    fault: "platform",
    status: 500,
    message: "Refusing to listen on {host} without authentication",
    hint: "Set KOINE_TOKEN (at least 16 characters), or listen on 127.0.0.1.",
  },
  "invalid-configuration": {
    fault: "platform",
    status: 500,
    message: "The configuration is not valid: {detail}",
    hint: "See docs/configuration.md.",
  },
  "not-supported": { fault: "platform", status: 501, message: "{what} is not possible here", hint: "{remedy}" },
  internal: {
    fault: "platform",
    status: 500,
    message: "Something unexpected went wrong: {detail}",
    hint: "This is a defect in koine. The platform's log has the details under this request id.",
  },
});

export type ErrorCode = keyof typeof errorTable;

export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(errorTable, text);
}

export type ErrorValues = Readonly<Record<string, string | number | undefined>>;

/** The shape of every error on the wire: in HTTP bodies, in activations and in `-o json`. */
export interface ErrorReport {
  readonly code: ErrorCode;
  readonly fault: Fault;
  readonly message: string;
  readonly hint: string;
  /** Type, message and stack of what user code threw, if that is the cause. */
  readonly cause?: ThrownReport;
  readonly values?: ErrorValues;
}

/** What user code threw, as its runtime saw it. */
export interface ThrownReport {
  /** The class: `TypeError`, `KeyError`. */
  readonly type: string;
  readonly message: string;
  readonly stack?: string;
  /** JSON of all that a program told of it, where it told it so. */
  readonly told?: string;
  /** False: the error has a property `retryable` that is false, so an asynchronous invocation is not tried again. */
  readonly retryable?: false;
}

export class KoineError extends Error {
  readonly code: ErrorCode;
  readonly values: ErrorValues;
  readonly thrown: ThrownReport | undefined;

  constructor(code: ErrorCode, values: ErrorValues = {}, options: { cause?: unknown; thrown?: ThrownReport } = {}) {
    super(fill(errorTable[code].message, values), options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "KoineError";
    this.code = code;
    this.values = values;
    this.thrown = options.thrown;
  }

  get fault(): Fault {
    return errorTable[this.code].fault;
  }

  get status(): number {
    return errorTable[this.code].status;
  }

  get hint(): string {
    return fill(errorTable[this.code].hint, this.values);
  }

  report(): ErrorReport {
    return {
      code: this.code,
      fault: this.fault,
      message: this.message,
      hint: this.hint,
      ...(this.thrown === undefined ? {} : { cause: this.thrown }),
      ...(Object.keys(this.values).length === 0 ? {} : { values: this.values }),
    };
  }
}

/** Any thrown thing as a KoineError; what is none becomes `internal` with the original as cause. */
export function toKoineError(thrown: unknown): KoineError {
  if (thrown instanceof KoineError) return thrown;
  const code = thrown instanceof Error && "code" in thrown ? thrown.code : undefined;
  if (code === "ENOSPC" || code === "EDQUOT") return new KoineError("storage-full", {}, { cause: thrown });
  return new KoineError(
    "internal",
    { detail: thrown instanceof Error ? thrown.message : String(thrown) },
    { cause: thrown },
  );
}

function fill(template: string, values: ErrorValues): string {
  return template.replaceAll(/\{(\w+)\}/g, (_, name: string) => String(values[name] ?? ""));
}
