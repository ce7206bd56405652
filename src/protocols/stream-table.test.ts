import assert from "node:assert/strict";
import { test } from "node:test";
import { StreamTable } from "./stream-table.ts";

test("a stream is found by its number until it is deleted, however many others came and went", () => {
  const table = new StreamTable<{ number: number }>();
  const long = { number: 5 };
  table.add(long);
  for (let number = 6; number < 10_000; number++) {
    table.add({ number });
    assert.equal(table.get(number)?.number, number);
    assert.equal(table.get(5), long);
    assert.equal(table.size, 2);
    table.delete(number);
    assert.equal(table.get(number), undefined);
  }
  table.delete(5);
  table.delete(5);
  assert.equal(table.get(5), undefined);
  assert.equal(table.size, 0);
});

test("more streams than slots are kept, and cleared in the order of those that were overtaken first", () => {
  const table = new StreamTable<{ number: number }>();
  const streams = Array.from({ length: 3_000 }, (_, index) => ({ number: 0xffff_ffff - index }));
  for (const stream of streams) table.add(stream);
  assert.ok(streams.every((stream) => table.get(stream.number) === stream));
  assert.equal(table.size, 3_000);
  assert.deepEqual(new Set(table.clear()), new Set(streams));
  assert.equal(table.size, 0);
  assert.ok(streams.every((stream) => table.get(stream.number) === undefined));
});
