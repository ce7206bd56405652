import assert from "node:assert/strict";
import { test } from "node:test";
import { KoineError } from "../core/errors.ts";
import type { CloudEvent } from "../core/event.ts";
import { compilePattern } from "./pattern.ts";

const order: CloudEvent = {
  specversion: "1.0",
  id: "1",
  source: "/shop",
  type: "order.paid",
  subject: "orders/17",
  extensions: { region: "eu-west" },
  data: {
    amount: 120,
    currency: "EUR",
    express: true,
    coupon: null,
    ip: "10.1.2.3",
    tags: ["new", "vip"],
    customer: { name: "Ada", address: { city: "London" } },
    items: [
      { sku: "a-1", count: 2 },
      { sku: "b-2", count: 9 },
    ],
  },
};

/** Each story: what the pattern says, the pattern, whether the order matches. */
const stories: readonly (readonly [string, unknown, boolean])[] = [
  ["a value equals", { type: ["order.paid"] }, true],
  ["one of several values equals", { type: ["order.made", "order.paid"] }, true],
  ["no value equals", { type: ["order.made"] }, false],
  ["text is case-sensitive", { type: ["Order.paid"] }, false],
  ["a number is not its text", { data: { amount: ["120"] } }, false],
  ["numbers equal by value", { data: { amount: [120.0] } }, true],
  ["true equals true", { data: { express: [true] } }, true],
  ["null equals null", { data: { coupon: [null] } }, true],
  ["null does not equal what is not there", { data: { missing: [null] } }, false],
  ["every named field must match", { type: ["order.paid"], source: ["/other"] }, false],
  ["extensions stand beside attributes", { region: ["eu-west"] }, true],
  ["fields nest", { data: { customer: { address: { city: ["London"] } } } }, true],
  ["a text has no fields", { data: { currency: { code: ["EUR"] } } }, false],
  ["an inherited name is not a field", { data: { toString: [{ exists: true }] } }, false],
  ["one element of an array matches", { data: { tags: ["vip"] } }, true],
  ["no element of an array matches", { data: { tags: ["old"] } }, false],
  ["an object in an array matches", { data: { items: { sku: ["b-2"], count: [9] } } }, true],
  ["fields of two objects in an array do not match together", { data: { items: { sku: ["b-2"], count: [2] } } }, false],
  ["prefix", { source: [{ prefix: "/sh" }] }, true],
  ["prefix, not", { source: [{ prefix: "sh" }] }, false],
  ["prefix of a number", { data: { amount: [{ prefix: "1" }] } }, false],
  ["prefix in any case", { type: [{ prefix: { "equals-ignore-case": "ORDER." } }] }, true],
  ["suffix", { type: [{ suffix: ".paid" }] }, true],
  ["suffix in any case", { type: [{ suffix: { "equals-ignore-case": ".PAID" } }] }, true],
  ["suffix, not", { type: [{ suffix: "paid." }] }, false],
  ["equals-ignore-case", { data: { currency: [{ "equals-ignore-case": "eur" }] } }, true],
  ["equals-ignore-case, not", { data: { currency: [{ "equals-ignore-case": "eu" }] } }, false],
  ["wildcard in the middle", { subject: [{ wildcard: "o*s/1*" }] }, true],
  ["wildcard may stand for nothing", { type: [{ wildcard: "order*.paid" }] }, true],
  ["wildcard pieces do not overlap", { type: [{ wildcard: "order.paid*paid" }] }, false],
  ["wildcard without a star is equality", { type: [{ wildcard: "order" }] }, false],
  ["wildcard: an escaped star is a star", { type: [{ wildcard: String.raw`order\*` }] }, false],
  ["anything-but a value", { data: { currency: [{ "anything-but": "USD" }] } }, true],
  ["anything-but a list, not", { data: { currency: [{ "anything-but": ["USD", "EUR"] }] } }, false],
  ["anything-but a number", { data: { amount: [{ "anything-but": [1, 2] }] } }, true],
  ["anything-but needs the field", { data: { missing: [{ "anything-but": "x" }] } }, false],
  ["anything-but a prefix, not", { type: [{ "anything-but": { prefix: "order" } }] }, false],
  ["anything-but several suffixes", { type: [{ "anything-but": { suffix: [".made", ".sent"] } }] }, true],
  ["anything-but a wildcard, not", { type: [{ "anything-but": { wildcard: "*.paid" } }] }, false],
  [
    "anything-but in any case, not",
    { data: { currency: [{ "anything-but": { "equals-ignore-case": "eur" } }] } },
    false,
  ],
  ["numeric above", { data: { amount: [{ numeric: [">", 100] }] } }, true],
  ["numeric range", { data: { amount: [{ numeric: [">=", 120, "<", 121] }] } }, true],
  ["numeric range, not", { data: { amount: [{ numeric: [">", 120, "<", 121] }] } }, false],
  ["numeric equal", { data: { amount: [{ numeric: ["=", 120] }] } }, true],
  ["numeric of a text", { data: { currency: [{ numeric: [">", 0] }] } }, false],
  ["cidr", { data: { ip: [{ cidr: "10.0.0.0/8" }] } }, true],
  ["cidr, not", { data: { ip: [{ cidr: "192.168.0.0/16" }] } }, false],
  ["cidr of the other family", { data: { ip: [{ cidr: "::/0" }] } }, false],
  ["cidr of what is no address", { type: [{ cidr: "0.0.0.0/0" }] }, false],
  ["exists", { data: { coupon: [{ exists: true }] } }, true],
  ["exists, not there", { data: { missing: [{ exists: true }] } }, false],
  ["does not exist", { data: { missing: [{ exists: false }] } }, true],
  ["does not exist below what does not exist", { data: { missing: { deeper: [{ exists: false }] } } }, true],
  ["does not exist, but does", { data: { coupon: [{ exists: false }] } }, false],
  ["$or", { $or: [{ type: ["x"] }, { source: ["/shop"] }] }, true],
  ["$or, none", { $or: [{ type: ["x"] }, { source: ["y"] }] }, false],
  [
    "$or beside another field",
    { source: ["/shop"], $or: [{ data: { amount: [1] } }, { data: { express: [true] } }] },
    true,
  ],
  [
    "$or beside a field that does not match",
    { source: ["x"], $or: [{ type: ["order.paid"] }, { type: ["y"] }] },
    false,
  ],
  ["$or within a field", { data: { $or: [{ amount: [1] }, { currency: ["EUR"] }] } }, true],
];

