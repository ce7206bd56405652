import assert from "node:assert/strict";
import { test } from "node:test";
import { decideSweep } from "./sweep-packages.ts";

const HOUR = 3_600_000;
const view = {
  stored: ["sha256:a", "sha256:b"],
  referenced: new Set<string>(),
  usedAtMs: new Map<string, number>(),
  startedAtMs: 0,
};

test("a package that nothing refers to goes after the grace time, not before", () => {
  assert.deepEqual(decideSweep(view, HOUR - 1, HOUR), []);
  assert.deepEqual(decideSweep(view, HOUR, HOUR), ["sha256:a", "sha256:b"]);
});

test("a package that a version refers to stays, however old", () => {
  assert.deepEqual(decideSweep({ ...view, referenced: new Set(["sha256:a"]) }, 100 * HOUR, HOUR), ["sha256:b"]);
});

test("interest in a package begins its grace time anew", () => {
  const usedAtMs = new Map([["sha256:a", 5 * HOUR]]);
  assert.deepEqual(decideSweep({ ...view, usedAtMs }, 5 * HOUR + 1, HOUR), ["sha256:b"]);
});
