import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { test } from "node:test";
import { childrenOf, descendantsOf, residentBytes, send, sendToTree, startTimeOf } from "./tree.ts";

test("a tree of processes is seen, measured and ended", { skip: process.platform !== "linux" }, async () => {
  const child = spawn("/bin/sh", ["-c", "sleep 1000 & echo up; wait"], { stdio: ["ignore", "pipe", "inherit"] });
  const pid = child.pid ?? 0;
  await new Promise((resolve) => child.stdout.once("data", resolve));
  assert.ok(childrenOf(process.pid).includes(pid));
  assert.equal(descendantsOf(pid).length, 1);
  assert.ok(residentBytes([pid, ...descendantsOf(pid)]) > 0);
  assert.match(startTimeOf(pid) ?? "", /^\d+$/);
  sendToTree(() => [...descendantsOf(pid), pid], "SIGKILL");
  await new Promise((resolve) => child.once("exit", resolve));
  assert.deepEqual([descendantsOf(pid), residentBytes([pid]), startTimeOf(pid), send(pid, 0)], [[], 0, null, false]);
});
