import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { KEEP_ALIVE_SETTINGS, KeepAlive } from "../../src/engine/keepalive.ts";
import type { MetricRow } from "../row.ts";

const FEW = 10;
const MANY = 100_000;
const MINUTES = 5;
const MINUTES_BEFORE = 30;
const BYTES_MAX = 1_024;

/** What remembering a function costs in memory, and deciding about it in time, among few and among many. */
export function measurePlan(): MetricRow[] {
  const many = fill(MANY);
  const [manyNs, fewNs] = [
    decideNs(many.keepAlive, { repeat: 1 }),
    decideNs(fill(FEW).keepAlive, { repeat: MANY / FEW }),
  ];
  return [
    {
      id: "5",
      metric: "Keep-alive: memory of what is remembered of a function",
      ours: `${many.bytesEach.toFixed(0)} bytes`,
      reference: "–",
      ratio: "",
      target: `≤ ${BYTES_MAX} bytes`,
      met: many.bytesEach <= BYTES_MAX,
      figures: { bytesEach: many.bytesEach },
    },
    {
      id: "7",
      metric: `Keep-alive: deciding about one function, once a minute, among ${MANY}`,
      ours: `${manyNs.toFixed(0)} ns`,
      reference: `${fewNs.toFixed(0)} ns among ${FEW}`,
      ratio: `${(manyNs / fewNs).toFixed(2)}×`,
      target: "",
      met: null,
      figures: { manyNs, fewNs },
    },
  ];
}

interface Filled {
  readonly keepAlive: KeepAlive<null>;
  readonly bytesEach: number;
}

/** Functions that have been called every few minutes for half an hour. */
function fill(count: number): Filled {
  const before = usedBytes();
  const keepAlive = new KeepAlive<null>({ ...KEEP_ALIVE_SETTINGS, idleBytesMax: count });
  const habits = Array.from({ length: count }, () => keepAlive.add(null));
  for (let minute = 0; minute < MINUTES_BEFORE; minute += 3) {
    for (const [index, habit] of habits.entries()) if ((index + minute) % 2 === 0) keepAlive.observe(habit, minute);
    plan(keepAlive, minute + 1);
  }
  return { keepAlive, bytesEach: (usedBytes() - before) / count };
}

/** The first plans warm up the code and are not counted. */
function decideNs(keepAlive: KeepAlive<null>, { repeat }: { readonly repeat: number }): number {
  let minute = MINUTES_BEFORE;
  for (let round = 0; round < 2; round++, minute++) plan(keepAlive, minute);
  const decided = keepAlive.live * MINUTES * repeat;
  const begun = process.hrtime.bigint();
  for (let round = 0; round < MINUTES; round++, minute++)
    for (let again = 0; again < repeat; again++) plan(keepAlive, minute);
  return Number(process.hrtime.bigint() - begun) / decided;
}

function plan(keepAlive: KeepAlive<null>, minute: number): void {
  const steps = keepAlive.plan(minute);
  while (steps.next().done !== true);
}

function usedBytes(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
