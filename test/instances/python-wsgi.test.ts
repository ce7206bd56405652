import assert from "node:assert/strict";
import { test } from "node:test";
import { PythonInstance } from "./python-instance.ts";

const wsgi = (body: string, extra = ""): Record<string, string> => ({
  "app.py": `${extra}\ndef app(environ, start_response):\n${body.replace(/^/gm, "    ")}\n`,
});

test("a WSGI application gets a complete environ", async () => {
  await using instance = await PythonInstance.start({
    files: wsgi(
      `keys = [key for key in environ if not key.startswith("wsgi.")]
text = json.dumps({key: environ[key] for key in keys}).encode()
start_response("200 OK", [("Content-Type", "application/json")])
return [text]`,
      "import json",
    ),
  });
  const running = instance.http(
    {
      method: "POST",
      url: "/caf%C3%A9/%2F?q=%20",
      headers: [
        "Host",
        "x",
        "X-A",
        "1",
        "X-A",
        "2",
        "X_A",
        "spoofed",
        "Content-Type",
        "text/plain",
        "Cookie",
        "a=1",
        "Cookie",
        "b=2",
      ],
      origin: "https://example.org",
    },
    "12345",
  );
  const answer = await running.answer;
  assert.deepEqual(JSON.parse(answer.body.toString()), {
    REQUEST_METHOD: "POST",
    SCRIPT_NAME: "/fn/greet",
    PATH_INFO: Buffer.from("/café//").toString("latin1"),
    QUERY_STRING: "q=%20",
    REQUEST_URI: "/fn/greet/caf%C3%A9/%2F?q=%20",
    SERVER_NAME: "example.org",
    SERVER_PORT: "443",
    SERVER_PROTOCOL: "HTTP/1.1",
    REMOTE_ADDR: "10.1.2.3",
    CONTENT_TYPE: "text/plain",
    CONTENT_LENGTH: "5",
    HTTP_HOST: "x",
    HTTP_X_A: "1,2",
    HTTP_COOKIE: "a=1; b=2",
    "koine.invocation_id": running.id,
  });
});

test("duplicate headers stay apart and a whole answer gets its length", async () => {
  await using instance = await PythonInstance.start({
    files: wsgi(`start_response("404 Not Found", [("Set-Cookie", "a"), ("Set-Cookie", "b")])\nreturn [b"no", b"pe"]`),
  });
  const answer = await instance.http({}).answer;
  assert.deepEqual(answer.head, {
    status: 404,
    headers: ["Set-Cookie", "a", "Set-Cookie", "b", "content-length", "4"],
  });
  assert.equal(answer.body.toString(), "nope");
});

test("the validator of the standard library finds nothing to complain about", async () => {
  const source = `
from wsgiref.validate import validator
def plain(environ, start_response):
    body = environ["wsgi.input"].read(100)
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"got " + body
app = validator(plain)
`;
  await using instance = await PythonInstance.start({ files: { "app.py": source } });
  const answer = await instance.http({ method: "POST", headers: ["Host", "x", "Content-Type", "text/plain"] }, "in")
    .answer;
  assert.equal(answer.error, null);
  assert.equal(answer.body.toString(), "got in");
});

test("the body is read as it arrives and chunks leave as they are made", async () => {
  await using instance = await PythonInstance.start({
    files: wsgi(`start_response("200 OK", [])
for line in environ["wsgi.input"]:
    yield b"<" + line.strip() + b">"`),
  });
  const running = instance.http({ method: "POST" }, "one\n", false);
  running.exchange.write(Buffer.from("two\n"));
  await running.bodyHas("<one>");
  running.exchange.write(Buffer.from("thr"));
  running.exchange.write(Buffer.from("ee\n"));
  await running.bodyHas("<three>");
  running.exchange.end();
  assert.equal((await running.answer).body.toString(), "<one><two><three>");
});

