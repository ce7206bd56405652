import assert from "node:assert/strict";
import { test } from "node:test";
import type { FunctionRecord, Version } from "../core/function.ts";
import { openMemoryStore } from "../store/memory.ts";
import { Catalogue } from "./catalogue.ts";

const ref = { namespace: "default", package: "", name: "f" };

function record(liveVersion: number): FunctionRecord {
  const at = { createdAtMs: 1, updatedAtMs: 1 };
  return { ...ref, id: "id", liveVersion, previousVersion: null, newestVersion: liveVersion, aliases: [], ...at };
}

function version(number: number): Version {
  return { ...ref, number, spec: { runtime: "nodejs26.x" }, specDigest: "sha256:0", createdAtMs: 1 } as Version;
}

test("a copy follows its catalogue, and a change is over when the copy has it", async () => {
  const catalogue = await Catalogue.open(openMemoryStore());
  await catalogue.put(record(1), { add: version(1) });
  const copy = Catalogue.copy();
  for (const change of catalogue.snapshot()) copy.apply(JSON.parse(JSON.stringify(change)));
  catalogue.onChanged = async (change) => {
    await new Promise((resolve) => setImmediate(resolve));
    copy.apply(JSON.parse(JSON.stringify(change)));
  };
  const first = copy.resolve(ref);
  assert.equal(first.number, 1);
  await catalogue.put(record(2), { add: version(2) });
  assert.equal(copy.resolve(ref).number, 2);
  await catalogue.put(record(1));
  assert.equal(copy.resolve(ref), first, "a version stays the same object, by which instances are found");
  await catalogue.put(record(1), { remove: [2] });
  assert.deepEqual(
    copy.versions(ref).map(({ number }) => number),
    [1],
  );
  await catalogue.delete(ref);
  assert.throws(() => copy.resolve(ref), { code: "function-not-found" });
  await catalogue.put(record(1), { add: version(1) });
  assert.equal(copy.resolve(ref).number, 1);
});

test("a copy cannot be written", async () => {
  await assert.rejects(Catalogue.copy().put(record(1)), { code: "internal" });
});
