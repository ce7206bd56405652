// A queue library as its users run it: `queue-peer.mjs FOLDER bullmq|pg-boss URL produce MS CONCURRENCY`, or `… work` until it is ended.
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder = "", kind, url = "", role, ms = "0", concurrency = "0"] = process.argv.slice(2);
const load = createRequire(join(folder, "package.json"));
const QUEUE = "jobs";
const WARM_MS = 300;
const IN_FLIGHT = 64;
const POOL = 32;

const peer = kind === "bullmq" ? await openBullMq() : await openPgBoss();
if (role === "work") {
  await peer.work();
  process.stdout.write("working\n");
} else {
  process.stdout.write(`${JSON.stringify(await produce(Number(ms), Number(concurrency)))}\n`);
  process.exit(0);
}

/**
 * @param {number} forMs
 * @param {number} producers
 */
async function produce(forMs, producers) {
  const measuredMs = performance.now() + WARM_MS;
  const endMs = measuredMs + forMs;
  /** @type {number[]} */
  const latencies = [];
  const loop = async () => {
    for (;;) {
      const begunMs = performance.now();
      if (begunMs >= endMs) return;
      await peer.add();
      const nowMs = performance.now();
      if (begunMs >= measuredMs && nowMs <= endMs) latencies.push(nowMs - begunMs);
    }
  };
  await Promise.all(Array.from({ length: producers }, loop));
  latencies.sort((a, b) => a - b);
  return { perSecond: latencies.length / (forMs / 1_000), p99Ms: latencies[Math.floor(latencies.length * 0.99)] ?? 0 };
}

async function openBullMq() {
  const { Queue, Worker } = load("bullmq");
  const { hostname, port, password } = new URL(url);
  const connection = { host: hostname, port: Number(port), password, maxRetriesPerRequest: null };
  const queue = new Queue(QUEUE, { connection, defaultJobOptions: { removeOnComplete: true, attempts: 3 } });
  return {
    add: () => queue.add("job", {}),
    work: async () => {
      const worker = new Worker(QUEUE, () => Promise.resolve("hello"), { connection, concurrency: IN_FLIGHT });
      await worker.waitUntilReady();
    },
  };
}

async function openPgBoss() {
  const { PgBoss } = await import(pathToFileURL(load.resolve("pg-boss")).href);
  const boss = new PgBoss({ connectionString: url, max: POOL });
  boss.on("error", () => {});
  await boss.start();
  await boss.createQueue(QUEUE);
  return {
    add: () => boss.send(QUEUE, {}),
    work: async () => {
      const options = { batchSize: IN_FLIGHT, pollingIntervalSeconds: 0.5 };
      await boss.work(QUEUE, options, () => Promise.resolve());
    },
  };
}
