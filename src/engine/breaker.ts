import type { KoineError } from "../core/errors.ts";

/** Keeps a version whose instances cannot start from being started for every call; one per version, so a new deploy begins afresh. */
export type BreakerState =
  | { readonly kind: "closed"; readonly failures: number }
  | { readonly kind: "open"; readonly failures: number; readonly untilMs: number; readonly error: KoineError };

export const CLOSED: BreakerState = { kind: "closed", failures: 0 };

export interface BreakerBounds {
  readonly failuresMax: number;
  readonly backoffMsMax: number;
}

const BACKOFF_MS_FIRST = 250;

export function afterStart(): BreakerState {
  return CLOSED;
}

/** Opens from the bound on, for twice as long with every further failure. */
export function afterFailure(
  state: BreakerState,
  error: KoineError,
  nowMs: number,
  bounds: BreakerBounds,
): BreakerState {
  const failures = state.failures + 1;
  if (failures < bounds.failuresMax) return { kind: "closed", failures };
  const backoffMs = Math.min(bounds.backoffMsMax, BACKOFF_MS_FIRST * 2 ** Math.min(failures - bounds.failuresMax, 16));
  return { kind: "open", failures, untilMs: nowMs + backoffMs, error };
}

/** The error to answer with at once, or null when a start may be tried. */
export function refusal(state: BreakerState, nowMs: number): KoineError | null {
  return state.kind === "open" && nowMs < state.untilMs ? state.error : null;
}
