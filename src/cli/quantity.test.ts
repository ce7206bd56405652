import assert from "node:assert/strict";
import { test } from "node:test";
import { CliFailure } from "./failure.ts";
import {
  formatAgo,
  formatBytes,
  formatDuration,
  parseCount,
  parseDuration,
  parseMemory,
  parseSince,
} from "./quantity.ts";

const isUsage = (thrown: unknown): boolean => thrown instanceof CliFailure && thrown.exitCode === 2;

test("durations are read with their unit, and never without", () => {
  assert.deepEqual(
    ["500ms", "30s", "1.5m", "2h", "1d"].map(parseDuration),
    [500, 30_000, 90_000, 7_200_000, 86_400_000],
  );
  for (const text of ["30", "", "-1s", "5 weeks", "s"]) assert.throws(() => parseDuration(text), isUsage, text);
});

test("memory without a unit is megabytes", () => {
  assert.equal(parseMemory("256"), 256 * 1024 ** 2);
  assert.equal(parseMemory("256MB"), 256 * 1024 ** 2);
  assert.equal(parseMemory("1.5GiB"), 1.5 * 1024 ** 3);
  for (const text of ["lots", "256K", "-1", ""]) assert.throws(() => parseMemory(text), isUsage, text);
});

test("counts are whole and positive", () => {
  assert.equal(parseCount("3", "a version"), 3);
  for (const text of ["0", "1.5", "-1", "many", ""]) assert.throws(() => parseCount(text, "a version"), isUsage, text);
});

test("a moment is said as how long ago or as a time", () => {
  const nowMs = Date.parse("2030-01-31T12:00:00Z");
  assert.equal(parseSince("10m", nowMs), "2030-01-31T11:50:00.000Z");
  assert.equal(parseSince("2030-01-30T00:00:00+02:00", nowMs), "2030-01-29T22:00:00.000Z");
  assert.throws(() => parseSince("yesterday", nowMs), isUsage);
});

test("durations are shown with the digits that matter", () => {
  const shown = [0.4321, 1, 12.34, 123.4, 1234, 59_999, 125_000, 5_400_000, 90_000_000].map(formatDuration);
  assert.deepEqual(shown, ["432 µs", "1 ms", "12.3 ms", "123 ms", "1.23 s", "1m", "2m 5s", "1h 30m", "1d 1h"]);
});

test("bytes and ages are shown in one unit", () => {
  assert.deepEqual([0, 812, 12_700, 256 * 1024 ** 2, 1.5 * 1024 ** 3].map(formatBytes), [
    "0 B",
    "812 B",
    "12.4 KB",
    "256 MB",
    "1.5 GB",
  ]);
  const nowMs = Date.parse("2030-01-31T12:00:00Z");
  const shown = [
    "2030-01-31T12:00:05Z",
    "2030-01-31T11:59:15Z",
    "2030-01-31T11:57:00Z",
    "2030-01-31T09:00:00Z",
    "2030-01-26T12:00:00Z",
  ];
  assert.deepEqual(
    shown.map((time) => formatAgo(time, nowMs)),
    ["now", "45s ago", "3m ago", "3h ago", "5d ago"],
  );
});
