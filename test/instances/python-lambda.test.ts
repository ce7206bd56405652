import assert from "node:assert/strict";
import { test } from "node:test";
import { type Answer, PythonInstance } from "./python-instance.ts";

const json = (answer: Answer): unknown => JSON.parse(answer.body.toString());
const echo = { "app.py": "def handler(event, context):\n    return event\n" };

test("an event call hands the JSON in and the result out", async () => {
  await using instance = await PythonInstance.start({ files: echo });
  const answer = await instance.event({ a: [1, "ü", null] }).answer;
  assert.equal(answer.ending, "succeeded");
  assert.equal(answer.head?.status, 200);
  assert.deepEqual(json(answer), { a: [1, "ü", null] });
});

test("None becomes null, an empty payload becomes an empty event", async () => {
  await using instance = await PythonInstance.start({
    files: { "app.py": "def handler(event, context):\n    assert event == {}\n" },
  });
  assert.equal((await instance.send("").answer).body.toString(), "null");
});

test("the context tells what AWS tells", async () => {
  const source = `
import os
seen = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
def lambda_handler(event, context):
    names = ("aws_request_id function_name function_version memory_limit_in_mb invoked_function_arn "
             "log_group_name client_context").split()
    told = {name: getattr(context, name) for name in names}
    told["stream"] = "[3]" in context.log_stream_name
    told["variable"] = os.environ["AWS_LAMBDA_FUNCTION_NAME"] + seen
    told["identity"] = context.identity.cognito_identity_id
    told["remaining"] = 0 < context.get_remaining_time_in_millis() <= 30000
    return told
`;
  await using instance = await PythonInstance.start({
    files: { "app.py": source },
    handler: "app.lambda_handler",
  });
  const running = instance.event({});
  assert.deepEqual(json(await running.answer), {
    aws_request_id: running.id,
    function_name: "greet",
    function_version: "3",
    memory_limit_in_mb: "128",
    invoked_function_arn: "arn:aws:lambda:us-east-1:000000000000:function:greet:3",
    log_group_name: "/aws/lambda/greet",
    client_context: null,
    stream: true,
    variable: "greet128",
    identity: null,
    remaining: true,
  });
});

test("an HTTP call arrives as an API Gateway event of format 2.0", async () => {
  await using instance = await PythonInstance.start({ files: echo });
  const headers = ["Host", "x.test", "X-A", "1", "x-a", "2", "Cookie", "s=1; t=2", "User-Agent", "me"];
  const running = instance.http(
    { method: "POST", url: "/a%20b/c?q=1&q=2&e=&u=%C3%BC", headers, origin: "https://fn.example.org:8443" },
    "text",
  );
  const event = json(await running.answer) as Record<string, Record<string, unknown>>;
  const { time, timeEpoch, ...context } = event["requestContext"] ?? {};
  assert.match(String(time), /^\d\d\/[A-Z][a-z]{2}\/\d{4}:\d\d:\d\d:\d\d \+0000$/);
  assert.equal(typeof timeEpoch, "number");
  assert.deepEqual(context, {
    accountId: "000000000000",
    apiId: "koine",
    domainName: "x.test",
    domainPrefix: "x",
    http: { method: "POST", path: "/a%20b/c", protocol: "HTTP/1.1", sourceIp: "10.1.2.3", userAgent: "me" },
    requestId: running.id,
    routeKey: "$default",
    stage: "$default",
  });
  delete event["requestContext"];
  assert.deepEqual(event, {
    version: "2.0",
    routeKey: "$default",
    rawPath: "/a%20b/c",
    rawQueryString: "q=1&q=2&e=&u=%C3%BC",
    headers: { host: "x.test", "x-a": "1,2", "user-agent": "me" },
    cookies: ["s=1", "t=2"],
    queryStringParameters: { q: "1,2", e: "", u: "ü" },
    body: "text",
    isBase64Encoded: false,
  });
});

test("a binary body arrives as Base64", async () => {
  await using instance = await PythonInstance.start({ files: echo });
  const bytes = Buffer.from([0, 255, 1, 254]);
  const headers = ["Content-Type", "application/octet-stream"];
  const event = json(await instance.http({ method: "PUT", headers }, bytes).answer) as Record<string, unknown>;
  assert.equal(event["body"], bytes.toString("base64"));
  assert.equal(event["isBase64Encoded"], true);
});

test("the response shape sets status, headers, cookies and a binary body", async () => {
  const source = `
def handler(event, context):
    return {"statusCode": "201", "headers": {"X-N": 5, "Content-Length": "99", "X-None": None, "Content-Type": "image/png"}, "cookies": ["a=1", "b=2"],
            "body": "AAEC/w==", "isBase64Encoded": True}
`;
  await using instance = await PythonInstance.start({ files: { "app.py": source } });
  const answer = await instance.http({}).answer;
  assert.equal(answer.head?.status, 201);
  assert.deepEqual(answer.head?.headers, [
    "x-n",
    "5",
    "content-type",
    "image/png",
    "set-cookie",
    "a=1",
    "set-cookie",
    "b=2",
  ]);
  assert.deepEqual([...answer.body], [0, 1, 2, 255]);
});

test("what is not a response shape becomes a JSON body with 200", async () => {
  const source = `
import decimal
def handler(event, context):
    return {"/s": "plain", "/d": {"n": decimal.Decimal("1.5")}, "/n": None}[event["rawPath"]]
`;
  await using instance = await PythonInstance.start({ files: { "app.py": source } });
  for (const [url, body] of [
    ["/s", "plain"],
    ["/d", '{"n": 1.5}'],
    ["/n", "null"],
  ] as const) {
    const answer = await instance.http({ url }).answer;
    assert.equal(answer.body.toString(), body);
    assert.deepEqual(answer.head, { status: 200, headers: ["content-type", "application/json"] });
  }
});

