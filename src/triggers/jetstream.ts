import type { Consumer, ConsumerInfo, ConsumerMessages, JetStreamManager, JsMsg } from "@nats-io/jetstream";
import { z } from "zod";
import { KoineError } from "../core/errors.ts";
import { type CloudEvent, PARTITION_KEY } from "../core/event.ts";
import { limits } from "../core/limits.ts";
import { aborted, Ending, forAMoment } from "./connection/ending.ts";
import { Intake } from "./connection/intake.ts";
import { messageEvent } from "./connection/message.ts";
import { brokerMessage, connectionSettings, connectNats, onClosed, serversOf, subject } from "./nats/connect.ts";
import { type Emit, type PullKind, pullKind, type SourceHost, type TriggerSource } from "./trigger.ts";

const SUBJECTS_MAX = 32;
const PULL_MAX = 500;
const ACK_WAIT_MS = 30_000;
const LOOK_MS = 5_000;
const NANOS_PER_MS = 1_000_000;

const NAME = /^[^\s.*>/\\]+$/;

const schema = z.strictObject({
  ...connectionSettings,
  stream: z.string().min(1).max(256).regex(NAME, "is not a stream's name").meta({ description: "The stream." }),
  subjects: z
    .array(subject)
    .max(SUBJECTS_MAX)
    .default([])
    .meta({ description: "Of the stream's subjects only these; empty: all.", examples: [["orders.paid"]] }),
  from: z
    .enum(["new", "beginning"])
    .default("new")
    .meta({ description: "Where a consumer that is made begins: with what comes, or with what is there." }),
  consumer: z.string().min(1).max(256).regex(NAME, "is not a consumer's name").optional().meta({
    description:
      "A durable pull consumer that is there and may be shared; by default one of the trigger's own is made.",
  }),
  orderBy: z
    .enum(["stream", "subject"])
    .default("stream")
    .meta({ description: "What the partitionkey is: the stream, or each message's subject." }),
});

type Settings = z.output<typeof schema>;

/** Messages of a stream of NATS JetStream, read by a durable pull consumer. */
export function createJetStreamKind(): PullKind {
  return pullKind({
    name: "jetstream",
    summary: "messages of a stream of NATS JetStream, read by a durable pull consumer",
    settings: schema,
    abilities: { ordering: true, replay: true },
    open: (settings, host) => new JetStream(settings, host),
    async check(settings, host, signal) {
      const connection = await connectNats(settings, host, signal);
      try {
        const { jetstreamManager } = await import("@nats-io/jetstream");
        const manager = await jetstreamManager(connection);
        await manager.streams.info(settings.stream);
        if (settings.consumer !== undefined) await manager.consumers.info(settings.stream, settings.consumer);
      } finally {
        await connection.close();
      }
    },
    sample: (settings) => ({
      specversion: "1.0",
      id: "sample",
      source: `${serversOf(settings)}/${settings.stream}`,
      type: "koine.jetstream.message",
      subject: settings.subjects[0]?.replaceAll(/[*>]/g, "x") ?? "x",
      datacontenttype: "application/json",
      data: { hello: "world" },
    }),
  });
}

class JetStream implements TriggerSource {
  readonly #settings: Settings;
  readonly #host: SourceHost;
  readonly #pending = new Map<number, JsMsg>();
  #lastMs: number | null = null;

  constructor(settings: Settings, host: SourceHost) {
    this.#settings = settings;
    this.#host = host;
  }

