import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { runtimeApiWording } from "../../src/dialects/aws/runtime-api.ts";
import { createActionProxyProtocol } from "../../src/protocols/action-proxy.ts";
import { createHttpProtocol } from "../../src/protocols/http.ts";
import { createLambdaRuntimeApi } from "../../src/protocols/lambda-runtime-api.ts";
import { createStdioProtocol } from "../../src/protocols/stdio.ts";
import { ProgramMachine } from "./program.ts";

describe("programs without isolation, which share the machine's network", { timeout: 120_000 }, () => {
  let machine: ProgramMachine;
  before(async () => {
    const protocols = [
      createHttpProtocol(),
      createStdioProtocol(),
      createLambdaRuntimeApi(runtimeApiWording),
      createActionProxyProtocol(),
    ];
    machine = await ProgramMachine.open(protocols, { driver: "none" });
  });
  after(() => machine[Symbol.asyncDispose]());

  const node = ["node", "main.mjs"];

  test("instances that listen have a port each", async () => {
    const source = `import { createServer } from "node:http";
      createServer((request, response) => setTimeout(() => response.end(process.env.PORT), 100)).listen(Number(process.env.PORT), "127.0.0.1");`;
    const version = await machine.deploy(
      { "main.mjs": source },
      { runtime: "nodejs26.x", protocol: "http", command: node },
    );
    const answers = [1, 2].map(() => machine.call(version));
    for (const answer of answers) assert.equal(await answer.result, "succeeded", await answer.message);
    assert.notEqual(answers[0]?.text, answers[1]?.text);
  });

  test("a script runs for each call, in its package", async () => {
    const version = await machine.deploy(
      { bootstrap: "#!/bin/sh\ncat word.txt -", "word.txt": "the word: " },
      { protocol: "stdio" },
    );
    const answer = machine.call(version, { method: "POST" }, "hello");
    assert.deepEqual([await answer.result, answer.text], ["succeeded", "the word: hello"]);
  });

  test("a custom runtime finds where to ask for work", async () => {
    const source = `
      const base = "http://" + process.env.AWS_LAMBDA_RUNTIME_API + "/2018-06-01/runtime/invocation/";
      for (;;) {
        const next = await fetch(base + "next");
        const id = next.headers.get("lambda-runtime-aws-request-id");
        await next.text();
        await fetch(base + id + "/response", { method: "POST", body: '"done"' });
      }`;
    const spec = { runtime: "nodejs26.x", protocol: "lambda-runtime-api", command: node };
    const version = await machine.deploy({ "main.mjs": source }, spec);
    const answers = [1, 2, 3].map(() => machine.call(version));
    for (const answer of answers) assert.deepEqual([await answer.result, answer.text], ["succeeded", "done"]);
  });

  test("an action proxy is initialised on its own port", async () => {
    const source = `import { createServer } from "node:http";
      createServer((request, response) => { request.resume().on("end", () => response.end('{"ok":true}')); }).listen(Number(process.env.PORT), "127.0.0.1");`;
    const spec = { runtime: "nodejs26.x", protocol: "action-proxy", command: node };
    const version = await machine.deploy({ "main.mjs": source }, spec);
    const answer = machine.run(version, { kind: "event", contentType: "application/json" }, "{}");
    assert.deepEqual([await answer.result, answer.text], ["succeeded", `{"ok":true}`]);
  });
});
