import assert from "node:assert/strict";
import { createServer } from "node:net";
import { test } from "node:test";
import { fakeVersion } from "./fakes.ts";
import { launchCommand, portFor } from "./recipe.ts";

const environment = { PORT: "8080", WORD: "a b" };

test("a command's variables become values, those of nobody stay, and two dollar signs are one", () => {
  const command = ["/bin/x", "$PORT", "--port=${PORT}", "$WORD", "$NOBODY", "$$PORT", "5$"];
  const launched = launchCommand(command, environment, { looksUp: false });
  assert.deepEqual(launched, ["/bin/x", "8080", "--port=8080", "a b", "$NOBODY", "$PORT", "5$"]);
});

test("programs of the package are found in it, and bare names are looked up inside", () => {
  assert.deepEqual(launchCommand(["./run"], environment, { looksUp: false }), ["/code/run"]);
  assert.deepEqual(launchCommand(["bin/../run"], environment, { looksUp: false }), ["/code/run"]);
  assert.deepEqual(launchCommand(["node", "x"], environment, { looksUp: false }), ["/usr/bin/env", "node", "x"]);
  assert.deepEqual(launchCommand(["node", "x"], environment, { looksUp: true }), ["node", "x"]);
  assert.deepEqual(launchCommand([], environment, { looksUp: true }), []);
});

test("in a network of its own a program has its port; in a shared one a free one, or an error that says so", async () => {
  const needs = { ability: "connect", port: 8080, readyMsMax: 1, environment: () => ({}) } as const;
  const { spec } = fakeVersion({});
  assert.equal(await portFor(spec, needs, { isShared: false }), 8080);
  assert.equal(await portFor({ ...spec, port: 81 }, needs, { isShared: false }), 81);
  const free = await portFor(spec, needs, { isShared: true });
  assert.ok(free > 1_023 && free !== 8080);
  const server = createServer().listen(free, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const taken = portFor({ ...spec, port: free }, needs, { isShared: true });
  await assert.rejects(taken, { code: "handler-load-failed", message: /is taken/ });
  server.close();
});
