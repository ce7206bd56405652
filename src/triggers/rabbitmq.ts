import type { Channel, ChannelModel, ConsumeMessage } from "amqplib";
import { z } from "zod";
import { type CloudEvent, PARTITION_KEY } from "../core/event.ts";
import { newId } from "../core/ids.ts";
import { limits } from "../core/limits.ts";
import { aborted, Ending, forAMoment } from "./connection/ending.ts";
import { Intake } from "./connection/intake.ts";
import { messageEvent } from "./connection/message.ts";
import { tlsOptions, tlsSettings } from "./connection/tls.ts";
import {
  address,
  type Emit,
  type PullKind,
  pullKind,
  secretReference,
  type SourceHost,
  type TriggerSource,
} from "./trigger.ts";

const CONNECT_MS_MAX = 10_000;
const HEARTBEAT_SECONDS = 20;
const LOOK_MS = 5_000;
const BINDINGS_MAX = 64;
const PREFETCH_DEFAULT = 500;
const PORT = 5_672;
const TLS_PORT = 5_671;

const name = z
  .string()
  .min(1)
  .refine((text) => Buffer.byteLength(text) <= 255, "must have at most 255 bytes");

const schema = z
  .strictObject({
    url: address("amqp://HOST:PORT/VHOST, or amqps:// for TLS.", ["amqp", "amqps"]),
    username: z.string().max(256).optional().meta({ description: "The user's name." }),
    password: secretReference("The password").optional(),
    tls: tlsSettings.optional(),
    queue: name.meta({ description: "The queue.", examples: ["orders"] }),
    declare: z.enum(["quorum", "classic"]).optional().meta({
      description: "Makes the queue, durable and of this type, where it is not there; else it must be there.",
    }),
    bindings: z
      .array(
        z.strictObject({
          exchange: name.meta({ description: "An exchange that is there." }),
          key: z.string().max(255).default("#").meta({ description: "The routing key, or a pattern of it." }),
        }),
      )
      .max(BINDINGS_MAX)
      .default([])
      .meta({
        description: "Binds the queue to exchanges; needs declare.",
        examples: [[{ exchange: "shop", key: "order.*" }]],
      }),
    prefetch: z
      .int()
      .min(1)
      .max(limits.triggerInFlightMax)
      .default(PREFETCH_DEFAULT)
      .meta({ description: "Messages that the broker hands over before earlier ones are acknowledged." }),
    exclusive: z
      .boolean()
      .default(false)
      .meta({ description: "Whether nobody else may read the queue at the same time, which keeps its order." }),
    keyHeader: z
      .string()
      .max(255)
      .optional()
      .meta({ description: "The header whose value is the partitionkey; else that is the queue's name." }),
  })
  .refine(({ bindings, declare }) => bindings.length === 0 || declare !== undefined, {
    path: ["bindings"],
    error: "needs declare",
  });

type Settings = z.output<typeof schema>;

/** Messages of a queue of RabbitMQ, or of another broker of AMQP 0.9.1. */
export function createRabbitMqKind(): PullKind {
  return pullKind({
    name: "rabbitmq",
    summary: "messages of a queue of RabbitMQ (AMQP 0.9.1)",
    settings: schema,
    abilities: { ordering: true, replay: true },
    open: (settings, host) => new RabbitMq(settings, host),
    async check(settings, host, signal) {
      const connection = await connect(settings, host, signal);
      try {
        const channel = await openChannel(connection, () => {});
        if (settings.declare === undefined) await channel.checkQueue(settings.queue);
        for (const { exchange } of settings.bindings) await channel.checkExchange(exchange);
      } finally {
        await close(connection);
      }
    },
    sample: (settings) => ({
      specversion: "1.0",
      id: "sample",
      source: sourceOf(settings),
      type: "koine.rabbitmq.message",
      subject: settings.bindings[0]?.key ?? settings.queue,
      datacontenttype: "application/json",
      data: { hello: "world" },
    }),
  });
}

class RabbitMq implements TriggerSource {
  readonly #settings: Settings;
  readonly #host: SourceHost;
  #unacknowledged = 0;
  #lastMs: number | null = null;

  constructor(settings: Settings, host: SourceHost) {
    this.#settings = settings;
    this.#host = host;
  }

