import type { Consumer, ConsumerOptions, Message, MessagesStream } from "@platformatic/kafka";
import { z } from "zod";
import { KoineError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { Ending, forAMoment } from "./connection/ending.ts";
import { Intake } from "./connection/intake.ts";
import { tlsOptions, tlsSettings } from "./connection/tls.ts";
import { recordEvent, sourceOf } from "./kafka/event.ts";
import { Offsets, type Taken } from "./kafka/offsets.ts";
import { type Emit, type PullKind, pullKind, secretReference, type SourceHost, type TriggerSource } from "./trigger.ts";

const TOPICS_MAX = 32;
const BROKERS_MAX = 16;
const CONNECT_MS_MAX = 10_000;
const ANSWER_MS_MAX = 20_000;
const FETCH_WAIT_MS = 1_000;
const LOOK_MS = 5_000;
/** A group notices after this long that a member is gone for good. */
const SESSION_MS = 30_000;
const REBALANCE_MS = 60_000;
const HEARTBEAT_MS = 3_000;
const RETRIES = 2;
const RETRY_MS = 500;

const schema = z.strictObject({
  brokers: z
    .array(
      z
        .string()
        .max(300)
        .regex(/^(?:[\w.-]+|\[[\da-fA-F:.]+\]):\d{1,5}$/, "must be HOST:PORT"),
    )
    .min(1)
    .max(BROKERS_MAX)
    .meta({ description: "Brokers to ask first, as HOST:PORT.", examples: [["127.0.0.1:9092"]] }),
  topics: z
    .array(
      z
        .string()
        .min(1)
        .max(249)
        .regex(/^[\w.-]+$/, "is not a topic's name"),
    )
    .min(1)
    .max(TOPICS_MAX)
    .meta({ description: "Names of topics.", examples: [["orders"]] }),
  group: z
    .string()
    .min(1)
    .max(256)
    .optional()
    .meta({ description: "The consumer group, which may be shared; by default one of the trigger's own." }),
  from: z
    .enum(["new", "beginning"])
    .default("new")
    .meta({ description: "Where a group that is new begins: with what comes, or with what is there." }),
  orderBy: z.enum(["partition", "key"]).default("partition").meta({
    description: "What the partitionkey is: the partition, or each record's key, which lets more run at a time.",
  }),
  uncommitted: z
    .boolean()
    .default(false)
    .meta({ description: "Whether records of transactions that are open or were aborted are delivered, too." }),
  tls: tlsSettings
    .optional()
    .meta({ description: "Encrypts the connections; {} checks against the public authorities." }),
  sasl: z
    .strictObject({
      mechanism: z.enum(["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]).meta({ description: "How to log in." }),
      username: z.string().min(1).max(256).meta({ description: "The user's name." }),
      password: secretReference("The password"),
    })
    .optional(),
});

type Settings = z.output<typeof schema>;

/** Records of Kafka topics, read by a consumer group. */
export function createKafkaKind(): PullKind {
  return pullKind({
    name: "kafka",
    summary: "records of Kafka topics, read by a consumer group",
    settings: schema,
    abilities: { ordering: true, replay: true },
    open: (settings, host) => new Kafka(settings, host),
    async check(settings, host, signal) {
      const consumer = await openConsumer(settings, host);
      const abandon = (): void => void consumer.close(true).catch(() => {});
      signal.addEventListener("abort", abandon, { once: true });
      try {
        await consumer.metadata({ topics: [...settings.topics] });
      } catch (thrown) {
        throw readable(thrown);
      } finally {
        signal.removeEventListener("abort", abandon);
        await consumer.close(true).catch(() => {});
      }
    },
    sample: (settings) => ({
      specversion: "1.0",
      id: "sample",
      source: sourceOf(settings.brokers, settings.topics[0] ?? ""),
      type: "koine.kafka.record",
      subject: settings.topics[0] ?? "",
      datacontenttype: "application/json",
      data: { hello: "world" },
      extensions: { partitionkey: `${settings.topics[0] ?? ""}/0`, partition: 0, offset: "0" },
    }),
  });
}

type Stream = MessagesStream<Buffer, Buffer, Buffer, Buffer>;

class Kafka implements TriggerSource {
  readonly #settings: Settings;
  readonly #host: SourceHost;
  #lastMs: number | null = null;

  constructor(settings: Settings, host: SourceHost) {
    this.#settings = settings;
    this.#host = host;
  }

  async run(emit: Emit, signal: AbortSignal): Promise<void> {
    const consumer = await openConsumer(this.#settings, this.#host);
    const ending = new Ending(signal);
    const offsets = new Offsets(consumer);
    const intake = new Intake<Taken>({
      emit,
      signal: ending.signal,
      acknowledge: (taken) => offsets.commit(taken),
    });
    let closed: Promise<void> | null = null;
    const close = (): Promise<void> => (closed ??= consumer.close(true).catch(() => {}));
    // While it still connects there is no stream that could be ended.
    let stream: Stream | null = null;
    const abandon = (): void => {
      if (stream === null) void close();
      else stream.destroy();
    };
    intake.signal.addEventListener("abort", abandon, { once: true });
    try {
      await this.#begin(consumer, offsets);
      intake.signal.throwIfAborted();
      stream = await this.#consume(consumer, "earliest");
      // Errors come out of the loop below; between its steps one without a listener would end the platform.
      stream.on("error", () => {});
      await offsets.learn(this.#settings.topics, stream.offsetsToFetch);
      this.#host.report({ state: "connected", detail: `group ${consumer.groupId}` });
      const looking = this.#look(offsets, intake.signal).catch((thrown: unknown) => ending.fail(readable(thrown)));
      await this.#follow(stream, offsets, intake);
      await looking;
      intake.signal.throwIfAborted();
      throw new KoineError("source-failed", { detail: "the broker has ended the stream" });
    } catch (thrown) {
      intake.signal.throwIfAborted();
      throw readable(thrown);
    } finally {
      // What begins after the end must not go on.
      ending.fail("the run is over");
      if (signal.aborted) await forAMoment(this.#host.clock, intake.end());
      await forAMoment(this.#host.clock, close());
    }
  }

  /**
   * A trigger that begins with what comes notes, once and for ever, where that is: what comes while the platform is down, before anything was committed or
   * to partitions that are made later, is then part of it.
   */
  async #begin(consumer: Consumer, offsets: Offsets): Promise<void> {
    const { checkpoint } = this.#host;
    const mark = JSON.stringify({ group: consumer.groupId, topics: this.#settings.topics });
    if (this.#settings.from === "beginning" || (await checkpoint.read()) === mark) return;
    const stream = await this.#consume(consumer, "latest");
    stream.on("error", () => {});
    await offsets.learn(this.#settings.topics, stream.offsetsToFetch);
    await offsets.commitStart();
    await stream.close();
    await checkpoint.write(mark);
  }

  async #consume(consumer: Consumer, fallbackMode: "latest" | "earliest"): Promise<Stream> {
    return await consumer.consume({ topics: [...this.#settings.topics], mode: "committed", fallbackMode });
  }

  async #follow(stream: Stream, offsets: Offsets, intake: Intake<Taken>): Promise<void> {
    const { brokers, orderBy } = this.#settings;
    for await (const message of stream as AsyncIterable<Message>) {
      await intake.room();
      const taken = offsets.take(message);
      // After a change in the group what is on its way may be read again.
      if (taken === null) continue;
      this.#lastMs = Number(message.timestamp);
      const bytes = (message.value?.length ?? 0) + (message.key?.length ?? 0);
      intake.take([recordEvent(message, { brokers, orderBy })], taken, bytes);
    }
  }

  async #look(offsets: Offsets, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const events = await offsets.lag(this.#settings.topics);
      const ms = events === 0 ? 0 : this.#lastMs === null ? null : Math.max(0, this.#host.clock.nowMs() - this.#lastMs);
      this.#host.report({ lag: { events, ms } });
      const { promise, resolve } = Promise.withResolvers<void>();
      const cancel = this.#host.clock.after(LOOK_MS, resolve);
      const wake = (): void => resolve();
      signal.addEventListener("abort", wake, { once: true });
      if (signal.aborted) resolve();
      await promise;
      signal.removeEventListener("abort", wake);
      cancel();
    }
  }
}

async function openConsumer(settings: Settings, host: Pick<SourceHost, "secret" | "trigger">): Promise<Consumer> {
  const kafka = await import("@platformatic/kafka");
  const { brokers, group, tls, sasl, uncommitted } = settings;
  const own = `koine-${host.trigger.id}`;
  // An address is no name that a server could be asked for.
  const named = !brokers.some((broker) => /^[\d.]+:\d+$|^\[/.test(broker));
  const options: ConsumerOptions<Buffer, Buffer, Buffer, Buffer> = {
    clientId: own,
    groupId: group ?? own,
    // A member with a name is the same one after a crash: the group need not wait until it has given the old one up.
    groupInstanceId: own,
    bootstrapBrokers: [...brokers],
    sessionTimeout: SESSION_MS,
    rebalanceTimeout: REBALANCE_MS,
    heartbeatInterval: HEARTBEAT_MS,
    connectTimeout: CONNECT_MS_MAX,
    timeout: ANSWER_MS_MAX,
    retries: RETRIES,
    retryDelay: RETRY_MS,
    autocommit: false,
    minBytes: 1,
    maxBytes: limits.triggerInFlightBytesMax,
    maxWaitTime: FETCH_WAIT_MS,
    isolationLevel: uncommitted
      ? kafka.FetchIsolationLevels.READ_UNCOMMITTED
      : kafka.FetchIsolationLevels.READ_COMMITTED,
    highWaterMark: limits.triggerInFlightMax,
    ...(tls === undefined ? {} : { tls: tlsOptions(tls, host), tlsServerName: tls.serverName ?? named }),
    ...(sasl === undefined
      ? {}
      : { sasl: { mechanism: sasl.mechanism, username: sasl.username, password: host.secret(sasl.password) } }),
  };
  return new kafka.Consumer(options);
}

/** The library's errors hold what was wrong as inner errors and causes. */
function readable(thrown: unknown): unknown {
  if (!(thrown instanceof Error) || thrown instanceof KoineError) return thrown;
  const detail = [...new Set(messagesOf(thrown))].slice(0, 4).join("; ");
  return new KoineError("source-failed", { detail }, { cause: thrown });
}

function messagesOf(error: Error): readonly string[] {
  const inner = error instanceof AggregateError ? (error.errors as readonly unknown[]) : [];
  return [error.message, ...[...inner, error.cause].flatMap((one) => (one instanceof Error ? messagesOf(one) : []))];
}
