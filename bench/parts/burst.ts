import type { Bench, PartResult } from "../bench.ts";
import type { Connection } from "../load/connection.ts";
import { interleave, ratioOf } from "../measure/rounds.ts";
import { median, percentile } from "../measure/statistics.ts";
import { burstCurve } from "../report/charts.ts";
import { duration, rate, ratio, times } from "../report/format.ts";
import { type MetricRow, missingRow } from "../row.ts";
import { coldJs, coldPython, type Source } from "../targets/functions.ts";
import { BEFORE_BURST_MS, type Koine, sparesOf } from "../targets/koine.ts";
import { type Bare, bareNode, barePython, rawSpawnRate, spawnToFirstByte } from "../targets/spawn.ts";

const BURST = 64;
const BURST_MAX = 4;
const SUSTAINED_MIN = 0.8;
const AT_A_TIME = 8;

/** Rows 4 and 4b: many functions at once that have never run, and one after the other for longer than spares last. */
export async function burst(bench: Bench): Promise<PartResult> {
  const koine = await bench.koine();
  const { row, curve, perSecond } = await bursts(bench, koine);
  const rows = [row, await sustained(bench, koine, { id: "4b", language: "Node", bare: bareNode, kind: node })];
  const python = await barePython();
  rows.push(
    python === null
      ? missingRow("4b", "Sustained cold starts, Python", `≥ ${SUSTAINED_MIN}×`, "there is no python3 on this machine")
      : await sustained(bench, koine, { id: "4b", language: "Python", bare: python, kind: pythonKind }),
  );
  return { rows, charts: [burstCurve(curve, { perSecond, count: BURST })] };
}

interface Kind {
  readonly spec: Readonly<Record<string, unknown>>;
  source(nonce: string): Source;
}

/** Instances leave soon, as they must where thousands of functions are called once. */
const IDLE = { idleTimeoutMs: 2_000 };
const node: Kind = { spec: IDLE, source: coldJs };
const pythonKind: Kind = {
  spec: { ...IDLE, runtime: "python3", handler: "app.app", handlerModel: "wsgi" },
  source: coldPython,
};

async function bursts(
  bench: Bench,
  koine: Koine,
): Promise<{ row: MetricRow; curve: readonly number[]; perSecond: number }> {
  const allMs: number[] = [];
  const bareMs: number[] = [];
  let curve: readonly number[] = [];
  let spares = 0;
  const rounds = bench.quick ? 1 : 5;
  const connections = await Promise.all(Array.from({ length: BURST }, () => koine.connect()));
  for (let round = 0; round <= rounds; round++) {
    bench.say(`burst: ${BURST} functions at once, ${round === 0 ? "to warm up" : `${round} of ${rounds}`}`);
    const names = await deployFresh(koine, node, BURST);
    spares = sparesOf(await koine.settled(BEFORE_BURST_MS));
    const spawned: number[] = [];
    for (let count = 0; count < 5; count++) spawned.push(await spawnToFirstByte(bareNode));
    const answeredMs = await callAll(koine, connections, names);
    if (round > 0) {
      bareMs.push(median(spawned));
      allMs.push(answeredMs.at(-1) ?? Number.NaN);
      curve = answeredMs;
    }
    for (const name of names) await koine.remove(name);
  }
  for (const connection of connections) connection.close();
  const found = median(allMs) / median(bareMs);
  const perSecond = (BURST / median(allMs)) * 1_000;
  const row: MetricRow = {
    id: "4",
    metric: `Burst of ${BURST} cold starts`,
    ours: `all after ${duration(median(allMs))} (${rate(perSecond)})`,
    reference: `one bare process ${duration(median(bareMs))}`,
    ratio: times(found),
    target: `≤ ${BURST_MAX}×`,
    met: found <= BURST_MAX,
    note: `${rounds} ${rounds === 1 ? "burst" : "bursts"}, ${spares} spare sandboxes waited; half of the last one's were answered after ${duration(percentile(curve, 0.5))}`,
    figures: { allMs, bareMs, lastBurstMs: curve, spares },
  };
  return { row, curve, perSecond };
}

