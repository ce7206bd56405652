import { randomUUID } from "node:crypto";
import { after, before } from "node:test";
import { connectAsync } from "mqtt";
import { sourceConformance, type SourceUnderTest } from "./conformance.ts";
import { createMqttKind } from "./mqtt.ts";
import { type Broker, startMosquitto } from "./testing/brokers.ts";
import { freePort } from "./testing/servers.ts";
import { shareStory } from "./testing/share.ts";
import { tlsStory } from "./testing/tls.ts";

let broker: Broker;

before(async () => {
  broker = await startMosquitto();
});
after(() => broker?.[Symbol.asyncDispose]());

async function open(version: 4 | 5): Promise<SourceUnderTest> {
  const topic = `t/${randomUUID()}`;
  const settings = {
    url: `mqtt://127.0.0.1:${broker.port}`,
    topics: [`${topic}/+`],
    username: "user",
    password: { secret: "MQTT_PASSWORD" },
    version,
  };
  return {
    settings,
    secrets: { MQTT_PASSWORD: broker.password },
    unreachable: { ...settings, url: `mqtt://127.0.0.1:${await freePort()}` },
    async publish(texts, key = "x") {
      const client = await connectAsync(settings.url, { username: "user", password: broker.password });
      for (const text of texts) await client.publishAsync(`${topic}/${key}`, text, { qos: 1 });
      await client.endAsync();
    },
    textOf: ({ data, type }) => (type === "koine.mqtt.message" && typeof data === "string" ? data : null),
    restartServer: () => broker.restart(),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

for (const version of [5, 4] as const)
  sourceConformance({
    name: version === 5 ? "mqtt 5" : "mqtt 3.1.1",
    kind: createMqttKind(),
    open: () => open(version),
    wrongSettings: [
      [{}, /url/],
      [{ url: "amqp://x", topics: ["a"] }, /mqtt:\/\//],
      [{ url: "mqtt://u:p@x", topics: ["a"] }, /password/],
      [{ url: "mqtt://x", topics: [] }, /topics/],
      [{ url: "mqtt://x", topics: ["a/#/b"] }, /topic filter/],
      [{ url: "mqtt://x", topics: ["a"], qos: 2 }, /qos/],
      [{ url: "mqtt://x", topics: ["a"], group: "g", version: 4 }, /version 5/],
      [{ url: "mqtt://x", topics: ["a"], password: "in clear" }, /name of a secret/],
    ],
  });

tlsStory(
  "mqtt",
  createMqttKind(),
  ({ tlsPort }) => ({
    url: `mqtts://127.0.0.1:${tlsPort}`,
    topics: ["t"],
    username: "user",
    password: { secret: "MQTT_PASSWORD" },
  }),
  () => broker,
);

shareStory("mqtt", createMqttKind(), async () => {
  const source = await open(5);
  return { ...source, settings: { ...source.settings, group: "g" } };
});
