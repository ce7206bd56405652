import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePattern } from "./pattern.ts";

function fits(pattern: string, messages: readonly string[]): readonly boolean[] {
  const matches = parsePattern(pattern);
  return messages.map((message) => matches(message));
}

test("terms must all be there, in any order and with their letters as written", () => {
  assert.deepEqual(fits("ERROR", ["[ERROR 400] BAD", "error", "ok"]), [true, false, false]);
  assert.deepEqual(fits("ERROR ARGUMENTS", ["ERROR 419 MISSING ARGUMENTS", "ARGUMENTS ERROR", "ERROR"]), [
    true,
    true,
    false,
  ]);
  assert.deepEqual(fits('"INTERNAL SERVER ERROR"', ["[ERROR 500] INTERNAL SERVER ERROR", "INTERNAL ERROR"]), [
    true,
    false,
  ]);
  assert.deepEqual(fits("", ["anything"]), [true]);
});

test("a minus excludes, and question marks mean any of them where nothing is required", () => {
  assert.deepEqual(fits("ERROR -ARGUMENTS", ["ERROR x", "ERROR ARGUMENTS"]), [true, false]);
  assert.deepEqual(fits("?ERROR ?WARN", ["ERROR", "WARN", "INFO"]), [true, true, false]);
  assert.deepEqual(fits("-INFO", ["ERROR", "INFO"]), [true, false]);
});

test("regular expressions without groups are allowed, others refused", () => {
  assert.deepEqual(fits("%4[0-9]{2}%", ["status 404", "status 500"]), [true, false]);
  assert.deepEqual(fits("%^AUTH\\d+%", ["AUTH12", "x AUTH12"]), [true, false]);
  assert.throws(() => parsePattern("%(a+)+$%"), /not a regular expression that is supported/);
  assert.throws(() => parsePattern("%a*a*a*a*a*%"), /repeats too often/);
});

test("JSON is selected by paths and compared as text, number, truth and presence", () => {
  const event = JSON.stringify({
    level: "error",
    ms: 12,
    user: { id: 1, name: "ada" },
    tags: ["a", "b"],
    ok: false,
    none: null,
  });
  const yes = [
    '{ $.level = "error" }',
    "{ $.level = err* }",
    "{ $.ms > 5 && $.ms <= 12 }",
    '{ $.level = "info" || ($.user.id = 1 && $.ok IS FALSE) }',
    '{ $.tags[1] = "b" }',
    '{ $.tags[*] = "a" }',
    "{ $.none IS NULL }",
    "{ $.missing NOT EXISTS }",
    '{ $.level != "info" }',
    "{ $.user.name = %^a% }",
  ];
  const no = ['{ $.level = "ERROR" }', "{ $.ms > 12 }", "{ $.missing = 1 }", "{ $.ok IS TRUE }", '{ $.tags[0] = "b" }'];
  for (const pattern of yes) assert.deepEqual(fits(pattern, [event]), [true], pattern);
  for (const pattern of no) assert.deepEqual(fits(pattern, [event]), [false], pattern);
  assert.deepEqual(fits("{ $.a = 1 }", ["no json", "{broken", '2026 INFO {"a":1}']), [false, false, true]);
});

test("space-delimited fields are compared by their column", () => {
  const line = '127.0.0.1 frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534';
  assert.deepEqual(fits("[ip, user, time, request, status=4*, bytes]", [line]), [true]);
  assert.deepEqual(fits("[ip, user, time, request=*html*, status!=404, bytes]", [line]), [false]);
  assert.deepEqual(fits("[..., status=404, bytes > 1000]", [line]), [true]);
  assert.deepEqual(fits("[ip, user = frank || user = bob, ...]", [line]), [true]);
  assert.deepEqual(fits("[ip, user]", [line]), [false]);
});

test("what cannot be read is told, not taken for text", () => {
  for (const pattern of [
    "{ $.a = 1",
    "{ a = 1 }",
    "{ $.a ~ 1 }",
    "{ ($.a = 1 }",
    "[a, b=1",
    "{ $.a IS MAYBE }",
    "x".repeat(1_025),
  ])
    assert.throws(() => parsePattern(pattern), /Invalid filter pattern/, pattern);
});
