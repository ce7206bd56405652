import { KoineError, type ErrorValues } from "../core/errors.ts";
import type { QueueBounds } from "./store.ts";

/** Why a queue takes no more of a lane, as it travels between threads. */
export interface Refusal {
  readonly code: "queue-full" | "dead-letters-full";
  readonly values: ErrorValues;
}

/** What there is before anything is added, and how much is to be. */
export interface Filling {
  readonly lane: string;
  /** Items of the lane and of all lanes. */
  readonly laneLength: number;
  readonly length: number;
  readonly laneDead: number;
  readonly keys: number;
  readonly addedToLane: number;
  readonly added: number;
  readonly addedKeys: number;
}

/** Whether a queue may take more of a lane; null: it may. Its age is asked for last, since finding it out costs something. */
export function decideAdmission(filling: Filling, bounds: QueueBounds, oldestMs: () => number | null): Refusal | null {
  const { lane, laneLength, length, laneDead, keys, addedToLane, added, addedKeys } = filling;
  const full = (detail: string): Refusal => ({ code: "queue-full", values: { name: nameOf(lane), detail } });
  if (laneDead >= bounds.deadLettersMax)
    return { code: "dead-letters-full", values: { name: nameOf(lane), count: laneDead } };
  if (length + added > bounds.lengthMax) return full(`${length} wait in all, of ${bounds.lengthMax}`);
  if (laneLength + addedToLane > bounds.lengthMax - length - added) {
    return full(`${laneLength} wait, and one function may not have more than there is room left`);
  }
  if (addedKeys > 0 && keys + addedKeys > bounds.keysMax) return full(`${keys} idempotency keys are remembered`);
  if (laneLength === 0) return null;
  const oldest = oldestMs();
  if (oldest === null || bounds.nowMs - oldest <= bounds.ageMsMax) return null;
  return full(`its oldest work has waited for ${Math.round((bounds.nowMs - oldest) / 1_000)} s`);
}

export function refusalError({ code, values }: Refusal): KoineError {
  return new KoineError(code, values);
}

/** `namespace//name` is no text for people. */
function nameOf(lane: string): string {
  return lane.replace("//", "/");
}
