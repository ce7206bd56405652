import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";

const asRoot = process.getuid?.() === 0 ? [] : ["--user", "--map-root-user"];

test("what a network mode blocks cannot be reached by any attack", async () => {
  const suite = [process.execPath, "--disable-warning=ExperimentalWarning", "--test", "--test-reporter=tap"];
  const args = [...asRoot, "--net", "--mount", "--propagation", "slave", "--", ...suite];
  const child = spawn("unshare", [...args, join(import.meta.dirname, "network.suite.ts")], {
    env: { ...process.env, NODE_TEST_CONTEXT: undefined },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise((resolve) => child.once("exit", resolve)),
  ]);
  assert.equal(exitCode, 0, `${stdout}\n${stderr}`);
});
