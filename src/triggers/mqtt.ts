import type { IPublishPacket } from "mqtt-packet";
import { z } from "zod";
import { type CloudEvent, PARTITION_KEY } from "../core/event.ts";
import { newId } from "../core/ids.ts";
import { limits } from "../core/limits.ts";
import { aborted, forAMoment } from "./connection/ending.ts";
import { Intake } from "./connection/intake.ts";
import { messageEvent } from "./connection/message.ts";
import { tlsOptions, tlsSettings } from "./connection/tls.ts";
import { MqttClient, type MqttOptions } from "./mqtt/client.ts";
import {
  address,
  type Emit,
  type PullKind,
  pullKind,
  secretReference,
  type SourceHost,
  type TriggerSource,
} from "./trigger.ts";

const TOPICS_MAX = 32;
const KEEP_ALIVE_SECONDS = 30;
const SESSION_SECONDS_DEFAULT = 7 * 86_400;
const PORT = 1_883;
const TLS_PORT = 8_883;

const topicFilter = z
  .string()
  .min(1)
  .max(1_024)
  .regex(
    /^(?:[^#+\0]+|\+)?(?:\/(?:[^#+\0/]+|\+)?)*(?:(?:^|\/)#)?$/,
    "is not a topic filter: + is one level, # all that is left",
  );

const schema = z
  .strictObject({
    url: address("mqtt://HOST:PORT, or mqtts:// for TLS.", ["mqtt", "mqtts"]),
    topics: z
      .array(topicFilter)
      .min(1)
      .max(TOPICS_MAX)
      .meta({ description: "Topic filters.", examples: [["plant/+/temperature"]] }),
    qos: z
      .union([z.literal(0), z.literal(1)])
      .default(1)
      .meta({ description: "1: what is not acknowledged comes again. 0: what comes while nobody listens is lost." }),
    username: z.string().max(256).optional().meta({ description: "The user's name." }),
    password: secretReference("The password").optional(),
    tls: tlsSettings.optional(),
    version: z
      .union([z.literal(4), z.literal(5)])
      .default(5)
      .meta({ description: "Of the protocol: 5, or 4 for MQTT 3.1.1." }),
    clientId: z.string().min(1).max(128).optional().meta({ description: "By default one of the trigger's own." }),
    group: z
      .string()
      .min(1)
      .max(128)
      .regex(/^[^/#+]+$/, "must not hold /, # or +")
      .optional()
      .meta({ description: "Shares the messages with all who subscribe with this group's name." }),
    sessionSeconds: z
      .int()
      .min(0)
      .max(90 * 86_400)
      .default(SESSION_SECONDS_DEFAULT)
      .meta({ description: "How long the broker keeps what comes while the trigger does not run; version 5." }),
    retained: z
      .boolean()
      .default(true)
      .meta({ description: "Whether what a topic holds is delivered on the first subscription; version 5." }),
  })
  .refine(({ group, version }) => group === undefined || version === 5, {
    path: ["group"],
    error: "needs version 5 of the protocol",
  });

type Settings = z.output<typeof schema>;

/** Messages of MQTT topics. */
export function createMqttKind(): PullKind {
  return pullKind({
    name: "mqtt",
    summary: "messages of MQTT topics",
    settings: schema,
    abilities: { ordering: true, replay: true },
    open: (settings, host) => new Mqtt(settings, host),
    async check(settings, host, signal) {
      // Another name, or the broker would take the connection from the source that runs.
      const options = { ...optionsOf(settings, host), clientId: `${clientIdOf(settings, host)}-check`, clean: true };
      (await MqttClient.connect(options, () => {}, signal)).close();
    },
    sample: (settings) => ({
      specversion: "1.0",
      id: "sample",
      source: serverOf(settings.url),
      type: "koine.mqtt.message",
      subject: settings.topics[0]?.replaceAll(/[+#]/g, "x") ?? "x",
      datacontenttype: "application/json",
      data: { celsius: 21.5 },
    }),
  });
}

class Mqtt implements TriggerSource {
  readonly #settings: Settings;
  readonly #host: SourceHost;

  constructor(settings: Settings, host: SourceHost) {
    this.#settings = settings;
    this.#host = host;
  }

  async run(emit: Emit, signal: AbortSignal): Promise<void> {
    const { topics, qos, group, retained, version } = this.#settings;
    const messages: IPublishPacket[] = [];
    let take = (message: IPublishPacket): void => void messages.push(message);
    const client = await MqttClient.connect(optionsOf(this.#settings, this.#host), (message) => take(message), signal);
    const intake = new Intake<number | null>({
      emit,
      signal: client.signal,
      acknowledge: async (ids) => {
        for (const id of ids) if (id !== null) client.acknowledge(id);
      },
    });
    const reading = new Reading(client, intake);
    take = (message) => {
      // Without QoS there is nothing to acknowledge.
      intake.take(
        [this.#event(message)],
        message.qos === 0 ? null : (message.messageId ?? null),
        message.payload.length,
      );
      reading.look();
    };
    for (const message of messages.splice(0)) take(message);
    try {
      const prefix = group === undefined ? "" : `$share/${group}/`;
      const subscribed = topics.map((topic) => ({
        topic: `${prefix}${topic}`,
        qos,
        // With 1, what is retained comes only when the subscription is new, and not on every connection.
        ...(version === 5 ? { rh: retained ? 1 : 2, rap: true } : {}),
      }));
      await client.subscribe(subscribed);
      this.#host.report({
        state: "connected",
        detail: client.sessionPresent ? "the session goes on" : "a new session",
      });
      await aborted(intake.signal);
    } finally {
      if (signal.aborted) await forAMoment(this.#host.clock, intake.end());
      client.close();
    }
  }

  #event(message: IPublishPacket): CloudEvent {
    const { topic, payload, properties } = message;
    const headers = Object.entries(properties?.userProperties ?? {}).flatMap(([name, value]) =>
      [value].flat().map((text) => [name, text] as const),
    );
    const attributes = {
      id: newId(this.#host.clock.nowMs()),
      source: serverOf(this.#settings.url),
      type: "koine.mqtt.message",
      subject: topic,
      time: new Date(this.#host.clock.nowMs()).toISOString(),
      extensions: { [PARTITION_KEY]: topic, ...(message.retain ? { retained: true } : {}) },
    };
    return messageEvent(
      {
        payload: Buffer.isBuffer(payload) ? payload : Buffer.from(payload),
        headers,
        contentType: properties?.contentType,
        attributePrefixes: [""],
      },
      attributes,
    );
  }
}

/** Stops reading while there is no room: with QoS 0, or before version 5, nothing else holds the broker back. */
class Reading {
  readonly #client: MqttClient;
  readonly #intake: Intake<number | null>;
  #taken = 0;
  #waiting = false;

  constructor(client: MqttClient, intake: Intake<number | null>) {
    this.#client = client;
    this.#intake = intake;
  }

  look(): void {
    if (this.#waiting || ++this.#taken < limits.triggerInFlightMax / 4) return;
    this.#taken = 0;
    this.#waiting = true;
    this.#client.pause();
    this.#intake.room().then(
      () => {
        this.#waiting = false;
        this.#client.resume();
      },
      // The run is over.
      () => {},
    );
  }
}

function optionsOf(settings: Settings, host: SourceHost): MqttOptions {
  const url = new URL(settings.url);
  const { username = decodeURIComponent(url.username), password, tls, version, qos } = settings;
  const secure = url.protocol === "mqtts:";
  return {
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: Number(url.port || (secure ? TLS_PORT : PORT)),
    tls: secure ? tlsOptions(tls, host) : null,
    version,
    clientId: clientIdOf(settings, host),
    ...(username === "" ? {} : { username }),
    ...(password === undefined ? {} : { password: host.secret(password) }),
    clean: qos === 0,
    sessionSeconds: settings.sessionSeconds,
    keepAliveSeconds: KEEP_ALIVE_SECONDS,
    unacknowledgedMax: limits.triggerInFlightMax,
    messageBytesMax: limits.triggerInFlightBytesMax,
  };
}

function clientIdOf({ clientId }: Settings, { trigger }: Pick<SourceHost, "trigger">): string {
  return clientId ?? `koine-${trigger.id}`;
}

function serverOf(address: string): string {
  const { protocol, hostname, port } = new URL(address);
  return `${protocol}//${hostname}:${port || (protocol === "mqtts:" ? TLS_PORT : PORT)}`;
}
