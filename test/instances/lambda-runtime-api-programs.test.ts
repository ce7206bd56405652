import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { FunctionSpec, Version } from "../../src/core/function.ts";
import { limits } from "../../src/core/limits.ts";
import { runtimeApiWording } from "../../src/dialects/aws/runtime-api.ts";
import { createLambdaRuntimeApi } from "../../src/protocols/lambda-runtime-api.ts";
import { ProgramMachine } from "./program.ts";

/** A runtime in Node that does what the event's path says. */
const CLIENT = `
  import { request } from "node:http";
  const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
  const BASE = "/2018-06-01/runtime";
  function ask(method, path, { headers = {}, body = "", trailers } = {}) {
    return new Promise((resolve, reject) => {
      const sent = request({ host, port, method, path: BASE + path, headers }, async (answer) => {
        let text = "";
        for await (const part of answer) text += part;
        resolve({ status: answer.statusCode, headers: answer.headers, text });
      });
      sent.on("error", reject);
      for (const part of Array.isArray(body) ? body : [body]) if (part !== "") sent.write(part);
      if (trailers !== undefined) sent.addTrailers(trailers);
      sent.end();
    });
  }
  const next = () => ask("GET", "/invocation/next");`;

const LOOP = `${CLIENT}
  const ways = {};
  async function run() {
    for (;;) {
      const { headers, text } = await next();
      const id = headers["lambda-runtime-aws-request-id"];
      const event = JSON.parse(text);
      const way = ways[event.rawPath ?? event.way];
      if (way !== undefined) await way(id, event, headers);
      else await ask("POST", "/invocation/" + id + "/response", { body: JSON.stringify({ event, headers }) });
    }
  }`;

