import { randomUUID } from "node:crypto";
import { CreateQueueCommand, SendMessageBatchCommand, SQSClient } from "@aws-sdk/client-sqs";
import { connect, type Redis } from "../../src/triggers/redis/connect.ts";
import { asking, startPostgres } from "../../src/triggers/testing/postgres.ts";
import { type RedisServer, startRedis } from "../../src/triggers/testing/redis.ts";
import { freePort } from "../../src/triggers/testing/servers.ts";
import { putObjects, startS3rver, STORE_KEY } from "../../src/triggers/testing/stores.ts";
import type { EventPlace, EventStory } from "./events.ts";
import { startPlatform } from "./platform.ts";

/** Sources that keep what they were given: none of their events may be lost. */
export const keepingSources: readonly EventStory[] = [
  { name: "redis-stream", open: redisStream },
  { name: "redis-list", open: redisList },
  { name: "postgres-outbox", open: postgresOutbox },
  { name: "sqs", open: sqs },
  // The listing of the store that is there for tests takes longer the more there is in it.
  { name: "bucket", open: bucket, most: 1_000, chunk: 100 },
];

async function redisStream(): Promise<EventPlace> {
  const settings = { streams: ["events"], dataField: "text" };
  return await redisPlace("redis-stream", settings, (redis, texts) =>
    Promise.all(texts.map((text) => redis.send("XADD", "events", "*", "text", text))),
  );
}

async function redisList(): Promise<EventPlace> {
  return await redisPlace("redis-list", { list: "events" }, (redis, texts) => redis.send("RPUSH", "events", ...texts));
}

async function redisPlace(
  kind: string,
  settings: Readonly<Record<string, unknown>>,
  push: (redis: Redis, texts: readonly string[]) => Promise<unknown>,
): Promise<EventPlace> {
  const server = await startRedis();
  const password = { secret: "REDIS_PASSWORD" };
  return {
    kind,
    settings: { url: server.url, password, ...settings },
    secrets: { REDIS_PASSWORD: server.password },
    publish: (texts) => commanding(server, (redis) => push(redis, texts)),
    restartServer: () => server.restart(),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

async function commanding(server: RedisServer, use: (redis: Redis) => Promise<unknown>): Promise<void> {
  const password = { secret: "REDIS_PASSWORD" };
  const host = { secret: () => server.password };
  const redis = await connect({ url: server.url, password }, host, { signal: AbortSignal.timeout(30_000) });
  try {
    await use(redis);
  } finally {
    redis.close();
  }
}

async function postgresOutbox(): Promise<EventPlace> {
  const server = await startPostgres();
  await asking(server, (client) => client.query("CREATE TABLE outbox (id bigserial PRIMARY KEY, body text NOT NULL)"));
  const insert = "INSERT INTO outbox (body) SELECT unnest($1::text[])";
  return {
    kind: "postgres-outbox",
    settings: { url: server.url, password: { secret: "PG_PASSWORD" }, table: "outbox", payload: "body", pollMs: 200 },
    secrets: { PG_PASSWORD: server.password },
    publish: (texts) => asking(server, async (client) => void (await client.query(insert, [texts]))),
    restartServer: () => server.restart(),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

/** Another platform is the server, which keeps its queues on disk; it is killed, too. */
async function sqs(): Promise<EventPlace> {
  const server = await startPlatform({ sandbox: "none", args: ["--port", String(await freePort())] });
  const credentials = { accessKeyId: "test", secretAccessKey: "queue-secret-of-test" };
  const client = new SQSClient({
    endpoint: server.url,
    region: "us-east-1",
    credentials,
    useQueueUrlAsEndpoint: false,
  });
  const { QueueUrl = "" } = await client.send(new CreateQueueCommand({ QueueName: "events" }));
  const { accessKeyId, secretAccessKey } = credentials;
  return {
    kind: "sqs",
    settings: {
      queueUrl: QueueUrl,
      accessKeyId,
      secretAccessKey: { secret: "QUEUE_KEY" },
      receivers: 8,
      waitSeconds: 1,
      visibilitySeconds: 10,
    },
    secrets: { QUEUE_KEY: secretAccessKey },
    async publish(texts) {
      const starts = Array.from({ length: Math.ceil(texts.length / 10) }, (_, index) => index * 10);
      await Promise.all(
        starts.map(async (from) => {
          const some = texts.slice(from, from + 10);
          const Entries = some.map((text, index) => ({ Id: String(index), MessageBody: text }));
          const { Failed } = await client.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
          if (Failed !== undefined && Failed.length > 0) throw new Error(`not sent: ${JSON.stringify(Failed[0])}`);
        }),
      );
    },
    async restartServer() {
      await server.kill9();
      await server.restart();
    },
    async [Symbol.asyncDispose]() {
      client.destroy();
      await server.stop();
    },
  };
}

async function bucket(): Promise<EventPlace> {
  const server = await startS3rver();
  const name = `b-${randomUUID()}`;
  await putObjects(server.url, name, [["", null]]);
  const { accessKeyId, secretAccessKey } = STORE_KEY;
  return {
    kind: "bucket",
    settings: {
      endpoint: server.url,
      bucket: name,
      pollMs: 2_000,
      accessKeyId,
      secretAccessKey: { secret: "STORE_KEY" },
    },
    secrets: { STORE_KEY: secretAccessKey },
    publish: (texts) =>
      putObjects(
        server.url,
        name,
        texts.map((text) => [text, "content"] as const),
      ),
    restartServer: () => server.restart(),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}
