import assert from "node:assert/strict";
import { test } from "node:test";
import { PythonInstance } from "./python-instance.ts";

const start = (source: string, instanceConcurrency = 1): Promise<PythonInstance> =>
  PythonInstance.start({ files: { "app.py": source }, instanceConcurrency });

test("print, sys.stderr and logging belong to the invocation, in order, before its end", async () => {
  await using instance = await start(`
import logging, sys, warnings
print("loading")
def handler(event, context):
    print("one", "two", flush=True)
    print("ä", end="")
    sys.stderr.write("err\\n")
    logging.warning("logged %s", 1)
    sys.stdout.buffer.write(b"bytes\\xff")
    print("surrogate \\udc80")
`);
  const running = instance.event({});
  await running.answer;
  assert.equal(instance.logText(null), "loading\n");
  const text = (stream: string): string =>
    Buffer.concat(
      instance.logs.flatMap((log) => (log.id === running.id && log.stream === stream ? [Buffer.from(log.text)] : [])),
    ).toString();
  assert.equal(text("stdout"), "one two\näbytes\ufffdsurrogate \\udc80\n");
  assert.equal(text("stderr"), "err\nWARNING:root:logged 1\n");
});

test("overlapping invocations keep their output apart, in threads and on the event loop", async () => {
  const threads = `
import threading
together = threading.Barrier(2)
def handler(event, context):
    for n in range(50):
        together.wait()
        print(event, end=" ")
        print(n)
`;
  const loop = `
import asyncio
async def handler(event, context):
    for n in range(50):
        print(event, end=" ")
        await asyncio.sleep(0)
        print(n)
        await asyncio.to_thread(print, event, n)
`;
  for (const source of [threads, loop]) {
    await using instance = await start(source, 2);
    const running = [instance.event("a"), instance.event("b")];
    await Promise.all(running.map((one) => one.answer));
    for (const [at, name] of ["a", "b"].entries()) {
      const lines = instance
        .logText(running[at]?.id ?? "")
        .trimEnd()
        .split("\n");
      assert.ok(lines.length >= 50);
      assert.deepEqual([...new Set(lines.map((line) => line[0]))], [name]);
    }
    assert.equal(instance.logText(null), "");
  }
});

test("threads and executors that a handler uses write for the invocation that gave them work", async () => {
  await using instance = await start(`
import threading
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(1)
class Own(threading.Thread):
    def run(self):
        print("own", self.name)
def handler(event, context):
    pool.submit(print, "pooled", event).result()
    pool.submit(print, "again", event).result()
    for thread in (threading.Thread(target=print, args=("target", event)), Own(name=event)):
        thread.start()
        thread.join()
`);
  for (const name of ["first", "second"]) {
    const running = instance.event(name);
    await running.answer;
    assert.equal(instance.logText(running.id), `pooled ${name}\nagain ${name}\ntarget ${name}\nown ${name}\n`);
  }
  assert.equal(instance.logText(null), "");
});

test("what a left-over thread writes after the end belongs to the instance", async () => {
  await using instance = await start(`
import threading
go = threading.Event()
def late():
    go.wait()
    print("late")
def handler(event, context):
    if event == "start":
        threading.Thread(target=late).start()
    else:
        go.set()
`);
  const first = instance.event("start");
  await first.answer;
  await instance.event("go").answer;
  await instance.logged((logs) => logs.some((log) => log.text === "late\n"));
  assert.equal(instance.logText(null), "late\n");
});

test("output of a running handler is seen while it runs", async () => {
  await using instance = await start(`
import time
def handler(event, context):
    for n in range(5):
        print("line", n)
    while True:
        time.sleep(1)
`);
  instance.event({});
  await instance.logged((logs) => logs.some((log) => log.text.includes("line 4")));
});

test("child processes and forks write to the real descriptors, and do not touch the channel", async () => {
  await using instance = await start(`
import os, subprocess, sys
def handler(event, context):
    subprocess.run(["/bin/sh", "-c", "echo spawned; ls -l /proc/self/fd | grep -c socket; true"])
    child = os.fork()
    if child == 0:
        print("forked")
        os._exit(0)
    os.waitpid(child, 0)
    return "ok"
`);
  const running = instance.event({});
  assert.equal((await running.answer).body.toString(), '"ok"');
  assert.equal((await instance.event({}).answer).ending, "succeeded");
  instance.link.close();
  await instance.exited;
  assert.match(instance.rawOutput, /spawned\n/);
  assert.match(instance.rawOutput, /forked\n/);
  assert.equal(instance.logText(running.id), "");
});

test("multiprocessing works inside a handler", async () => {
  await using instance = await start(`
import multiprocessing
def square(n):
    return n * n
def handler(event, context):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(square, [1, 2, 3])
`);
  assert.equal((await instance.event({}).answer).body.toString(), "[1, 4, 9]");
});

test("a flood of output arrives whole", async () => {
  await using instance = await start(`
def handler(event, context):
    for n in range(20000):
        print("line", n)
    print("x" * 300000)
`);
  const running = instance.event({});
  await running.answer;
  const lines = instance.logText(running.id).split("\n");
  assert.equal(lines.length, 20_002);
  assert.equal(lines[19_999], "line 19999");
  assert.equal(lines[20_000]?.length, 300_000);
});
