import assert from "node:assert/strict";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import type { Activation } from "../../core/invocation.ts";
import { openMemoryStore } from "../memory.ts";
import { openSqliteStore } from "../sqlite.ts";
import type { ActivationLog, ActivationQuery } from "../store.ts";
import { formats } from "./formats.ts";

const T0 = 1_700_000_000_000;
const SEEDS = 3;
const ROUNDS = 30;

test("whatever is appended in whatever order, blocks and rows together answer as the memory store does", async (context) => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seeded(seed);
    const ours = (await opened(context)).log;
    const model = openMemoryStore().log;
    const made: Activation[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const batch = Array.from({ length: random(40) }, () => next(random, made));
      made.push(...batch);
      for (const log of [ours, model]) log.append(batch, []);
      if (random(2) === 0) await ours.flush();
    }
    await ours.flush();
    await compare(random, { ours, model, made });
    const bounds = { olderThanMs: T0 + random(3_000), bytesMax: 1e12 };
    assert.deepEqual(await ours.retain(bounds), await model.retain(bounds), `seed ${seed}`);
    await compare(random, { ours, model, made });
    assert.deepEqual(await ours.retain(bounds), { activations: 0, lines: 0 });
  }
});

test("what became too much goes oldest first, blocks and rows alike, with the results", async (context) => {
  const { log } = await opened(context);
  const batches = 20;
  for (let batch = 0; batch < batches; batch++) {
    const startedAtMs = T0 + batch * 1_000;
    const plain = Array.from({ length: 500 }, () => activation(newTimedId(), { startedAtMs }));
    log.append([...plain, activation(`failed ${batch}`, { startedAtMs, state: "failed" })], []);
    await log.flush();
  }
  const newest = await log.list({ namespace: "default", limit: 1 });
  const [oldest] = (await log.list({ namespace: "default", limit: 20_000 })).slice(-1);
  await log.putResult(oldest?.id ?? "", { status: 200, headers: [], body: new Uint8Array(1) });
  const gone = await log.retain({ olderThanMs: 0, bytesMax: 250_000 });
  const left = await log.list({ namespace: "default", limit: 20_000 });
  assert.equal(left.length, batches * 501 - gone.activations);
  assert.ok(left.length > 501 && gone.activations > 501, `${gone.activations} went`);
  assert.deepEqual(left[0], newest[0]);
  assert.equal(await log.getResult(oldest?.id ?? ""), null);
  await log.retain({ olderThanMs: 0, bytesMax: 0 });
  assert.deepEqual(await log.list({ namespace: "default", limit: 1 }), []);
});

test("activations of one function that succeed take a few bytes each", async (context) => {
  const { log, directory, close } = await opened(context);
  for (let batch = 0; batch < 15; batch++) {
    log.append(
      Array.from({ length: 1_000 }, () => activation(newTimedId())),
      [],
    );
    await log.flush();
  }
  await close();
  const { size } = await stat(join(directory, "journal.db"));
  assert.ok(size < 15_000 * 50, `the file has ${size} bytes`);
});

test("a database that knew no blocks opens, keeps what it has and takes more", async (context) => {
  const directory = await mkdtemp(join(tmpdir(), "koine-blocks-"));
  context.after(() => rm(directory, { recursive: true }));
  const before = new DatabaseSync(join(directory, "journal.db"));
  before.exec(`${formats.journal.steps[0] ?? ""}; PRAGMA user_version = 1;
    INSERT INTO functions (space, namespace, package, name) VALUES (1, 'default', '', 'hello');
    INSERT INTO activations VALUES (7, 'kept', 1, 1, ${T0}, 'succeeded', 1, 'sync', 1, 3, 0, 0, 0, 0, 200, NULL, 'i1')`);
  before.close();
  const store = await openSqliteStore({ directory });
  context.after(() => store.close());
  const later = Array.from({ length: 10 }, () => activation(newTimedId()));
  store.log.append(later, []);
  await store.log.flush();
  assert.deepEqual(await store.log.get("kept"), activation("kept"));
  assert.deepEqual(
    (await store.log.list({ namespace: "default", limit: 20 })).map(({ id }) => id),
    [...later.map(({ id }) => id).toReversed(), "kept"],
  );
});

