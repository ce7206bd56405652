import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import type { Activation, LogRecord } from "../../core/invocation.ts";
import type { ActivationLog, ActivationQuery, LogQuery } from "../store.ts";

const T0 = 1_700_000_000_000;

export function logConformance(open: (context: TestContext) => Promise<ActivationLog>): void {
  activationTests(open);
  lineTests(open);
  retentionTests(open);
}

function activationTests(open: (context: TestContext) => Promise<ActivationLog>): void {
  test("an activation comes back as it was appended", async (context) => {
    const log = await open(context);
    const plain = activation("a1");
    const rich = activation("a2", {
      package: "shop",
      mode: "async",
      state: "failed",
      durationMs: 12.5,
      status: null,
      error: { code: "handler-failed", fault: "function", message: "ä\u0000b", hint: "", values: { n: 1 } },
    });
    log.append([plain, rich], []);
    await log.flush();
    assert.deepEqual(await log.get("a1"), plain);
    assert.deepEqual(await log.get("a2"), rich);
    assert.equal(await log.get("a3"), null);
  });

  test("a later record of an activation replaces the earlier", async (context) => {
    const log = await open(context);
    log.append([activation("a1", { state: "queued" }), activation("b1")], []);
    await log.flush();
    log.append([activation("a1", { state: "running", attempt: 1 })], []);
    log.append([activation("a1", { state: "succeeded", attempt: 2, startedAtMs: T0 + 5 })], []);
    await log.flush();
    assert.deepEqual(await log.get("a1"), activation("a1", { attempt: 2, startedAtMs: T0 + 5 }));
    assert.equal((await log.list({ namespace: "default", limit: 10 })).length, 2);
    assert.deepEqual(await log.list({ namespace: "default", state: "running", limit: 10 }), []);
  });

  test("a listing is newest first, by function, state and time, and continues after an id", async (context) => {
    const log = await open(context);
    const at = (ms: number, parts: Partial<Activation> = {}): Partial<Activation> => ({
      startedAtMs: T0 + ms,
      ...parts,
    });
    log.append(
      [
        activation("a1", at(10)),
        activation("a3", at(30, { state: "failed" })),
        activation("a2", at(20, { name: "other" })),
        activation("a4", at(40, { package: "shop" })),
        activation("a5", at(50, { namespace: "tenant" })),
        activation("a6", at(60, { state: "timedOut" })),
        activation("a7", at(60)),
      ],
      [],
    );
    await log.flush();
    const ids = async (query: Partial<ActivationQuery>): Promise<string[]> =>
      (await log.list({ namespace: "default", limit: 100, ...query })).map(({ id }) => id);

    assert.deepEqual(await ids({}), ["a7", "a6", "a4", "a3", "a2", "a1"]);
    assert.deepEqual(await ids({ namespace: "tenant" }), ["a5"]);
    assert.deepEqual(await ids({ namespace: "nobody" }), []);
    assert.deepEqual(await ids({ name: "hello", package: "" }), ["a7", "a6", "a3", "a1"]);
    assert.deepEqual(await ids({ name: "hello" }), ["a7", "a6", "a4", "a3", "a1"]);
    assert.deepEqual(await ids({ package: "shop" }), ["a4"]);
    assert.deepEqual(await ids({ state: "failed" }), ["a3"]);
    assert.deepEqual(await ids({ state: "succeeded", name: "hello", package: "" }), ["a7", "a1"]);
    assert.deepEqual(await ids({ sinceMs: T0 + 20, beforeMs: T0 + 40 }), ["a3", "a2"]);
    assert.deepEqual(await ids({ limit: 2 }), ["a7", "a6"]);
    assert.deepEqual(await ids({ limit: 2, after: "a7" }), ["a6", "a4"]);
    assert.deepEqual(await ids({ after: "a6", name: "hello", package: "" }), ["a3", "a1"]);
    assert.deepEqual(await ids({ after: "unknown" }), []);
  });

  test("the result of an activation is there once it was put", async (context) => {
    const log = await open(context);
    assert.equal(await log.getResult("a1"), null);
    const body = new Uint8Array([0, 255, 10, 13]);
    await log.putResult("a1", { status: 201, headers: ["Set-Cookie", "a", "Set-Cookie", "b"], body });
    const result = await log.getResult("a1");
    assert.equal(result?.status, 201);
    assert.deepEqual(result.headers, ["Set-Cookie", "a", "Set-Cookie", "b"]);
    assert.deepEqual([...result.body], [...body]);
    await log.putResult("a1", { status: 200, headers: [], body: new Uint8Array() });
    assert.equal((await log.getResult("a1"))?.status, 200);
  });
}

