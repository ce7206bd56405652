import assert from "node:assert/strict";
import { test } from "node:test";
import { KoineError } from "../core/errors.ts";
import { Gate } from "./gate.ts";

const forever = new AbortController().signal;

test("as many as allowed are inside, the others follow in their order", async () => {
  const gate = new Gate(1, 10);
  const order: string[] = [];
  const first = await gate.enter(forever);
  const later = ["b", "c"].map(async (name) => {
    using _place = await gate.enter(forever);
    order.push(name);
  });
  order.push("a");
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  await Promise.all(later);
  assert.deepEqual(order, ["a", "b", "c"]);
});

test("who gives up waiting takes no place", async () => {
  const gate = new Gate(1, 10);
  const first = await gate.enter(forever);
  const abort = new AbortController();
  const waiting = gate.enter(abort.signal);
  abort.abort();
  await assert.rejects(waiting, { name: "AbortError" });
  first[Symbol.dispose]();
  using _place = await gate.enter(forever);
});

test("when too many wait the next is turned away", async () => {
  const gate = new Gate(1, 1);
  const first = await gate.enter(forever);
  const second = gate.enter(forever);
  await assert.rejects(
    gate.enter(forever),
    (thrown) => thrown instanceof KoineError && thrown.code === "platform-overloaded",
  );
  first[Symbol.dispose]();
  (await second)[Symbol.dispose]();
});
