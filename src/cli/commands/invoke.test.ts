import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { test } from "node:test";
import { run, temporaryFolder } from "../testing/run.ts";
import { errorScript, page, scriptedPlatform } from "../testing/scripted-platform.ts";
import type { Script } from "../testing/scripted-platform.ts";
import { activationView, logView } from "../testing/views.ts";

const invoke = "POST /v1/namespaces/default/functions/hello/invoke";
const runHeaders = { "x-request-id": "req-1", "x-koine-start": "cold", "x-koine-version": "3" };
const logsOfCall = "GET /v1/namespaces/default/activations/req-1/logs";

function answers(body: string | Buffer, status = 200): Script {
  return (_, response) => response.writeHead(status, { "content-type": "application/json", ...runHeaders }).end(body);
}

test("an event call writes the result to stdout and the facts to stderr", async () => {
  await using platform = await scriptedPlatform({ [invoke]: answers('{"sum":3}') });
  const ran = await run(platform.url, ["invoke", "hello:prod", "-d", '{"a":1}']);
  assert.deepEqual([ran.code, ran.stdout], [0, '{"sum":3}']);
  assert.match(ran.stderr, /^200 OK {2}\S+ \S+ {2}cold {2}version 3 {2}id req-1\n$/);
  const { url, body, headers } = platform.request(invoke);
  assert.equal(new URL(url, platform.url).search, "?qualifier=prod&mode=sync");
  assert.equal(body.toString(), '{"a":1}');
  assert.equal(headers["content-type"], "application/json");
});

test("data that is not JSON is text, and no data is an empty body", async () => {
  await using text = await scriptedPlatform({ [invoke]: answers("") });
  await run(text.url, ["invoke", "hello", "-d", "hi there"]);
  assert.match(text.request(invoke).headers["content-type"] ?? "", /^text\/plain/);
  await using none = await scriptedPlatform({ [invoke]: answers("") });
  await run(none.url, ["invoke", "hello"]);
  assert.deepEqual(
    [none.request(invoke).headers["content-type"], none.request(invoke).body.byteLength],
    [undefined, 0],
  );
});

test("data comes from a file or from stdin, however large", async () => {
  await using folder = await temporaryFolder();
  await writeFile(join(folder.path, "event.json"), '{"file":true}');
  await using file = await scriptedPlatform({ [invoke]: answers("") });
  assert.equal((await run(file.url, ["invoke", "hello", "-d", "@event.json"], { cwd: folder.path })).code, 0);
  assert.equal(file.request(invoke).body.toString(), '{"file":true}');
  assert.equal(file.request(invoke).headers["content-type"], "application/json");

  const large = Buffer.alloc(3 * 1024 * 1024, 0xff);
  await using stdin = await scriptedPlatform({ [invoke]: answers("") });
  const chunks = [large.subarray(0, 700_000), large.subarray(700_000, 1_500_000), large.subarray(1_500_000)];
  assert.equal((await run(stdin.url, ["invoke", "hello", "-d", "-"], { stdin: Readable.from(chunks) })).code, 0);
  assert.ok(stdin.request(invoke).body.equals(large));
  assert.equal(stdin.request(invoke).headers["content-type"], "application/octet-stream");

  assert.equal((await run(file.url, ["invoke", "hello", "-d", "@nothing"])).code, 1);
});

test("a method, a header or a path make it an HTTP call", async () => {
  await using platform = await scriptedPlatform({
    "PUT /fn/hello:3/a%20b": answers("put"),
    "GET /ns/team/fn/images%2Fresize": answers("got"),
    "POST /fn/hello": answers("posted", 418),
  });
  const put = ["invoke", "hello:3", "-X", "put", "--path", "a b?c=d", "-H", "X-One: 1", "-H", "x-one: 2", "-d", "x"];
  assert.equal((await run(platform.url, put)).stdout, "put");
  const request = platform.request("PUT /fn/hello:3/a%20b");
  assert.equal(request.url, "/fn/hello:3/a%20b?c=d");
  assert.equal(request.headers["x-one"], "1, 2");
  assert.equal((await run(platform.url, ["invoke", "images/resize", "-n", "team", "--path", "?w=1"])).stdout, "got");
  const own = await run(platform.url, ["invoke", "hello", "-X", "POST"]);
  assert.deepEqual([own.code, own.stdout], [0, "posted"]);
  assert.match(own.stderr, /^418 /);
  assert.equal((await run(platform.url, ["invoke", "hello", "-X", "POST", "--fail"])).code, 6);
  assert.equal((await run(platform.url, ["invoke", "hello", "-H", "no colon"])).code, 2);
});

test("with -o json the answer and the facts are one object", async () => {
  await using platform = await scriptedPlatform({ [invoke]: answers('{"sum":3}') });
  const { stdout } = await run(platform.url, ["invoke", "hello", "-o", "json"]);
  const { headers, durationMs, ...rest } = JSON.parse(stdout);
  assert.deepEqual(rest, { activationId: "req-1", status: 200, start: "cold", version: 3, body: { sum: 3 } });
  assert.equal(typeof durationMs, "number");
  assert.equal(headers["x-koine-start"], "cold");
});