function lineTests(open: (context: TestContext) => Promise<ActivationLog>): void {
  test("lines come in the order of their sequence, the newest ones of what matches", async (context) => {
    const log = await open(context);
    log.append([], [line("1\u0000ä"), line("2"), line("3")]);
    log.append([], [line("4", { activationId: null, stream: "platform" })]);
    await log.flush();
    const all = await log.logs({ namespace: "default", limit: 10 });
    assert.deepEqual(
      all.map((record) => record.line),
      ["1\u0000ä", "2", "3", "4"],
    );
    assert.deepEqual(
      all.map(({ sequence }) => sequence),
      all.map(({ sequence }) => sequence).toSorted((a, b) => a - b),
    );
    assert.equal(new Set(all.map(({ sequence }) => sequence)).size, 4);
    const { sequence, ...record } = all[3] ?? { sequence: 0 };
    assert.deepEqual(record, line("4", { activationId: null, stream: "platform" }));
    const newest = await log.logs({ namespace: "default", limit: 2 });
    assert.deepEqual(
      newest.map((record) => record.line),
      ["3", "4"],
    );
    assert.deepEqual(await log.logs({ namespace: "default", limit: 10, afterSequence: sequence }), []);
  });

  test("lines are found by function, version, activation, time and sequence", async (context) => {
    const log = await open(context);
    log.append(
      [],
      [
        line("1", { timeMs: T0 + 1 }),
        line("2", { timeMs: T0 + 2, name: "other", activationId: "b" }),
        line("3", { timeMs: T0 + 3, package: "shop", activationId: "c" }),
        line("4", { timeMs: T0 + 4, namespace: "tenant" }),
        line("5", { timeMs: T0 + 5, version: 2 }),
        line("6", { timeMs: T0 + 6, stream: "stderr", activationId: null }),
      ],
    );
    await log.flush();
    const lines = async (query: Partial<LogQuery>): Promise<string> =>
      (await log.logs({ namespace: "default", limit: 100, ...query })).map((record) => record.line).join("");

    assert.equal(await lines({}), "12356");
    assert.equal(await lines({ namespace: "tenant" }), "4");
    assert.equal(await lines({ name: "hello", package: "" }), "156");
    assert.equal(await lines({ name: "hello" }), "1356");
    assert.equal(await lines({ package: "shop" }), "3");
    assert.equal(await lines({ name: "hello", version: 2 }), "5");
    assert.equal(await lines({ activationId: "a" }), "15");
    assert.equal(await lines({ activationId: "a", namespace: "nobody" }), "");
    assert.equal(await lines({ sinceMs: T0 + 2, beforeMs: T0 + 5 }), "23");
    const [first] = await log.logs({ namespace: "default", name: "other", limit: 1 });
    assert.equal(await lines({ afterSequence: first?.sequence ?? 0 }), "356");
    assert.equal(await lines({ afterSequence: first?.sequence ?? 0, limit: 1 }), "6");
  });

  test("thousands of records appended at once are all there after a flush", async (context) => {
    const log = await open(context);
    for (let batch = 0; batch < 10; batch++) {
      log.append(
        [activation(`a${batch}`)],
        Array.from({ length: 1_000 }, (_, index) => line(`${batch}-${index}`)),
      );
    }
    await log.flush();
    const all = await log.logs({ namespace: "default", limit: 20_000 });
    assert.equal(all.length, 10_000);
    assert.equal(all.at(-1)?.line, "9-999");
    assert.equal((await log.list({ namespace: "default", limit: 100 })).length, 10);
    assert.equal(log.dropped(), 0);
  });
}

