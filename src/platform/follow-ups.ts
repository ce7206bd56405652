import type { Clock } from "../core/clock.ts";
import type { FollowerNote, OutcomeFollower, RetryPolicy } from "../core/enqueue.ts";
import { KoineError } from "../core/errors.ts";
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
  readonly #followers: ReadonlyMap<string, OutcomeFollower>;

  constructor(clock: Clock, limits: Limits, followers: ReadonlyMap<string, OutcomeFollower>) {
    this.#clock = clock;
    this.#limits = limits;
    this.#followers = followers;
  }

  of(ended: {
    readonly invocation: Invocation;
    readonly version: Version;
    readonly hops: number;
    readonly answered: Collector;
    readonly follower: FollowerNote | undefined;
    readonly policy: RetryPolicy;
    readonly enqueuedAtMs: number;
  }): NonNullable<Ended["followUps"]> {
    const own = this.#ofFunction(ended);
    const { follower } = ended;
    if (follower === undefined) return own;
    return (settlement) => [...own(settlement), ...this.#ofFollower({ ...ended, follower }, settlement)];
  }

  #ofFollower(
    ended: Parameters<FollowUps["of"]>[0] & { readonly follower: FollowerNote },
    settlement: Parameters<NonNullable<Ended["followUps"]>>[0],
  ): readonly QueueItem[] {
    const { invocation, hops, answered, follower: note, policy, enqueuedAtMs } = ended;
    const { attempt } = settlement;
    const follower = this.#followers.get(note.name);
    if (follower === undefined) {
      const what = `following outcomes for '${note.name}'`;
      throw new KoineError("not-supported", { what, remedy: "Start the koine that accepted this work." });
    }
    if (attempt === undefined) return [];
    const nowMs = this.#clock.nowMs();
    const isOld = settlement.kind === "dead" && settlement.atMs - enqueuedAtMs >= policy.ageMsMax;
    const followUps = follower.follow({
      invocation,
      attempt,
      expired: isOld && attempt.number < policy.attemptsMax,
      answer: answered.headSeen === null ? null : answered.kept(),
      endedAtMs: nowMs,
      note: note.note,
    });
    return followUps.map((followUp) => {
      if (followUp.kind === "invocation")
        return encodeQueued(followUp, { limits: this.#limits, nowMs, hops: hops + 1 });
      const { destination, body } = followUp;
      const id = newId(nowMs);
      const ref = { namespace: invocation.ref.namespace, package: invocation.ref.package, name: invocation.ref.name };
      const about = { kind: "delivery", ref, activationId: invocation.id, receivedAtMs: nowMs, secret: "" } as const;
      const payload = encodePayload({ head: { ...about, destination, follower: note.name }, body });
      return { id, lane: deliveriesLane(ref), payload, dueAtMs: nowMs, enqueuedAtMs: nowMs };
    });
  }

  #ofFunction(
    ended: Pick<Parameters<FollowUps["of"]>[0], "invocation" | "version" | "hops" | "answered">,
  ): NonNullable<Ended["followUps"]> {
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
