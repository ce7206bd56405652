import { availableParallelism } from "node:os";
import type { Bench, PartResult } from "../bench.ts";
import { median } from "../measure/statistics.ts";
import { rate, times } from "../report/format.ts";
import { busyJs } from "../targets/functions.ts";
import type { Koine } from "../targets/koine.ts";

const BUSY_MS = 2;
const OFFERED = 3;
const SERVED_MIN = 0.9;
/** More than may wait for a slot: what comes beyond must find a connection to be refused on. */
const CONNECTIONS = 1_500;

/** Three times as many calls as can be served: what cannot be served must be refused, and the rest served as before. */
export async function overload(bench: Bench): Promise<PartResult> {
  const koine = await bench.koine();
  const slots = availableParallelism();
  await koine.deploy("limited", busyJs(BUSY_MS), { instanceConcurrency: 1, reservedConcurrency: slots });
  const durationMs = bench.rounds.ms * 3;
  const peaks: number[] = [];
  const served: number[] = [];
  const statuses: Record<string, number> = {};
  let lost = 0;
  for (let round = 0; round <= (bench.quick ? 1 : 3); round++) {
    bench.say(`overload: round ${round}`);
    const peak = (await closed(bench, koine, { durationMs: bench.rounds.ms, connections: slots * 2 })).perSecond;
    if (round === 0) continue;
    const result = await bench.load.run({
      address: koine.address,
      request: koine.request("limited"),
      connections: CONNECTIONS,
      durationMs,
      ratePerSecond: Math.round(peak * OFFERED),
    });
    peaks.push(peak);
    served.push(result.perSecond / peak);
    lost += result.failures + result.unanswered;
    for (const [status, count] of Object.entries(result.statuses)) statuses[status] = (statuses[status] ?? 0) + count;
  }
  const kept = median(served);
  const shed = statuses["429"] ?? 0;
  const others = Object.keys(statuses).filter((status) => status !== "200" && status !== "429");
  const row = {
    id: "overload",
    metric: `Served at ${OFFERED}× peak`,
    ours: `${rate(kept * median(peaks))}; answers ${Object.entries(statuses)
      .map(([status, count]) => `${count} × ${status}`)
      .join(", ")}`,
    reference: `peak ${rate(median(peaks))}`,
    ratio: times(kept),
    target: `≥ ${SERVED_MIN}× of peak, the rest 429`,
    met: kept >= SERVED_MIN && shed > 0 && lost === 0 && others.length === 0,
    note: `a function of ${BUSY_MS} ms processor time on ${slots} slots; ${lost} connections broke or got no answer`,
    figures: { peaks, served, statuses, lost },
  };
  return { rows: [row] };
}

function closed(
  bench: Bench,
  koine: Koine,
  { durationMs, connections }: { durationMs: number; connections: number },
): ReturnType<Bench["load"]["run"]> {
  const request = koine.request("limited");
  return bench.load.run({ address: koine.address, request, connections, durationMs, ratePerSecond: null });
}
