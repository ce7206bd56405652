import { setTimeout as sleep } from "node:timers/promises";
import type { Bench, PartResult } from "../bench.ts";
import { interleave, ratioOf } from "../measure/rounds.ts";
import { median } from "../measure/statistics.ts";
import { duration, rate, ratio } from "../report/format.ts";
import { helloJs } from "../targets/functions.ts";
import type { Koine } from "../targets/koine.ts";
import { HELLO_SPEC, loading } from "./throughput.ts";

const CONNECTIONS = 64;
const RATIO_MIN = 0.6;
const P99_MAX_MS = 5;
const DRAIN_MS_MAX = 180_000;

/** Row 8: invocations that are on disk before they are accepted, against calls that wait for their answer. */
export async function asynchronous(bench: Bench): Promise<PartResult> {
  const koine = await bench.koine();
  await koine.deploy("hello", helloJs, HELLO_SPEC);
  await koine.deploy("later", helloJs, HELLO_SPEC);
  const request = koine.request("later", { method: "POST", headers: { Prefer: "respond-async" }, body: "{}" });
  const sync = loading(bench, koine, koine.request("hello"), CONNECTIONS);
  const later = loading(bench, koine, request, CONNECTIONS);
  const drains: number[] = [];
  bench.say("async: accepting");
  const rounds = await interleave(
    [
      { ...sync, name: "sync" },
      {
        name: "async",
        run: async () => {
          const figures = await later.run();
          const begunMs = performance.now();
          await drained(koine);
          drains.push(figures.succeeded / (bench.rounds.ms / 1_000 + (performance.now() - begunMs) / 1_000));
          return figures;
        },
      },
    ],
    ({ perSecond }) => perSecond,
    { count: bench.quick ? 1 : bench.rounds.count, reference: "sync" },
  );
  const found = ratioOf(rounds, { ours: "async", reference: "sync" }, ({ perSecond }) => perSecond);
  const p99Ms = median(rounds.of("async").map(({ latency }) => latency.percentileMs(0.99)));
  const accepted = median(rounds.of("async").map(({ perSecond }) => perSecond));
  const row = {
    id: "8",
    metric: `Durable asynchronous accept at ${CONNECTIONS} connections`,
    ours: `${rate(accepted)}, p99 ${duration(p99Ms)}`,
    reference: `own synchronous calls ${rate(median(rounds.of("sync").map(({ perSecond }) => perSecond)))}`,
    ratio: ratio(found),
    target: `≥ ${RATIO_MIN}×, p99 ≤ ${P99_MAX_MS} ms`,
    met: found.median >= RATIO_MIN && p99Ms <= P99_MAX_MS,
    note: `accepted while earlier ones already run; all of them were run at ${rate(median(drains))}`,
    figures: { ratio: found, accepted, p99Ms, runPerSecond: drains },
  };
  return { rows: [row] };
}

async function drained(koine: Koine): Promise<void> {
  const deadlineMs = performance.now() + DRAIN_MS_MAX;
  for (;;) {
    const { queue } = await koine.status();
    if (queue.waiting + queue.leased === 0) return;
    if (performance.now() > deadlineMs)
      throw new Error(`the queue still holds ${queue.waiting} after ${DRAIN_MS_MAX} ms`);
    await sleep(100);
  }
}
