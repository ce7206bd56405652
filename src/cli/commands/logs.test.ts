import assert from "node:assert/strict";
import { test } from "node:test";
import { run } from "../testing/run.ts";
import { errorScript, page, scriptedPlatform } from "../testing/scripted-platform.ts";
import { activationView, logView } from "../testing/views.ts";

const logs = "GET /v1/namespaces/default/functions/hello/logs";

function event(log: { readonly sequence: number }): string {
  return `event: log\nid: ${log.sequence}\ndata: ${JSON.stringify(log)}\n\n`;
}

test("logs are shown oldest first, narrowed down as asked", async () => {
  await using platform = await scriptedPlatform({ [logs]: page(logView(2, "two", "stderr"), logView(1, "one")) });
  const argv = ["logs", "hello", "--since", "10m", "--activation", "a-1", "--version", "2", "--limit", "9"];
  const { code, stdout } = await run(platform.url, argv);
  assert.equal(code, 0);
  const head = "2030-01-31T11:59:15.250Z  v2  01920c3e-0000-7000-8000-00000000abcd";
  assert.equal(stdout, `${head}  out    one\n${head}  err    two\n`);
  const query = Object.fromEntries(new URL(platform.request(logs).url, platform.url).searchParams);
  assert.deepEqual(query, { since: "2030-01-31T11:50:00.000Z", activation: "a-1", version: "2", limit: "9" });
});

test("with -o json every line is an object of its own", async () => {
  await using platform = await scriptedPlatform({ [logs]: page(logView(1, "one"), logView(2, "two")) });
  const { stdout } = await run(platform.url, ["logs", "hello", "-o", "json"]);
  assert.deepEqual(
    stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line)),
    [logView(1, "one"), logView(2, "two")],
  );
});

test("following goes on after a broken connection where it stopped, until Ctrl-C", async () => {
  let connections = 0;
  await using platform = await scriptedPlatform({
    [logs]: (_, response) => {
      connections++;
      if (connections === 2) return void response.destroy();
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(`: hello\n\n${event(logView(connections, `line ${connections}`))}`);
      if (connections === 1) response.end();
    },
  });
  const { code, stdout, stderr } = await run(platform.url, ["logs", "hello", "-f"], {
    onOutput: (written, interrupt) => {
      if (written.includes("line 3")) interrupt();
    },
  });
  assert.equal(code, 130);
  assert.match(stdout, /line 1\n.*line 3\n$/);
  assert.equal(stderr, "connection lost, trying again\nconnected again\n");
  assert.deepEqual(
    platform.seen.map((request) => request.headers["last-event-id"]),
    [undefined, "1", "1"],
  );
});

test("following ends when the first connection fails, or the function is gone", async () => {
  assert.equal((await run("http://127.0.0.1:1", ["logs", "hello", "-f"])).code, 1);
  let connections = 0;
  await using platform = await scriptedPlatform({
    [logs]: (_, response) => {
      connections++;
      if (connections === 1)
        return void response.writeHead(200, { "content-type": "text/event-stream" }).end(": hello\n\n");
      response
        .writeHead(404)
        .end(JSON.stringify({ error: { code: "function-not-found", fault: "caller", message: "gone", hint: "" } }));
    },
  });
  assert.equal((await run(platform.url, ["logs", "hello", "-f"])).code, 4);
});

test("runs are listed newest first and narrowed down as asked", async () => {
  const path = "GET /v1/namespaces/default/activations";
  await using platform = await scriptedPlatform({ [path]: page(activationView) });
  const { stdout } = await run(platform.url, [
    "runs",
    "list",
    "hello",
    "--state",
    "failed",
    "--since",
    "1h",
    "--limit",
    "5",
  ]);
  assert.match(
    stdout,
    /^ID .*\n01920c3e-0000-7000-8000-00000000abcd {2}hello {10}v2 {2}succeeded {2}cold {4}12\.3 ms {2}45s ago\n$/,
  );
  const query = Object.fromEntries(new URL(platform.request(path).url, platform.url).searchParams);
  assert.deepEqual(query, { function: "hello", state: "failed", since: "2030-01-31T11:00:00.000Z", limit: "5" });
  assert.equal((await run(platform.url, ["runs", "list", "--state", "odd"])).code, 2);
});

test("a run is shown, with its error, its logs or its stored answer", async () => {
  const error = {
    code: "handler-failed",
    fault: "function",
    message: "boom",
    hint: "",
    cause: { type: "Error", message: "boom", stack: "Error: boom\n    at index.mjs:3:5" },
  };
  const path = "GET /v1/namespaces/default/activations/act-1";
  await using platform = await scriptedPlatform({
    [path]: {
      status: 200,
      body: { ...activationView, state: "failed", error, attempts: [], queued: null, deadLetter: false },
    },
    [`${path}/logs`]: page(logView(1, "one")),
    [`${path}/result`]: (_, response) =>
      response.writeHead(404, { "content-type": "text/plain" }).end("the function's own"),
    "GET /v1/namespaces/default/activations/act-2/result": errorScript("not-acceptable-state", 409),
  });
  const shown = await run(platform.url, ["runs", "get", "act-1"]);
  assert.match(shown.stdout, /^error +boom \(handler-failed, fault function\)$/m);
  assert.match(shown.stdout, /at index\.mjs:3:5/);
  assert.match((await run(platform.url, ["runs", "get", "act-1", "--logs"])).stdout, /out {4}one\n$/);
  assert.equal((await run(platform.url, ["runs", "get", "act-1", "--result"])).stdout, "the function's own");
  assert.equal((await run(platform.url, ["runs", "get", "act-2", "--result"])).code, 1);
  assert.equal((await run(platform.url, ["runs", "get", "nothing"])).code, 4);
});
