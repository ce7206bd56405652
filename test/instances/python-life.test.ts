import assert from "node:assert/strict";
import { test } from "node:test";
import { PythonInstance, type Running } from "./python-instance.ts";

const start = (source: string, instanceConcurrency = 1): Promise<PythonInstance> =>
  PythonInstance.start({ files: { "app.py": source }, instanceConcurrency });
const logs = (instance: PythonInstance, text: string): Promise<void> =>
  instance.logged((entries) => entries.some((entry) => entry.text.includes(text)));

test("a ping is answered while a handler sleeps, computes, or blocks the event loop", async () => {
  for (const source of [
    "import time\ndef handler(event, context):\n    print('in')\n    time.sleep(3600)\n",
    "def handler(event, context):\n    print('in')\n    while True:\n        pass\n",
    "import time\nasync def handler(event, context):\n    print('in')\n    time.sleep(3600)\n",
  ]) {
    await using instance = await start(source);
    instance.event({});
    await logs(instance, "in");
    assert.equal(await instance.link.ping(5_000), true);
    assert.equal(await instance.link.ping(5_000), true);
  }
});

test("a ping is answered while a module is loaded", async () => {
  await using instance = await PythonInstance.boot({ "app.py": "import time\nprint('in')\ntime.sleep(3600)\n" });
  const loading = instance.specialise({}).catch(() => {});
  await logs(instance, "in");
  assert.equal(await instance.link.ping(5_000), true);
  await instance[Symbol.asyncDispose]();
  await loading;
});

test("invocations that come while all threads are busy wait and are run", async () => {
  await using instance = await start(
    `
import threading
gate = threading.Event()
def handler(event, context):
    if event == "open":
        gate.set()
    elif event == "wait":
        print("waiting")
        gate.wait()
    return event
`,
    2,
  );
  for (let round = 0; round < 100; round++) await instance.event("quick").answer;
  // By now the instance believes its handlers to be fast, and has to notice that this one is not.
  const waiting = instance.event("wait");
  await logs(instance, "waiting");
  assert.equal((await instance.event("open").answer).body.toString(), '"open"');
  assert.equal((await waiting.answer).body.toString(), '"wait"');
});

test("an invocation sent together with a blocking one is not stuck behind it", async () => {
  await using instance = await start(
    `
import threading
gate = threading.Event()
def handler(event, context):
    if event == "open":
        gate.set()
    elif event == "wait":
        gate.wait()
    return event
`,
    2,
  );
  for (let round = 0; round < 100; round++) await instance.event("quick").answer;
  const answers = await Promise.all([instance.event("wait").answer, instance.event("open").answer]);
  assert.deepEqual(
    answers.map((answer) => answer.ending),
    ["succeeded", "succeeded"],
  );
});

test("sys.exit in a handler ends the process with its status and keeps its output", async () => {
  for (const [source, status, said] of [
    ["def handler(event, context):\n    print('bye', end='')\n    raise SystemExit(7)\n", 7, "bye"],
    ["async def handler(event, context):\n    print('bye', end='')\n    raise SystemExit(7)\n", 7, "bye"],
    ["import sys\ndef handler(event, context):\n    sys.exit('reason')\n", 1, "reason\n"],
    ["def handler(event, context):\n    exit()\n", 0, ""],
    ["import os\ndef handler(event, context):\n    print('bye')\n    os._exit(4)\n", 4, "bye\n"],
    ["import os\ndef handler(event, context):\n    print('bye')\n    os.kill(os.getpid(), 9)\n", "SIGKILL", "bye\n"],
  ] as const) {
    for (const concurrency of [1, 2]) {
      await using instance = await start(source, concurrency);
      const running = instance.event({});
      assert.equal((await running.answer).ending, "lost", source);
      assert.equal(await instance.exited, status, source);
      assert.equal(instance.logText(running.id), said);
    }
  }
});

