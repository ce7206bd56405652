import type { Bench, PartResult } from "../bench.ts";
import { interleave, ratioOf } from "../measure/rounds.ts";
import { ratio } from "../report/format.ts";
import { helloJs } from "../targets/functions.ts";
import { type Koine, startKoine } from "../targets/koine.ts";
import type { Server } from "../targets/server.ts";
import { HELLO_SPEC, loading, type Saturated, summary } from "./throughput.ts";

const CONNECTIONS_EACH = 32;
const RATIO_MAX = 1.1;
const ONE = "1 engine";
const TWO = "2 engines";

/** What a second engine adds to the processor time of a request, with the same load for each engine; how much faster it is depends on how many cores are free. */
export async function engines(bench: Bench): Promise<PartResult> {
  await bench.rest();
  await using one = await startKoine();
  await using two = await startKoine({ engines: 2 });
  for (const koine of [one, two]) await koine.deploy("hello", helloJs, HELLO_SPEC);
  await warmEachEngine(two);
  bench.say("engines: GET");
  const contenders = [
    loading(bench, called(one, ONE), one.request("hello"), CONNECTIONS_EACH),
    loading(bench, called(two, TWO), two.request("hello"), CONNECTIONS_EACH * 2),
  ];
  const rounds = await interleave<Saturated>(contenders, ({ cpuSecondsPerThousand }) => cpuSecondsPerThousand ?? 0, {
    count: bench.rounds.count,
    reference: ONE,
  });
  const cost = ratioOf(
    rounds,
    { ours: TWO, reference: ONE },
    ({ cpuSecondsPerThousand }) => cpuSecondsPerThousand ?? 0,
  );
  const speed = ratioOf(rounds, { ours: TWO, reference: ONE }, ({ perSecond }) => perSecond);
  const [ours, theirs] = [TWO, ONE].map((name) => summary(rounds.of(name)));
  return {
    rows: [
      {
        id: "3b",
        metric: `Processor time per request, 2 engines with ${CONNECTIONS_EACH} connections each`,
        ours: ours?.text ?? "–",
        reference: `${ONE} ${theirs?.text ?? "–"}`,
        ratio: ratio(cost),
        target: `≤ ${RATIO_MAX}×`,
        met: cost.median <= RATIO_MAX,
        note: `throughput ${ratio(speed)} of one engine; the load shares the cores`,
        figures: { cost, speed, ours, theirs },
      },
    ],
  };
}

function called(koine: Koine, name: string): Server {
  const { address, pid } = koine;
  return { name, address, pid, [Symbol.asyncDispose]: () => Promise.resolve() };
}

/** Calls until each engine has an instance: connections are divided by chance. */
async function warmEachEngine(koine: Koine): Promise<void> {
  for (let calls = 0; calls < 200; calls++) {
    const connection = await koine.connect();
    await connection.call(koine.request("hello"));
    connection.close();
    const { engines: all } = await koine.status();
    if (all.every(({ instances }) => instances.idle + instances.busy > 0)) return;
  }
  throw new Error("no connection reached one of the engines");
}
