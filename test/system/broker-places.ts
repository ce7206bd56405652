import { setTimeout as sleep } from "node:timers/promises";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect as connectNats, headers, type NatsConnection } from "@nats-io/transport-node";
import { Admin, Producer, stringSerializers } from "@platformatic/kafka";
import { connect as connectAmqp } from "amqplib";
import { connectAsync as connectMqtt } from "mqtt";
import { type Broker, startMosquitto, startNats, startRabbitMq } from "../../src/triggers/testing/brokers.ts";
import { startKafka } from "../../src/triggers/testing/kafka.ts";
import type { EventPlace, EventStory } from "./events.ts";

const NAME = "events";
/** Longer than the platform takes to be back after a kill. */
const REQUEST_MS_MAX = 2_000;

/** Brokers that keep what they were given; NATS without JetStream keeps nothing, so there the sender asks for a reply and sends again. */
export const brokerSources: readonly EventStory[] = [
  { name: "kafka", open: kafka },
  { name: "jetstream", open: streamOfNats },
  { name: "nats", open: subjectOfNats },
  { name: "rabbitmq", open: rabbitMq },
  { name: "mqtt", open: mqtt },
];

type Own = Pick<EventPlace, "kind" | "settings" | "publish">;

function placeOf(broker: Broker, own: Own): EventPlace {
  return {
    ...own,
    secrets: { BROKER_PASSWORD: broker.password },
    restartServer: () => broker.restart(),
    [Symbol.asyncDispose]: () => broker[Symbol.asyncDispose](),
  };
}

const password = { secret: "BROKER_PASSWORD" };

async function kafka(): Promise<EventPlace> {
  const broker = await startKafka();
  const bootstrapBrokers = [`127.0.0.1:${broker.port}`];
  const sasl = { mechanism: "PLAIN" as const, username: "user", password: broker.password };
  const options = { clientId: "test", bootstrapBrokers, sasl };
  const admin = new Admin(options);
  await admin.createTopics({ topics: [NAME], partitions: 3, replicas: 1 });
  await admin.close();
  return placeOf(broker, {
    kind: "kafka",
    settings: { brokers: bootstrapBrokers, topics: [NAME], sasl: { ...sasl, password } },
    async publish(texts) {
      const producer = new Producer({ ...options, serializers: stringSerializers });
      try {
        await producer.send({ messages: texts.map((value) => ({ topic: NAME, key: value, value })), acks: -1 });
      } finally {
        await producer.close();
      }
    },
  });
}

async function streamOfNats(): Promise<EventPlace> {
  const broker = await startNats();
  await withNats(broker, async (connection) => {
    const manager = await jetstreamManager(connection);
    await manager.streams.add({ name: NAME, subjects: [NAME] });
  });
  return placeOf(broker, {
    kind: "jetstream",
    settings: { servers: [`nats://127.0.0.1:${broker.port}`], username: "user", password, stream: NAME },
    publish: (texts) =>
      withNats(broker, async (connection) => {
        const client = jetstream(connection);
        await Promise.all(texts.map((text) => client.publish(NAME, text)));
      }),
  });
}

async function subjectOfNats(): Promise<EventPlace> {
  const broker = await startNats();
  return placeOf(broker, {
    kind: "nats",
    settings: {
      servers: [`nats://127.0.0.1:${broker.port}`],
      username: "user",
      password,
      subjects: [NAME],
      queue: "q",
    },
    publish: (texts) =>
      withNats(broker, async (connection) => void (await Promise.all(texts.map((text) => askFor(connection, text))))),
  });
}

/** Sends until somebody says that it is on disk; with an id, so that what was taken twice is one event. */
async function askFor(connection: NatsConnection, text: string): Promise<void> {
  const named = headers();
  named.set("Nats-Msg-Id", text);
  for (;;) {
    try {
      await connection.request(NAME, text, { timeout: REQUEST_MS_MAX, headers: named });
      return;
    } catch {
      await sleep(100);
    }
  }
}

async function withNats(broker: Broker, use: (connection: NatsConnection) => Promise<void>): Promise<void> {
  const connection = await connectNats({ port: broker.port, user: "user", pass: broker.password });
  try {
    await use(connection);
  } finally {
    await connection.close();
  }
}

async function rabbitMq(): Promise<EventPlace> {
  const broker = await startRabbitMq();
  const withChannel = async (
    use: (
      channel: Awaited<ReturnType<Awaited<ReturnType<typeof connectAmqp>>["createConfirmChannel"]>>,
    ) => Promise<unknown>,
  ): Promise<void> => {
    const connection = await connectAmqp({ port: broker.port, username: "user", password: broker.password });
    try {
      await use(await connection.createConfirmChannel());
    } finally {
      await connection.close();
    }
  };
  await withChannel((channel) => channel.assertExchange(NAME, "topic", { durable: true }));
  return placeOf(broker, {
    kind: "rabbitmq",
    settings: {
      url: `amqp://127.0.0.1:${broker.port}`,
      username: "user",
      password,
      queue: NAME,
      declare: "quorum",
      bindings: [{ exchange: NAME, key: "made.*" }],
    },
    publish: (texts) =>
      withChannel(async (channel) => {
        for (const text of texts)
          channel.publish(NAME, "made.here", Buffer.from(text), { persistent: true, messageId: text });
        await channel.waitForConfirms();
      }),
  });
}

async function mqtt(): Promise<EventPlace> {
  const broker = await startMosquitto();
  const url = `mqtt://127.0.0.1:${broker.port}`;
  return placeOf(broker, {
    kind: "mqtt",
    settings: { url, topics: [`${NAME}/+`], username: "user", password },
    async publish(texts) {
      const client = await connectMqtt(url, { username: "user", password: broker.password });
      await Promise.all(texts.map((text) => client.publishAsync(`${NAME}/made`, text, { qos: 1 })));
      await client.endAsync();
    },
  });
}