test("sys.exit in a second thread ends the process, too", async () => {
  await using instance = await start(
    `
import sys, threading
together = threading.Barrier(2)
def handler(event, context):
    together.wait()
    if threading.current_thread() is not threading.main_thread():
        sys.exit(9)
`,
    2,
  );
  await Promise.all([instance.event({}).answer, instance.event({}).answer]);
  assert.equal(await instance.exited, 9);
});

test("SHUTDOWN runs exit hooks and exits with 0, idle or never used", async () => {
  await using used = await start(`
import atexit
atexit.register(print, "hook")
def handler(event, context):
    return 1
`);
  await used.event({}).answer;
  used.link.close();
  assert.equal(await used.exited, 0);
  assert.equal(used.logText(null), "hook\n");
  await using spare = await PythonInstance.boot();
  spare.link.close();
  assert.equal(await spare.exited, 0);
});

test("SHUTDOWN ends a process whose handler or left-over thread never returns", async () => {
  for (const source of [
    "import time\ndef handler(event, context):\n    print('in')\n    time.sleep(3600)\n",
    "import time, threading\ndef handler(event, context):\n    threading.Thread(target=time.sleep, args=(3600,)).start()\n    print('in')\n",
    "import asyncio\nasync def handler(event, context):\n    print('in')\n    await asyncio.sleep(3600)\n",
  ]) {
    await using instance = await start(source);
    instance.event({});
    await logs(instance, "in");
    instance.link.close();
    assert.equal(await instance.exited, 0);
  }
});

test("the process ends when the engine is gone", async () => {
  await using instance = await start("def handler(event, context):\n    return 1\n");
  const channel = instance.process.stdio[3];
  assert.ok(channel !== null && channel !== undefined && "destroy" in channel);
  channel.destroy();
  assert.equal(await instance.exited, 0);
});

test("a failing invocation leaves the next ones alone", async () => {
  await using instance = await start(
    "def handler(event, context):\n    if event:\n        raise RecursionError\n    def deep():\n        deep()\n    deep()\n",
  );
  for (let round = 0; round < 3; round++) {
    assert.equal((await instance.event(1).answer).error?.cause?.type, "RecursionError");
    assert.equal((await instance.event("").answer).error?.cause?.type, "RecursionError");
  }
});

test("context variables of one invocation are not seen by the next", async () => {
  await using instance = await start(`
import contextvars
seen = contextvars.ContextVar("seen", default=0)
def handler(event, context):
    seen.set(seen.get() + 1)
    return seen.get()
`);
  await instance.event({}).answer;
  assert.equal((await instance.event({}).answer).body.toString(), "1");
});

for (const [kind, handler] of [
  ["plain", "def app(environ, start_response):"],
  ["asynchronous", "async def app(scope, receive, send):"],
] as const) {
  test(`what comes with the specialisation runs once a ${kind} handler has loaded, unless it was cancelled`, async () => {
    const answer =
      kind === "plain"
        ? `    start_response("200 OK", []); print(environ["PATH_INFO"]); return [environ["wsgi.input"].read()]`
        : `    body = b""
    while True:
        part = await receive()
        body += part.get("body", b"")
        if not part.get("more_body"): break
    print(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})`;
    await using instance = await PythonInstance.boot({
      "app.py": `import time\ntime.sleep(0.05)\n${handler}\n${answer}\n`,
    });
    const early: Running[] = [];
    const invoke = (): void => {
      early.push(instance.http({ method: "POST", url: "/one" }, "", false), instance.http({ url: "/two" }));
      early[1]?.exchange.cancel();
    };
    const handlerModel = kind === "plain" ? "wsgi" : "asgi";
    const specialised = instance.specialise({ handler: "app.app", handlerModel }, { invoke, loaded: () => {} });
    early[0]?.exchange.write(Buffer.from("body"));
    early[0]?.exchange.end();
    await specialised;
    const [one, two] = await Promise.all(early.map((running) => running.answer));
    assert.equal(one?.body.toString(), "body");
    assert.notEqual(two?.ending, "lost");
    assert.match(instance.logs.map(({ text }) => text).join(""), /^\S*\/one\n$/);
  });
}
