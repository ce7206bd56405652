import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";
import { sourceConformance, type SourceUnderTest } from "./conformance.ts";
import { createPostgresListenKind } from "./postgres/listen.ts";
import { createPostgresOutboxKind } from "./postgres/outbox.ts";
import { asking, type PostgresServer, startPostgres } from "./testing/postgres.ts";
import { runTrigger } from "./testing/running.ts";
import { freePort } from "./testing/servers.ts";

let server: PostgresServer;

before(async () => {
  server = await startPostgres();
});
after(() => server?.[Symbol.asyncDispose]());

const password = { secret: "PG_PASSWORD" };
const unreachable = async (): Promise<string> => `postgres://koine@127.0.0.1:${await freePort()}/postgres`;

async function outbox(further: Readonly<Record<string, unknown>>): Promise<SourceUnderTest> {
  const table = `outbox_${randomUUID().replaceAll("-", "")}`;
  const columns =
    "id bigserial PRIMARY KEY, body text NOT NULL, key text, made timestamptz DEFAULT now(), done timestamptz";
  await asking(server, (client) => client.query(`CREATE TABLE ${table} (${columns})`));
  const settings = {
    url: server.url,
    password,
    table,
    payload: "body",
    key: "key",
    time: "made",
    channel: table,
    ...further,
  };
  return {
    settings,
    secrets: { PG_PASSWORD: server.password },
    unreachable: { ...settings, url: await unreachable() },
    publish: (texts, key) =>
      asking(server, async (client) => {
        for (const text of texts)
          await client.query(`INSERT INTO ${table} (body, key) VALUES ($1, $2)`, [text, key ?? null]);
        await client.query(`NOTIFY ${table}`);
      }),
    textOf: ({ data, type }) => (type === "koine.postgres.row" && typeof data === "string" ? data : null),
    restartServer: () => server.restart(),
    [Symbol.asyncDispose]: () => asking(server, async (client) => void (await client.query(`DROP TABLE ${table}`))),
  };
}

sourceConformance({
  name: "postgres outbox",
  kind: createPostgresOutboxKind(),
  startsAtBeginning: true,
  open: () => outbox({}),
  wrongSettings: [
    [{}, /url/],
    [{ url: "mysql://x", table: "t" }, /postgres:\/\//],
    [{ url: "postgres://u:p@x/y", table: "t" }, /password/],
    [{ url: "postgres://x/y", table: 't"; DROP TABLE t' }, /name of a table/],
    [{ url: "postgres://x/y", table: "t", id: "a b" }, /name of a column/],
  ],
});

sourceConformance({
  name: "postgres outbox that marks its rows",
  kind: createPostgresOutboxKind(),
  startsAtBeginning: true,
  open: () => outbox({ done: "done", pollMs: 50 }),
  wrongSettings: [],
});

sourceConformance({
  name: "postgres notifications",
  kind: createPostgresListenKind(),
  async open() {
    const channel = `c-${randomUUID()}`;
    const settings = { url: server.url, password, channels: [channel] };
    return {
      settings,
      secrets: { PG_PASSWORD: server.password },
      unreachable: { ...settings, url: await unreachable() },
      publish: (texts) =>
        asking(server, async (client) => {
          for (const text of texts) await client.query("SELECT pg_notify($1, $2)", [channel, text]);
        }),
      textOf: ({ data, type }) => (type === "koine.postgres.notification" && typeof data === "string" ? data : null),
      restartServer: () => server.restart(),
      [Symbol.asyncDispose]: async () => {},
    };
  },
  wrongSettings: [
    [{ url: "postgres://x/y" }, /channels/],
    [{ url: "postgres://x/y", channels: [] }, /channels/],
  ],
});

test("accepted rows are deleted, or marked where that was asked for", async () => {
  await using deleting = await outbox({});
  await using marking = await outbox({ done: "done" });
  for (const [place, left] of [
    [deleting, 0],
    [marking, 3],
  ] as const) {
    await place.publish(["a", "b", "c"]);
    await using trigger = await runTrigger(createPostgresOutboxKind(), place.settings, place.secrets ?? {});
    await trigger.events(3);
    const table = String(place.settings["table"]);
    await asking(server, async (client) => {
      const count = async (where: string): Promise<number> =>
        Number((await client.query<{ n: string }>(`SELECT count(*) AS n FROM ${table} ${where}`)).rows[0]?.n);
      for (let look = 0; look < 500 && (await count("WHERE done IS NULL")) > 0; look++)
        await new Promise((resolve) => setTimeout(resolve, 10));
      assert.equal(await count("WHERE done IS NULL"), 0);
      assert.equal(await count(""), left);
    });
  }
});

test("a key that is used anew after a TRUNCATE is another event, and rows that somebody has locked wait", async () => {
  await using place = await outbox({ pollMs: 50 });
  const table = String(place.settings["table"]);
  await using trigger = await runTrigger(createPostgresOutboxKind(), place.settings, place.secrets ?? {});
  await place.publish(["first"]);
  await trigger.events(1);
  await asking(server, (client) => client.query(`TRUNCATE ${table} RESTART IDENTITY`));
  await place.publish(["second"]);
  const [first, second] = await trigger.events(2);
  assert.deepEqual([first?.data, second?.data], ["first", "second"]);
  await asking(server, async (client) => {
    await client.query("BEGIN");
    await client.query(`INSERT INTO ${table} (body) VALUES ('not yet')`);
    await place.publish(["third"]);
    assert.equal((await trigger.events(3))[2]?.data, "third");
    await client.query("COMMIT");
  });
  assert.equal((await trigger.events(4))[3]?.data, "not yet");
});
