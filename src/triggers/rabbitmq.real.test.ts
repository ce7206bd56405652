import { randomUUID } from "node:crypto";
import { after, before } from "node:test";
import { connect, type ConfirmChannel } from "amqplib";
import { sourceConformance, type SourceUnderTest } from "./conformance.ts";
import { createRabbitMqKind } from "./rabbitmq.ts";
import { type Broker, startRabbitMq } from "./testing/brokers.ts";
import { freePort } from "./testing/servers.ts";
import { shareStory } from "./testing/share.ts";
import { tlsStory } from "./testing/tls.ts";

let broker: Broker;

before(async () => {
  broker = await startRabbitMq();
});
after(() => broker?.[Symbol.asyncDispose]());

async function connected(use: (channel: ConfirmChannel) => Promise<void>): Promise<void> {
  const connection = await connect({ port: broker.port, username: "user", password: broker.password });
  try {
    await use(await connection.createConfirmChannel());
  } finally {
    await connection.close();
  }
}

async function open(declare: "quorum" | "classic"): Promise<SourceUnderTest> {
  const queue = `q-${randomUUID()}`;
  const settings = {
    url: `amqp://127.0.0.1:${broker.port}`,
    username: "user",
    password: { secret: "AMQP_PASSWORD" },
    queue,
    declare,
  };
  await connected(
    async (channel) =>
      void (await channel.assertQueue(queue, { durable: true, arguments: { "x-queue-type": declare } })),
  );
  return {
    settings,
    secrets: { AMQP_PASSWORD: broker.password },
    unreachable: { ...settings, url: `amqp://127.0.0.1:${await freePort()}` },
    publish: (texts) =>
      connected(async (channel) => {
        for (const text of texts) channel.sendToQueue(queue, Buffer.from(text), { persistent: true });
        await channel.waitForConfirms();
      }),
    textOf: ({ data, type }) => (type === "koine.rabbitmq.message" && typeof data === "string" ? data : null),
    restartServer: () => broker.restart(),
    [Symbol.asyncDispose]: () => connected(async (channel) => void (await channel.deleteQueue(queue))),
  };
}

for (const declare of ["quorum", "classic"] as const)
  sourceConformance({
    name: `rabbitmq with ${declare} queues`,
    kind: createRabbitMqKind(),
    startsAtBeginning: true,
    open: () => open(declare),
    wrongSettings: [
      [{}, /url/],
      [{ url: "http://x", queue: "a" }, /amqp:\/\//],
      [{ url: "amqp://u:p@x", queue: "a" }, /password/],
      [{ url: "amqp://x", queue: "" }, /queue/],
      [{ url: "amqp://x", queue: "a", prefetch: 0 }, /prefetch/],
      [{ url: "amqp://x", queue: "a", bindings: [{ exchange: "e" }] }, /declare/],
      [{ url: "amqp://x", queue: "a", password: "in clear" }, /name of a secret/],
    ],
  });

tlsStory(
  "rabbitmq",
  createRabbitMqKind(),
  ({ tlsPort }) => ({
    url: `amqps://127.0.0.1:${tlsPort}`,
    queue: "q",
    declare: "classic",
    username: "user",
    password: { secret: "AMQP_PASSWORD" },
  }),
  () => broker,
);

shareStory("rabbitmq", createRabbitMqKind(), () => open("quorum"));
