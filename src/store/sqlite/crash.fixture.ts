import { openSqliteStore } from "../sqlite.ts";

/** Run by `crash.test.ts` in a process of its own: writes until it is killed, and prints a line for each write that was acknowledged. */
const [directory = "", round = "0"] = process.argv.slice(2);
const store = await openSqliteStore({ directory });

await Promise.all([
  ...Array.from({ length: 8 }, (_, writer) => enqueueForEver(writer)),
  commitForEver(),
  settleForEver(),
]);

async function enqueueForEver(writer: number): Promise<never> {
  for (let count = 0; ; count++) {
    const id = `${round}-${writer}-${count}`;
    await store.queue.enqueue([{ id, lane: `lane ${writer}`, payload: Buffer.from(id), dueAtMs: 0, enqueuedAtMs: 0 }]);
    acknowledge("enqueued", id);
  }
}

/** Two keys that are always changed together. */
async function commitForEver(): Promise<never> {
  for (let count = 0; ; count++) {
    const value = `${round}-${count}`;
    await store.values.commit([
      { collection: "left", key: "pair", value, expect: "any" },
      { collection: "right", key: "pair", value, expect: "any" },
      { collection: "history", key: value, value: true, expect: "absent" },
    ]);
    acknowledge("committed", value);
  }
}

async function settleForEver(): Promise<never> {
  for (;;) {
    const leases = await store.queue.lease({ limit: 2, nowMs: 1, leaseMs: 1_000 });
    for (const { item, receipt } of leases) {
      await store.queue.settle(receipt, { kind: "done" });
      acknowledge("done", item.id);
    }
  }
}

function acknowledge(what: string, id: string): void {
  process.stdout.write(`${what} ${id}\n`);
}
