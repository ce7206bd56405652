import assert from "node:assert/strict";
import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import { openSqliteStore } from "../sqlite.ts";
import type { QueueItem } from "../store.ts";
import { openChannel } from "./channel.ts";
import { formats, type DurableOperations } from "./formats.ts";

test("everything is there after closing and opening again", async (context) => {
  const directory = await directoryFor(context);
  const first = await openSqliteStore({ directory });
  const [revision] = await first.values.commit([{ collection: "a", key: "k", value: [1], expect: "absent" }]);
  await first.queue.enqueue([item("later", { dueAtMs: 5_000 })]);
  first.log.append([], [line("kept by closing")]);
  await first.close();

  const second = await openSqliteStore({ directory });
  context.after(() => second.close());
  assert.deepEqual(await second.values.get("a", "k"), { key: "k", value: [1], revision });
  assert.equal((await second.queue.state(0)).nextDueAtMs, 5_000);
  assert.equal((await second.log.logs({ namespace: "default", limit: 1 }))[0]?.line, "kept by closing");
});

test("what was claimed when the platform ended is due again at once, and the old claim is lost", async (context) => {
  const directory = await directoryFor(context);
  const first = await openSqliteStore({ directory });
  await first.queue.enqueue([item("a")]);
  const [old] = await first.queue.lease({ limit: 1, nowMs: 1_000, leaseMs: 60_000 });
  await first.close();

  const second = await openSqliteStore({ directory });
  context.after(() => second.close());
  assert.equal(await second.queue.settle(old?.receipt ?? { id: "", epoch: 0 }, { kind: "done" }), false);
  const [again] = await second.queue.lease({ limit: 1, nowMs: 1_000, leaseMs: 60_000 });
  assert.equal(again?.attempt, 2);
  assert.ok(again.receipt.epoch > (old?.receipt.epoch ?? 0));
});

test("a second platform on the same directory is refused, and the first goes on", async (context) => {
  const directory = await directoryFor(context);
  const first = await openSqliteStore({ directory });
  context.after(() => first.close());
  await assert.rejects(openSqliteStore({ directory }), { code: "data-directory-in-use", values: { directory } });
  await first.queue.enqueue([item("a")]);
  assert.equal((await first.queue.state(0)).waiting, 1);
});

test("of two that open a new directory together one gets it", async (context) => {
  const directory = await directoryFor(context);
  const opened = await Promise.allSettled([openSqliteStore({ directory }), openSqliteStore({ directory })]);
  for (const result of opened) if (result.status === "fulfilled") await result.value.close();
  const refused = opened.filter((result) => result.status === "rejected");
  for (const { reason } of refused) assert.equal(reason.code, "data-directory-in-use");
  assert.ok(refused.length >= 1);
  await (await openSqliteStore({ directory })).close();
});

test("a directory of a newer version is refused and left as it is", async (context) => {
  const directory = await directoryFor(context);
  const database = new DatabaseSync(join(directory, "koine.db"));
  database.exec("CREATE TABLE future (x); PRAGMA user_version = 99");
  database.close();
  await assert.rejects(openSqliteStore({ directory }), {
    code: "data-version-newer",
    values: { directory, found: 99, known: 3 },
  });
  const after = new DatabaseSync(join(directory, "koine.db"));
  assert.deepEqual(
    after
      .prepare("SELECT name FROM sqlite_schema")
      .all()
      .map(({ name }) => name),
    ["future"],
  );
  after.close();
});

test("what cannot be a data directory is refused with the reason", async (context) => {
  const directory = await directoryFor(context);
  await writeFile(join(directory, "file"), "");
  const below = join(directory, "file", "data");
  await assert.rejects(openSqliteStore({ directory: below }), { code: "data-directory-unusable", message: /ENOTDIR/ });
  await writeFile(join(directory, "journal.db"), "this is no database, whatever its name says".repeat(100));
  await assert.rejects(openSqliteStore({ directory }), { code: "data-directory-unusable", message: /not a database/ });
});