/** Milliseconds after which each was answered, in order. */
async function callAll(
  koine: Koine,
  connections: readonly Connection[],
  names: readonly string[],
): Promise<readonly number[]> {
  const requests = names.map((name) => koine.request(name));
  const begunMs = performance.now();
  const answers = requests.map(async (request, index) => {
    const answer = await connections[index]?.call(request);
    const tookMs = performance.now() - begunMs;
    if (answer?.status !== 200) throw new Error(`a cold call answered ${answer?.status}: ${answer?.body}`);
    return tookMs;
  });
  return (await Promise.all(answers)).toSorted((a, b) => a - b);
}

interface SustainedOptions {
  readonly id: string;
  readonly language: string;
  readonly bare: Bare;
  readonly kind: Kind;
}

async function sustained(
  bench: Bench,
  koine: Koine,
  { id, language, bare, kind }: SustainedOptions,
): Promise<MetricRow> {
  bench.say(`burst: sustained cold starts, ${language}`);
  const count = bench.quick ? 32 : 250;
  const rounds = await interleave(
    [
      { name: "bare", run: () => rawSpawnRate(bare, { count, atATime: AT_A_TIME }) },
      { name: "ours", run: () => coldRate(koine, kind, count) },
    ],
    (perSecond) => perSecond,
    { count: bench.quick ? 1 : 4, reference: "bare" },
  );
  const found = ratioOf(rounds, { ours: "ours", reference: "bare" }, (perSecond) => perSecond);
  return {
    id,
    metric: `Sustained cold starts, ${language}, refill counted`,
    ours: rate(median(rounds.of("ours"))),
    reference: `bare processes ${rate(median(rounds.of("bare")))}`,
    ratio: ratio(found),
    target: `≥ ${SUSTAINED_MIN}×`,
    met: found.median >= SUSTAINED_MIN,
    note: `${count} functions a round, ${AT_A_TIME} at a time; ${rounds.valid} of ${rounds.run} rounds count`,
    figures: { ratio: found, ours: rounds.of("ours"), bare: rounds.of("bare") },
  };
}

/** Cold starts per second until as many spares wait again as before: what the pool lent is paid back within the time. */
async function coldRate(koine: Koine, kind: Kind, count: number): Promise<number> {
  const names = await deployFresh(koine, kind, count);
  const before = sparesOf(await koine.settled(BEFORE_BURST_MS));
  const connections = await Promise.all(Array.from({ length: AT_A_TIME }, () => koine.connect()));
  let next = 0;
  const begunMs = performance.now();
  const drive = async (connection: Connection): Promise<void> => {
    while (next < names.length) {
      const answer = await connection.call(koine.request(names[next++] ?? ""));
      if (answer.status !== 200) throw new Error(`a cold call answered ${answer.status}: ${answer.body}`);
    }
  };
  await Promise.all(connections.map(drive));
  const deadlineMs = performance.now() + 30_000;
  while (sparesOf(await koine.status()) < before && performance.now() < deadlineMs)
    await new Promise((resolve) => setTimeout(resolve, 10));
  const perSecond = (count / (performance.now() - begunMs)) * 1_000;
  for (const connection of connections) connection.close();
  await Promise.all(names.map((name) => koine.remove(name)));
  return perSecond;
}

let deployed = 0;

async function deployFresh(koine: Koine, kind: Kind, count: number): Promise<readonly string[]> {
  const names = Array.from({ length: count }, () => `burst-${++deployed}`);
  let next = 0;
  const deployNext = async (): Promise<void> => {
    for (let name = names[next++]; name !== undefined; name = names[next++])
      await koine.deploy(name, kind.source(`${name}-${Date.now().toString(36)}`), kind.spec);
  };
  await Promise.all(Array.from({ length: 8 }, deployNext));
  return names;
}
