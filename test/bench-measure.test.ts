import assert from "node:assert/strict";
import { test } from "node:test";
import { Histogram } from "../bench/measure/histogram.ts";
import { interleave, ratioOf } from "../bench/measure/rounds.ts";
import { percentile, ratios, slope, spread, validRounds } from "../bench/measure/statistics.ts";

/** Whether a figure is within a share of another one. */
function near(actual: number, expected: number, share: number): void {
  assert.ok(Math.abs(actual / expected - 1) <= share, `${actual} is not within ${share} of ${expected}`);
}

test("a histogram knows percentiles to within a hundredth, from microseconds to seconds", () => {
  const histogram = new Histogram();
  for (let value = 1; value <= 10_000; value++) histogram.record(value / 100);
  assert.equal(histogram.count, 10_000);
  near(histogram.percentileMs(0.5), 50, 0.01);
  near(histogram.percentileMs(0.99), 99, 0.01);
  assert.equal(histogram.percentileMs(1), 100);
  near(histogram.meanMs, 50, 0.01);
  for (const valueMs of [0.001, 0.027, 3, 700, 60_000]) {
    const one = new Histogram();
    one.record(valueMs);
    near(one.percentileMs(0.5), valueMs, 0.04);
  }
});

test("values beyond a histogram's range count as its ends, and the largest is kept as it is", () => {
  const histogram = new Histogram();
  histogram.record(-1);
  histogram.record(1_000_000);
  assert.equal(histogram.count, 2);
  assert.equal(histogram.maxMs, 1_000_000);
  assert.equal(histogram.percentileMs(0.5), 0);
  assert.equal(histogram.percentileMs(1), 1_000_000);
});

test("a histogram survives the way between processes, and two add up", () => {
  const [one, two] = [new Histogram(), new Histogram()];
  for (let value = 1; value <= 100; value++) one.record(value);
  for (let value = 101; value <= 200; value++) two.record(value);
  const sum = Histogram.from(structuredClone(one.toJSON()));
  sum.add(two.toJSON());
  assert.equal(sum.count, 200);
  near(sum.percentileMs(0.5), 100, 0.01);
  assert.equal(new Histogram().percentileMs(0.5), 0);
});

test("percentiles of plain figures lie between neighbours, in whatever order they come", () => {
  assert.equal(percentile([3, 1, 2], 0.5), 2);
  assert.equal(percentile([1, 2], 0.5), 1.5);
  assert.deepEqual(spread([5, 1, 3]), { median: 3, min: 1, max: 5 });
  assert.throws(() => percentile([], 0.5), RangeError);
});

test("rounds in which the reference strays from its median are void", () => {
  assert.deepEqual(validRounds([100, 98, 60, 104, 130], 0.15), [0, 1, 3]);
  assert.deepEqual(validRounds([], 0.15), []);
  assert.deepEqual(ratios([50, 90], [100, 100]), [0.5, 0.9]);
});

test("contenders take turns, the first round is dropped and void rounds are run again", async () => {
  const order: string[] = [];
  const bare = [1, 100, 40, 100, 101, 99];
  const contenders = [
    { name: "bare", run: async () => bare[order.push("bare") >> 1] ?? 100 },
    { name: "ours", run: async () => order.push("ours") && 90 },
  ];
  const rounds = await interleave(contenders, (value) => value, { count: 3, reference: "bare" });
  assert.deepEqual(order.slice(0, 4), ["bare", "ours", "bare", "ours"]);
  assert.equal(rounds.run, 4);
  assert.equal(rounds.valid, 3);
  assert.deepEqual(rounds.of("bare"), [100, 100, 101]);
  assert.equal(ratioOf(rounds, { ours: "ours", reference: "bare" }, (value) => value).median, 0.9);
});

test("a reference that never calms down ends the rounds all the same", async () => {
  let round = 0;
  const wild = { name: "bare", run: async () => 2 ** round++ };
  const rounds = await interleave([wild], (value) => value, { count: 4, reference: "bare" });
  assert.equal(rounds.run, 8);
  assert.ok(rounds.valid < 4);
});

test("the slope of a line is its rise per step", () => {
  assert.equal(
    slope([
      [0, 1],
      [1, 3],
      [2, 5],
    ]),
    2,
  );
  assert.equal(slope([[0, 1]]), 0);
});
