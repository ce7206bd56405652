import type { EnqueueItem, FollowerNote, RetryPolicy } from "../core/enqueue.ts";
import { PRIORITIES } from "../core/enqueue.ts";
import { KoineError } from "../core/errors.ts";
import { type FunctionRef, functionKey } from "../core/function.ts";
import type { Call, Invocation } from "../core/invocation.ts";
import type { Limits } from "../core/limits.ts";
import type { NewQueueItem, QueueItem, QueuePriority } from "../store/store.ts";

/** What is stored before the body of an accepted invocation. */
export interface InvocationHead {
  readonly kind?: undefined;
  readonly ref: FunctionRef;
  readonly call: Call;
  readonly receivedAtMs: number;
  readonly retry?: Partial<RetryPolicy>;
  readonly partialFailures?: string;
  readonly follower?: FollowerNote;
  /** Invocations that led to this one by destinations. */
  readonly hops?: number;
}

/** What is stored before the body of an event that goes to a URL or a topic. */
export interface DeliveryHead {
  readonly kind: "delivery";
  /** The function whose destination it is. */
  readonly ref: FunctionRef;
  /** The activation that it tells of. */
  readonly activationId: string;
  readonly destination: string;
  /** The follower that brings it there; absent: the platform does. */
  readonly follower?: string;
  readonly secret: string;
  readonly receivedAtMs: number;
}

export interface QueuedPayload {
  readonly head: InvocationHead | DeliveryHead;
  readonly body: Buffer;
}

/** The lane of what is delivered to URLs and topics for a function. */
const DELIVERIES = "@destinations";

/** 4 bytes length of the head, head JSON, body. */
export function encodePayload({ head, body }: QueuedPayload): Buffer {
  const text = Buffer.from(JSON.stringify(head));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(text.length);
  return Buffer.concat([length, text, body]);
}

export function decodePayload(bytes: Uint8Array): QueuedPayload {
  const payload = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const headEnd = 4 + payload.readUInt32LE(0);
  return {
    head: JSON.parse(payload.toString("utf8", 4, headEnd)) as QueuedPayload["head"],
    body: payload.subarray(headEnd),
  };
}

export function deliveriesLane(ref: FunctionRef): string {
  return functionKey(ref) + DELIVERIES;
}

/** The function that a lane's work is of, and whether it is deliveries for it. */
export function functionOfLane(lane: string): { readonly key: string; readonly deliveries: boolean } {
  const deliveries = lane.endsWith(DELIVERIES);
  return { key: deliveries ? lane.slice(0, -DELIVERIES.length) : lane, deliveries };
}

/** An accepted invocation as the queue keeps it. @throws KoineError `payload-too-large`, `limit-exceeded`, `invalid-request` */
export function encodeQueued(
  { invocation, options = {} }: EnqueueItem,
  { limits, nowMs, hops = 0 }: { readonly limits: Limits; readonly nowMs: number; readonly hops?: number },
): NewQueueItem {
  const { ref, call, receivedAtMs, body, id } = invocation;
  if (body.length > limits.asyncBodyBytesMax) {
    throw new KoineError("payload-too-large", { what: "an asynchronous invocation", limit: limits.asyncBodyBytesMax });
  }
  const {
    dueAtMs = receivedAtMs,
    orderingKey,
    idempotencyKey,
    priority = "normal",
    retry,
    partialFailures,
    follower,
  } = options;
  checkDelay(dueAtMs - nowMs, limits);
  checkKey("ordering key", orderingKey, limits);
  checkKey("idempotency key", idempotencyKey, limits);
  const head: InvocationHead = {
    ref,
    call,
    receivedAtMs,
    ...(retry === undefined ? {} : { retry }),
    ...(partialFailures === undefined ? {} : { partialFailures }),
    ...(follower === undefined ? {} : { follower }),
    ...(hops === 0 ? {} : { hops }),
  };
  const rank = PRIORITIES.indexOf(priority) as QueuePriority;
  const untilMs = nowMs + limits.idempotencyWindowMs;
  return {
    id,
    lane: functionKey(ref),
    payload: encodePayload({ head, body }),
    dueAtMs,
    enqueuedAtMs: Math.max(receivedAtMs, dueAtMs),
    ...(rank === 1 ? {} : { priority: rank }),
    ...(orderingKey === undefined ? {} : { orderingKey }),
    ...(idempotencyKey === undefined ? {} : { idempotency: { key: idempotencyKey, untilMs } }),
  };
}

export function toInvocation(
  item: Pick<QueueItem, "id">,
  { ref, call, receivedAtMs }: InvocationHead,
  { body, attempt }: { readonly body: Buffer; readonly attempt: number },
): Invocation {
  return { ref, call, receivedAtMs, id: item.id, mode: "async", attempt, body, bodyComplete: true };
}

function checkDelay(delayMs: number, limits: Limits): void {
  if (Number.isFinite(delayMs) && delayMs <= limits.delayMsMax) return;
  throw new KoineError("limit-exceeded", {
    what: "delay",
    value: `${delayMs} ms`,
    allowed: `at most ${limits.delayMsMax} ms`,
  });
}

function checkKey(what: string, key: string | undefined, limits: Limits): void {
  if (key === undefined) return;
  if (key === "") throw new KoineError("invalid-request", { detail: `the ${what} is empty` });
  if (key.length <= limits.queueKeyLengthMax) return;
  const allowed = `at most ${limits.queueKeyLengthMax} characters`;
  throw new KoineError("limit-exceeded", { what, value: `${key.length} characters`, allowed });
}
