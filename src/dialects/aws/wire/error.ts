import { type KoineError, toKoineError } from "../../../core/errors.ts";

/** An error as the SDKs know it: `ResourceNotFoundException`, status 404, and whatever members its shape has beside the message. */
export class AwsError extends Error {
  readonly code: string;
  readonly status: number;
  readonly members: Readonly<Record<string, unknown>>;

  constructor(
    code: string,
    message: string,
    options: {
      readonly status?: number;
      readonly members?: Readonly<Record<string, unknown>>;
      readonly cause?: unknown;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "AwsError";
    this.code = code;
    this.status = options.status ?? 400;
    this.members = options.members ?? {};
  }

  /** Whose fault it is, in the words of the wire. */
  get type(): "Sender" | "Receiver" {
    return this.status < 500 ? "Sender" : "Receiver";
  }
}

/** What any failure is to an SDK: services translate what they know better before it comes here. */
export function toAwsError(thrown: unknown): AwsError {
  if (thrown instanceof AwsError) return thrown;
  const error = toKoineError(thrown);
  return new AwsError(codeOf(error), `${error.message}. ${error.hint}`, { status: error.status, cause: error });
}

function codeOf(error: KoineError): string {
  switch (error.status) {
    case 401:
    case 403:
      return "AccessDeniedException";
    case 404:
      return "ResourceNotFoundException";
    case 409:
      return "ResourceConflictException";
    case 413:
      return "RequestTooLargeException";
    case 429:
      return "TooManyRequestsException";
    case 503:
      return "ServiceUnavailable";
    default:
      return error.fault === "caller" ? "ValidationException" : "ServiceException";
  }
}