  async run(emit: Emit, signal: AbortSignal): Promise<void> {
    const connection = await connectNats(this.#settings, this.#host, signal);
    const ending = new Ending(signal);
    onClosed(connection, (reason) => ending.fail(reason));
    const intake = new Intake<number>({
      emit,
      signal: ending.signal,
      acknowledge: async (sequences) => {
        for (const sequence of sequences) {
          this.#pending.get(sequence)?.ack();
          this.#pending.delete(sequence);
        }
      },
    });
    let messages: ConsumerMessages | null = null;
    try {
      const { jetstream, jetstreamManager } = await import("@nats-io/jetstream");
      const name = await this.#prepare(await jetstreamManager(connection));
      const consumer = await jetstream(connection).consumers.get(this.#settings.stream, name);
      messages = await consumer.consume({ max_messages: PULL_MAX, abort_on_missing_resource: true });
      const open = messages;
      intake.signal.addEventListener("abort", () => open.stop(), { once: true });
      this.#host.report({ state: "connected", detail: `consumer ${name}` });
      const looking = this.#look(consumer, intake.signal).catch((thrown: unknown) => ending.fail(thrown));
      await this.#follow(open, intake);
      await looking;
      await aborted(intake.signal);
    } catch (thrown) {
      intake.signal.throwIfAborted();
      throw thrown;
    } finally {
      if (signal.aborted) await forAMoment(this.#host.clock, intake.end());
      // What is not accepted may be given to others of the consumer, or to the next run, at once.
      await messages?.close();
      for (const message of this.#pending.values()) message.nak();
      // What was acknowledged is on its way when the connection has been flushed.
      if (!connection.isClosed())
        await forAMoment(
          this.#host.clock,
          connection.flush().catch(() => {}),
        );
      await connection.close();
    }
  }

  async #follow(messages: ConsumerMessages, intake: Intake<number>): Promise<void> {
    for await (const message of messages) {
      await intake.room().catch(() => {});
      if (intake.signal.aborted) {
        message.nak();
        continue;
      }
      const again = this.#pending.has(message.seq);
      this.#pending.set(message.seq, message);
      this.#lastMs = message.time.getTime();
      if (!again) intake.take([this.#event(message)], message.seq, message.data.length);
    }
    intake.signal.throwIfAborted();
    throw new KoineError("source-failed", { detail: "the consumer is gone" });
  }

  #event(message: JsMsg): CloudEvent {
    const { stream, orderBy } = this.#settings;
    return messageEvent(brokerMessage(message), {
      // A stream that is made anew counts from one again: the time tells its messages from those of before.
      id: `${message.seq}-${message.timestampNanos}`,
      source: `${serversOf(this.#settings)}/${stream}`,
      type: "koine.jetstream.message",
      subject: message.subject,
      time: message.time.toISOString(),
      extensions: { [PARTITION_KEY]: orderBy === "stream" ? stream : message.subject, sequence: String(message.seq) },
    });
  }

  /** Makes the consumer where it is the trigger's own; answers its name. */
  async #prepare(manager: JetStreamManager): Promise<string> {
    const { stream, consumer, from, subjects } = this.#settings;
    if (consumer !== undefined) return consumer;
    const { AckPolicy, DeliverPolicy, JetStreamApiError, RetentionPolicy } = await import("@nats-io/jetstream");
    const name = `koine-${this.#host.trigger.id}`;
    const facts = await manager.streams.info(stream);
    const { retention } = facts.config;
    const found = await manager.consumers.info(stream, name).catch((thrown: unknown) => {
      if (thrown instanceof JetStreamApiError && thrown.status === 404) return null;
      throw thrown;
    });
    const same = found !== null && subjectsOf(found) === [...subjects].sort().join(" ");
    // Where a stream keeps messages only as long as a consumer wants them, it must not be without one.
    if (found !== null && retention === RetentionPolicy.Interest) {
      if (!same) await manager.consumers.update(stream, name, filterOf(subjects));
      return name;
    }
    if (found !== null && same && found.num_ack_pending === 0) return name;
    const next = await this.#nextOf(found);
    if (found !== null) {
      // What an earlier run has left unacknowledged would come only after half a minute, and behind what is newer. A consumer that begins there gives it at
      // once and in order.
      await this.#host.checkpoint.write(String(next));
      await manager.consumers.delete(stream, name);
    }
    // A stream that was made anew counts from one again.
    const anew = next !== null && next > facts.state.last_seq + 1;
    const start =
      retention === RetentionPolicy.Workqueue || anew || (next === null && from === "beginning")
        ? { deliver_policy: DeliverPolicy.All }
        : next === null
          ? { deliver_policy: DeliverPolicy.New }
          : { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: next };
    const made = await manager.consumers.add(stream, {
      durable_name: name,
      ack_policy: AckPolicy.Explicit,
      ack_wait: ACK_WAIT_MS * NANOS_PER_MS,
      max_deliver: -1,
      max_ack_pending: limits.triggerInFlightMax,
      ...filterOf(subjects),
      ...start,
    });
    if (next === null) await this.#host.checkpoint.write(String(made.delivered.stream_seq + 1));
    return name;
  }

  /** The first message that is not known to be accepted; null when the trigger has never run on the stream. */
  async #nextOf(found: ConsumerInfo | null): Promise<number | null> {
    if (found !== null) return found.ack_floor.stream_seq + 1;
    const stored = await this.#host.checkpoint.read();
    return stored === null ? null : Number(stored);
  }

  /** Tells how far behind the consumer is, and asks the server for more time for what still waits to be accepted. */
  async #look(consumer: Consumer, signal: AbortSignal): Promise<void> {
    for (let round = 0; !signal.aborted; round++) {
      const { num_pending, num_ack_pending, ack_floor } = await consumer.info();
      const events = num_pending + num_ack_pending;
      const ms = events === 0 ? 0 : this.#lastMs === null ? null : Math.max(0, this.#host.clock.nowMs() - this.#lastMs);
      this.#host.report({ lag: { events, ms } });
      if (round % 2 === 1) for (const message of this.#pending.values()) message.working();
      if (this.#settings.consumer === undefined && ack_floor.stream_seq > 0)
        await this.#host.checkpoint.write(String(ack_floor.stream_seq + 1));
      const { promise, resolve } = Promise.withResolvers<void>();
      const cancel = this.#host.clock.after(LOOK_MS, resolve);
      signal.addEventListener("abort", () => resolve(), { once: true });
      await promise;
      cancel();
    }
  }
}

/** Servers before 2.10 know one subject only. */
function filterOf(subjects: readonly string[]): {
  readonly filter_subject?: string;
  readonly filter_subjects?: string[];
} {
  const [only] = subjects;
  if (only === undefined) return {};
  return subjects.length === 1 ? { filter_subject: only } : { filter_subjects: [...subjects] };
}

function subjectsOf({ config: { filter_subject: one, filter_subjects: several } }: ConsumerInfo): string {
  return [...(several ?? (one === undefined || one === "" ? [] : [one]))].sort().join(" ");
}