test("a failed call shows what was thrown and what the call wrote, and its exit code says how it failed", async () => {
  const failure = { fault: "function", message: "boom", headers: runHeaders };
  for (const [code, exitCode] of [
    ["handler-failed", 6],
    ["function-timed-out", 5],
    ["out-of-memory", 6],
  ] as const) {
    await using platform = await scriptedPlatform({
      [invoke]: errorScript(code, 502, failure),
      "GET /fn/hello/x": errorScript(code, 502, failure),
      [logsOfCall]: page(logView(2, "about to fail", "stderr"), logView(1, "began")),
    });
    for (const argv of [
      ["invoke", "hello"],
      ["invoke", "hello", "--path", "/x"],
    ]) {
      const ran = await run(platform.url, argv);
      assert.deepEqual([ran.code, ran.stdout], [exitCode, ""]);
      assert.match(
        ran.stderr,
        /logs of this call:\n.*out {4}began\n.*err {4}about to fail\nerror: boom\n {2}hint: the hint\n {2}code /,
      );
    }
  }
});

test("logs that are stored a moment later are waited for", async () => {
  let asked = 0;
  await using platform = await scriptedPlatform({
    [invoke]: errorScript("handler-failed", 502, { fault: "function" }),
    [logsOfCall]: (_, response) => {
      asked++;
      response.end(JSON.stringify({ items: asked < 3 ? [] : [logView(1, "late")], next: null }));
    },
  });
  assert.match((await run(platform.url, ["invoke", "hello"])).stderr, /late/);
});

test("an answer that breaks off fails for the reason that the platform recorded", async () => {
  await using platform = await scriptedPlatform({
    [invoke]: (_, response) => {
      response.writeHead(200, { ...runHeaders, "content-length": "100" });
      response.write("part");
      setImmediate(() => response.destroy());
    },
    [logsOfCall]: page(),
    "GET /v1/namespaces/default/activations/req-1": {
      status: 200,
      body: {
        ...activationView,
        error: { code: "function-exited", fault: "function", message: "it exited", hint: "" },
      },
    },
  });
  const ran = await run(platform.url, ["invoke", "hello"]);
  assert.equal(ran.code, 6);
  assert.match(ran.stderr, /error: it exited/);
});

test("an asynchronous call answers with its id at once", async () => {
  const accepted = { status: 202, body: { activationId: "act-1" } } as const;
  await using platform = await scriptedPlatform({ [invoke]: accepted, "POST /fn/hello/x": accepted });
  const event = await run(platform.url, ["invoke", "hello", "--async", "-d", "{}"]);
  assert.deepEqual([event.code, event.stdout], [0, "act-1\n"]);
  assert.match(platform.request(invoke).url, /mode=async/);
  const http = await run(platform.url, ["invoke", "hello", "--async", "-d", "{}", "--path", "/x", "-o", "json"]);
  assert.deepEqual(JSON.parse(http.stdout), { activationId: "act-1" });
  assert.equal(platform.request("POST /fn/hello/x").headers["prefer"], "respond-async");
});

test("a call that takes longer than --timeout ends with 5, and Ctrl-C with 130", async () => {
  await using platform = await scriptedPlatform({ [invoke]: () => {} });
  const late = await run(platform.url, ["invoke", "hello", "--timeout", "1ms"]);
  assert.equal(late.code, 5);
  assert.match(late.stderr, /No answer within 1 ms/);

  await using streaming = await scriptedPlatform({
    [invoke]: (_, response) => void response.writeHead(200, runHeaders).write("first"),
  });
  const interrupted = await run(streaming.url, ["invoke", "hello"], { onOutput: (_, interrupt) => interrupt() });
  assert.deepEqual(interrupted, { code: 130, stdout: "first", stderr: "" });
});

test("what is said of the queue goes along as headers, and only with --async", async () => {
  const accepted: Script = { status: 202, body: { activationId: "a-1" } };
  await using platform = await scriptedPlatform({ [invoke]: accepted });
  const flags = ["--idempotency-key", "k", "--ordering-key", "o", "--priority", "high", "--delay", "1.5m"];
  assert.equal((await run(platform.url, ["invoke", "hello", "--async", ...flags])).code, 0);
  const { headers } = platform.request(invoke);
  const names = ["idempotency-key", "koine-ordering-key", "koine-priority", "koine-delay"];
  assert.deepEqual(
    names.map((name) => headers[name]),
    ["k", "o", "high", "90000ms"],
  );
  assert.equal((await run(platform.url, ["invoke", "hello", ...flags])).code, 2);
  const both = ["--delay", "1s", "--at", "2031-01-31T12:00:00Z"];
  assert.equal((await run(platform.url, ["invoke", "hello", "--async", ...both])).code, 2);
});
