import assert from "node:assert/strict";
import { test } from "node:test";
import { type Answer, NodeInstance } from "./node-instance.ts";

const start = (code: string, environment = {}): Promise<NodeInstance> =>
  NodeInstance.start({ files: { "index.cjs": code }, handler: "index.handler", environment });

async function eventResult(code: string, event: unknown = {}): Promise<Answer> {
  await using instance = await start(code);
  // Awaited here: the instance ends with this block.
  return await instance.event(event).answer;
}

for (const [what, code, expected] of [
  ["an async function", "exports.handler = async (event) => ({ got: event.a });", { got: 1 }],
  ["an async function without a result", "exports.handler = async () => {};", null],
  ["a plain function", "exports.handler = (event) => event.a + 1;", 2],
  ["a plain function without a result", "exports.handler = (event) => {};", null],
  ["a callback", "exports.handler = (event, context, callback) => setImmediate(callback, null, event.a);", 1],
  [
    "a callback from an async function",
    "exports.handler = async (e, c, callback) => { callback(null, 'first'); return 'second'; };",
    "first",
  ],
  [
    "context.succeed",
    "exports.handler = (event, context) => { setImmediate(() => context.succeed('done')); };",
    "done",
  ],
  [
    "context.done",
    "exports.handler = (event, context) => { setImmediate(() => context.done(null, 'done')); };",
    "done",
  ],
] as const) {
  test(`a Lambda handler answers by ${what}`, async () => {
    const answer = await eventResult(code, { a: 1 });
    assert.deepEqual(JSON.parse(answer.body.toString()), expected);
    assert.equal(answer.ending, "succeeded");
  });
}

for (const [what, code, type, message] of [
  ["an async function that throws", "exports.handler = async () => { throw new TypeError('no'); };", "TypeError", "no"],
  ["a plain function that throws", "exports.handler = () => { throw new TypeError('no'); };", "TypeError", "no"],
  ["the callback", "exports.handler = (e, c, callback) => callback(new RangeError('no'));", "RangeError", "no"],
  ["context.fail with text", "exports.handler = (e, context) => context.fail('no');", "string", "no"],
] as const) {
  test(`a Lambda handler fails by ${what}`, async () => {
    const answer = await eventResult(code);
    assert.equal(answer.error?.code, "handler-failed");
    assert.deepEqual([answer.error?.cause?.type, answer.error?.cause?.message], [type, message]);
  });
}

for (const [what, code, expected] of [
  ["a circular result", "const a = {}; a.a = a; exports.handler = async () => a;", /circular/],
  ["a result that JSON has no form for", "exports.handler = async () => ({ n: 10n });", /BigInt/],
] as const) {
  test(`${what} is an invalid response`, async () => {
    const answer = await eventResult(code);
    assert.equal(answer.error?.code, "invalid-response");
    assert.match(answer.error?.message ?? "", expected);
  });
}

test("a payload that is no JSON is refused", async () => {
  const answer = await eventResult("exports.handler = async () => 1;", "{");
  assert.equal(answer.error?.code, "invalid-response");
});

test("the context has Lambda's fields", async () => {
  await using instance = await start("exports.handler = async (e, c) => ({ ...c, ms: c.getRemainingTimeInMillis() });");
  const running = instance.event({}, { lambda: { clientContext: { custom: 1 }, invokedFunctionArn: "arn:x" } });
  const { ms, ...context } = JSON.parse((await running.answer).body.toString());
  assert.ok(ms > 0 && ms <= 30_000 && Number.isInteger(ms));
  assert.deepEqual(context, {
    callbackWaitsForEmptyEventLoop: true,
    functionName: "greet",
    functionVersion: "3",
    memoryLimitInMB: "256",
    logGroupName: "/aws/lambda/greet",
    logStreamName: "[3]",
    clientContext: { custom: 1 },
    invokedFunctionArn: "arn:x",
    awsRequestId: running.id,
  });
});

test("module-level code finds Lambda's variables; the function's own win", async () => {
  const code = `const seen = [process.env.AWS_LAMBDA_FUNCTION_NAME, process.env._HANDLER, process.env.AWS_LAMBDA_FUNCTION_VERSION,
    process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE, process.env.LAMBDA_TASK_ROOT === process.cwd()];
    exports.handler = async () => seen;`;
  await using instance = await start(code, { AWS_LAMBDA_FUNCTION_VERSION: "mine" });
  const answer = await instance.event({}).answer;
  assert.deepEqual(JSON.parse(answer.body.toString()), ["greet", "index.handler", "mine", "256", true]);
});

test("a web function does not look like a Lambda function", async () => {
  const code =
    "export default () => Response.json(Object.keys(process.env).filter((name) => name.includes('LAMBDA')));";
  await using instance = await NodeInstance.start({ files: { "index.mjs": code } });
  assert.equal((await instance.http().answer).body.toString(), "[]");
});

