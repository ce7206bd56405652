import type { Msg } from "@nats-io/transport-node";
import { z } from "zod";
import { type CloudEvent, PARTITION_KEY } from "../core/event.ts";
import { newId } from "../core/ids.ts";
import { limits } from "../core/limits.ts";
import { aborted, Ending, forAMoment } from "./connection/ending.ts";
import { messageEvent } from "./connection/message.ts";
import { brokerMessage, connectionSettings, connectNats, onClosed, serversOf, subject } from "./nats/connect.ts";
import { type Emit, type PullKind, pullKind, type SourceHost, type TriggerSource } from "./trigger.ts";

const SUBJECTS_MAX = 32;
const DROPPED_TOLD_EVERY_MS = 10_000;
const MESSAGE_ID = "Nats-Msg-Id";

const schema = z.strictObject({
  ...connectionSettings,
  subjects: z
    .array(subject)
    .min(1)
    .max(SUBJECTS_MAX)
    .meta({ description: "Subjects, with * and >.", examples: [["orders.>"]] }),
  queue: z
    .string()
    .min(1)
    .max(256)
    .regex(/^\S+$/, "must not hold spaces")
    .optional()
    .meta({ description: "Shares the messages with all who subscribe in this queue group." }),
  reply: z
    .boolean()
    .default(true)
    .meta({ description: "Whether who asks for a reply gets one once the event is on disk: { activationId }." }),
});

type Settings = z.output<typeof schema>;

/** Messages of NATS subjects. NATS does not keep them: what comes while nobody listens is gone, unless its sender asks for a reply. */
export function createNatsKind(): PullKind {
  return pullKind({
    name: "nats",
    summary: "messages of NATS subjects, as they come",
    settings: schema,
    abilities: { ordering: true, replay: false },
    open: (settings, host) => new Nats(settings, host),
    async check(settings, host, signal) {
      await (await connectNats(settings, host, signal)).close();
    },
    sample: (settings) => ({
      specversion: "1.0",
      id: "sample",
      source: serversOf(settings),
      type: "koine.nats.message",
      subject: settings.subjects[0]?.replaceAll(/[*>]/g, "x") ?? "x",
      datacontenttype: "application/json",
      data: { hello: "world" },
    }),
  });
}

class Nats implements TriggerSource {
  readonly #settings: Settings;
  readonly #host: SourceHost;
  #pending = 0;
  #pendingBytes = 0;
  #dropped = 0;
  #toldMs = -Infinity;

  constructor(settings: Settings, host: SourceHost) {
    this.#settings = settings;
    this.#host = host;
  }

  async run(emit: Emit, signal: AbortSignal): Promise<void> {
    const { subjects, queue } = this.#settings;
    const connection = await connectNats(this.#settings, this.#host, signal);
    const ending = new Ending(signal);
    onClosed(connection, (reason) => ending.fail(reason));
    try {
      const group = queue === undefined ? {} : { queue };
      const subscriptions = subjects.map((name) =>
        connection.subscribe(name, {
          ...group,
          callback: (error, message) => {
            if (error !== null) ending.fail(error);
            else this.#take(message, emit);
          },
        }),
      );
      // The server knows of the subscriptions when it answers what was sent behind them.
      await connection.flush();
      this.#host.report({ state: "connected", detail: connection.getServer() });
      try {
        await aborted(ending.signal);
      } finally {
        for (const subscription of subscriptions) subscription.unsubscribe();
        if (signal.aborted) await forAMoment(this.#host.clock, this.#settled());
      }
    } finally {
      await connection.close();
    }
  }

  #take(message: Msg, emit: Emit): void {
    const bytes = message.data.length;
    // NATS cannot be made to wait: it would cut the connection off in the end, and more than this would be lost.
    if (this.#pending >= limits.triggerInFlightMax || this.#pendingBytes + bytes > limits.triggerInFlightBytesMax) {
      this.#drop();
      return;
    }
    this.#pending++;
    this.#pendingBytes += bytes;
    emit(this.#event(message))
      .then(
        ({ activationId }) => {
          if (this.#settings.reply && message.reply !== undefined && message.reply !== "")
            message.respond(JSON.stringify({ activationId }));
        },
        // The host ends the run; whoever waits for a reply gets none and sends again.
        () => {},
      )
      .finally(() => {
        this.#pending--;
        this.#pendingBytes -= bytes;
        if (this.#pending === 0) this.#wake?.();
      });
  }

  #drop(): void {
    this.#dropped++;
    const nowMs = this.#host.clock.monotonicMs();
    if (nowMs - this.#toldMs < DROPPED_TOLD_EVERY_MS) return;
    this.#toldMs = nowMs;
    const detail = `${this.#dropped} messages came faster than they could be accepted and are lost; JetStream keeps them`;
    this.#host.report({ detail });
    this.#host.logger.log("warn", "messages of NATS were dropped", { dropped: this.#dropped });
  }

  #event(message: Msg): CloudEvent {
    const nowMs = this.#host.clock.nowMs();
    return messageEvent(brokerMessage(message), {
      id: message.headers?.get(MESSAGE_ID) || newId(nowMs),
      source: serversOf(this.#settings),
      type: "koine.nats.message",
      subject: message.subject,
      time: new Date(nowMs).toISOString(),
      extensions: { [PARTITION_KEY]: message.subject },
    });
  }

  #wake: (() => void) | null = null;

  async #settled(): Promise<void> {
    if (this.#pending === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    await promise;
  }
}
