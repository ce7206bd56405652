import type { Bench, PartResult } from "../bench.ts";
import { median } from "../measure/statistics.ts";
import { duration, times } from "../report/format.ts";
import { BEFORE_BURST_MS, sparesOf } from "../targets/koine.ts";
import { holdingJs } from "../targets/functions.ts";
import { bareNode, spawnToFirstByte } from "../targets/spawn.ts";

const INSTANCES = 32;
const RATIO_MAX = 2;
/** Longer than any start: no instance serves twice. */
const HOLD_MS = 25_000;

/** Row 6: one function from no instance to 32, until the last of them has sent its first byte. */
export async function scaleout(bench: Bench): Promise<PartResult> {
  const koine = await bench.koine();
  const rounds = bench.quick ? 1 : 6;
  const lastMs: number[] = [];
  const bareMs: number[] = [];
  let spares = 0;
  for (let round = 0; round <= rounds; round++) {
    bench.say(`scaleout: 0 to ${INSTANCES} instances, ${round === 0 ? "to warm up" : `${round} of ${rounds}`}`);
    const name = `scaleout-${Date.now().toString(36)}`;
    await koine.deploy(name, holdingJs(HOLD_MS), { instanceConcurrency: 1 });
    spares = sparesOf(await koine.settled(BEFORE_BURST_MS));
    const connections = await Promise.all(Array.from({ length: INSTANCES }, () => koine.connect()));
    const spawned: number[] = [];
    for (let count = 0; count < 5; count++) spawned.push(await spawnToFirstByte(bareNode));
    const request = koine.request(name);
    const answers = await Promise.all(connections.map((connection) => connection.head(request)));
    for (const connection of connections) connection.close();
    const processes = new Set(answers.map(({ headers }) => /\r\nx-process: (.*)/i.exec(headers)?.[1] ?? "none"));
    const failed = answers.find(({ status }) => status !== 200);
    if (failed !== undefined) throw new Error(`a call answered ${failed.headers}`);
    if (processes.size !== INSTANCES)
      throw new Error(`${processes.size} instances answered ${INSTANCES} calls: ${[...processes].slice(0, 3).join()}`);
    if (round > 0) {
      lastMs.push(Math.max(...answers.map(({ firstByteMs }) => firstByteMs)));
      bareMs.push(median(spawned));
    }
    await koine.remove(name);
  }
  const found = median(lastMs) / median(bareMs);
  const row = {
    id: "6",
    metric: `0 → ${INSTANCES} instances, to the last first byte`,
    ours: duration(median(lastMs)),
    reference: `one bare process ${duration(median(bareMs))}`,
    ratio: times(found),
    target: `≤ ${RATIO_MAX}×`,
    met: found <= RATIO_MAX,
    note: `${rounds === 1 ? "once" : `${rounds} times`}; every call had a process of its own; ${spares} spare sandboxes waited`,
    figures: { lastMs, bareMs, spares },
  };
  return { rows: [row] };
}