test("an HTTP call arrives as payload 2.0", async () => {
  await using instance = await start("exports.handler = async (event) => event;");
  const headers = [
    "Host",
    "api.example.com",
    "User-Agent",
    "test",
    "Cookie",
    "a=1; b=2",
    "X-Twice",
    "1",
    "X-Twice",
    "2",
    "Content-Type",
    "text/plain",
  ];
  const running = instance.http({ method: "POST", url: "/a%20b/c?x=1&x=2&y=%C3%A9", headers }, "hällo");
  const event = JSON.parse((await running.answer).body.toString());
  const { time, timeEpoch } = event.requestContext;
  assert.match(time, /^\d\d\/[A-Z][a-z]{2}\/\d{4}:\d\d:\d\d:\d\d \+0000$/);
  assert.deepEqual(event, {
    version: "2.0",
    routeKey: "$default",
    rawPath: "/a%20b/c",
    rawQueryString: "x=1&x=2&y=%C3%A9",
    cookies: ["a=1", "b=2"],
    headers: { host: "api.example.com", "user-agent": "test", "x-twice": "1,2", "content-type": "text/plain" },
    queryStringParameters: { x: "1,2", y: "é" },
    requestContext: {
      accountId: "000000000000",
      apiId: "koine",
      domainName: "api.example.com",
      domainPrefix: "api",
      http: { method: "POST", path: "/a%20b/c", protocol: "HTTP/1.1", sourceIp: "127.0.0.1", userAgent: "test" },
      requestId: running.id,
      routeKey: "$default",
      stage: "$default",
      time,
      timeEpoch,
    },
    body: "hällo",
    isBase64Encoded: false,
  });
});

test("a body that is no text arrives in base64", async () => {
  await using instance = await start(
    "exports.handler = async (e) => [e.isBase64Encoded, Buffer.from(e.body, 'base64').toString('hex')];",
  );
  const headers = ["content-type", "image/png"];
  const answer = await instance.http({ method: "POST", headers }, Buffer.from([0x89, 0x50, 0xff])).answer;
  assert.deepEqual(JSON.parse(answer.body.toString()), [true, "8950ff"]);
});

for (const [what, result, expected] of [
  [
    "a status and text",
    `{ statusCode: 201, headers: { "Content-Type": "text/x", n: 5 }, body: "made" }`,
    [201, { "content-type": "text/x", n: "5" }, "made"],
  ],
  ["a status only", `{ statusCode: "204" }`, [204, { "content-type": "application/json" }, ""]],
  [
    "bytes",
    `{ statusCode: 200, headers: { "content-type": "a/b" }, body: "gIE=", isBase64Encoded: true }`,
    [200, { "content-type": "a/b" }, "\ufffd\ufffd"],
  ],
  [
    "cookies",
    `{ statusCode: 200, cookies: ["a=1", "b=2"], body: "" }`,
    [200, { "set-cookie": "a=1|b=2", "content-type": "application/json" }, ""],
  ],
  [
    "values by name",
    `{ statusCode: 200, headers: { a: "0" }, multiValueHeaders: { A: ["1", "2"] } }`,
    [200, { a: "1|2", "content-type": "application/json" }, ""],
  ],
  ["a bare object", `{ ok: true }`, [200, { "content-type": "application/json" }, '{"ok":true}']],
  ["bare text", `"hello"`, [200, { "content-type": "application/json" }, "hello"]],
  ["nothing", `undefined`, [200, { "content-type": "application/json" }, "null"]],
] as const) {
  test(`a result over HTTP: ${what}`, async () => {
    await using instance = await start(`exports.handler = async () => (${result});`);
    const answer = await instance.http().answer;
    assert.deepEqual([answer.status, answer.headers, answer.body.toString()], expected);
  });
}

for (const result of [
  `{ statusCode: 700 }`,
  `{ statusCode: 200, body: {} }`,
  `{ statusCode: 200, headers: { "a b": "c" } }`,
]) {
  test(`a result that HTTP has no form for is an invalid response: ${result}`, async () => {
    await using instance = await start(`exports.handler = async () => (${result});`);
    assert.equal((await instance.http().answer).error?.code, "invalid-response");
    assert.equal((await instance.http().answer).ending, "failed");
  });
}

test("a streamed answer has its own status and comes as it is written", async () => {
  const code = `
    let next;
    exports.handler = awslambda.streamifyResponse(async (event, stream) => {
      if (event.rawPath === "/next") { next(); stream.end(); return; }
      const out = awslambda.HttpResponseStream.from(stream, { statusCode: 202, headers: { "content-type": "text/x" }, cookies: ["a=1"] });
      out.write("one ");
      await new Promise((resolve) => (next = resolve));
      out.end("two".repeat(200000));
    });`;
  await using instance = await start(code);
  const running = instance.http();
  await running.until(() => running.text === "one ");
  await instance.http({ url: "/next" }).answer;
  const answer = await running.answer;
  assert.equal(answer.status, 202);
  assert.deepEqual(answer.headers, { "content-type": "text/x", "set-cookie": "a=1" });
  assert.equal(answer.body.length, 4 + 600_000);
});
