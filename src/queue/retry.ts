import type { RetryPolicy } from "../core/enqueue.ts";
import type { ErrorReport } from "../core/errors.ts";
import type { Outcome } from "../core/invocation.ts";
import { limits } from "../core/limits.ts";
import type { Settlement } from "../store/store.ts";

export const defaultRetryPolicy: RetryPolicy = {
  attemptsMax: limits.asyncAttemptsDefault,
  ageMsMax: limits.asyncAgeMsDefault,
  delaysMs: [60_000, 120_000],
};

/**
 * What becomes of a claim whose invocation has ended. What failed through its function, or timed out, is tried again until the attempts are used up;
 * what the platform could not run (no slot, overload, a fault of its own, stopping) waits without counting as an attempt. Both end with the item's
 * greatest age, before which there is one last attempt. What is its caller's fault (the function is gone, the payload is no JSON), or said not to be
 * worth another attempt, is dead at once.
 *
 * @param request.random from 0 to 1, spreads what failed together
 * @param request.retryAfterMs the least wait before the next attempt
 */
export function decideRetry(request: {
  readonly attempt: number;
  readonly outcome: Outcome;
  readonly enqueuedAtMs: number;
  readonly nowMs: number;
  readonly policy: RetryPolicy;
  readonly random: number;
  readonly retryable?: boolean | undefined;
  readonly retryAfterMs?: number | undefined;
}): Settlement {
  const { attempt, outcome, enqueuedAtMs, nowMs, policy, random, retryable = true, retryAfterMs = 0 } = request;
  if (outcome.kind === "succeeded") return { kind: "done" };
  const ageMs = Math.max(0, nowMs - enqueuedAtMs);
  if (ageMs >= policy.ageMsMax) {
    return dead(nowMs, `not done within ${policy.ageMsMax} ms`, outcome.error);
  }
  const dueAfter = (delayMs: number): number =>
    Math.min(Math.round(nowMs + spread(delayMs, random)), enqueuedAtMs + policy.ageMsMax);

  switch (outcome.kind) {
    case "rejected":
      return { kind: "release", dueAtMs: dueAfter(Math.max(outcome.retryAfterMs, pauseMs(ageMs))) };
    case "failed":
      if (outcome.fault === "platform") return { kind: "release", dueAtMs: dueAfter(pauseMs(ageMs)) };
      if (outcome.fault === "caller" || !retryable) return dead(nowMs, "cannot succeed", outcome.error);
      break;
    case "timedOut":
      break;
    default:
      return outcome satisfies never;
  }
  if (attempt >= policy.attemptsMax)
    return dead(nowMs, `failed ${attempt} ${attempt === 1 ? "time" : "times"}`, outcome.error);
  const delayMs = policy.delaysMs[attempt - 1] ?? policy.delaysMs.at(-1) ?? 0;
  return { kind: "retry", dueAtMs: Math.max(dueAfter(delayMs), nowMs + retryAfterMs) };
}

const PAUSE_MS_MIN = 1_000;
const PAUSE_MS_MAX = 300_000;
const PAUSE_SHARE_OF_AGE = 0.25;

/** Waits grow with the item's age: attempts that do not count leave no number from which they could grow. */
function pauseMs(ageMs: number): number {
  return Math.min(Math.max(ageMs * PAUSE_SHARE_OF_AGE, PAUSE_MS_MIN), PAUSE_MS_MAX);
}

const JITTER = 0.2;

/** The delay, up to a fifth shorter or longer. */
function spread(delayMs: number, random: number): number {
  return delayMs * (1 - JITTER + 2 * JITTER * random);
}

function dead(atMs: number, reason: string, error: ErrorReport): Settlement {
  return { kind: "dead", reason: `${reason}; the last time ${error.code}: ${error.message}`, code: error.code, atMs };
}