test("a full store refuses what does not fit, keeps what it has, and takes more once there is room", async (context) => {
  const directory = await directoryFor(context);
  const store = await openSqliteStore({ directory, pagesMax: 64 });
  context.after(() => store.close());
  const big = { collection: "a", value: "x".repeat(20_000), expect: "any" } as const;
  await store.values.commit([{ ...big, key: "first" }]);
  await assert.rejects(store.values.commit(Array.from({ length: 50 }, (_, n) => ({ ...big, key: `k${n}` }))), {
    code: "storage-full",
  });
  const together = await Promise.allSettled([
    ...Array.from({ length: 30 }, (_, n) => store.queue.enqueue([item(`i${n}`, { payload: Buffer.alloc(20_000) })])),
    store.values.get("a", "first"),
  ]);
  assert.equal(together.at(-1)?.status, "fulfilled");
  for (const result of together) if (result.status === "rejected") assert.equal(result.reason.code, "storage-full");
  assert.equal(
    (await store.queue.state(0)).waiting,
    together.filter(({ status }) => status === "fulfilled").length - 1,
  );

  await store.values.commit([{ collection: "a", key: "first", value: null, expect: "any" }]);
  await store.values.commit([{ collection: "a", key: "second", value: "fits", expect: "absent" }]);
  assert.deepEqual(
    (await store.values.list("a", { limit: 10 })).map(({ key }) => key),
    ["second"],
  );
});

test("log lines that find no room wait, and are written when there is", async (context) => {
  const directory = await directoryFor(context);
  const messages: string[] = [];
  const logger = { log: (_: unknown, message: string) => void messages.push(message) };
  const store = await openSqliteStore({ directory, pagesMax: 100, logger });
  context.after(() => store.close());
  store.log.append(
    [],
    Array.from({ length: 300 }, (_, n) => line(`${n} ${"x".repeat(900)}`)),
  );
  await store.log.flush();
  store.log.append(
    [],
    Array.from({ length: 200 }, (_, n) => line(`${n} ${"y".repeat(900)}`)),
  );
  await assert.rejects(store.log.flush(), { code: "storage-full" });
  await store.log.retain({ olderThanMs: 0, bytesMax: 30_000 });
  await store.log.flush();
  const [last] = await store.log.logs({ namespace: "default", limit: 1 });
  assert.match(last?.line ?? "", /^199 y/);
  assert.equal(store.log.dropped(), 0);
});

test("removing frees the space: the file does not grow round by round, and shrinks", async (context) => {
  const directory = await directoryFor(context);
  const store = await openSqliteStore({ directory });
  const fill = async (): Promise<void> => {
    store.log.append(
      [],
      Array.from({ length: 3_000 }, (_, n) => line(`${n} ${"x".repeat(1_000)}`)),
    );
    await store.log.flush();
  };
  for (let round = 0; round < 5; round++) {
    await fill();
    await store.log.retain({ olderThanMs: 0, bytesMax: 1_000_000 });
  }
  await store.close();
  const { size } = await stat(join(directory, "journal.db"));
  assert.ok(size < 2_000_000, `the file has ${size} bytes`);
});