async function compare(
  random: Random,
  { ours, model, made }: { readonly ours: ActivationLog; readonly model: ActivationLog; readonly made: Activation[] },
): Promise<void> {
  for (let times = 0; times < 40; times++) {
    const one = made[random(made.length)];
    assert.deepEqual(await ours.get(one?.id ?? ""), await model.get(one?.id ?? ""));
    const query: ActivationQuery = {
      namespace: random(4) === 0 ? "tenant" : "default",
      limit: 1 + random(random(2) === 0 ? 10 : 2_000),
      ...(random(2) === 0 ? { name: random(2) === 0 ? "hello" : "other" } : {}),
      ...(random(3) === 0 ? { package: "" } : {}),
      ...(random(3) === 0 ? { state: random(2) === 0 ? "succeeded" : "failed" } : {}),
      ...(random(3) === 0 ? { sinceMs: T0 + random(3_000) } : {}),
      ...(random(3) === 0 ? { beforeMs: T0 + random(3_000) } : {}),
      ...(random(3) === 0 ? { after: one?.id ?? "" } : {}),
    };
    assert.deepEqual(await ours.list(query), await model.list(query), JSON.stringify(query));
  }
}

/** Mostly plain ones, of which some come again, later or in between. */
function next(random: Random, made: readonly Activation[]): Activation {
  const again = random(25) === 0 ? made[random(made.length)] : undefined;
  const old = random(10) === 0;
  const id = again?.id ?? (random(8) === 0 ? `text ${made.length} ${random(1e9)}` : newTimedId(old ? T0 : undefined));
  return activation(id, {
    namespace: random(6) === 0 ? "tenant" : "default",
    name: random(3) === 0 ? "other" : "hello",
    package: random(5) === 0 ? "shop" : "",
    version: 1 + random(2),
    startedAtMs: T0 + random(3_000) + (random(50) === 0 ? 60_000 : 0),
    durationMs: random(5_000) / 8,
    queuedMs: random(3),
    status: random(9) === 0 ? null : 200 + random(3),
    memoryBytes: random(3),
    instanceId: `i${random(4)}`,
    ...(random(6) === 0 ? { state: "failed" } : {}),
    ...(random(9) === 0 ? { cold: true, startMs: 2.5 } : {}),
  });
}

let count = 0;

/** An id as the platform makes them; without a time of its own, of a time that no store was open at yet. */
function newTimedId(ms: number = Date.now() + 60_000): string {
  const time = ms.toString(16).padStart(12, "0");
  const number = (++count).toString(16);
  return `${time.slice(0, 8)}-${time.slice(8)}-7${number.slice(-3).padStart(3, "0")}-8000-${number.padStart(12, "0")}`;
}

function activation(id: string, parts: Partial<Activation> = {}): Activation {
  const names = { namespace: "default", package: "", name: "hello", version: 1, instanceId: "i1" };
  const figures = { durationMs: 3, queuedMs: 0, startMs: 0, cold: false, memoryBytes: 0, status: 200, error: null };
  return { id, ...names, ...figures, mode: "sync", attempt: 1, state: "succeeded", startedAtMs: T0, ...parts };
}

type Random = (below: number) => number;

function seeded(seed: number): Random {
  let state = seed * 2_654_435_761;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    return ((state >>> 8) % Math.max(1, below)) | 0;
  };
}

async function opened(context: TestContext): Promise<{
  readonly log: ActivationLog;
  readonly directory: string;
  close(): Promise<void>;
}> {
  const directory = await mkdtemp(join(tmpdir(), "koine-blocks-"));
  const store = await openSqliteStore({ directory });
  let closed: Promise<void> | null = null;
  const close = (): Promise<void> => (closed ??= store.close());
  context.after(async () => {
    await close();
    await rm(directory, { recursive: true });
  });
  return { log: store.log, directory, close };
}
