import assert from "node:assert/strict";
import { test } from "node:test";
import type { Activation, LogRecord } from "../../core/invocation.ts";
import { BLOCK_ROWS_MAX, type PackedActivations, PackedReader } from "./activation-rows.ts";
import { Backlog } from "./backlog.ts";

test("beyond the bound the oldest lines go first, then the oldest activations, and are counted", () => {
  const backlog = new Backlog({ recordsMax: 4, bytesMax: 1_000_000 });
  backlog.add({ activations: [activation("a"), activation("b")], logs: [line("1"), line("2"), line("3")] });
  assert.equal(backlog.dropped, 1);
  backlog.add({ activations: [activation("c"), activation("d"), activation("e")], logs: [] });
  assert.equal(backlog.dropped, 4);
  const { activations, logs } = backlog.take(10);
  assert.ok(activations !== null);
  assert.deepEqual(
    unpacked(activations.pack()).map(({ id }) => id),
    ["b", "c", "d", "e"],
  );
  assert.deepEqual(logs, []);
  assert.equal(backlog.records, 0);
});

test("long lines count by their length", () => {
  const backlog = new Backlog({ recordsMax: 1_000, bytesMax: 3_000 });
  backlog.add({ activations: [], logs: [line("x".repeat(1_000)), line("y".repeat(1_000)), line("z".repeat(1_000))] });
  assert.equal(backlog.dropped, 1);
  assert.equal(backlog.take(1).logs[0]?.line[0], "y");
  backlog.add({ activations: [], logs: [line("w".repeat(1_000))] });
  assert.equal(backlog.dropped, 1);
});

test("what is put back is the oldest again, and in order", () => {
  const backlog = new Backlog({ recordsMax: 10, bytesMax: 1_000_000 });
  backlog.add({ activations: [], logs: ["1", "2", "3", "4"].map(line) });
  backlog.putBack(backlog.take(2));
  assert.deepEqual(
    backlog.take(3).logs.map(({ line }) => line),
    ["1", "2", "3"],
  );
});

test("many activations come in blocks, in order, whatever their text", () => {
  const backlog = new Backlog({ recordsMax: 10_000, bytesMax: 64 * 1024 * 1024 });
  const odd = { ...activation('"ä\u2028\n\\'), durationMs: 0.125, status: null };
  const large = activation("x".repeat(400_000));
  const many = Array.from({ length: BLOCK_ROWS_MAX + 1 }, (_, index) => activation(String(index)));
  backlog.add({ activations: [odd, large, ...many], logs: [] });
  const taken: Activation[] = [];
  for (let block = backlog.take(0).activations; block !== null; block = backlog.take(0).activations)
    taken.push(...unpacked(block.pack()));
  assert.deepEqual(taken, [odd, large, ...many]);
  assert.equal(backlog.records, 0);
});

function activation(id: string): Activation {
  const names = { namespace: "default", package: "", name: "hello", version: 1, instanceId: "i" };
  const figures = { durationMs: 1, queuedMs: 0, startMs: 0, cold: false, memoryBytes: 0, status: 200, error: null };
  return { id, ...names, ...figures, mode: "sync", attempt: 1, state: "succeeded", startedAtMs: 0 };
}

function line(text: string): LogRecord {
  const names = { namespace: "default", package: "", name: "hello", version: 1, instanceId: "i", activationId: null };
  return { ...names, timeMs: 0, stream: "stdout", line: text };
}

function unpacked(packed: PackedActivations): readonly Activation[] {
  const activations: Activation[] = [];
  for (const reader = new PackedReader(packed); reader.advance();) activations.push(reader.activation());
  return activations;
}