for (const [name, pattern, matches] of stories) {
  test(`pattern: ${name}`, () => assert.equal(compilePattern(pattern)(order), matches));
}

/** What is wrong, and a part of what the error says. */
const refusals: readonly (readonly [unknown, RegExp])[] = [
  [[], /must be an object/],
  [{}, /at least one field/],
  [{ type: "order.paid" }, /'type' must be an array/],
  [{ type: [] }, /'type' must hold at least one value/],
  [{ data: { a: {} } }, /'data\.a' must name at least one field/],
  [{ type: [{ starts: "a" }] }, /'type' has no matcher 'starts'/],
  [{ type: [{ prefix: "a", suffix: "b" }] }, /exactly one/],
  [{ type: [{ prefix: 1 }] }, /prefix must be a text/],
  [{ type: [{ exists: "yes" }] }, /true or false/],
  [{ data: { n: [{ numeric: [">"] }] } }, /numeric must be like/],
  [{ data: { n: [{ numeric: ["toString", 1] }] } }, /numeric must be like/],
  [{ data: { n: [{ cidr: "10.0.0.0/33" }] } }, /cidr must be like/],
  [{ data: { n: [{ "anything-but": [] }] } }, /'data\.n\.anything-but'/],
  [{ type: [{ wildcard: "a**b" }] }, /two stars/],
  [{ $or: [{ type: ["a"] }] }, /at least two/],
  [{ type: ["x".repeat(20_000)] }, /longer than/],
];

test("a pattern that cannot be meant is refused, and the place is named", () => {
  for (const [pattern, says] of refusals) {
    assert.throws(
      () => compilePattern(pattern),
      (error) => error instanceof KoineError && error.code === "invalid-pattern" && says.test(error.message),
    );
  }
});

test("a wildcard with many stars does not take long on a text that almost matches", () => {
  const filter = compilePattern({ type: [{ wildcard: `${"a*".repeat(60)}b` }] });
  assert.equal(filter({ ...order, type: "a".repeat(100_000) }), false);
});
