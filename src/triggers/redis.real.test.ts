import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { sourceConformance } from "./conformance.ts";
import { connect, type Redis } from "./redis/connect.ts";
import { createRedisListKind } from "./redis/lists.ts";
import { createRedisStreamKind } from "./redis/streams.ts";
import { type RedisServer, startRedis } from "./testing/redis.ts";
import { runTrigger } from "./testing/running.ts";
import { freePort, makeCertificate, scratchFolder } from "./testing/servers.ts";

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

test("what another consumer of the group has held for long is taken over", async () => {
  const [stream, group] = [`s-${randomUUID()}`, "shared"];
  await commanding(async (redis) => {
    await redis.send("XGROUP", "CREATE", stream, group, "0", "MKSTREAM");
    await redis.send("XADD", stream, "*", "text", "given up");
    await redis.send("XREADGROUP", "GROUP", group, "somebody", "STREAMS", stream, ">");
    const [entry] = (await redis.send("XPENDING", stream, group, "-", "+", "1")) as readonly (readonly Buffer[])[];
    await redis.send("XCLAIM", stream, group, "somebody", "0", String(entry?.[0]), "IDLE", "70000");
  });
  const settings = { url: server.url, password, streams: [stream], group, claimIdleMs: 61_000 };
  await using trigger = await runTrigger(createRedisStreamKind(), settings, secrets());
  const [event] = await trigger.events(1);
  assert.deepEqual(event?.data, { text: "given up" });
});

test("two triggers with one group share a stream's entries, and two without one get all of them each", async () => {
  const stream = `s-${randomUUID()}`;
  const kind = createRedisStreamKind();
  const settings = { url: server.url, password, streams: [stream], from: "beginning" };
  const numbers = Array.from({ length: 20 }, (_, index) => String(index));
  await using one = await runTrigger(kind, { ...settings, group: "shared" }, secrets());
  await using two = await runTrigger(kind, { ...settings, group: "shared" }, secrets());
  await using all = await runTrigger(kind, settings, secrets());
  await one.until(() => [one, two, all].every(({ state }) => state === "connected"));
  await commanding(async (redis) => {
    for (const number of numbers) await redis.send("XADD", stream, "*", "n", number);
  });
  const textsOf = async (count: number, ...triggers: readonly (typeof one)[]): Promise<readonly string[]> => {
    const found = async (): Promise<readonly string[]> =>
      (await Promise.all(triggers.map((trigger) => trigger.events(0)))).flatMap((events) => events.map(({ id }) => id));
    let ids = await found();
    for (let look = 0; look < 500 && ids.length < count; look++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      ids = await found();
    }
    return ids;
  };
  assert.equal(new Set(await textsOf(20, one, two)).size, 20);
  assert.equal((await textsOf(20, one, two)).length, 20);
  assert.equal((await textsOf(20, all)).length, 20);
});

test("a connection is encrypted, and a certificate that nobody vouches for ends it", async () => {
  await using folder = await scratchFolder("certificate");
  const { certificate, key } = await makeCertificate(folder.path);
  const port = await freePort();
  const options = { "tls-port": port, "tls-cert-file": certificate, "tls-key-file": key, "tls-auth-clients": "no" };
  await using encrypted = await startRedis(options);
  const list = { url: `rediss://127.0.0.1:${port}`, password, list: "l" };
  const values = { REDIS_PASSWORD: encrypted.password };
  const ca = await readFile(certificate, "utf8");
  await using trusting = await runTrigger(createRedisListKind(), { ...list, tls: { ca } }, values);
  await trusting.until(() => trusting.state === "connected");
  await using doubting = await runTrigger(createRedisListKind(), list, values);
  await doubting.until(() => doubting.state === "failing");
  assert.match(doubting.status, /self-signed certificate/);
});
