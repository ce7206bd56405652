import type { Priority, RetryPolicy } from "../../core/enqueue.ts";
import { KoineError } from "../../core/errors.ts";
import { type FunctionRef, isName } from "../../core/function.ts";
import type { Limits } from "../../core/limits.ts";
import { compilePattern } from "../../triggers/pattern.ts";

/** Which events of a trigger are handled one after the other: none, those with the same partition key, or all. */
export type Ordering = "none" | "key" | "all";

export const ORDERINGS: readonly Ordering[] = ["none", "key", "all"];

/** A stored rule: events of this kind go to this function. */
export interface Trigger {
  readonly namespace: string;
  readonly name: string;
  /** Distinguishes a trigger from a later one of the same name, and from itself when its kind changes. */
  readonly id: string;
  readonly kind: string;
  readonly target: FunctionRef;
  /** As the kind parsed them; credentials are names of secrets. */
  readonly settings: unknown;
  /** A pattern; null: every event. */
  readonly filter: unknown;
  /** Null: one event per invocation. */
  readonly batch: { readonly size: number; readonly windowMs: number } | null;
  readonly ordering: Ordering;
  /** What differs from the function's own policy. */
  readonly retry: Partial<RetryPolicy>;
  readonly priority: Priority;
  readonly paused: boolean;
  readonly description: string;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
}

/** What a user says about a trigger; the rest has defaults. */
export interface TriggerRequest {
  readonly kind: string;
  readonly target: FunctionRef;
  readonly settings?: unknown;
  readonly filter?: unknown;
  readonly batch?: { readonly size?: number | undefined; readonly windowMs?: number | undefined } | null | undefined;
  readonly ordering?: Ordering | undefined;
  readonly retry?: Partial<RetryPolicy> | undefined;
  readonly priority?: Priority | undefined;
  readonly paused?: boolean | undefined;
  readonly description?: string | undefined;
}

/** Checks everything that does not depend on the kind. @throws KoineError `invalid-name`, `invalid-pattern`, `limit-exceeded` */
export function checkedRequest(
  request: TriggerRequest,
  limits: Limits,
): Pick<Trigger, "filter" | "batch" | "ordering" | "retry" | "priority" | "description"> {
  const { filter = null, batch, ordering = "none", retry = {}, priority = "normal", description = "" } = request;
  if (filter !== null) compilePattern(filter);
  return { filter, batch: checkedBatch(batch ?? null, limits), ordering, retry, priority, description };
}

function checkedBatch(batch: TriggerRequest["batch"], limits: Limits): Trigger["batch"] {
  if (batch === null || batch === undefined) return null;
  const { size = limits.triggerBatchSizeMax, windowMs = 0 } = batch;
  if (size < 1 || size > limits.triggerBatchSizeMax)
    throw new KoineError("limit-exceeded", {
      what: "batch.size",
      value: size,
      allowed: `1 to ${limits.triggerBatchSizeMax}`,
    });
  if (windowMs < 0 || windowMs > limits.triggerBatchWindowMsMax)
    throw new KoineError("limit-exceeded", {
      what: "batch.windowMs",
      value: windowMs,
      allowed: `0 to ${limits.triggerBatchWindowMsMax} milliseconds`,
    });
  return { size, windowMs };
}

/** @throws KoineError `invalid-name` */
export function triggerKey(namespace: string, name: string): string {
  if (!isName(namespace)) throw new KoineError("invalid-name", { name: namespace });
  if (!isName(name)) throw new KoineError("invalid-name", { name });
  return `${namespace}/${name}`;
}