describe("programs that speak the Lambda Runtime API", { timeout: 180_000 }, () => {
  let machine: ProgramMachine;
  before(async () => {
    machine = await ProgramMachine.open([createLambdaRuntimeApi(runtimeApiWording)]);
  });
  after(() => machine[Symbol.asyncDispose]());

  const node = (source: string, spec: Partial<FunctionSpec> = {}): Promise<Version> =>
    machine.deploy(
      { "main.mjs": source },
      { runtime: "nodejs26.x", protocol: "lambda-runtime-api", command: ["node", "main.mjs"], ...spec },
    );

  test("an event arrives as it was sent, with its id, its deadline and a trace", async () => {
    const version = await node(`${LOOP} run();`);
    const lambda = { clientContext: { a: "ü" }, invokedFunctionArn: "arn:aws:lambda:x" };
    const call = { kind: "event", contentType: "application/json", context: { lambda } } as const;
    const answer = machine.run(version, call, `{"a":[1]}`);
    assert.equal(await answer.result, "succeeded", await answer.message);
    const { event, headers } = JSON.parse(answer.text) as { event: unknown; headers: Record<string, string> };
    assert.deepEqual(event, { a: [1] });
    assert.equal(headers["lambda-runtime-aws-request-id"], answer.id);
    assert.equal(headers["lambda-runtime-invoked-function-arn"], "arn:aws:lambda:x");
    assert.deepEqual(JSON.parse(headers["lambda-runtime-client-context"] ?? ""), { a: "ü" });
    assert.match(
      headers["lambda-runtime-trace-id"] ?? "",
      /^Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0$/,
    );
    const leftMs = Number(headers["lambda-runtime-deadline-ms"]) - Date.now();
    assert.ok(leftMs > 0 && leftMs <= 10_000, String(leftMs));
    assert.equal(headers["lambda-runtime-cognito-identity"], undefined);
  });

  test("an HTTP call is an event of payload format 2.0, and the answer of such a result", async () => {
    const version = await node(`${LOOP}
      ways["/answer"] = (id, event) => {
        const body = Buffer.from(event.requestContext.http.method + " " + event.body).toString("base64");
        const answer = { statusCode: 418, headers: { "x-a": "b" }, cookies: ["c=1", "d=2"], body, isBase64Encoded: true };
        return ask("POST", "/invocation/" + id + "/response", { body: JSON.stringify(answer) });
      };
      run();`);
    const answer = machine.call(
      version,
      { method: "POST", url: "/answer", headers: ["content-type", "text/plain"] },
      "tea",
    );
    assert.equal(await answer.result, "succeeded", await answer.message);
    assert.deepEqual([answer.status, answer.text, answer.header("x-a")], [418, "POST tea", "b"]);
    assert.equal(answer.headers.filter((name) => name === "set-cookie").length, 2);
  });

  test("what a program may not do is answered with Lambda's status codes, and the right thing still works", async () => {
    const version = await node(`${LOOP}
      let later;
      ways["/codes"] = async (id) => {
        const statuses = [];
        const tried = async (...given) => {
          const { status, text } = await ask(...given);
          statuses.push([status, JSON.parse(text).errorType ?? JSON.parse(text).status]);
        };
        await tried("POST", "/invocation/other/response", { body: "{}" });
        await tried("POST", "/invocation/other/error", { body: "{}" });
        await tried("GET", "/invocation/next");
        await tried("POST", "/init/error", { body: "{}" });
        await tried("POST", "/invocation/" + id + "/response", { headers: { "lambda-runtime-function-response-mode": "odd" } });
        await tried("GET", "/invocation/" + id + "/response");
        await tried("GET", "/nowhere");
        await tried("POST", "/invocation/" + id + "/response", { body: JSON.stringify(JSON.stringify(statuses)) });
        later = await ask("POST", "/invocation/" + id + "/response", { body: "{}" });
      };
      ways["/later"] = (id) => ask("POST", "/invocation/" + id + "/response", { body: JSON.stringify([later.status, later.text]) });
      run();`);
    const answer = machine.call(version, { url: "/codes" });
    assert.equal(await answer.result, "succeeded", await answer.message);
    assert.deepEqual(JSON.parse(answer.text), [
      [400, "InvalidRequestID"],
      [400, "InvalidRequestID"],
      [403, "InvalidStateTransition"],
      [403, "InvalidStateTransition"],
      [400, "InvalidFunctionResponseMode"],
      [405, "MethodNotAllowed"],
      [404, "NotFound"],
    ]);
    const later = machine.call(version, { url: "/later" });
    await later.result;
    const [status, text] = JSON.parse(later.text) as [number, string];
    assert.equal(status, 403);
    assert.match(text, /InvalidStateTransition/);
  });

  test("an error is the handler's, with type and stack", async () => {
    const version = await node(`${LOOP}
      ways["/fail"] = (id) => ask("POST", "/invocation/" + id + "/error", {
        headers: { "lambda-runtime-function-error-type": "Runtime.Unhandled" },
        body: JSON.stringify({ errorType: "RangeError", errorMessage: "too far", stackTrace: ["at a", "at b"] }),
      });
      ways["/bare"] = (id) => ask("POST", "/invocation/" + id + "/error", { headers: { "lambda-runtime-function-error-type": "Native.Odd" }, body: "no JSON" });
      run();`);
    const answer = machine.call(version, { url: "/fail" });
    const outcome = await answer.outcome;
    assert.equal(outcome.kind, "failed");
    assert.ok(outcome.kind === "failed");
    assert.equal(outcome.error.code, "handler-failed");
    const { told = "", ...cause } = outcome.error.cause ?? {};
    assert.deepEqual(cause, { type: "RangeError", message: "too far", stack: "at a\nat b" });
    assert.deepEqual(JSON.parse(told), {
      errorType: "RangeError",
      errorMessage: "too far",
      stackTrace: ["at a", "at b"],
    });
    assert.equal(await machine.call(version, { url: "/bare" }).message, "Native.Odd: no JSON");
  });

  test("an error while it initialises is told by the first call", async () => {
    const version = await node(`${CLIENT}
      await ask("POST", "/init/error", { body: JSON.stringify({ errorType: "Runtime.ImportModuleError", errorMessage: "no module x" }) });
      process.exit(1);`);
    const answer = machine.call(version);
    assert.equal(await answer.result, "handler-load-failed");
    assert.match(await answer.message, /Runtime\.ImportModuleError: no module x/);
  });

  test("a streamed answer flows as it comes, with status and headers of its own, and may fail at its end", async () => {
    const version = await node(`${LOOP}
      const mode = { "lambda-runtime-function-response-mode": "streaming" };
      const http = { ...mode, "content-type": "application/vnd.awslambda.http-integration-response" };
      const prelude = JSON.stringify({ statusCode: 203, headers: { "x-a": "b" }, cookies: ["c=1"] }) + "\\0".repeat(8);
      ways["/stream"] = (id) => ask("POST", "/invocation/" + id + "/response", { headers: http, body: [prelude.slice(0, 9), prelude.slice(9) + "one ", "two"] });
      ways["/plain"] = (id) => ask("POST", "/invocation/" + id + "/response", { headers: { ...mode, "content-type": "text/csv" }, body: ["a,", "b"] });
      ways["/large"] = (id) => ask("POST", "/invocation/" + id + "/response", { headers: mode, body: Array(200).fill(Buffer.alloc(64_000)) });
      ways["/fail"] = (id) => ask("POST", "/invocation/" + id + "/response", {
        headers: { ...mode, trailer: "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body", "transfer-encoding": "chunked" },
        body: ["half"],
        trailers: { "Lambda-Runtime-Function-Error-Type": "Late", "Lambda-Runtime-Function-Error-Body": Buffer.from('{"errorMessage":"at the end"}').toString("base64") },
      });
      ways["/odd"] = (id) => ask("POST", "/invocation/" + id + "/response", { headers: http, body: ["no prelude"] });
      run();`);
    const stream = machine.call(version, { url: "/stream" });
    assert.equal(await stream.result, "succeeded", await stream.message);
    assert.deepEqual([stream.status, stream.text, stream.header("x-a")], [203, "one two", "b"]);
    const plain = machine.call(version, { url: "/plain" });
    await plain.result;
    assert.deepEqual([plain.text, plain.header("content-type")], ["a,b", "text/csv"]);
    const large = machine.call(version, { url: "/large" });
    large.accepting = false;
    await large.until(() => large.bytes > 0);
    assert.ok(large.bytes < 1_000_000, String(large.bytes));
    large.accepting = true;
    large.exchange.resume();
    assert.equal(await large.result, "succeeded");
    assert.equal(large.bytes, 200 * 64_000);
    const failed = machine.call(version, { url: "/fail" });
    assert.equal(await failed.message, "Late: at the end");
    assert.equal(failed.bodyIsWhole, false);
    assert.equal(await machine.call(version, { url: "/odd" }).result, "invalid-response");
    assert.equal(await machine.call(version, { url: "/else" }).result, "succeeded");
  });

  test("an answer that is too large is refused, and the call fails", async () => {
    const version = await node(`${LOOP}
      let refused;
      ways["/large"] = async (id) => {
        refused = await ask("POST", "/invocation/" + id + "/response", { body: Buffer.alloc(${limits.programPayloadBytesMax + 1}, 32) });
      };
      ways["/refused"] = (id) => ask("POST", "/invocation/" + id + "/response", { body: JSON.stringify([refused.status, JSON.parse(refused.text).errorType]) });
      run();`);
    assert.equal(await machine.call(version, { url: "/large" }).result, "invalid-response");
    const answer = machine.call(version, { url: "/refused" });
    await answer.result;
    assert.deepEqual(JSON.parse(answer.text), [413, "RequestEntityTooLarge"]);
  });

  test("a call is over when the program asks for the next one; its answer is there before", async () => {
    const version = await node(`${LOOP}
      ways["/linger"] = async (id) => {
        await ask("POST", "/invocation/" + id + "/response", { body: "1" });
        await new Promise((resolve) => setTimeout(resolve, 300));
        console.log("after the answer");
      };
      run();`);
    const answer = machine.call(version, { url: "/linger" });
    await answer.until(() => answer.bodyIsWhole);
    assert.deepEqual(machine.linesOf(answer.id), []);
    assert.equal(await answer.result, "succeeded");
    const next = machine.call(version, { url: "/x" });
    await next.result;
    assert.deepEqual(machine.linesOf(answer.id), ["after the answer"]);
  });

  test("a program that ends without an answer fails its call, and another takes its place", async () => {
    const version = await node(`${LOOP}
      ways["/exit"] = () => process.exit(1);
      ways["/told"] = async (id) => {
        await ask("POST", "/invocation/" + id + "/error", { body: JSON.stringify({ errorType: "Fatal", errorMessage: "told" }) });
        process.exit(1);
      };
      run();`);
    assert.match(await machine.call(version, { url: "/exit" }).message, /exit code 1/);
    assert.equal(await machine.call(version, { url: "/told" }).message, "Fatal: told");
    assert.equal(await machine.call(version, { url: "/x" }).result, "succeeded");
  });

  test("a program that asks several times at once serves as many calls", async () => {
    const version = await node(
      `${LOOP}
       const waiting = [];
       ways["/meet"] = (id) => new Promise((resolve) => {
         waiting.push(() => resolve(ask("POST", "/invocation/" + id + "/response", { body: '"met"' })));
         if (waiting.length === 3) for (const go of waiting) go();
       });
       for (let count = 0; count < 3; count++) run();`,
      { instanceConcurrency: 3 },
    );
    const answers = Array.from({ length: 3 }, () => machine.call(version, { url: "/meet" }));
    const results = await Promise.all(answers.map((answer) => answer.result));
    assert.deepEqual(results, ["succeeded", "succeeded", "succeeded"]);
  });

  test("a program that never asks is not ready", async () => {
    const version = await node(`process.exit(0);`);
    assert.equal(await machine.call(version).result, "handler-load-failed");
  });
});
