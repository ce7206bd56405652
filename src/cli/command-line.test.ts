import assert from "node:assert/strict";
import { test } from "node:test";
import { parseCommandLine } from "./command-line.ts";

test("a command line is split as a shell would, and variables stay", () => {
  const cases: readonly (readonly [string, readonly string[]])[] = [
    ["./server", ["./server"]],
    ["  node  server.js --port $PORT ", ["node", "server.js", "--port", "$PORT"]],
    ["run ${PORT}", ["run", "${PORT}"]],
    [`say "two words" 'and $PORT' a\\ b`, ["say", "two words", "and $$PORT", "a b"]],
    [`say "$NAME \\"quoted\\" \\$5"`, ["say", '$NAME "quoted" $$5']],
    ["say ''", ["say", ""]],
  ];
  for (const [text, words] of cases) assert.deepEqual(parseCommandLine(text), words, text);
});

test("what only a shell understands is left to one, which sees the very text", () => {
  assert.deepEqual(parseCommandLine("a | b"), ["/bin/sh", "-c", "a | b"]);
  assert.deepEqual(parseCommandLine("echo $(date) $$"), ["/bin/sh", "-c", "echo $$(date) $$$$"]);
  assert.deepEqual(parseCommandLine("echo 'a | b'"), ["echo", "a | b"]);
});

test("an empty command, and a quote without an end, are refused", () => {
  assert.throws(() => parseCommandLine("  "), { message: "The command is empty" });
  assert.throws(() => parseCommandLine(`say "hello`), { message: /does not end/ });
});
