import type { ErrorBody } from "../core/api.ts";
import type { ErrorCode, ErrorReport, Fault } from "../core/errors.ts";
import { KoineError, errorTable, isErrorCode } from "../core/errors.ts";

/** How the process ends; documented in docs/cli.md. */
export const exitCodes = {
  ok: 0,
  failed: 1,
  usage: 2,
  notAllowed: 3,
  notFound: 4,
  timedOut: 5,
  functionFailed: 6,
  interrupted: 130,
} as const;

/** Errors of the CLI itself; the platform's own are in core/errors.ts. */
const cliErrors = {
  usage: { fault: "caller", exitCode: exitCodes.usage },
  "invalid-project": { fault: "caller", exitCode: exitCodes.usage },
  "file-not-usable": { fault: "caller", exitCode: exitCodes.failed },
  "platform-unreachable": { fault: "platform", exitCode: exitCodes.failed },
  "unexpected-answer": { fault: "platform", exitCode: exitCodes.failed },
  "no-answer-in-time": { fault: "platform", exitCode: exitCodes.timedOut },
  "context-not-found": { fault: "caller", exitCode: exitCodes.notFound },
  "function-answered-error": { fault: "function", exitCode: exitCodes.functionFailed },
  declined: { fault: "caller", exitCode: exitCodes.failed },
  interrupted: { fault: "caller", exitCode: exitCodes.interrupted },
} as const satisfies Record<string, { fault: Fault; exitCode: number }>;

export type CliErrorCode = keyof typeof cliErrors;

/** An error that ends a command, whoever it came from. */
export class CliFailure extends Error {
  readonly code: CliErrorCode | ErrorCode;
  readonly fault: Fault;
  readonly hint: string;
  readonly exitCode: number;
  readonly requestId: string | null;
  readonly report: Pick<ErrorReport, "cause" | "values">;

  constructor(
    code: CliErrorCode | ErrorCode,
    message: string,
    hint: string,
    platform: {
      readonly fault: Fault;
      readonly exitCode: number;
      readonly requestId?: string;
      readonly report?: Pick<ErrorReport, "cause" | "values">;
    } = isErrorCode(code) ? { fault: errorTable[code].fault, exitCode: exitCodes.failed } : cliErrors[code],
  ) {
    super(message);
    this.name = "CliFailure";
    this.code = code;
    this.hint = hint;
    this.fault = platform.fault;
    this.exitCode = platform.exitCode;
    this.requestId = platform.requestId ?? null;
    this.report = platform.report ?? {};
  }

  /** The shape of `-o json`, on stderr: an ErrorBody whose request id may be null. */
  json(): unknown {
    const { code, fault, message, hint, requestId } = this;
    return { error: { code, fault, message, hint, ...this.report, requestId } };
  }
}

/** The platform's error as a failure with the exit code that belongs to it. */
export function platformFailure(error: ErrorBody["error"], status?: number): CliFailure {
  const { code, fault, message, hint, requestId, cause, values } = error;
  const report = { ...(cause === undefined ? {} : { cause }), ...(values === undefined ? {} : { values }) };
  return new CliFailure(code, message, hint, { fault, exitCode: exitCodeOf(error, status), requestId, report });
}

function exitCodeOf(error: ErrorReport, status: number | undefined): number {
  if (error.code === "function-timed-out" || error.code === "handler-load-timeout") return exitCodes.timedOut;
  if (error.fault === "function") return exitCodes.functionFailed;
  switch (status ?? (isErrorCode(error.code) ? errorTable[error.code].status : 0)) {
    case 401:
    case 403:
      return exitCodes.notAllowed;
    case 404:
      return exitCodes.notFound;
    default:
      return exitCodes.failed;
  }
}

/** Any thrown thing as a failure. */
export function toFailure(thrown: unknown): CliFailure {
  if (thrown instanceof CliFailure) return thrown;
  if (thrown instanceof KoineError) {
    return new CliFailure(thrown.code, thrown.message, thrown.hint, {
      fault: thrown.fault,
      exitCode: thrown.code === "invalid-name" ? exitCodes.usage : exitCodeOf(thrown.report(), undefined),
      report: { values: thrown.values },
    });
  }
  if (thrown instanceof Error && "code" in thrown && "path" in thrown) {
    return new CliFailure("file-not-usable", thrown.message, "Check the path and its permissions.");
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const hint = "This is a defect in the koine command. Set KOINE_DEBUG=1 to see where it came from.";
  return new CliFailure("internal", message, hint, { fault: "platform", exitCode: exitCodes.failed });
}

export function usageFailure(message: string, hint: string): CliFailure {
  return new CliFailure("usage", message, hint);
}
