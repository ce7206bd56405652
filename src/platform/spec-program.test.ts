import assert from "node:assert/strict";
import { test } from "node:test";
import { limits } from "../core/limits.ts";
import { createCustomRuntime } from "../runtimes/custom.ts";
import type { Runtime } from "../runtimes/runtime.ts";
import { completeSpec, specDigest, type SpecRequest } from "./spec.ts";

const node: Runtime = {
  name: "nodejs26.x",
  language: "nodejs",
  prepare: () => Promise.reject(new Error("not needed")),
};
const context = {
  runtimes: new Map([node, createCustomRuntime()].map((runtime) => [runtime.name, runtime])),
  models: () => ["web"],
  protocols: new Set(["http", "stdio"]),
  limits,
};
const base = { code: "sha256:0", dialect: "native" } as const;
const complete = (request: Partial<SpecRequest>): ReturnType<typeof completeSpec> =>
  completeSpec({ ...base, ...request }, context);

test("a program is described by protocol, command, port and ready path; functions with a handler are as before", () => {
  const command = ["./server", "--port", "$PORT"];
  const spec = complete({ runtime: "custom", protocol: "http", command, port: 3_000, readyPath: "/ready?x" });
  const { protocol, port, readyPath, handler } = spec;
  assert.deepEqual([protocol, spec.command, port, readyPath], ["http", command, 3_000, "/ready?x"]);
  assert.equal(handler, "server");
  assert.equal(complete({ runtime: "custom", protocol: "stdio" }).handler, "bootstrap");
  const plain = complete({});
  for (const field of ["protocol", "command", "port", "readyPath"]) assert.ok(!(field in plain), field);
  assert.notEqual(specDigest(spec), specDigest(complete({ runtime: "custom", protocol: "http", command })));
});

test("what does not fit together is refused, with what would", () => {
  const cases: readonly (readonly [Partial<SpecRequest>, RegExp])[] = [
    [{ runtime: "custom" }, /runtime 'custom' needs a protocol: http, stdio/],
    [{ command: ["./x"] }, /a command, port or ready path needs a protocol/],
    [{ port: 80 }, /needs a protocol/],
    [{ protocol: "gopher", command: ["./x"] }, /There is no protocol 'gopher'/],
    [{ protocol: "http" }, /needs a command, such as 'node server.js'/],
    [{ protocol: "http", command: [] }, /a command is a program and its arguments/],
    [{ protocol: "http", command: [""] }, /a command is a program and its arguments/],
    [{ protocol: "http", command: ["a\0b"] }, /a command is a program and its arguments/],
    [{ protocol: "http", command: ["x".repeat(9_000)] }, /at most 8192 bytes/],
    [{ protocol: "http", command: ["./x"], port: 0 }, /port is 0; allowed is a whole number from 1 to 65535/],
    [{ protocol: "http", command: ["./x"], readyPath: "ready" }, /begins with '\/'/],
    [{ protocol: "http", command: ["./x"], handlerModel: "web" }, /has no handler model/],
  ];
  for (const [request, message] of cases) assert.throws(() => complete(request), { message });
});
