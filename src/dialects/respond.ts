import { type ErrorBody, invocationHeaders } from "../core/api.ts";
import type { ErrorCode, ErrorReport, KoineError } from "../core/errors.ts";
import { AnswerHead, type GatewayRequest } from "./dialect.ts";

const RETRY_AFTER_SECONDS = 1;
/** Where a second would be too early. */
const LATER_SECONDS: Readonly<Partial<Record<ErrorCode, number>>> = { "queue-full": 10, "dead-letters-full": 60 };

/** A JSON answer. */
export function respondJson(
  request: GatewayRequest,
  answer: { readonly status: number; readonly body: unknown; readonly headers?: readonly string[] },
): void {
  const headers = [...(answer.headers ?? []), "Content-Type", "application/json; charset=utf-8"];
  request.response.send(new AnswerHead(answer.status, headers), Buffer.from(`${JSON.stringify(answer.body)}\n`));
}

export function respondText(
  request: GatewayRequest,
  answer: { readonly status: number; readonly text: string; readonly contentType?: string },
): void {
  const headers = ["Content-Type", answer.contentType ?? "text/plain; charset=utf-8"];
  request.response.send(new AnswerHead(answer.status, headers), Buffer.from(answer.text));
}

export function respondEmpty(request: GatewayRequest, status: number, headers: readonly string[] = []): void {
  request.response.send(new AnswerHead(status, headers), null);
}

/** The platform's error shape; breaks the connection instead when an answer has already begun. */
export function respondError(request: GatewayRequest, error: KoineError): void {
  respondErrorReport(request, { status: error.status, report: error.report() });
}

export function respondErrorReport(
  request: GatewayRequest,
  answer: { readonly status: number; readonly report: ErrorReport; readonly headers?: readonly string[] },
): void {
  const { response, id } = request;
  if (response.begun) {
    response.abort();
    return;
  }
  const { status, report } = answer;
  const headers = [...(answer.headers ?? []), ...errorHeaders(status, report)];
  // A refused body may still be on its way: the connection cannot be used for another request.
  response.send(new AnswerHead(status, headers, { closes: status === 413 }), errorBody(report, id));
}

/** The headers that come with an error, beside those of every answer. */
export function errorHeaders(status: number, report: ErrorReport): readonly string[] {
  const headers: string[] = [invocationHeaders.error, report.code];
  if (status === 429 || status === 503)
    headers.push("Retry-After", String(LATER_SECONDS[report.code] ?? RETRY_AFTER_SECONDS));
  if (report.code === "method-not-allowed") headers.push("Allow", String(report.values?.["allowed"] ?? ""));
  if (status === 401) headers.push("WWW-Authenticate", 'Bearer realm="koine"');
  return [...headers, "Content-Type", "application/json; charset=utf-8"];
}

export function errorBody(report: ErrorReport, requestId: string): Buffer {
  const body: ErrorBody = { error: { ...report, requestId } };
  return Buffer.from(`${JSON.stringify(body)}\n`);
}
