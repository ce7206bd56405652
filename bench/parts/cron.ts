import { setTimeout as sleep } from "node:timers/promises";
import type { Bench, PartResult } from "../bench.ts";
import { duration } from "../report/format.ts";
import { type Koine, startKoine } from "../targets/koine.ts";

const SCHEDULES = 10_000;
const P99_MAX_MS = 50;
const DRAIN_MS_MAX = 120_000;

/** Adds nothing but its own slot and the time at which the platform accepted it, which the log keeps per invocation. */
const quiet = { "index.mjs": "export default () => new Response(null, { status: 204 });" };

/** How long after their slot schedules fire when there are ten thousand: spread over a minute, as in life, and all in the same second. */
export async function cron(bench: Bench): Promise<PartResult> {
  const count = bench.quick ? 1_000 : SCHEDULES;
  await using koine = await startKoine({ routes: 0 });
  await koine.deploy("tick", quiet, { instanceConcurrency: 100 });
  bench.say(`cron: making ${count} schedules`);
  const spread = await observe(koine, count, (index) => `${index % 60} * * * * *`);
  bench.say("cron: all of them in one second");
  const together = await observe(koine, count, () => "0 * * * * *");
  const row = {
    id: "cron",
    metric: `${count.toLocaleString("en")} schedules: time from slot to durable acceptance`,
    ours: `p50 ${duration(spread.p50Ms)}, p99 ${duration(spread.p99Ms)}, most ${duration(spread.maxMs)}`,
    reference: `a bare timer at the same time: at worst ${duration(spread.timersMaxMs)}`,
    ratio: "–",
    target: `p99 ≤ ${P99_MAX_MS} ms`,
    met: spread.p99Ms <= P99_MAX_MS,
    note: `spread over a minute ${spread.fired} fired; all ${together.fired} in one second: p50 ${duration(together.p50Ms)}, p99 ${duration(together.p99Ms)}; their functions run at the same time`,
    figures: { spread, together },
  };
  return { rows: [row] };
}

interface Lateness {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly fired: number;
  /** At worst, of a timer in a process of its own at the same time. */
  readonly timersMaxMs: number;
}

/** Makes the schedules paused, lets all of them run for a minute, and reads from the platform's histogram how late they were. */
async function observe(koine: Koine, count: number, expressionOf: (index: number) => string): Promise<Lateness> {
  const names = Array.from({ length: count }, (_, index) => `s-${index}`);
  await inParallel(names, async (name, index) => {
    const settings = { cron: expressionOf(index), catchUp: "none" };
    const body = { kind: "schedule", function: "tick", settings };
    await koine.api("PUT", `/v1/namespaces/default/triggers/${name}`, body);
  });
  // From here on a whole minute has every slot once.
  const bareTimers = observeTimers();
  const before = await histogramOf(koine);
  const msIntoMinute = Date.now() % 60_000;
  await sleep(60_000 + (msIntoMinute > 55_000 ? 10_000 : 0));
  const after = await histogramOf(koine);
  const timersMaxMs = bareTimers();
  await inParallel(names, async (name) => {
    await koine.api("DELETE", `/v1/namespaces/default/triggers/${name}`);
  });
  await drained(koine);
  return { ...lateness(before, after), timersMaxMs };
}

/** How late a timer of a process that does nothing else is at worst, once a second; answers how to stop. */
function observeTimers(): () => number {
  let maxMs = 0;
  let timer: NodeJS.Timeout;
  const arm = (): void => {
    const dueMs = (Math.floor(Date.now() / 1_000) + 1) * 1_000;
    timer = setTimeout(() => {
      maxMs = Math.max(maxMs, Date.now() - dueMs);
      arm();
    }, dueMs - Date.now());
  };
  arm();
  return () => {
    clearTimeout(timer);
    return maxMs;
  };
}

type Buckets = readonly { readonly leMs: number; readonly count: number }[];

async function histogramOf(koine: Koine): Promise<Buckets> {
  const text = await koine.metrics();
  return [...text.matchAll(/^koine_schedule_lateness_seconds_bucket\{le="([^"]+)"\} (\d+)$/gm)].map(
    ([, le = "", total = "0"]) => ({
      leMs: le === "+Inf" ? Number.POSITIVE_INFINITY : Number(le) * 1_000,
      count: Number(total),
    }),
  );
}

/** Each percentile is the upper bound of the bucket that holds it. */
function lateness(before: Buckets, after: Buckets): Omit<Lateness, "timersMaxMs"> {
  const counts = after.map(({ leMs, count }, index) => ({ leMs, count: count - (before[index]?.count ?? 0) }));
  const fired = counts.at(-1)?.count ?? 0;
  const at = (share: number): number => counts.find(({ count }) => count >= fired * share)?.leMs ?? Number.NaN;
  return { p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1), fired };
}

async function inParallel(
  names: readonly string[],
  run: (name: string, index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < names.length) {
      const index = next++;
      await run(names[index] ?? "", index);
    }
  };
  await Promise.all(Array.from({ length: 32 }, lane));
}

async function drained(koine: Koine): Promise<void> {
  const deadlineMs = performance.now() + DRAIN_MS_MAX;
  for (;;) {
    const { queue } = await koine.status();
    if (queue.waiting + queue.leased === 0) return;
    if (performance.now() > deadlineMs)
      throw new Error(`the queue still holds ${queue.waiting} after ${DRAIN_MS_MAX} ms`);
    await sleep(250);
  }
}
