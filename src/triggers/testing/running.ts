import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../../core/clock.ts";
import {
  type DeliveredEvent,
  durable,
  eventsIn,
  openTriggers,
  target,
} from "../../platform/triggers/testing/hosted.ts";
import { stateOf } from "../../platform/triggers/triggers.ts";
import type { PullKind } from "../trigger.ts";

/** One trigger that runs, with what its function would have got. */
export interface RunningTrigger extends AsyncDisposable {
  readonly state: string;
  /** How it is, in words, with the newest error. */
  readonly status: string;
  /** Waits for so many events, of all that came. */
  events(count: number): Promise<readonly DeliveredEvent[]>;
  until(holds: () => boolean): Promise<void>;
}

const PATIENCE_MS = 30_000;

export async function runTrigger(
  kind: PullKind,
  settings: Readonly<Record<string, unknown>>,
  secretValues: Readonly<Record<string, string>>,
): Promise<RunningTrigger> {
  const state = durable();
  const { triggers, secrets } = openTriggers([kind], state, { clock: systemClock });
  for (const [name, value] of Object.entries(secretValues)) await secrets.put("default", name, value, 0);
  await triggers.load();
  await triggers.start();
  await triggers.put("default", "t", { kind: kind.name, target, settings });
  const status = (): string => JSON.stringify(triggers.get("default", "t").runner?.status);
  const until = async (holds: () => boolean): Promise<void> => {
    const deadlineMs = performance.now() + PATIENCE_MS;
    while (!holds()) {
      if (performance.now() > deadlineMs) throw new Error(`it did not happen in time; ${status()}`);
      await sleep(10);
    }
  };
  return {
    get state() {
      return stateOf(triggers.get("default", "t"));
    },
    get status() {
      return status();
    },
    async events(count) {
      await until(() => eventsIn(state.queue).length >= count);
      return eventsIn(state.queue);
    },
    until,
    [Symbol.asyncDispose]: () => triggers.stop(),
  };
}