test("answers that cannot be used say why", async () => {
  const source = `
def circular():
    ring = []
    ring.append(ring)
    return ring
cases = {
    "set": lambda: {1, 2}, "nan": lambda: float("nan"), "ring": circular, "deep": lambda: deep(),
    "status": lambda: {"statusCode": "ok"}, "body": lambda: {"statusCode": 200, "body": {"a": 1}},
    "header": lambda: {"statusCode": 200, "headers": {"a": []}},
}
def deep():
    nested = []
    for _ in range(100000):
        nested = [nested]
    return nested
def handler(event, context):
    return cases[event["rawPath"][1:]]()
`;
  await using instance = await PythonInstance.start({ files: { "app.py": source } });
  const reasons: Record<string, RegExp> = {
    set: /set cannot be written as JSON/,
    nan: /Out of range float|JSON/,
    ring: /Circular reference/,
    deep: /cannot be written as JSON/,
    status: /statusCode must be a number from 200 to 599, not 'ok'/,
    body: /the body must be a str .*not dict/,
    header: /header 'a' must be a str or a number, not list/,
  };
  for (const [name, reason] of Object.entries(reasons)) {
    const answer = await instance.http({ url: `/${name}` }).answer;
    assert.equal(answer.error?.code, "invalid-response", name);
    assert.match(answer.error?.message ?? "", reason);
    assert.equal(answer.head, null);
  }
});

test("an exception is reported with its type, message and a stack of user code only", async () => {
  const source = `
class Broken(Exception):
    pass
class Mute(Exception):
    def __str__(self):
        raise ValueError("no")
def handler(event, context):
    raise {"b": Broken("it broke"), "m": Mute()}[event]
`;
  await using instance = await PythonInstance.start({ files: { "app.py": source } });
  const { error } = await instance.event("b").answer;
  assert.equal(error?.code, "handler-failed");
  assert.equal(error.cause?.type, "Broken");
  assert.equal(error.cause.message, "it broke");
  assert.match(error.cause.stack ?? "", /app\.py", line 8, in handler/);
  assert.doesNotMatch(error.cause.stack ?? "", /bootstrap|lambda\.py/);
  assert.equal((await instance.event("m").answer).error?.cause?.type, "Mute");
});

test("a payload that is no JSON fails the call and not the instance", async () => {
  await using instance = await PythonInstance.start({ files: echo });
  assert.match((await instance.send("{oops").answer).error?.message ?? "", /takes JSON, and the payload is none/);
  assert.equal((await instance.event(1).answer).body.toString(), "1");
});

test("async handlers overlap in one instance", async () => {
  const source = `
import asyncio
met = {}
async def handler(event, context):
    mine = met.setdefault(event, asyncio.Event())
    other = met.setdefault(1 - event, asyncio.Event())
    mine.set()
    await other.wait()
    return event
`;
  await using instance = await PythonInstance.start({ files: { "app.py": source }, instanceConcurrency: 2 });
  const answers = await Promise.all([instance.event(0).answer, instance.event(1).answer]);
  assert.deepEqual(answers.map(json), [0, 1]);
});

test("plain handlers overlap in threads when the function allows it", async () => {
  const source = `
import threading
together = threading.Barrier(8)
def handler(event, context):
    together.wait()
    return event
`;
  await using instance = await PythonInstance.start({ files: { "app.py": source }, instanceConcurrency: 8 });
  for (let round = 0; round < 5; round++) {
    const answers = await Promise.all(Array.from({ length: 8 }, (_, n) => instance.event(n).answer));
    assert.deepEqual(answers.map(json), [0, 1, 2, 3, 4, 5, 6, 7]);
  }
});

test("with a concurrency of one, plain handlers run in the main thread", async () => {
  const source =
    "import threading\ndef handler(event, context):\n    return threading.current_thread() is threading.main_thread()\n";
  await using instance = await PythonInstance.start({ files: { "app.py": source } });
  assert.equal(json(await instance.event({}).answer), true);
});

test("a plain function that returns a coroutine is awaited", async () => {
  const source = "async def inner(event):\n    return event\ndef handler(event, context):\n    return inner(event)\n";
  await using instance = await PythonInstance.start({ files: { "app.py": source } });
  assert.equal(json(await instance.event(5).answer), 5);
});

test("bodies far beyond the window pass in both directions", async () => {
  await using instance = await PythonInstance.start({
    files: { "app.py": "def handler(event, context):\n    return event['body'][::-1]\n" },
  });
  const text = "0123456789abcdef".repeat(200_000);
  const answer = await instance.http({ method: "POST" }, text).answer;
  assert.equal(answer.body.length, text.length);
  assert.equal(answer.body.toString(), [...text].toReversed().join(""));
});

test("an async handler whose caller is gone is cancelled", async () => {
  const source = `
import asyncio
async def handler(event, context):
    print("waiting")
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        print("cancelled")
        raise
`;
  await using instance = await PythonInstance.start({ files: { "app.py": source } });
  const running = instance.event({});
  await instance.logged((logs) => logs.some((log) => log.text.includes("waiting")));
  running.exchange.cancel();
  await instance.logged((logs) => logs.some((log) => log.text.includes("cancelled")));
  assert.equal((await running.answer).ending, "failed");
});
