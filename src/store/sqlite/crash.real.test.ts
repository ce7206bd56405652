import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { openSqliteStore } from "../sqlite.ts";
import type { Store } from "../store.ts";

const ROUNDS = 20;
const SEED = 20_260_101;

test("whatever was acknowledged is there after a process was killed at any moment", async (context) => {
  const directory = await mkdtemp(join(tmpdir(), "koine-crash-"));
  context.after(() => rm(directory, { recursive: true }));
  const random = randomFrom(SEED);
  const acknowledged = { enqueued: new Set<string>(), done: new Set<string>(), committed: new Set<string>() };
  for (let round = 0; round < ROUNDS; round++) {
    const lines = await writeUntilKilled({ directory, round, linesBeforeKill: 1 + Math.floor(random() * 120) });
    for (const line of lines) {
      const [what = "", id = ""] = line.split(" ");
      if (what === "enqueued" || what === "done" || what === "committed") acknowledged[what].add(id);
    }
  }

  const store = await openSqliteStore({ directory });
  context.after(() => store.close());
  await checkQueue(store, acknowledged);
  const history = await store.values.list("history", { limit: 1_000_000 });
  const found = new Set(history.map(({ key }) => key));
  assert.deepEqual(
    [...acknowledged.committed].filter((value) => !found.has(value)),
    [],
  );
  assert.deepEqual((await store.values.get("left", "pair"))?.value, (await store.values.get("right", "pair"))?.value);
  assert.ok(acknowledged.enqueued.size > 0 && acknowledged.committed.size > 0);
});

async function checkQueue(
  store: Pick<Store, "queue">,
  acknowledged: { readonly enqueued: ReadonlySet<string>; readonly done: ReadonlySet<string> },
): Promise<void> {
  const { waiting, leased } = await store.queue.state(1);
  assert.equal(leased, 0);
  const leases = await store.queue.lease({ limit: waiting, nowMs: 1, leaseMs: 1_000 });
  const there = new Set(leases.map(({ item }) => item.id));
  assert.equal(there.size, waiting);
  for (const { item } of leases) assert.equal(String(Buffer.from(item.payload)), item.id);
  // What was settled but not acknowledged may be gone: it can be at most what one claim held, in each round.
  const missing = [...acknowledged.enqueued].filter((id) => !there.has(id) && !acknowledged.done.has(id));
  assert.ok(missing.length <= ROUNDS, `${missing.length} items are missing: ${missing.slice(0, 5).join(" ")}`);
  assert.deepEqual(
    [...acknowledged.done].filter((id) => there.has(id)),
    [],
  );
}

/** The lines that the writer printed, up to its last breath. */
async function writeUntilKilled(parts: {
  readonly directory: string;
  readonly round: number;
  readonly linesBeforeKill: number;
}): Promise<string[]> {
  const writer = spawn(
    process.execPath,
    [
      "--disable-warning=ExperimentalWarning",
      join(import.meta.dirname, "crash.fixture.ts"),
      parts.directory,
      String(parts.round),
    ],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const exited = once(writer, "exit");
  const lines: string[] = [];
  for await (const line of createInterface({ input: writer.stdout })) {
    lines.push(line);
    if (lines.length === parts.linesBeforeKill) writer.kill("SIGKILL");
  }
  await exited;
  return lines;
}

/** A small generator of numbers from 0 to 1, the same for the same seed. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