test("write(), late start_response and close() work as PEP 3333 says", async () => {
  const source = `
class Result:
    def __iter__(self):
        yield b""
        yield b" iterated"
    def close(self):
        print("closed")
def app(environ, start_response):
    write = start_response("200 OK", [])
    write(b"written")
    return Result()
`;
  await using instance = await PythonInstance.start({ files: { "app.py": source } });
  const running = instance.http({});
  assert.equal((await running.answer).body.toString(), "written iterated");
  assert.equal(instance.logText(running.id), "closed\n");
});

test("exc_info replaces headers that have not left and re-raises when they have", async () => {
  const source = `
import sys
def app(environ, start_response):
    start_response("200 OK", [("X", "1")])
    if environ["PATH_INFO"] == "/late":
        yield b"begun"
    try:
        raise KeyError("k")
    except KeyError:
        start_response("500 Oops", [("X", "2")], sys.exc_info())
    yield b"sorry"
`;
  await using instance = await PythonInstance.start({ files: { "app.py": source } });
  assert.deepEqual((await instance.http({}).answer).head, { status: 500, headers: ["X", "2"] });
  const late = await instance.http({ url: "/late" }).answer;
  assert.equal(late.head?.status, 200);
  assert.equal(late.error?.cause?.type, "KeyError");
});

test("a file wrapper sends a file and closes it", async () => {
  const source = `
import io
class File(io.BytesIO):
    def close(self):
        print("closed")
        super().close()
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "300000")])
    return environ["wsgi.file_wrapper"](File(b"x" * 300000), 1000)
`;
  await using instance = await PythonInstance.start({ files: { "app.py": source } });
  const running = instance.http({});
  assert.equal((await running.answer).body.length, 300_000);
  assert.match(instance.logText(running.id), /closed/);
});

test("misuse of the interface says what is wrong", async () => {
  const source = `
def app(environ, start_response):
    case = environ["PATH_INFO"]
    if case == "/none":
        return None
    if case != "/unstarted":
        start_response(*{"/status": (200, []), "/headers": ("200 OK", {}), "/split": ("200 OK", [("A", "b\\r\\nC: d")]),
                         "/text": ("200 OK", [])}[case])
    return ["text"] if case == "/text" else [b"x"]
`;
  await using instance = await PythonInstance.start({ files: { "app.py": source } });
  for (const [url, reason] of [
    ["/none", /must return an iterable of bytes, not NoneType/],
    ["/unstarted", /start_response was not called/],
    ["/status", /status must be a str such as '200 OK', not 200/],
    ["/headers", /headers must be a list/],
    ["/split", /line break/],
    ["/text", /must be made of bytes, not str/],
  ] as const) {
    const { error, head } = await instance.http({ url }).answer;
    assert.equal(error?.code, "invalid-response", url);
    assert.match(error.message, reason);
    assert.equal(head, null);
  }
});

test("an application whose caller is gone stops and is closed", async () => {
  const source = `
def app(environ, start_response):
    start_response("200 OK", [])
    count = 0
    try:
        while True:
            count += 1
            yield b"x" * 10000
    finally:
        print("stopped", count > 20)
`;
  await using instance = await PythonInstance.start({ files: { "app.py": source } });
  const running = instance.http({});
  running.accept(false);
  await running.bodyHas("x");
  running.exchange.cancel();
  await instance.logged((logs) => logs.some((log) => log.text.includes("stopped")));
  assert.equal(instance.logText(running.id), "stopped True\n");
});

test("an event call is a POST of the payload to /", async () => {
  await using instance = await PythonInstance.start({
    files: wsgi(`start_response("200 OK", [])
return [(environ["REQUEST_METHOD"] + environ["PATH_INFO"] + environ["CONTENT_TYPE"]).encode(), environ["wsgi.input"].read()]`),
  });
  assert.equal((await instance.event({ a: 1 }).answer).body.toString(), 'POST/application/json{"a":1}');
});

test("an application object with a WSGI __call__ is recognised", async () => {
  const source = `
class Framework:
    def __call__(self, environ, start_response):
        start_response("200 OK", [])
        return [b"framework"]
application = Framework()
`;
  await using instance = await PythonInstance.boot({ "app.py": source });
  assert.equal((await instance.specialise({})).handlerModel, "wsgi");
  assert.equal((await instance.http({}).answer).body.toString(), "framework");
});
