import assert from "node:assert/strict";
import { test } from "node:test";
import { Identities, identitiesOf, mappedRanges } from "./identity.ts";

test("each sandbox has an id of its own, which is used again when it was given back", () => {
  const identities = new Identities(70_000, 2);
  assert.deepEqual([identities.acquire(), identities.acquire(), identities.acquire()], [70_000, 70_001, null]);
  identities.release(70_000);
  assert.equal(identities.acquire(), 70_000);
});

test("parts of one platform's ids have none in common", () => {
  const taken = [0, 1, 2].flatMap((index) => {
    const part = identitiesOf({ index, count: 3 }, 70_000, 10);
    return [part.acquire(), part.acquire(), part.acquire(), part.acquire()];
  });
  assert.deepEqual(taken, [70_000, 70_001, 70_002, null, 70_003, 70_004, 70_005, null, 70_006, 70_007, 70_008, null]);
});

test("the map of a user namespace says which ids exist", () => {
  assert.deepEqual(mappedRanges("         0          0 4294967295\n"), [{ first: 0, count: 4_294_967_295 }]);
  assert.deepEqual(mappedRanges("0 1000 1\n1 100000 65536\n"), [
    { first: 0, count: 1 },
    { first: 1, count: 65_536 },
  ]);
});
