import type { CloudEvent } from "../core/event.ts";
import { formatFunctionRef } from "../core/function.ts";
import type { Attempt, Invocation } from "../core/invocation.ts";
import type { KeptAnswer } from "../core/enqueue.ts";
import { newId } from "../core/ids.ts";

/** Bytes of a request that are sent on with its outcome. */
const REQUEST_BYTES_MAX = 384 * 1024;

export const OUTCOME_EVENT_TYPE = "application/cloudevents+json";

/** How an asynchronous invocation ended, as the event that its destination gets. */
export function outcomeEvent(of: {
  readonly invocation: Invocation;
  /** Number of the version that ran last; null: none did. */
  readonly version: number | null;
  readonly kind: "succeeded" | "failed";
  readonly reason: string | null;
  readonly attempt: Attempt;
  readonly answer: KeptAnswer | null;
  readonly nowMs: number;
}): CloudEvent {
  const { invocation, version, kind, reason, attempt, answer, nowMs } = of;
  const { ref, id } = invocation;
  const name = formatFunctionRef({ namespace: ref.namespace, package: ref.package, name: ref.name });
  return {
    specversion: "1.0",
    id: newId(nowMs),
    source: `/namespaces/${ref.namespace}/functions/${ref.package === "" ? "" : `${ref.package}/`}${ref.name}`,
    type: `koine.invocation.${kind}`,
    subject: id,
    time: new Date(nowMs).toISOString(),
    datacontenttype: "application/json",
    data: {
      activationId: id,
      function: name,
      version,
      outcome: attempt.outcome,
      attempts: attempt.number,
      reason,
      error: attempt.error,
      request: requestOf(invocation),
      response: answer === null ? null : { status: answer.status, ...bodyOf(answer.body, typeOf(answer.headers)) },
    },
  };
}

function requestOf({ call, body }: Invocation): unknown {
  const contentType = call.kind === "event" ? call.contentType : typeOf(call.headers);
  const http = call.kind === "http" ? { method: call.method, url: call.url } : {};
  if (body.length > REQUEST_BYTES_MAX) return { ...http, contentType, bytes: body.length, omitted: true };
  return { ...http, ...bodyOf(body, contentType) };
}

/** JSON as it is, text as text, everything else as base64. */
function bodyOf(body: Buffer, contentType: string): { readonly contentType: string } & Record<string, unknown> {
  if (body.length === 0) return { contentType, body: null };
  const text = body.toString("utf8");
  if (/[/+]json\b/i.test(contentType)) {
    try {
      return { contentType, body: JSON.parse(text) as unknown };
    } catch {
      // It says that it is JSON, but is not.
    }
  }
  return Buffer.from(text).equals(body)
    ? { contentType, body: text }
    : { contentType, bodyBase64: body.toString("base64") };
}

function typeOf(headers: readonly string[]): string {
  const at = headers.findIndex((name, index) => index % 2 === 0 && name.toLowerCase() === "content-type");
  return at < 0 ? "application/octet-stream" : (headers[at + 1] ?? "");
}
