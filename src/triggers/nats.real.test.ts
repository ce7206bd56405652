import { randomUUID } from "node:crypto";
import { after, before } from "node:test";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { sourceConformance, type SourceUnderTest } from "./conformance.ts";
import { createJetStreamKind } from "./jetstream.ts";
import { createNatsKind } from "./nats.ts";
import { type Broker, startNats } from "./testing/brokers.ts";
import { freePort } from "./testing/servers.ts";
import { shareStory } from "./testing/share.ts";
import { tlsStory } from "./testing/tls.ts";

let broker: Broker;
let secure: Broker;

before(async () => {
  broker = await startNats();
  secure = await startNats({ secure: true });
});
after(async () => {
  await broker?.[Symbol.asyncDispose]();
  await secure?.[Symbol.asyncDispose]();
});

async function connected<Answer>(use: (connection: NatsConnection) => Promise<Answer>): Promise<Answer> {
  const connection = await connect({ port: broker.port, user: "user", pass: broker.password });
  try {
    return await use(connection);
  } finally {
    await connection.close();
  }
}

async function place(
  type: string,
  own: Readonly<Record<string, unknown>>,
  parts: Pick<SourceUnderTest, "publish" | typeof Symbol.asyncDispose>,
): Promise<SourceUnderTest> {
  const common = { username: "user", password: { secret: "NATS_PASSWORD" } };
  const settings = { servers: [`nats://127.0.0.1:${broker.port}`], ...common, ...own };
  return {
    settings,
    secrets: { NATS_PASSWORD: broker.password },
    unreachable: { ...settings, servers: [`nats://127.0.0.1:${await freePort()}`] },
    textOf: (event) => (event.type === type && typeof event.data === "string" ? event.data : null),
    restartServer: () => broker.restart(),
    ...parts,
  };
}

function openSubject(): Promise<SourceUnderTest> {
  const subject = `s.${randomUUID()}`;
  return place(
    "koine.nats.message",
    { subjects: [subject], queue: "q" },
    {
      publish: (texts) =>
        connected(async (connection) => {
          for (const text of texts) connection.publish(subject, text);
          await connection.flush();
        }),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    },
  );
}

sourceConformance({
  name: "nats",
  kind: createNatsKind(),
  open: openSubject,
  wrongSettings: [
    [{}, /servers/],
    [{ servers: ["http://x"], subjects: ["a"] }, /nats:\/\//],
    [{ servers: ["nats://u:p@x"], subjects: ["a"] }, /password/],
    [{ servers: ["nats://x"], subjects: ["a..b"] }, /subject/],
    [{ servers: ["nats://x"], subjects: ["a"], token: "in clear" }, /name of a secret/],
  ],
});

async function openStream(retention: "limits" | "workqueue" | "interest"): Promise<SourceUnderTest> {
  const stream = `S-${randomUUID()}`;
  await connected(async (connection) => {
    const manager = await jetstreamManager(connection);
    await manager.streams.add({ name: stream, subjects: [`${stream}.>`], retention });
  });
  return await place(
    "koine.jetstream.message",
    { stream, from: "beginning", ...(retention === "limits" ? { subjects: [`${stream}.*`] } : {}) },
    {
      publish: (texts, key = "x") =>
        connected(async (connection) => {
          for (const text of texts) await jetstream(connection).publish(`${stream}.${key}`, text);
        }),
      [Symbol.asyncDispose]: () =>
        connected(async (connection) => void (await (await jetstreamManager(connection)).streams.delete(stream))),
    },
  );
}

for (const retention of ["limits", "workqueue", "interest"] as const)
  sourceConformance({
    name: `jetstream with retention ${retention}`,
    kind: createJetStreamKind(),
    startsAtBeginning: retention !== "interest",
    open: () => openStream(retention),
    wrongSettings: [
      [{ servers: ["nats://x"] }, /stream/],
      [{ servers: ["nats://x"], stream: "a.b" }, /stream's name/],
      [{ servers: ["nats://x"], stream: "a", from: "here" }, /from/],
    ],
  });

tlsStory(
  "nats",
  createNatsKind(),
  ({ tlsPort }) => ({
    servers: [`tls://127.0.0.1:${tlsPort}`],
    subjects: ["s"],
    username: "user",
    password: { secret: "NATS_PASSWORD" },
  }),
  () => secure,
);

shareStory("nats", createNatsKind(), openSubject);

shareStory("jetstream", createJetStreamKind(), async () => {
  const source = await openStream("limits");
  const stream = String(source.settings["stream"]);
  await connected(async (connection) => {
    const manager = await jetstreamManager(connection);
    await manager.consumers.add(stream, { durable_name: "shared", ack_policy: AckPolicy.Explicit });
  });
  return { ...source, settings: { ...source.settings, consumer: "shared" } };
});
