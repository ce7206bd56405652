import assert from "node:assert/strict";
import { test } from "node:test";
import { newId } from "../../core/ids.ts";
import { isTimedId, readTimedId, SeenIds, timedIdBytes, timeOfId } from "./timed-id.ts";

test("an id is the same after it was bytes, and its bytes tell its time", () => {
  const id = newId(1_700_000_000_123);
  const bytes = timedIdBytes(id);
  assert.equal(readTimedId(bytes, 0), id);
  assert.equal(timeOfId(timedIdBytes("018bcfe5-687b-7000-8000-0123456789ab"), 0), 1_700_000_000_123);
});

test("texts that are no such ids are told apart", () => {
  const id = "018bcfe5-687b-7000-8000-0123456789ab";
  assert.equal(isTimedId(id), true);
  const others = ["", "a1", id.toUpperCase(), id.replace("-7", "-4"), `${id}0`, id.replaceAll("-", "0")];
  for (const other of [...others, id.replace("b", "g"), id.replace("b", "ä"), id.replace("-8", "x8")])
    assert.equal(isTimedId(other), false, other);
});

test("an id that was seen is never taken for new, however many came since", () => {
  const openedMs = 1_000;
  const seen = new SeenIds(openedMs);
  const idAt = (index: number): Buffer => {
    const bytes = timedIdBytes("00000000-0000-7000-8000-000000000000");
    bytes.writeUIntBE(openedMs + 1 + Math.floor(index / 100), 0, 6);
    bytes.writeUInt32LE(index * 2 + 1, 12);
    return bytes;
  };
  const count = 300_000;
  let wronglySeen = 0;
  for (let index = 0; index < count; index++) {
    if (seen.maybe(idAt(index), 0)) wronglySeen++;
    seen.add(idAt(index), 0);
    const earlier = idAt(Math.floor((index * 7_919) % (index + 1)));
    assert.equal(seen.maybe(earlier, 0), true);
  }
  assert.equal(wronglySeen, 0);
  assert.equal(seen.maybe(timedIdBytes("00000000-0001-7000-8000-000000000000"), 0), true);
});
