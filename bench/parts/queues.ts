import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { startPostgres } from "../../src/triggers/testing/postgres.ts";
import { startRedis } from "../../src/triggers/testing/redis.ts";
import type { Bench, PartResult } from "../bench.ts";
import { type Contender, interleave, ratioOf, type Rounds } from "../measure/rounds.ts";
import { median } from "../measure/statistics.ts";
import { install } from "../peers/install.ts";
import { duration, rate, ratio } from "../report/format.ts";
import { type MetricRow, missingRow } from "../row.ts";
import { helloJs } from "../targets/functions.ts";
import { HELLO_SPEC, loading } from "./throughput.ts";

const CONNECTIONS = 64;
const CACHE = fileURLToPath(new URL("../../node_modules/.cache/koine-bench/queues", import.meta.url));
const PROGRAM = fileURLToPath(new URL("../peers/queue-peer.mjs", import.meta.url));
const PACKAGES = ["bullmq@6.7.0", "ioredis@6.0.0", "pg-boss@12.38.0"];
/** Beyond its measured time: to start, to connect, and to warm up. */
const START_MS_MAX = 60_000;

interface Accepted {
  readonly perSecond: number;
  readonly p99Ms: number;
}

interface QueuePeer {
  readonly name: string;
  readonly kind: "bullmq" | "pg-boss";
  readonly note: string;
  /** Starts its server; answers the address, with the password. */
  start(servers: AsyncDisposableStack): Promise<string>;
}

const peers: readonly QueuePeer[] = [
  {
    name: "BullMQ",
    kind: "bullmq",
    note: "on Redis with appendfsync always; added by its library, without HTTP, authentication or a function that runs",
    async start(servers) {
      const { port, password } = servers.use(await startRedis());
      return `redis://:${password}@127.0.0.1:${port}`;
    },
  },
  {
    name: "pg-boss",
    kind: "pg-boss",
    note: "on PostgreSQL with synchronous commit; sent by its library, without HTTP, authentication or a function that runs",
    async start(servers) {
      const { port, password } = servers.use(await startPostgres());
      return `postgres://koine:${password}@127.0.0.1:${port}/postgres`;
    },
  },
];

/** Row 8, beside the queues that Node programs use: work that is on disk before it is accepted, while earlier work is done. */
export async function queues(bench: Bench): Promise<PartResult> {
  await using servers = new AsyncDisposableStack();
  const missing: MetricRow[] = [];
  const running: { readonly peer: QueuePeer; readonly contender: Contender<Accepted> }[] = [];
  for (const peer of peers) {
    bench.say(`queues: ${peer.name}`);
    try {
      await install(CACHE, PACKAGES);
      const url = await peer.start(servers);
      await startConsumer(servers, peer, url);
      running.push({ peer, contender: { name: peer.name, run: () => produce(peer, url, bench.rounds.ms) } });
    } catch (thrown) {
      missing.push(missingRow("8", metric(peer.name), "–", String(thrown).split("\n").slice(0, 2).join(" ")));
    }
  }
  const koine = await bench.koine();
  await koine.deploy("later", helloJs, HELLO_SPEC);
  const request = koine.request("later", { method: "POST", headers: { Prefer: "respond-async" }, body: "{}" });
  const later = loading(bench, koine, request, CONNECTIONS);
  const ours: Contender<Accepted> = {
    name: "Koine",
    run: async () => {
      const { perSecond, latency } = await later.run();
      return { perSecond, p99Ms: latency.percentileMs(0.99) };
    },
  };
  bench.say(`queues: ${["Koine", ...running.map(({ peer }) => peer.name)].join(", ")} in turn`);
  // What is taken over and not done yet would disturb who comes next, so nobody is the reference that voids rounds.
  const rounds = await interleave([ours, ...running.map(({ contender }) => contender)], ({ perSecond }) => perSecond, {
    count: bench.rounds.count,
    reference: "Koine",
    strayMax: 1,
  });
  return { rows: [...running.map(({ peer }) => peerRow(peer, rounds)), ...missing] };
}

function peerRow({ name, note }: QueuePeer, rounds: Rounds<Accepted>): MetricRow {
  const found = ratioOf(rounds, { ours: "Koine", reference: name }, ({ perSecond }) => perSecond);
  const text = (who: string): string => {
    const figures = rounds.of(who);
    return `${rate(median(figures.map(({ perSecond }) => perSecond)))}, p99 ${duration(median(figures.map(({ p99Ms }) => p99Ms)))}`;
  };
  return {
    id: "8",
    metric: metric(name),
    ours: text("Koine"),
    reference: `${name} ${text(name)}`,
    ratio: ratio(found),
    target: "–",
    met: null,
    note,
    figures: { ratio: found, ours: rounds.of("Koine"), theirs: rounds.of(name) },
  };
}

/** A process of its own that takes what is there, as it would beside the producers. */
async function startConsumer(servers: AsyncDisposableStack, { kind }: QueuePeer, url: string): Promise<void> {
  const child = spawn(process.execPath, [PROGRAM, CACHE, kind, url, "work"], { stdio: ["ignore", "pipe", "inherit"] });
  const killNow = (): void => void child.kill("SIGKILL");
  process.once("exit", killNow);
  const ended = once(child, "exit");
  servers.defer(async () => {
    process.off("exit", killNow);
    child.kill("SIGKILL");
    await ended;
  });
  const ready = once(child.stdout, "data", { signal: AbortSignal.timeout(START_MS_MAX) });
  await Promise.race([
    ready,
    ended.then(() => {
      throw new Error("its consumer ended at once");
    }),
  ]);
}

async function produce({ kind }: QueuePeer, url: string, ms: number): Promise<Accepted> {
  const words = [PROGRAM, CACHE, kind, url, "produce", String(ms), String(CONNECTIONS)];
  const { stdout } = await promisify(execFile)(process.execPath, words, { timeout: ms + START_MS_MAX });
  return JSON.parse(stdout) as Accepted;
}

function metric(name: string): string {
  return `Durable asynchronous accept at ${CONNECTIONS} producers beside ${name}`;
}
