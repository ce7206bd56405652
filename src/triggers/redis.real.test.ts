import { randomUUID } from "node:crypto";
import { after, before } from "node:test";
import { sourceConformance } from "./conformance.ts";
import { connect, type Redis } from "./redis/connect.ts";
import { createRedisListKind } from "./redis/lists.ts";
import { createRedisStreamKind } from "./redis/streams.ts";
import { type RedisServer, startRedis } from "./testing/redis.ts";
import { freePort } from "./testing/servers.ts";

let server: RedisServer;

before(async () => {
  server = await startRedis();
});
after(() => server?.[Symbol.asyncDispose]());

const password = { secret: "REDIS_PASSWORD" };
const secrets = (): Readonly<Record<string, string>> => ({ REDIS_PASSWORD: server.password });

async function commanding<Answer>(use: (redis: Redis) => Promise<Answer>): Promise<Answer> {
  const redis = await connect(
    { url: server.url, password },
    { secret: () => server.password },
    { signal: AbortSignal.timeout(10_000) },
  );
  try {
    return await use(redis);
  } finally {
    redis.close();
  }
}

sourceConformance({
  name: "redis streams",
  kind: createRedisStreamKind(),
  startsAtBeginning: true,
  async open() {
    const stream = `s-${randomUUID()}`;
    const settings = { url: server.url, password, streams: [stream], from: "beginning", dataField: "text" };
    return {
      settings,
      secrets: secrets(),
      unreachable: { ...settings, url: `redis://127.0.0.1:${await freePort()}` },
      publish: (texts) =>
        commanding(async (redis) => {
          for (const text of texts) await redis.send("XADD", stream, "*", "text", text);
        }),
      textOf: ({ data, type }) => (type === "koine.redis.entry" && typeof data === "string" ? data : null),
      restartServer: () => server.restart(),
      [Symbol.asyncDispose]: () => commanding(async (redis) => void (await redis.send("DEL", stream))),
    };
  },
  wrongSettings: [
    [{}, /url/],
    [{ url: "http://x", streams: ["a"] }, /redis:\/\//],
    [{ url: "redis://:pass@x", streams: ["a"] }, /password/],
    [{ url: "redis://x", streams: [] }, /streams/],
    [{ url: "redis://x", streams: ["a"], password: "in clear" }, /name of a secret/],
    [{ url: "redis://x", streams: ["a"], tls: { ca: "none" } }, /PEM/],
  ],
});

sourceConformance({
  name: "redis lists",
  kind: createRedisListKind(),
  startsAtBeginning: true,
  async open() {
    const list = `l-${randomUUID()}`;
    const settings = { url: server.url, password, list };
    return {
      settings,
      secrets: secrets(),
      unreachable: { ...settings, url: `redis://127.0.0.1:${await freePort()}` },
      publish: (texts) =>
        commanding(async (redis) => {
          for (const text of texts) await redis.send("RPUSH", list, text);
        }),
      textOf: ({ data, type }) => (type === "koine.redis.element" && typeof data === "string" ? data : null),
      restartServer: () => server.restart(),
      [Symbol.asyncDispose]: () => commanding(async (redis) => void (await redis.send("DEL", list))),
    };
  },
  wrongSettings: [
    [{ url: "redis://x" }, /list/],
    [{ url: "redis://x", list: "a", take: "middle" }, /take/],
  ],
});
