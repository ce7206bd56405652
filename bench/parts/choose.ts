import type { Invocation } from "../../src/core/invocation.ts";
import { FakeCaller, FakeMachine, fakeVersion } from "../../src/engine/fakes.ts";
import type { Bench, PartResult } from "../bench.ts";
import { Histogram } from "../measure/histogram.ts";
import { median } from "../measure/statistics.ts";
import { duration, durations, times } from "../report/format.ts";

const FEW = 10;
const MANY = 100_000;
const GROWTH_MAX = 1.5;
const P50_MAX_MS = 0.005;
const P99_MAX_MS = 0.02;
const STRIDE = 7_919;
/**
 * Row 7: from an invocation's arrival at the engine to its handing over to the chosen instance, among few and among many functions
 * that each have an idle instance. Sandboxes are stand-ins, so that nothing but the choice is measured. Twice: when the same ten
 * functions are called, which shows what the number of others costs; and when all are called in turn, far apart in memory, which
 * is the worst that traffic can be.
 */
export async function choose(bench: Bench): Promise<PartResult> {
  const calls = bench.quick ? 20_000 : 100_000;
  const rounds = bench.quick ? 2 : 5;
  bench.say(`choose: among ${FEW} and among ${MANY}`);
  const [few, many] = [await prepare(FEW), await prepare(MANY)];
  const fewMs: Histogram[] = [];
  const sameMs: Histogram[] = [];
  const allMs: Histogram[] = [];
  for (let round = 0; round <= rounds; round++) {
    const among = [
      await measure(few, { calls, functions: FEW }),
      await measure(many, { calls, functions: FEW }),
      await measure(many, { calls, functions: MANY }),
    ] as const;
    if (round > 0) for (const [index, into] of [fewMs, sameMs, allMs].entries()) into.push(among[index] ?? among[0]);
  }
  const [reference, same, all] = [figures(fewMs), figures(sameMs), figures(allMs)];
  const growth = { same: same.p50 / reference.p50, all: all.p50 / reference.p50 };
  const shared = { id: "7", reference: `among ${FEW}: ${durations(reference)}` };
  const metric = `Choosing an instance among ${MANY.toLocaleString("en")} functions`;
  return {
    rows: [
      {
        ...shared,
        metric: `${metric}, ${FEW} of them called`,
        ours: durations(same),
        ratio: times(growth.same),
        target: `≤ ${GROWTH_MAX}×`,
        met: growth.same <= GROWTH_MAX,
        note: `the engine alone, with an idle instance per function; ${calls} calls a round`,
        figures: { reference, same },
      },
      {
        ...shared,
        metric: `${metric}, all called in turn`,
        ours: durations(all),
        ratio: times(growth.all),
        target: `p50 ≤ ${duration(P50_MAX_MS)}, p99 ≤ ${duration(P99_MAX_MS)}`,
        met: all.p50 <= P50_MAX_MS && all.p99 <= P99_MAX_MS,
        note: "every call finds its function in no cache of the processor",
        figures: { reference, all },
      },
    ],
  };
}

function figures(histograms: readonly Histogram[]): { readonly p50: number; readonly p99: number } {
  return {
    p50: median(histograms.map((histogram) => histogram.percentileMs(0.5))),
    p99: median(histograms.map((histogram) => histogram.percentileMs(0.99))),
  };
}

interface Prepared {
  readonly machine: FakeMachine;
  readonly invocations: readonly (() => Promise<number>)[];
}

/** An engine with an idle instance for each of so many functions. */
async function prepare(count: number): Promise<Prepared> {
  const machine = new FakeMachine({ instancesMax: count + 1, memoryBudgetBytes: Number.MAX_SAFE_INTEGER });
  const versions = Array.from({ length: count }, (_, index) => fakeVersion({}, { name: `function-${index}` }));
  const warmed = new AbortController();
  for (const version of versions) await machine.engine.warm(version, warmed.signal);
  const invocations = versions.map((version) => {
    return async (): Promise<number> => {
      const invocation: Invocation = {
        id: "call",
        ref: { namespace: version.namespace, package: version.package, name: version.name },
        call: { kind: "event", contentType: "application/json" },
        mode: "sync",
        attempt: 1,
        receivedAtMs: 0,
        body: Buffer.alloc(0),
        bodyComplete: true,
      };
      const caller = new FakeCaller();
      const begunMs = performance.now();
      caller.exchange = machine.engine.invoke(invocation, version, caller);
      const tookMs = performance.now() - begunMs;
      const call = machine.waitingCalls.pop();
      if (call === undefined) throw new Error("the engine chose no idle instance");
      call.sandbox.calls.delete(call);
      call.responder.bodyEnded();
      call.responder.succeeded();
      return tookMs;
    };
  });
  return { machine, invocations };
}

async function measure(
  { machine, invocations }: Prepared,
  { calls, functions }: { readonly calls: number; readonly functions: number },
): Promise<Histogram> {
  const histogram = new Histogram();
  for (let call = 0; call < calls; call++) {
    // A stride that has no factor in common with the count visits all of them.
    const invoke = invocations[(call * STRIDE) % functions];
    if (invoke !== undefined) histogram.record(await invoke());
    // What the stand-ins keep for tests would fill the memory here.
    if (machine.activations.length > 1_000) machine.activations.length = 0;
  }
  return histogram;
}
