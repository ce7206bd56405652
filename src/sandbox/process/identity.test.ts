import assert from "node:assert/strict";
import { test } from "node:test";
import { Identities, mappedRanges } from "./identity.ts";

test("each sandbox has an id of its own, which is used again when it was given back", () => {
  const identities = new Identities(70_000, 2);
  assert.deepEqual([identities.acquire(), identities.acquire(), identities.acquire()], [70_000, 70_001, null]);
  identities.release(70_000);
  assert.equal(identities.acquire(), 70_000);
});

test("the map of a user namespace says which ids exist", () => {
  assert.deepEqual(mappedRanges("         0          0 4294967295\n"), [{ first: 0, count: 4_294_967_295 }]);
  assert.deepEqual(mappedRanges("0 1000 1\n1 100000 65536\n"), [
    { first: 0, count: 1 },
    { first: 1, count: 65_536 },
  ]);
});
