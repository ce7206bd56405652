import { z } from "zod";
import { type CloudEvent, PARTITION_KEY } from "../core/event.ts";
import { eventOf } from "./connection/content.ts";
import { Every } from "./connection/every.ts";
import { Intake } from "./connection/intake.ts";
import { objectEventsOf, sampleObjectEvent } from "./connection/object-notifications.ts";
import { hasWholeKey, signingSettings } from "./connection/signed.ts";
import { tlsSettings } from "./connection/tls.ts";
import { type Message, QueueClient, type QueueWording } from "./sqs/client.ts";
import { address, type Emit, type PullKind, pullKind, type SourceHost, type TriggerSource } from "./trigger.ts";

const LAG_EVERY_MS = 15_000;
const VISIBILITY_SECONDS_MIN = 10;
/** What the protocol gives and takes with one request. */
const MESSAGES_PER_REQUEST = 10;
/** A source that is told to end waits for its last answers, so this must be within `limits.triggerStopMsMax`. */
const WAIT_SECONDS_MAX = 8;
const schema = z
  .strictObject({
    queueUrl: address("The queue's address.", ["http", "https"]),
    endpoint: address("The server, where it is not that of the queue's address.", ["http", "https"]).optional(),
    ...signingSettings,
    tls: tlsSettings.optional(),
    content: z
      .enum(["message", "objects"])
      .default("message")
      .meta({ description: "objects: messages are notifications of a bucket, each object an event." }),
    receivers: z
      .int()
      .min(1)
      .max(20)
      .default(2)
      .meta({ description: "Requests for messages that wait at a time; each brings up to 10." }),
    waitSeconds: z
      .int()
      .min(1)
      .max(WAIT_SECONDS_MAX)
      .default(5)
      .meta({ description: "How long the server holds a request while there is nothing." }),
    visibilitySeconds: z
      .int()
      .min(VISIBILITY_SECONDS_MIN)
      .max(43_200)
      .default(120)
      .meta({ description: "After which a message comes again whose acceptance the queue was not told of." }),
  })
  .refine(hasWholeKey, { error: "need both accessKeyId and secretAccessKey, or none" });

type Settings = z.output<typeof schema>;

/** @param wording what the protocol's requests are called */
export function createSqsKind(wording: QueueWording): PullKind {
  return pullKind({
    name: "sqs",
    summary: "messages of queues that are compatible with SQS, and notifications of buckets that come through them",
    settings: schema,
    abilities: { ordering: true, replay: true },
    open: (settings, host) => new Queue(settings, host, wording),
    async check(settings, host, signal) {
      using client = await QueueClient.open(settings, host, { wording, connections: 1 });
      await client.facts(signal);
    },
    sample: (settings) =>
      settings.content === "objects"
        ? sampleObjectEvent("bucket")
        : messageEvent(settings, { id: "sample", receipt: "", body: '{"hello":"world"}', group: null, sentAtMs: null }),
  });
}

class Queue implements TriggerSource {
  readonly #settings: Settings;
  readonly #host: SourceHost;
  readonly #wording: QueueWording;
  /** Receipts of what is received and not deleted. */
  readonly #held = new Set<string>();

  constructor(settings: Settings, host: SourceHost, wording: QueueWording) {
    this.#settings = settings;
    this.#host = host;
    this.#wording = wording;
  }

