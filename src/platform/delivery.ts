import type { OutcomeFollower, RetryPolicy } from "../core/enqueue.ts";
import { KoineError, toKoineError } from "../core/errors.ts";
import type { CloudEvent } from "../core/event.ts";
import type { Outcome } from "../core/invocation.ts";
import type { Limits } from "../core/limits.ts";
import type { Ended } from "../queue/dispatcher.ts";
import type { Lease } from "../store/store.ts";
import { parseDestination, type TopicPublisher } from "./destinations.ts";
import { OUTCOME_EVENT_TYPE } from "./outcome-event.ts";
import type { PlatformParts } from "./parts.ts";
import type { DeliveryHead } from "./queued-payload.ts";
import { sendWebhook } from "./webhook.ts";

const FIRST_RETRY_MS = 10_000;
const TEXT_SHOWN_MAX = 200;

export interface DeliveryParts extends PlatformParts {
  readonly topics: TopicPublisher;
  readonly outcomeFollowers: ReadonlyMap<string, OutcomeFollower>;
}

export function deliveryPolicy(limits: Limits): RetryPolicy {
  const delaysMs = Array.from({ length: limits.deliveryAttemptsMax }, (_, index) => FIRST_RETRY_MS * 3 ** index);
  return {
    attemptsMax: limits.deliveryAttemptsMax,
    ageMsMax: limits.deliveryAgeMsMax,
    delaysMs: delaysMs.map((delayMs) => Math.min(delayMs, limits.retryDelayMsMax / 4)),
  };
}

/** Brings an outcome to a URL or a topic. Never rejects. */
export async function deliver(
  parts: DeliveryParts,
  { item, attempt }: Lease,
  { head, body, signal }: { readonly head: DeliveryHead; readonly body: Buffer; readonly signal: AbortSignal },
): Promise<Ended> {
  const policy = deliveryPolicy(parts.limits);
  try {
    if (head.follower !== undefined) {
      const follower = parts.outcomeFollowers.get(head.follower);
      if (follower === undefined) {
        const what = `delivering for '${head.follower}'`;
        throw new KoineError("not-supported", { what, remedy: "Start the koine that accepted this work." });
      }
      const { destination } = head;
      await follower.deliver({ id: item.id, namespace: head.ref.namespace, destination, body, signal });
      return { outcome: { kind: "succeeded" }, policy };
    }
    const destination = parseDestination(head.destination, head.ref.namespace);
    switch (destination.kind) {
      case "topic":
        await parts.topics.publish({
          namespace: head.ref.namespace,
          topic: destination.topic,
          event: JSON.parse(body.toString("utf8")) as CloudEvent,
        });
        return { outcome: { kind: "succeeded" }, policy };
      case "url":
        return { policy, ...(await toUrl(parts, { head, url: destination.url, id: item.id, attempt, body, signal })) };
      case "function":
        throw new KoineError("internal", { detail: "a function is invoked, not delivered to" });
      default:
        return destination satisfies never;
    }
  } catch (thrown) {
    return { outcome: failedWith(toKoineError(thrown)), policy };
  }
}

async function toUrl(
  { secrets, clock, limits, reachable }: DeliveryParts,
  delivery: {
    readonly head: DeliveryHead;
    readonly url: string;
    readonly id: string;
    readonly attempt: number;
    readonly body: Buffer;
    readonly signal: AbortSignal;
  },
): Promise<Pick<Ended, "outcome" | "retryable" | "retryAfterMs">> {
  const { head, url, id, attempt, body, signal } = delivery;
  const { [head.secret]: secret = "" } = await secrets.open(head.ref.namespace, [head.secret]);
  const nowMs = clock.nowMs();
  const { status, text, retryAfter } = await sendWebhook(
    { url, id, attempt, contentType: OUTCOME_EVENT_TYPE, body, secret, nowMs },
    {
      reachable,
      answerBytesMax: limits.deliveryAnswerBytesMax,
      signal: AbortSignal.any([signal, AbortSignal.timeout(limits.deliveryTimeoutMs)]),
    },
  );
  if (status >= 200 && status < 300) return { outcome: { kind: "succeeded" } };
  const detail = `it answered ${status}${text === "" ? "" : `: ${text.slice(0, TEXT_SHOWN_MAX)}`}`;
  const outcome = failedWith(new KoineError("destination-failed", { destination: url, detail }));
  const waitMs = retryAfter !== undefined && /^[0-9]{1,6}$/.test(retryAfter) ? Number(retryAfter) * 1_000 : undefined;
  // 410: whoever is there does not want it any more.
  return { outcome, retryable: status !== 410, retryAfterMs: waitMs };
}

function failedWith(error: KoineError): Outcome {
  return { kind: "failed", fault: error.fault, error: error.report() };
}
