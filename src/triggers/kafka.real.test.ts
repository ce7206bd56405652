import { randomUUID } from "node:crypto";
import { after, before } from "node:test";
import { Admin, Producer, stringSerializers } from "@platformatic/kafka";
import { sourceConformance, type SourceUnderTest } from "./conformance.ts";
import { createKafkaKind } from "./kafka.ts";
import type { Broker } from "./testing/brokers.ts";
import { startKafka } from "./testing/kafka.ts";
import { freePort } from "./testing/servers.ts";
import { shareStory } from "./testing/share.ts";
import { tlsStory } from "./testing/tls.ts";

let broker: Broker;

before(async () => {
  broker = await startKafka();
  const admin = new Admin(options());
  await admin.createTopics({ topics: ["tls"], partitions: 1, replicas: 1 });
  await admin.close();
});
after(() => broker?.[Symbol.asyncDispose]());

const options = () => ({
  clientId: "test",
  bootstrapBrokers: [`127.0.0.1:${broker.port}`],
  sasl: { mechanism: "PLAIN" as const, username: "user", password: broker.password },
});

async function open(): Promise<SourceUnderTest> {
  const topic = `t-${randomUUID()}`;
  const admin = new Admin(options());
  await admin.createTopics({ topics: [topic], partitions: 3, replicas: 1 });
  const settings = {
    brokers: [`127.0.0.1:${broker.port}`],
    topics: [topic],
    from: "beginning",
    sasl: { mechanism: "PLAIN", username: "user", password: { secret: "KAFKA_PASSWORD" } },
  };
  return {
    settings,
    secrets: { KAFKA_PASSWORD: broker.password },
    unreachable: { ...settings, brokers: [`127.0.0.1:${await freePort()}`] },
    async publish(texts, key) {
      const producer = new Producer({ ...options(), serializers: stringSerializers });
      try {
        await producer.send({
          messages: texts.map((value) => ({ topic, value, ...(key === undefined ? {} : { key }) })),
          acks: -1,
        });
      } finally {
        await producer.close();
      }
    },
    textOf: ({ data, type }) => (type === "koine.kafka.record" && typeof data === "string" ? data : null),
    restartServer: () => broker.restart(),
    [Symbol.asyncDispose]: async () => {
      await admin.close();
    },
  };
}

sourceConformance({
  name: "kafka",
  kind: createKafkaKind(),
  startsAtBeginning: true,
  open,
  wrongSettings: [
    [{}, /brokers/],
    [{ brokers: ["kafka"], topics: ["a"] }, /HOST:PORT/],
    [{ brokers: ["k:9092"], topics: ["a b"] }, /topic/],
    [
      { brokers: ["k:9092"], topics: ["a"], sasl: { mechanism: "PLAIN", username: "u", password: "in clear" } },
      /secret/,
    ],
    [{ brokers: ["k:9092"], topics: ["a"], from: "here" }, /from/],
  ],
});

tlsStory(
  "kafka",
  createKafkaKind(),
  ({ tlsPort }) => ({
    brokers: [`127.0.0.1:${tlsPort}`],
    topics: ["tls"],
    sasl: { mechanism: "PLAIN", username: "user", password: { secret: "KAFKA_PASSWORD" } },
  }),
  () => broker,
);

shareStory("kafka", createKafkaKind(), async () => {
  const source = await open();
  return { ...source, settings: { ...source.settings, group: `g-${randomUUID()}` } };
});
