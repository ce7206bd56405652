import type { Bench, PartResult } from "../bench.ts";
import type { LoadFigures } from "../load/generator.ts";
import { requestBytes } from "../load/connection.ts";
import { cpuSecondsOf } from "../measure/processes.ts";
import { type Contender, interleave, ratioOf, type Rounds } from "../measure/rounds.ts";
import { median } from "../measure/statistics.ts";
import { digits, rate, ratio } from "../report/format.ts";
import type { MetricRow } from "../row.ts";
import { helloJs } from "../targets/functions.ts";
import type { Koine } from "../targets/koine.ts";
import type { Server } from "../targets/server.ts";

const CONNECTIONS = 32;
/** One instance serves as many calls at a time as the bare server does. */
export const HELLO_SPEC = { instanceConcurrency: 100, idleTimeoutMs: 600_000 };
export const RATIO_MIN = 0.85;

/** Row 3: the most that 32 connections get out of each. */
export async function throughput(bench: Bench): Promise<PartResult> {
  const koine = await bench.koine();
  const bare = await bench.bare();
  await koine.deploy("hello", helloJs, HELLO_SPEC);
  const json = oneKilobyte();
  const type = { "Content-Type": "application/json" };
  const kinds = [
    { name: "GET", ours: koine.request("hello"), theirs: requestBytes(bare.address, { path: "/" }) },
    {
      name: "POST of 1 KB JSON",
      ours: koine.request("hello", { method: "POST", headers: type, body: json }),
      theirs: requestBytes(bare.address, { method: "POST", path: "/", headers: type, body: json }),
    },
  ];
  const rows: MetricRow[] = [];
  for (const { name, ours, theirs } of kinds) {
    bench.say(`throughput: ${name}`);
    const contenders = [loading(bench, bare, theirs), loading(bench, koine, ours)];
    rows.push(throughputRow(name, await saturate(bench, contenders, bare.name)));
  }
  return { rows };
}

export interface Saturated extends LoadFigures {
  /** Processor time of the server's whole tree per 1,000 requests, in seconds; null where its processes are not ours. */
  readonly cpuSecondsPerThousand: number | null;
}

/** Rounds of closed loops at 32 connections. */
export function saturate(
  bench: Bench,
  contenders: readonly Contender<Saturated>[],
  reference: string,
): Promise<Rounds<Saturated>> {
  return interleave(contenders, ({ perSecond }) => perSecond, { count: bench.rounds.count, reference });
}

export function loading(
  bench: Bench,
  server: Server | Koine,
  request: Buffer,
  connections: number = CONNECTIONS,
): Contender<Saturated> {
  const { address, pid, name } = server;
  return {
    name,
    run: async () => {
      const before = pid === null ? 0 : cpuSecondsOf(pid);
      const figures = await bench.load.run({
        address,
        request,
        connections,
        durationMs: bench.rounds.ms,
        ratePerSecond: null,
      });
      const spent = pid === null ? null : cpuSecondsOf(pid) - before;
      const unexpected = Object.entries(figures.statuses).filter(([status]) => status !== "200" && status !== "202");
      if (unexpected.length > 0 || figures.failures > 0)
        throw new Error(`${name} failed under load: ${JSON.stringify(figures.statuses)}, ${figures.failures} broken`);
      return { ...figures, cpuSecondsPerThousand: spent === null ? null : (spent / figures.succeeded) * 1_000 };
    },
  };
}

function throughputRow(name: string, rounds: Rounds<Saturated>): MetricRow {
  const found = ratioOf(rounds, { ours: "Koine", reference: "bare node:http" }, ({ perSecond }) => perSecond);
  const [ours, theirs] = ["Koine", "bare node:http"].map((contender) => summary(rounds.of(contender)));
  return {
    id: "3",
    metric: `Throughput at ${CONNECTIONS} connections, ${name}`,
    ours: ours?.text ?? "–",
    reference: `bare node:http ${theirs?.text ?? "–"}`,
    ratio: ratio(found),
    target: `≥ ${RATIO_MIN}×`,
    met: found.median >= RATIO_MIN,
    note: `${rounds.valid} of ${rounds.run} rounds count`,
    figures: { ratio: found, ours, theirs },
  };
}

/** Median rate and processor time of some rounds. */
export function summary(figures: readonly Saturated[]): {
  readonly text: string;
  readonly perSecond: number;
  readonly cpuSecondsPerThousand: number | null;
} {
  const perSecond = median(figures.map((round) => round.perSecond));
  const cpu = figures.map((round) => round.cpuSecondsPerThousand).filter((seconds) => seconds !== null);
  const cpuSecondsPerThousand = cpu.length === 0 ? null : median(cpu);
  const text = cpuSecondsPerThousand === null ? "" : `, ${digits(cpuSecondsPerThousand * 1_000)} ms cpu per 1,000`;
  return { text: rate(perSecond) + text, perSecond, cpuSecondsPerThousand };
}

function oneKilobyte(): string {
  const items = Array.from({ length: 12 }, (_, index) => ({
    id: index,
    name: `item number ${index}`,
    tags: ["a", "b", "c"],
  }));
  const body = JSON.stringify({ items, padding: "" });
  return JSON.stringify({ items, padding: "x".repeat(Math.max(0, 1_024 - body.length)) });
}
