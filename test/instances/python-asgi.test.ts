import assert from "node:assert/strict";
import { test } from "node:test";
import { PythonInstance } from "./python-instance.ts";

const preamble = `
import asyncio, json
gate = {}
async def answer(send, body, status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})
`;
const asgi = (body: string): Record<string, string> => ({
  "app.py": `${preamble}
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
${body.replace(/^/gm, "    ")}
`,
});

test("an ASGI application gets a complete scope", async () => {
  await using instance = await PythonInstance.start({
    files: asgi(`shown = {key: (value.decode() if isinstance(value, bytes) else value) for key, value in scope.items()}
shown["headers"] = [[name.decode(), value.decode()] for name, value in scope["headers"]]
await answer(send, json.dumps(shown).encode(), headers=[(b"X-A", b"1"), (b"X-A", b"2")])`),
  });
  const answer = await instance.http({
    url: "/caf%C3%A9?q=%20",
    headers: ["Host", "x", "X-A", "1", "X-A", "2"],
    origin: "https://example.org:8443",
  }).answer;
  assert.deepEqual(answer.head, { status: 200, headers: ["X-A", "1", "X-A", "2"] });
  assert.deepEqual(JSON.parse(answer.body.toString()), {
    type: "http",
    asgi: { version: "3.0", spec_version: "2.4" },
    http_version: "1.1",
    method: "GET",
    scheme: "https",
    path: "/fn/greet/café",
    raw_path: "/fn/greet/caf%C3%A9",
    query_string: "q=%20",
    root_path: "/fn/greet",
    headers: [
      ["host", "x"],
      ["x-a", "1"],
      ["x-a", "2"],
    ],
    client: ["10.1.2.3", 0],
    server: ["example.org", 8443],
    extensions: {},
    state: {},
  });
});

test("bodies stream both ways at once", async () => {
  await using instance = await PythonInstance.start({
    files: asgi(`await send({"type": "http.response.start", "status": 200, "headers": []})
more = True
while more:
    message = await receive()
    more = message["more_body"]
    await send({"type": "http.response.body", "body": b"<" + message["body"] + b">", "more_body": True})
await send({"type": "http.response.body", "body": b"!"})`),
  });
  const running = instance.http({ method: "POST" }, "one", false);
  await running.bodyHas("<one>");
  running.exchange.write(Buffer.from("two"));
  await running.bodyHas("<two>");
  running.exchange.end();
  assert.match((await running.answer).body.toString(), /^<one><two>(<>)?!$/);
});

test("a slow caller holds the application back, and others go on meanwhile", async () => {
  await using instance = await PythonInstance.start({
    files: asgi(`if scope["path"].endswith("/small"):
    await answer(send, b"small")
    return
await send({"type": "http.response.start", "status": 200, "headers": []})
for _ in range(100):
    await send({"type": "http.response.body", "body": b"x" * 50000, "more_body": True})
await send({"type": "http.response.body", "body": b""})`),
    instanceConcurrency: 10,
  });
  const slow = instance.http({});
  slow.accept(false);
  await slow.bodyHas("x");
  assert.equal((await instance.http({ url: "/small" }).answer).body.toString(), "small");
  assert.ok(slow.bytesSoFar() <= 2 * 256 * 1024);
  slow.accept(true);
  assert.equal((await slow.answer).body.length, 5_000_000);
});

test("a caller that leaves is seen as http.disconnect", async () => {
  await using instance = await PythonInstance.start({
    files: asgi(`await receive()
print("waiting")
print((await receive())["type"])
await answer(send, b"too late")`),
  });
  const running = instance.http({});
  await instance.logged((logs) => logs.some((log) => log.text.includes("waiting")));
  running.exchange.cancel();
  await instance.logged((logs) => logs.some((log) => log.text.includes("http.disconnect")));
  await running.answer;
});

test("a second receive ends with http.disconnect once the answer is complete", async () => {
  await using instance = await PythonInstance.start({
    files: asgi(`await receive()
listening = asyncio.ensure_future(receive())
await asyncio.sleep(0)
await answer(send, b"done")
print((await listening)["type"])`),
  });
  const running = instance.http({});
  assert.equal((await running.answer).body.toString(), "done");
  assert.equal(instance.logText(running.id), "http.disconnect\n");
});

test("lifespan startup runs before the first request and shares its state; shutdown runs at the end", async () => {
  const source = `${preamble}
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                scope["state"]["opened"] = "yes"
                print("up")
                await send({"type": "lifespan.startup.complete"})
            else:
                print("down")
                await send({"type": "lifespan.shutdown.complete"})
                return
    await answer(send, scope["state"]["opened"].encode())
`;
  await using instance = await PythonInstance.start({ files: { "app.py": source } });
  assert.equal((await instance.http({}).answer).body.toString(), "yes");
  assert.equal(instance.logText(null), "up\n");
  instance.link.close();
  assert.equal(await instance.exited, 0);
  assert.equal(instance.logText(null), "up\ndown\n");
});

test("a failing lifespan startup fails the load with its reason", async () => {
  const source = `
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
`;
  await using instance = await PythonInstance.boot({ "app.py": source });
  await assert.rejects(instance.specialise({}), { code: "handler-load-failed", message: /no database/ });
});

test("application objects and partials are recognised, plain callables are not", async () => {
  const source = `${preamble}
import functools
class Framework:
    async def __call__(self, scope, receive, send):
        await answer(send, b"framework")
async def four(extra, scope, receive, send):
    await answer(send, extra)
app = Framework()
partial = functools.partial(four, b"partial")
`;
  for (const [handler, body] of [
    ["app", "framework"],
    ["app.partial", "partial"],
  ] as const) {
    await using instance = await PythonInstance.boot({ "app.py": source });
    assert.equal((await instance.specialise({ handler })).handlerModel, "asgi");
    assert.equal((await instance.http({}).answer).body.toString(), body);
  }
});

test("an answer leaves before the work that follows it, whose failure is still reported", async () => {
  await using instance = await PythonInstance.start({
    files: asgi(`gate.setdefault("open", asyncio.Event())
if scope["path"].endswith("/open"):
    gate["open"].set()
    await answer(send, b"opened")
    return
await answer(send, b"done")
await gate["open"].wait()
raise LookupError("afterwards")`),
    instanceConcurrency: 2,
  });
  const running = instance.http({});
  await running.bodyHas("done");
  await instance.http({ url: "/open" }).answer;
  const answer = await running.answer;
  assert.equal(answer.body.toString(), "done");
  assert.equal(answer.error?.cause?.type, "LookupError");
});

test("misuse and exceptions are reported", async () => {
  await using instance = await PythonInstance.start({
    files: asgi(`case = scope["path"][-1]
if case == "r":
    raise LookupError("lost")
if case == "s":
    await answer(send, b"", status="200")
if case == "b":
    await send({"type": "http.response.body", "body": b""})`),
  });
  for (const [url, code, reason] of [
    ["/r", "handler-failed", /lost/],
    ["/s", "invalid-response", /status must be an int/],
    ["/b", "handler-failed", /before http.response.start/],
    ["/n", "invalid-response", /returned before its answer was complete/],
  ] as const) {
    const { error } = await instance.http({ url }).answer;
    assert.equal(error?.code, code, url);
    assert.match(error.message, reason);
  }
});
