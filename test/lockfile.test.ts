import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

interface LockEntry {
  readonly resolved?: string;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const lock = JSON.parse(readFileSync(new URL("../package-lock.json", import.meta.url), "utf8")) as {
  readonly packages: Readonly<Record<string, LockEntry>>;
};

test("the lock file holds the packages of every platform, so that npm ci works on each", () => {
  const wanted = Object.values(lock.packages).flatMap((entry) => Object.keys(entry.optionalDependencies ?? {}));
  const missing = wanted.filter((name) => lock.packages[`node_modules/${name}`] === undefined);
  assert.deepEqual(missing, []);
});

test("the lock file names no address to download from", () => {
  assert.deepEqual(
    Object.values(lock.packages).filter((entry) => entry.resolved !== undefined),
    [],
  );
});
