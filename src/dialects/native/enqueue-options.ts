import type { EnqueueOptions, Priority, RetryPolicy } from "../../core/enqueue.ts";
import { PRIORITIES } from "../../core/enqueue.ts";
import { KoineError } from "../../core/errors.ts";
import { limits } from "../../core/limits.ts";
import type { RequestHeaders } from "../request-headers.ts";

/** Request headers that say how an asynchronous invocation is to be handled. */
export const enqueueHeaders = {
  idempotencyKey: "idempotency-key",
  orderingKey: "koine-ordering-key",
  priority: "koine-priority",
  delay: "koine-delay",
  at: "koine-at",
  retries: "koine-retries",
} as const;

/** @throws KoineError `invalid-request` */
export function enqueueOptionsOf(headers: RequestHeaders, nowMs: number): EnqueueOptions {
  const idempotencyKey = headers.get(enqueueHeaders.idempotencyKey);
  const orderingKey = headers.get(enqueueHeaders.orderingKey);
  const priority = priorityOf(headers.get(enqueueHeaders.priority));
  const dueAtMs = dueOf(headers, nowMs);
  const retry = retriesOf(headers.get(enqueueHeaders.retries));
  return {
    ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
    ...(orderingKey === undefined ? {} : { orderingKey }),
    ...(priority === undefined ? {} : { priority }),
    ...(dueAtMs === undefined ? {} : { dueAtMs }),
    ...(retry === undefined ? {} : { retry }),
  };
}

function priorityOf(text: string | undefined): Priority | undefined {
  if (text === undefined) return undefined;
  const priority = PRIORITIES.find((known) => known === text.trim().toLowerCase());
  if (priority === undefined) throw wrong(enqueueHeaders.priority, text, PRIORITIES.join(", "));
  return priority;
}

function dueOf(headers: RequestHeaders, nowMs: number): number | undefined {
  const delay = headers.get(enqueueHeaders.delay);
  const at = headers.get(enqueueHeaders.at);
  if (delay !== undefined && at !== undefined)
    throw new KoineError("invalid-request", { detail: "Koine-Delay and Koine-At exclude each other" });
  if (delay !== undefined) return nowMs + durationMs(delay);
  if (at === undefined) return undefined;
  const atMs = /^[0-9]{1,15}$/.test(at) ? Number(at) : Date.parse(at);
  if (Number.isNaN(atMs)) throw wrong(enqueueHeaders.at, at, "a time such as 2030-01-31T12:00:00Z");
  return atMs;
}

function retriesOf(text: string | undefined): Partial<RetryPolicy> | undefined {
  if (text === undefined) return undefined;
  const attemptsMax = /^[0-9]{1,3}$/.test(text) ? Number(text) + 1 : Number.POSITIVE_INFINITY;
  if (attemptsMax > limits.asyncAttemptsMax)
    throw wrong(enqueueHeaders.retries, text, `a whole number up to ${limits.asyncAttemptsMax - 1}`);
  return { attemptsMax };
}

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A number without a unit counts seconds, as in other headers. */
function durationMs(text: string): number {
  const [, amount, unit = "s"] = /^(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d)?$/.exec(text.trim()) ?? [];
  const unitMs = UNIT_MS[unit];
  if (amount === undefined || unitMs === undefined) throw wrong(enqueueHeaders.delay, text, "such as 30s, 5m, 2h");
  return Math.round(Number(amount) * unitMs);
}

function wrong(header: string, text: string, allowed: string): KoineError {
  return new KoineError("invalid-request", {
    detail: `header ${header} is '${text.slice(0, 100)}'; allowed: ${allowed}`,
  });
}
