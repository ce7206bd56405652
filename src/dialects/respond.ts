import type { ServerResponse } from "node:http";
import { type ErrorBody, invocationHeaders } from "../core/api.ts";
import type { KoineError } from "../core/errors.ts";
import type { ErrorReport } from "../core/errors.ts";

const RETRY_AFTER_SECONDS = 1;

/** A JSON answer with the request's id. */
export function respondJson(
  response: ServerResponse,
  id: string,
  answer: { readonly status: number; readonly body: unknown; readonly headers?: readonly string[] },
): void {
  const text = Buffer.from(`${JSON.stringify(answer.body)}\n`);
  const headers = [
    ...(answer.headers ?? []),
    "Content-Type",
    "application/json; charset=utf-8",
    "Content-Length",
    String(text.length),
  ];
  response.writeHead(answer.status, [...headers, invocationHeaders.requestId, id]);
  response.end(text);
}

export function respondText(
  response: ServerResponse,
  id: string,
  answer: { readonly status: number; readonly text: string; readonly contentType?: string },
): void {
  const bytes = Buffer.from(answer.text);
  const contentType = answer.contentType ?? "text/plain; charset=utf-8";
  const headers = [
    "Content-Type",
    contentType,
    "Content-Length",
    String(bytes.length),
    invocationHeaders.requestId,
    id,
  ];
  response.writeHead(answer.status, headers);
  response.end(bytes);
}

export function respondEmpty(
  response: ServerResponse,
  id: string,
  status: number,
  headers: readonly string[] = [],
): void {
  response.writeHead(status, [...headers, invocationHeaders.requestId, id]);
  response.end();
}

/** The platform's error shape; breaks the connection instead when an answer has already begun. */
export function respondError(response: ServerResponse, id: string, error: KoineError): void {
  respondErrorReport(response, id, { status: error.status, report: error.report() });
}

export function respondErrorReport(
  response: ServerResponse,
  id: string,
  answer: { readonly status: number; readonly report: ErrorReport; readonly headers?: readonly string[] },
): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const { status, report } = answer;
  const body: ErrorBody = { error: { ...report, requestId: id } };
  const headers = [...(answer.headers ?? []), invocationHeaders.error, report.code];
  if (status === 429 || status === 503) headers.push("Retry-After", String(RETRY_AFTER_SECONDS));
  if (report.code === "method-not-allowed") headers.push("Allow", String(report.values?.["allowed"] ?? ""));
  if (status === 401) headers.push("WWW-Authenticate", 'Bearer realm="koine"');
  // A refused body may still be on its way: the connection cannot be used for another request.
  if (status === 413) headers.push("Connection", "close");
  respondJson(response, id, { status, body, headers });
}