  async run(emit: Emit, signal: AbortSignal): Promise<void> {
    const { queue, prefetch, exclusive } = this.#settings;
    const connection = await connect(this.#settings, this.#host, signal);
    const ending = new Ending(signal);
    connection.on("error", (error) => ending.fail(error));
    connection.on("close", (error) => ending.fail(error ?? "the broker has closed the connection"));
    let intake: Intake<ConsumeMessage> | null = null;
    try {
      const channel = await openChannel(connection, (reason) => ending.fail(reason));
      await this.#declare(channel);
      await channel.prefetch(prefetch);
      const taking = new Intake<ConsumeMessage>({
        emit,
        signal: ending.signal,
        acknowledge: async (messages) => {
          for (const message of messages) channel.ack(message);
          this.#unacknowledged -= messages.length;
        },
      });
      intake = taking;
      const take = (message: ConsumeMessage | null): void => {
        if (message === null) {
          ending.fail("the broker has ended the reading of the queue: it is gone, maybe");
          return;
        }
        this.#unacknowledged++;
        const { timestamp } = message.properties as { readonly timestamp?: number };
        this.#lastMs = timestamp === undefined ? null : timestamp * 1_000;
        taking.take([this.#event(message)], message, message.content.length);
      };
      await channel.consume(queue, take, { exclusive, consumerTag: `koine-${this.#host.trigger.id}` });
      this.#host.report({ state: "connected", detail: productOf(connection) });
      const counting = await openChannel(connection, (reason) => ending.fail(reason));
      await this.#look(counting, taking.signal);
      await aborted(taking.signal);
    } catch (thrown) {
      // Why the connection ended says more than that a channel of it has.
      ending.signal.throwIfAborted();
      throw thrown;
    } finally {
      if (signal.aborted && intake !== null) await forAMoment(this.#host.clock, intake.end());
      await forAMoment(this.#host.clock, close(connection));
    }
  }

  async #declare(channel: Channel): Promise<void> {
    const { queue, declare, bindings } = this.#settings;
    if (declare === undefined) {
      await channel.checkQueue(queue);
      return;
    }
    await channel.assertQueue(queue, { durable: true, arguments: { "x-queue-type": declare } });
    for (const { exchange, key } of bindings) await channel.bindQueue(queue, exchange, key);
  }

  #event(message: ConsumeMessage): CloudEvent {
    const { queue, keyHeader } = this.#settings;
    const { content, fields, properties } = message;
    const {
      messageId,
      timestamp,
      contentType,
      headers = {},
    } = properties as {
      readonly messageId?: string;
      readonly timestamp?: number;
      readonly contentType?: string;
      readonly headers?: Readonly<Record<string, unknown>>;
    };
    const texts = Object.entries(headers).flatMap(([header, value]) =>
      typeof value === "string" || typeof value === "number" || typeof value === "boolean"
        ? [[header, String(value)] as const]
        : [],
    );
    const key = texts.find(([header]) => header === keyHeader)?.[1];
    const attributes = {
      id: messageId ?? newId(this.#host.clock.nowMs()),
      source: sourceOf(this.#settings),
      type: "koine.rabbitmq.message",
      subject: fields.routingKey === "" ? queue : fields.routingKey,
      time: new Date(timestamp === undefined ? this.#host.clock.nowMs() : timestamp * 1_000).toISOString(),
      extensions: { [PARTITION_KEY]: key ?? queue, ...(fields.exchange === "" ? {} : { exchange: fields.exchange }) },
    };
    return messageEvent(
      { payload: content, headers: texts, contentType, attributePrefixes: ["cloudEvents:", "cloudEvents_"] },
      attributes,
    );
  }

  async #look(channel: Channel, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const { messageCount } = await channel.checkQueue(this.#settings.queue);
      const events = messageCount + this.#unacknowledged;
      const ms = events === 0 ? 0 : this.#lastMs === null ? null : Math.max(0, this.#host.clock.nowMs() - this.#lastMs);
      this.#host.report({ lag: { events, ms } });
      const { promise, resolve } = Promise.withResolvers<void>();
      const cancel = this.#host.clock.after(LOOK_MS, resolve);
      const wake = (): void => resolve();
      signal.addEventListener("abort", wake, { once: true });
      await promise;
      signal.removeEventListener("abort", wake);
      cancel();
    }
  }
}

async function connect(
  settings: Settings,
  host: Pick<SourceHost, "secret" | "trigger">,
  signal: AbortSignal,
): Promise<ChannelModel> {
  const { connect: open, credentials } = await import("amqplib");
  signal.throwIfAborted();
  const url = new URL(settings.url);
  const { username = decodeURIComponent(url.username) || "guest", password, tls } = settings;
  const secure = url.protocol === "amqps:";
  const hostname = url.hostname.replace(/^\[|\]$/g, "");
  const options = {
    ...(secure ? { ...(/^[\d.]+$|:/.test(hostname) ? {} : { servername: hostname }), ...tlsOptions(tls, host) } : {}),
    timeout: CONNECT_MS_MAX,
    noDelay: true,
    credentials: credentials.plain(username, password === undefined ? "guest" : host.secret(password)),
    clientProperties: { connection_name: `koine ${host.trigger.namespace}/${host.trigger.name}` },
  };
  const connection = await open(
    {
      protocol: secure ? "amqps" : "amqp",
      hostname,
      port: Number(url.port || (secure ? TLS_PORT : PORT)),
      vhost: decodeURIComponent(url.pathname.slice(1)) || "/",
      heartbeat: HEARTBEAT_SECONDS,
    },
    options,
  );
  // Without a listener an error would end the platform.
  connection.on("error", () => {});
  if (!signal.aborted) return connection;
  await close(connection);
  throw signal.reason;
}

async function openChannel(connection: ChannelModel, ended: (reason: unknown) => void): Promise<Channel> {
  const channel = await connection.createChannel();
  channel.on("error", (error) => ended(error));
  channel.on("close", () => ended("the broker has closed the channel"));
  return channel;
}

/** It may be closed already. */
async function close(connection: ChannelModel): Promise<void> {
  await connection.close().catch(() => {});
}

function productOf({ connection }: ChannelModel): string {
  const { product, version } = connection.serverProperties as { readonly product?: string; readonly version?: string };
  return `${product ?? "broker"} ${version ?? ""}`.trim();
}

function sourceOf({ url: text, queue }: Settings): string {
  const { protocol, hostname, port, pathname } = new URL(text);
  const at = `${hostname}:${port || (protocol === "amqps:" ? TLS_PORT : PORT)}`;
  return `${protocol}//${at}${pathname === "/" ? "" : pathname}/${encodeURIComponent(queue)}`;
}