function retentionTests(open: (context: TestContext) => Promise<ActivationLog>): void {
  test("what is older than the retention goes, with its result", async (context) => {
    const log = await open(context);
    log.append(
      [activation("old", { startedAtMs: T0 - 1 }), activation("new", { startedAtMs: T0 })],
      [line("old", { timeMs: T0 - 1 }), line("new", { timeMs: T0 }), line("older", { timeMs: T0 - 2 })],
    );
    await log.putResult("old", { status: 200, headers: [], body: new Uint8Array(10) });
    await log.putResult("new", { status: 200, headers: [], body: new Uint8Array(10) });
    await log.flush();
    const bounds = { olderThanMs: T0, bytesMax: 100_000_000 };
    assert.deepEqual(await log.retain(bounds), { activations: 1, lines: 2 });
    assert.equal(await log.get("old"), null);
    assert.equal(await log.getResult("old"), null);
    assert.notEqual(await log.get("new"), null);
    assert.notEqual(await log.getResult("new"), null);
    const [kept, ...others] = await log.logs({ namespace: "default", limit: 10 });
    assert.equal(kept?.line, "new");
    assert.deepEqual(others, []);
    assert.deepEqual(await log.retain(bounds), { activations: 0, lines: 0 });
  });

  test("what exceeds the size goes, oldest first, and sequences go on", async (context) => {
    const log = await open(context);
    const long = "x".repeat(1_000);
    const append = (from: number): void =>
      log.append(
        [activation(`a${from}`, { startedAtMs: T0 + from })],
        Array.from({ length: 1_000 }, (_, index) => line(`${from + index} ${long}`, { timeMs: T0 + from + index })),
      );
    for (let from = 0; from < 6_000; from += 1_000) append(from);
    await log.flush();
    const before = await log.logs({ namespace: "default", limit: 1 });
    const gone = await log.retain({ olderThanMs: 0, bytesMax: 4_000_000 });
    assert.ok(gone.lines > 1_000 && gone.lines < 5_000, `${gone.lines} lines went`);
    assert.ok(gone.activations >= 1 && gone.activations < 6, `${gone.activations} activations went`);
    const left = await log.logs({ namespace: "default", limit: 10_000 });
    assert.equal(left.length, 6_000 - gone.lines);
    assert.equal(left[0]?.line, `${gone.lines} ${long}`);
    assert.equal(await log.get("a0"), null);
    assert.notEqual(await log.get("a5000"), null);

    await log.retain({ olderThanMs: 0, bytesMax: 0 });
    assert.deepEqual(await log.logs({ namespace: "default", limit: 10 }), []);
    log.append([], [line("after")]);
    await log.flush();
    const [after] = await log.logs({ namespace: "default", limit: 10 });
    assert.ok((after?.sequence ?? 0) > (before[0]?.sequence ?? 0));
  });
}

function activation(id: string, parts: Partial<Activation> = {}): Activation {
  return {
    id,
    namespace: "default",
    package: "",
    name: "hello",
    version: 1,
    mode: "sync",
    attempt: 1,
    state: "succeeded",
    startedAtMs: T0,
    durationMs: 3,
    queuedMs: 0,
    startMs: 0,
    cold: false,
    memoryBytes: 0,
    status: 200,
    error: null,
    instanceId: "i1",
    ...parts,
  };
}

function line(text: string, parts: Partial<LogRecord> = {}): LogRecord {
  return {
    namespace: "default",
    package: "",
    name: "hello",
    version: 1,
    instanceId: "i1",
    activationId: "a",
    timeMs: T0,
    stream: "stdout",
    line: text,
    ...parts,
  };
}