  async run(emit: Emit, signal: AbortSignal): Promise<void> {
    const { receivers } = this.#settings;
    using client = await QueueClient.open(this.#settings, this.#host, {
      wording: this.#wording,
      connections: receivers + 4,
    });
    const intake = new Intake<string>({
      emit,
      signal,
      acknowledge: (receipts) => this.#delete(client, receipts),
    });
    await this.#reportLag(client, intake.signal);
    this.#host.report({ state: "connected" });
    const failed = new AbortController();
    const within = AbortSignal.any([intake.signal, failed.signal]);
    const receive = async (): Promise<void> => {
      try {
        await this.#receive(client, intake, within);
      } catch (thrown) {
        failed.abort(thrown);
      }
    };
    try {
      await Promise.all([...Array.from({ length: receivers }, receive), this.#watch(client, within)]);
      within.throwIfAborted();
    } finally {
      await intake.end();
      await this.#release(client);
    }
  }

  /**
   * A request is never broken off: a server that does not notice would give messages to nobody, and hide them for long. What comes after the end is given
   * back instead.
   */
  async #receive(client: QueueClient, intake: Intake<string>, signal: AbortSignal): Promise<void> {
    const { visibilitySeconds, waitSeconds } = this.#settings;
    for (;;) {
      signal.throwIfAborted();
      // Requests that wait side by side may bring a few more than there is room for.
      await intake.room();
      const messages = await client.receive({ most: MESSAGES_PER_REQUEST, waitSeconds, visibilitySeconds });
      for (const message of messages) {
        this.#held.add(message.receipt);
        if (!signal.aborted) intake.take(this.#eventsOf(message), message.receipt, Buffer.byteLength(message.body));
      }
    }
  }

  /** What is no notification, though all were meant to be, is told of as the message that it is: nothing is dropped, and nothing stops what follows. */
  #eventsOf(message: Message): readonly CloudEvent[] {
    const events = this.#settings.content === "objects" ? objectEventsOf(parsed(message.body)) : null;
    return events ?? [messageEvent(this.#settings, message)];
  }

  /** A message that cannot be deleted comes again, and is recognised. */
  async #delete(client: QueueClient, receipts: readonly string[]): Promise<void> {
    const parts = partsOf(receipts);
    const refused = (await Promise.all(parts.map((part) => client.delete(part)))).flat();
    if (refused.length > 0) this.#host.report({ detail: `not deleted, so it comes again: ${refused[0]}` });
    for (const receipt of receipts) this.#held.delete(receipt);
  }

  /** What was received and not accepted is shown to others at once, instead of when its time is over. */
  async #release(client: QueueClient): Promise<void> {
    await Promise.all(partsOf([...this.#held]).map((part) => client.release(part).catch(() => {})));
  }

  async #watch(client: QueueClient, signal: AbortSignal): Promise<void> {
    const { clock } = this.#host;
    const due = new Every(clock, LAG_EVERY_MS);
    due.isDue();
    while (!signal.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const cancel = clock.after(LAG_EVERY_MS, resolve);
      signal.addEventListener("abort", () => resolve(), { once: true });
      await promise;
      cancel();
      // The receivers find out by themselves when the server is gone.
      if (!signal.aborted) await this.#reportLag(client, signal).catch(() => {});
    }
  }

  async #reportLag(client: QueueClient, signal: AbortSignal): Promise<void> {
    const { waiting, received } = await client.facts(signal);
    this.#host.report({ lag: { events: waiting + received, ms: null } });
  }
}

function partsOf(receipts: readonly string[]): readonly (readonly string[])[] {
  const count = Math.ceil(receipts.length / MESSAGES_PER_REQUEST);
  return Array.from({ length: count }, (_, index) =>
    receipts.slice(index * MESSAGES_PER_REQUEST, (index + 1) * MESSAGES_PER_REQUEST),
  );
}

function messageEvent({ queueUrl }: Settings, { id, body, group, sentAtMs }: Message): CloudEvent {
  return eventOf(body, {
    id,
    source: sourceOf(queueUrl),
    type: "koine.sqs.message",
    ...(sentAtMs === null ? {} : { time: new Date(sentAtMs).toISOString() }),
    extensions: { [PARTITION_KEY]: group ?? id },
  });
}

/** The queue's address without a user's name. */
function sourceOf(queueUrl: string): string {
  const { origin, pathname } = new URL(queueUrl);
  return origin + pathname;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}
