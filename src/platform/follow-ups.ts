import type { Clock } from "../core/clock.ts";
import type { Version } from "../core/function.ts";
import { newId } from "../core/ids.ts";
import type { Invocation } from "../core/invocation.ts";
import type { Limits } from "../core/limits.ts";
import type { Ended } from "../queue/dispatcher.ts";
import type { QueueItem } from "../store/store.ts";
import type { Collector } from "./async-invocation.ts";
import { DEFAULT_DESTINATION_SECRET, parseDestination } from "./destinations.ts";
import { OUTCOME_EVENT_TYPE, outcomeEvent } from "./outcome-event.ts";
import { deliveriesLane, encodePayload, encodeQueued } from "./queued-payload.ts";

/** Makes the queue's items that carry an outcome to its destination; they are enqueued in the commit that settles it. */
export class FollowUps {
  readonly #clock: Clock;
  readonly #limits: Limits;

  constructor(clock: Clock, limits: Limits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  of(ended: {
    readonly invocation: Invocation;
    readonly version: Version;
    readonly hops: number;
    readonly answered: Collector;
  }): NonNullable<Ended["followUps"]> {
    const { invocation, version, hops, answered } = ended;
    const { destinations = {} } = version.spec;
    return (settlement) => {
      const destination = settlement.kind === "done" ? destinations.onSuccess : destinations.onFailure;
      const { attempt } = settlement;
      if (destination === undefined || attempt === undefined) return [];
      const nowMs = this.#clock.nowMs();
      const event = outcomeEvent({
        invocation,
        version: version.number,
        kind: settlement.kind === "done" ? "succeeded" : "failed",
        reason: settlement.kind === "done" ? null : settlement.reason,
        attempt,
        answer: answered.headSeen === null ? null : answered.kept(),
        nowMs,
      });
      const body = Buffer.from(JSON.stringify(event));
      const secret = destinations.secret ?? DEFAULT_DESTINATION_SECRET;
      return [this.#item({ invocation, destination, secret, body, hops: hops + 1, nowMs })];
    };
  }

  #item(of: {
    readonly invocation: Invocation;
    readonly destination: string;
    readonly secret: string;
    readonly body: Buffer;
    readonly hops: number;
    readonly nowMs: number;
  }): QueueItem {
    const { invocation, destination, secret, body, hops, nowMs } = of;
    const { ref } = invocation;
    const id = newId(nowMs);
    const parsed = parseDestination(destination, ref.namespace);
    if (parsed.kind === "function") {
      const next: Invocation = {
        id,
        ref: parsed.ref,
        call: { kind: "event", contentType: OUTCOME_EVENT_TYPE },
        mode: "async",
        attempt: 1,
        receivedAtMs: nowMs,
        body,
        bodyComplete: true,
      };
      return encodeQueued({ invocation: next }, { limits: this.#limits, nowMs, hops });
    }
    const source = { namespace: ref.namespace, package: ref.package, name: ref.name };
    const head = { kind: "delivery", ref: source, activationId: invocation.id, destination, secret } as const;
    const payload = encodePayload({ head: { ...head, receivedAtMs: nowMs }, body });
    return { id, lane: deliveriesLane(ref), payload, dueAtMs: nowMs, enqueuedAtMs: nowMs };
  }
}
