import assert from "node:assert/strict";
import { test } from "node:test";
import { destinationSecrets, parseDestination } from "./destinations.ts";

test("a destination is a function, a topic or a URL", () => {
  const audit = { namespace: "team", package: "", name: "audit" };
  assert.deepEqual(parseDestination("function:audit", "team"), { kind: "function", ref: audit });
  assert.deepEqual(parseDestination("function:tools/audit:prod", "team"), {
    kind: "function",
    ref: { ...audit, package: "tools", qualifier: "prod" },
  });
  assert.deepEqual(parseDestination("topic:orders.failed", "team"), { kind: "topic", topic: "orders.failed" });
  assert.deepEqual(parseDestination("https://example.com/a?b=c", "team"), {
    kind: "url",
    url: "https://example.com/a?b=c",
  });
});

test("what is none is refused with the reason", () => {
  const refused: readonly (readonly [text: string, why: RegExp])[] = [
    ["audit", /begins with none/],
    ["mailto:a@b", /begins with none/],
    ["function:", /no name of a function/],
    ["function:other/p/f", /another namespace/],
    ["topic:a b", /no name of a topic/],
    ["https://", /no URL/],
    ["https://u:p@example.com/", /password/],
    ["https://example.com/#x", /#/],
  ];
  for (const [text, why] of refused)
    assert.throws(() => parseDestination(text, "team"), { code: "destination-refused", message: why }, text);
});

test("only what goes to URLs needs a secret", () => {
  assert.deepEqual(destinationSecrets(undefined, "n"), []);
  assert.deepEqual(destinationSecrets({ onSuccess: "function:f", secret: "S" }, "n"), []);
  assert.deepEqual(destinationSecrets({ onFailure: "https://example.com/" }, "n"), ["WEBHOOK_SECRET"]);
  assert.deepEqual(destinationSecrets({ onFailure: "https://example.com/", secret: "S" }, "n"), ["S"]);
});
