import assert from "node:assert/strict";
import {
  closeSync,
  cpSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import { DatabaseFile } from "./file.ts";
import { Recorder, Replayer } from "./redo/recorder.ts";
import { redoPath } from "./redo/transactions.ts";

test("what was answered and not yet committed is there after a crash, and what follows the crash too", async (context) => {
  const { directory, crash, open } = await placesFor(context);
  const file = open(directory);
  enqueue(file, "a", "b");
  const [lease] = call<readonly { readonly receipt: unknown }[]>(file, "lease", leaseOf(1));
  call(file, "valueCommit", [{ collection: "c", key: "k", json: "1", expect: "absent" }]);
  const after = open(crash());
  assert.equal(call<{ readonly json: string }>(after, "valueGet", "c", "k").json, "1");
  // The claim of the process that is gone has ended, and its attempt counts.
  assert.equal(call(after, "settle", lease?.receipt, { kind: "done" }), false);
  assert.deepEqual(
    call<readonly { readonly attempt: number }[]>(after, "lease", leaseOf(2)).map(({ attempt }) => attempt),
    [2, 1],
  );
  assert.deepEqual(idsOf(after), []);
});

test("a record that was torn is as if it had never been, and those before it count", async (context) => {
  const { directory, crash, open } = await placesFor(context);
  const file = open(directory);
  enqueue(file, "a");
  const whole = statSync(redoOf(directory)).size;
  enqueue(file, "b");
  const both = statSync(redoOf(directory)).size;
  for (const length of [both - 1, whole + 17, whole + 1, whole]) {
    const crashed = crash();
    truncateSync(redoOf(crashed), length);
    assert.deepEqual(idsOf(open(crashed)), ["a"]);
  }
  for (let at = whole; at < both; at += 7) {
    const crashed = crash();
    flip(redoOf(crashed), at);
    assert.deepEqual(idsOf(open(crashed)), ["a"]);
  }
});

test("records of before the last commit, which lie there still, are not done again", async (context) => {
  const { directory, crash, open } = await placesFor(context);
  const file = open(directory);
  enqueue(file, "a", "b", "c");
  const [, held] = call<readonly { readonly receipt: unknown }[]>(file, "lease", leaseOf(2));
  const before = readFileSync(redoOf(directory));
  file.settle();
  assert.equal(statSync(redoOf(directory)).size, 0);
  assert.equal(call(file, "settle", held?.receipt, { kind: "done" }), true);
  const crashed = crash();
  const record = readFileSync(redoOf(crashed));
  writeFileSync(redoOf(crashed), Buffer.concat([record, before.subarray(record.length)]));
  assert.deepEqual(idsOf(open(crashed)), ["a", "c"]);
  file.settle();
  const committed = crash();
  writeFileSync(redoOf(committed), before);
  assert.deepEqual(idsOf(open(committed)), ["a", "c"]);
});

test("a call that fails leaves nothing behind, neither now nor after a crash", async (context) => {
  const { directory, crash, open } = await placesFor(context);
  const file = open(directory);
  enqueue(file, "a");
  const good = { id: "good", lane: "l", payload: Buffer.from("good"), dueAtMs: 0, enqueuedAtMs: 0 };
  const [failed] = file.answer([[1, "enqueue", [[good, { ...good, id: "bad", lane: null }]]]]);
  assert.equal(failed?.[1], false);
  enqueue(file, "b");
  assert.deepEqual(idsOf(open(crash())), ["a", "b"]);
  assert.deepEqual(idsOf(file), ["a", "b"]);
});

test("when the database is full, what was accepted since its last commit stays, and it goes on once there is room", async (context) => {
  const { directory, crash, open } = await placesFor(context);
  const file = open(directory, 80);
  enqueue(file, "first");
  const big = { id: "big", lane: "l", payload: Buffer.alloc(400_000), dueAtMs: 0, enqueuedAtMs: 0 };
  const [refused] = file.answer([[1, "enqueue", [[big]]]]);
  assert.ok(refused !== undefined && !refused[1]);
  assert.equal(refused[2].code, "storage-full");
  enqueue(file, "second");
  assert.deepEqual(idsOf(open(crash())), ["first", "second"]);
  assert.deepEqual(idsOf(file), ["first", "second"]);
});

test("closing leaves the database alone with everything in it", async (context) => {
  const { directory } = await placesFor(context);
  const file = new DatabaseFile({ directory, format: "durable", pagesMax: null });
  enqueue(file, "a");
  file.close();
  assert.throws(() => statSync(redoOf(directory)), { code: "ENOENT" });
  const database = new DatabaseSync(join(directory, "koine.db"));
  assert.deepEqual(
    database
      .prepare("SELECT id FROM items")
      .all()
      .map(({ id }) => id),
    ["a"],
  );
  database.close();
});

test("a recorded statement does the same again, whatever its values", () => {
  const schema = "CREATE TABLE t (a, b, c BLOB, d TEXT)";
  const [one, other] = [new DatabaseSync(":memory:"), new DatabaseSync(":memory:")];
  for (const database of [one, other]) database.exec(schema);
  const recorder = new Recorder(one);
  const insert = recorder.prepare("INSERT INTO t VALUES (?, ?, ?, ?)");
  const change = recorder.prepare("UPDATE t SET b = b + ? WHERE a = ? RETURNING b");
  insert.run(1, 0.5, Buffer.alloc(200_000, 7), "ü€😀".repeat(1_000));
  insert.run(9_000_000_000_000_000, null, Buffer.alloc(0), "");
  assert.equal(change.get(2, 1)?.["b"], 2.5);
  const replayer = new Replayer(other);
  replayer.replay(Buffer.from(recorder.record));
  recorder.next();
  change.run(-7, 1);
  replayer.replay(Buffer.from(recorder.record));
  recorder.forget();
  assert.equal(recorder.record.length, 0);
  const all = "SELECT * FROM t";
  assert.deepEqual(other.prepare(all).all(), one.prepare(all).all());
});

interface Places {
  readonly directory: string;
  /** What a process that is killed now leaves, in a directory of its own. */
  crash(): string;
  /** Opens a store's file, which is closed at the end. */
  open(directory: string, pagesMax?: number): DatabaseFile;
}

async function placesFor(context: TestContext): Promise<Places> {
  const root = await mkdtemp(join(tmpdir(), "koine-redo-"));
  const opened: DatabaseFile[] = [];
  context.after(async () => {
    for (const file of opened) file.close();
    await rm(root, { recursive: true });
  });
  let crashes = 0;
  const directory = join(root, "data");
  mkdirSync(directory);
  return {
    directory,
    crash: () => {
      const left = join(root, `crash-${crashes++}`);
      cpSync(directory, left, { recursive: true });
      return left;
    },
    open: (at, pagesMax) => {
      const file = new DatabaseFile({ directory: at, format: "durable", pagesMax: pagesMax ?? null });
      opened.push(file);
      return file;
    },
  };
}

function call<Answer>(file: DatabaseFile, operation: string, ...args: readonly unknown[]): Answer {
  const [response] = file.answer([[1, operation, args]]);
  assert.equal(response?.[1], true);
  return response[2] as Answer;
}

function enqueue(file: DatabaseFile, ...ids: readonly string[]): void {
  call(
    file,
    "enqueue",
    ids.map((id) => ({ id, lane: "l", payload: Buffer.from(id), dueAtMs: 0, enqueuedAtMs: 0 })),
  );
}

function leaseOf(limit: number): unknown {
  return { limit, nowMs: 10, leaseMs: 1_000, laneRoom: {}, roomPerLane: null };
}

/** All that can be claimed, in order. */
function idsOf(file: DatabaseFile): readonly string[] {
  const leases = call<readonly { readonly item: { readonly id: string } }[]>(file, "lease", leaseOf(100));
  return leases.map(({ item }) => item.id);
}

function redoOf(directory: string): string {
  return redoPath(join(directory, "koine.db"));
}

function flip(path: string, at: number): void {
  const byte = Buffer.from([~(readFileSync(path)[at] ?? 0) & 0xff]);
  const file = openSync(path, "r+");
  writeSync(file, byte, 0, 1, at);
  closeSync(file);
}
