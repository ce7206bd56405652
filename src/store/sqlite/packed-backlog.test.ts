import assert from "node:assert/strict";
import { test } from "node:test";
import type { PackedRecords } from "../store.ts";
import { PackedBacklog } from "./packed-backlog.ts";

const pack = (count: number, bytes = 10): PackedRecords => ({
  count,
  activations: new Uint8Array(bytes),
  shapes: "[]",
  lines: null,
});

test("packs leave in the order in which they came, one that could not be written first again", () => {
  const backlog = new PackedBacklog({ recordsMax: 100, bytesMax: 1_000 });
  backlog.add(pack(1));
  backlog.add(pack(2));
  const first = backlog.take();
  assert.equal(first?.count, 1);
  backlog.putBack(pack(1));
  assert.deepEqual([backlog.take()?.count, backlog.take()?.count, backlog.take()], [1, 2, null]);
  assert.deepEqual([backlog.records, backlog.dropped], [0, 0]);
});

test("beyond the bounds the oldest packs go and are counted", () => {
  const backlog = new PackedBacklog({ recordsMax: 10, bytesMax: 1_000 });
  backlog.add(pack(6));
  backlog.add(pack(5));
  assert.deepEqual([backlog.records, backlog.dropped], [5, 6]);
  backlog.add(pack(1, 995));
  assert.deepEqual([backlog.records, backlog.dropped], [1, 11]);
});
