import assert from "node:assert/strict";
import { test } from "node:test";
import { messageEvent } from "./message.ts";

const attributes = { id: "1", source: "broker://x/y", type: "t", extensions: { partitionkey: "k" } };
const attributePrefixes = ["ce_"];

test("a plain message becomes the data of an event, with its headers beside it", () => {
  const event = messageEvent(
    { payload: Buffer.from('{"a":1}'), headers: [["trace", "7"]], attributePrefixes },
    attributes,
  );
  assert.deepEqual(event.data, { a: 1 });
  assert.deepEqual(event.extensions, { partitionkey: "k", headers: '{"trace":"7"}' });
  assert.deepEqual([event.id, event.source, event.type], ["1", "broker://x/y", "t"]);
});

test("a message without content is an event without data", () => {
  const event = messageEvent({ payload: null, headers: [], attributePrefixes }, attributes);
  assert.equal("data" in event, false);
});

test("an event in binary mode keeps its own attributes, and the order of its source", () => {
  const headers: [string, string][] = [
    ["ce_specversion", "1.0"],
    ["ce_id", "100 %"],
    ["ce_source", "/shop"],
    ["ce_type", "order.paid"],
    ["other", "x"],
  ];
  for (const contentType of ["application/json", undefined]) {
    const event = messageEvent(
      { payload: Buffer.from('{"a":1}'), headers, contentType, attributePrefixes },
      attributes,
    );
    assert.deepEqual([event.id, event.source, event.type, event.data], ["100 %", "/shop", "order.paid", { a: 1 }]);
    assert.deepEqual(event.extensions, { partitionkey: "k" });
  }
});

test("what says that it is an event and is not is a plain message", () => {
  const headers: [string, string][] = [["ce_specversion", "1.0"]];
  const event = messageEvent({ payload: Buffer.from("text"), headers, attributePrefixes }, attributes);
  assert.deepEqual([event.id, event.data], ["1", "text"]);
});

test("an event in structured mode keeps its own attributes", () => {
  const own = { specversion: "1.0", id: "o1", source: "/shop", type: "order.paid", data: 5 };
  const event = messageEvent({ payload: Buffer.from(JSON.stringify(own)), headers: [], attributePrefixes }, attributes);
  assert.deepEqual([event.id, event.type, event.data], ["o1", "order.paid", 5]);
});