test("when the store's thread ends, calls under way and later ones fail and say so", async (context) => {
  const directory = await directoryFor(context);
  const channel = await openChannel<DurableOperations>({ directory, format: "durable", pagesMax: null });
  const ended = { code: "storage-failed", message: /the store's thread has ended/ };
  const underWay = channel.call("enqueue", [item("a")]);
  const rejected = assert.rejects(underWay, ended);
  await channel.kill();
  await rejected;
  await assert.rejects(channel.call("queueState", 0), ended);
  await channel.close();
  await (await openSqliteStore({ directory })).close();
});

test("one call that cannot be done does not spoil those that share its transaction", async (context) => {
  const directory = await directoryFor(context);
  const channel = await openChannel<DurableOperations>({ directory, format: "durable", pagesMax: null });
  context.after(() => channel.close());
  const [bad, good, conflict, unsendable] = await Promise.allSettled([
    channel.call("enqueue", [item("bad", { lane: null as unknown as string })]),
    channel.call("enqueue", [item("good")]),
    channel.call("valueCommit", [{ collection: "a", key: "k", json: "1", expect: 7 }]),
    channel.call("valueGet", "a", "k"),
  ]);
  assert.equal(bad.status, "rejected");
  assert.equal(good.status, "fulfilled");
  assert.equal(conflict.status === "rejected" && conflict.reason.code, "conflict");
  assert.equal(unsendable.status, "fulfilled");
  await assert.rejects(channel.call("enqueue", [item("fn", { payload: (() => {}) as unknown as Uint8Array })]), {
    code: "internal",
  });
  assert.equal((await channel.call("queueState", 0)).waiting, 1);
});

function item(id: string, parts: Partial<QueueItem> = {}): QueueItem {
  return { id, lane: "lane", payload: Buffer.from(id), dueAtMs: 0, enqueuedAtMs: 0, ...parts };
}

test("a thread that ends unasked is told of, one that is closed is not", async (context) => {
  const directory = await directoryFor(context);
  const failures: string[] = [];
  const told = ({ code }: { readonly code: string }): void => void failures.push(code);
  const closed = await openChannel<DurableOperations>({ directory, format: "durable", pagesMax: null }, told);
  await closed.close();
  assert.deepEqual(failures, []);
  const lost = await openChannel<DurableOperations>({ directory, format: "durable", pagesMax: null }, told);
  const underWay = lost.call("queueState", 0).catch(() => {});
  await lost.kill();
  await underWay;
  assert.deepEqual(failures, ["storage-failed"]);
});

test("a queue of the first format is opened with its work, its claims and its dead letters", async (context) => {
  const directory = await directoryFor(context);
  const database = new DatabaseSync(join(directory, "koine.db"));
  database.exec(`${formats.durable.steps[0]}; PRAGMA user_version = 1`);
  const item = "INSERT INTO items (id, lane, enqueuedAtMs, dueAtMs, readyAtMs, attempts, epoch) VALUES";
  database.exec(`${item} ('waits', 'l', 1, 2, 2, 1, NULL), ('held', 'l', 3, 4, 99999, 1, 7)`);
  database.exec("INSERT INTO payloads (row, payload) VALUES (1, x'01'), (2, x'02')");
  database.exec("INSERT INTO dead VALUES (1, 'dead', 'l', 1, 2, 3, 'failed 3 times', 9, x'03')");
  database.close();
  const store = await openSqliteStore({ directory });
  context.after(() => store.close());
  const leases = await store.queue.lease({ limit: 9, nowMs: 10, leaseMs: 1_000 });
  assert.deepEqual(
    leases.map(({ item: { id, payload, priority }, attempt }) => [id, [...payload], priority, attempt]),
    [
      ["waits", [1], undefined, 2],
      ["held", [2], undefined, 2],
    ],
  );
  const letter = await store.queue.deadLetter("dead");
  assert.deepEqual(
    [letter?.reason, letter?.code, letter?.history, [...(letter?.payload ?? [])]],
    ["failed 3 times", "", [], [3]],
  );
  assert.deepEqual(await store.queue.replay(["dead"], { nowMs: 10, spacingMs: 0 }), ["dead"]);
});

function line(text: string) {
  const names = { namespace: "default", package: "", name: "hello", version: 1, instanceId: "i", activationId: "a" };
  return { ...names, timeMs: 1, stream: "stdout", line: text } as const;
}

async function directoryFor(context: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "koine-sqlite-"));
  context.after(() => rm(directory, { recursive: true }));
  return directory;
}
