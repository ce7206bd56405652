import assert from "node:assert/strict";
import { test } from "node:test";
import { NodeInstance } from "./node-instance.ts";

/** A function whose paths misbehave in one way each. */
const files = {
  "index.mjs": `
    import { spawnSync } from "node:child_process";
    import fs from "node:fs";
    import { closeSync } from "node:fs";
    const turn = () => new Promise((resolve) => setImmediate(resolve));
    const cases = {
      "/ok": () => new Response("ok"),
      "/string": () => { throw "just text"; },
      "/null": () => { throw null; },
      "/object": () => { throw { status: 5, inner: { a: [1] } }; },
      "/hostile": () => { throw new Proxy({}, { get() { throw new Error("no"); }, getPrototypeOf() { throw new Error("no"); } }); },
      "/cause": () => { throw new Error("outer", { cause: new TypeError("inner") }); },
      "/nothing": () => undefined,
      "/text": () => "text",
      "/exit": () => { console.log("last words"); console.error("x".repeat(300000)); process.exit(4); },
      "/timer": async () => { setTimeout(() => { throw new RangeError("in a timer"); }, 1); await new Promise(() => {}); },
      "/rejection": async () => { Promise.reject(new RangeError("nobody caught it")); await new Promise(() => {}); },
      "/late": async () => { turn().then(turn).then(() => { throw new Error("after the answer"); }); return new Response("ok"); },
      "/left": async () => { setTimeout(() => console.log("still running"), 5); return new Response("ok"); },
      "/stream-fails": () => new Response(new ReadableStream({ pull(c) { if (!this.n) { this.n = 1; c.enqueue(new TextEncoder().encode("a part")); } else c.error(new Error("torn")); } })),
      "/used": async () => { const response = new Response(new Blob(["x"])); await response.text(); return response; },
      "/flood": () => { for (let n = 0; n < 3000; n++) console.log("y".repeat(10_000)); return new Response("ok"); },
      "/close": () => {
        const codes = [];
        for (const close of [fs.closeSync, closeSync]) try { close(3); } catch (error) { codes.push(error.code); }
        return Response.json(codes);
      },
      "/child": () => { spawnSync("/bin/sh", ["-c", "echo from a child"], { stdio: "inherit" }); return new Response("ok"); },
      "/descriptors": () => new Response(spawnSync("/bin/sh", ["-c", "ls -l /proc/self/fd"]).stdout),
      "/streams": () => {
        process.stdout.write("a"); process.stdout.write(Buffer.from("b")); process.stderr.write("c"); process.stdout.end("d");
        console.log("%s is %d", "e", 5); console.error("f");
        return new Response(String([process.stdout.fd, process.stderr.fd, process.stdout.isTTY]));
      },
    };
    export default (request) => cases[new URL(request.url).pathname]();
    process.on("SIGTERM", () => { console.log("shutting down"); process.exit(0); });`,
};
const start = (): Promise<NodeInstance> => NodeInstance.start({ files });

for (const [url, type, message] of [
  ["/string", "string", "just text"],
  ["/null", "null", "null"],
  ["/object", "Object", "{ status: 5, inner: { a: [ 1 ] } }"],
  ["/hostile", "object", "something that cannot be printed was thrown"],
  ["/timer", "RangeError", "in a timer"],
  ["/rejection", "RangeError", "nobody caught it"],
] as const) {
  test(`what a handler throws fails its invocation only, with type and text: ${url}`, async () => {
    await using instance = await start();
    const answer = await instance.http({ url }).answer;
    assert.equal(answer.error?.code, "handler-failed");
    assert.equal(answer.error?.cause?.type, type);
    assert.equal(answer.error?.cause?.message, message);
    assert.equal((await instance.http({ url: "/ok" }).answer).body.toString(), "ok");
  });
}

test("the cause of an error is part of its stack", async () => {
  await using instance = await start();
  const answer = await instance.http({ url: "/cause" }).answer;
  assert.match(answer.error?.cause?.stack ?? "", /Error: outer.*index\.mjs.*\[cause\]: TypeError: inner/s);
});

for (const [url, expected] of [
  ["/nothing", /returned nothing, not a Response/],
  ["/text", /returned a value of type string, not a Response/],
] as const) {
  test(`what is no Response is an invalid response: ${url}`, async () => {
    await using instance = await start();
    const answer = await instance.http({ url }).answer;
    assert.equal(answer.error?.code, "invalid-response");
    assert.match(answer.error?.message ?? "", expected);
  });
}

test("a Response whose body was used already fails", async () => {
  await using instance = await start();
  const answer = await instance.http({ url: "/used" }).answer;
  assert.equal(answer.error?.code, "handler-failed");
});

test("a body that fails on the way cuts the answer and says why", async () => {
  await using instance = await start();
  const answer = await instance.http({ url: "/stream-fails" }).answer;
  assert.equal(answer.status, 200);
  assert.equal(answer.body.toString(), "a part");
  assert.equal(answer.error?.cause?.message, "torn");
});

test("process.exit ends the process with its code; everything logged before arrives", async () => {
  await using instance = await start();
  const running = instance.http({ url: "/exit" });
  assert.equal((await running.answer).ending, "lost");
  assert.equal(await instance.exited, 4);
  assert.equal(instance.logText(running.id).length, "last words\n".length + 300_001);
});

test("an error after the answer is logged and ends nothing", async () => {
  await using instance = await start();
  const running = instance.http({ url: "/late" });
  assert.equal((await running.answer).ending, "succeeded");
  await instance.logged(() => instance.logText(null).includes("after the answer"));
  assert.match(instance.logText(null), new RegExp(`left behind by invocation ${running.id}`));
  assert.equal((await instance.http({ url: "/ok" }).answer).ending, "succeeded");
});

test("an error that belongs to no invocation ends the process, as in Node", async () => {
  const code = `setTimeout(() => { throw new Error("on its own"); }, 1); export default () => new Response();`;
  await using instance = await NodeInstance.start({ files: { "index.mjs": code } });
  assert.equal(await instance.exited, 1);
  assert.match(instance.logText(null), /Uncaught exception: Error: on its own/);
});

test("code that listens for uncaught exceptions itself keeps its process", async () => {
  const code = `
    let seen = "";
    process.on("uncaughtException", (error) => { seen = error.message; });
    setTimeout(() => { throw new Error("on its own"); }, 1);
    export default async () => { while (seen === "") await new Promise((resolve) => setTimeout(resolve, 1)); return new Response(seen); };`;
  await using instance = await NodeInstance.start({ files: { "index.mjs": code } });
  assert.equal((await instance.http().answer).body.toString(), "on its own");
});

test("promises that keep running do not hold the answer; what they log belongs to no invocation", async () => {
  await using instance = await start();
  assert.equal((await instance.http({ url: "/left" }).answer).ending, "succeeded");
  await instance.logged(() => instance.logText(null) === "still running\n");
});

test("a flood of output fills no memory: the surplus is dropped with a notice", async () => {
  await using instance = await start();
  const running = instance.http({ url: "/flood" });
  assert.equal((await running.answer).ending, "succeeded");
  const again = instance.http({ url: "/streams" });
  await again.answer;
  assert.ok(instance.logText(running.id).length < 8_000_000);
  assert.match(instance.logText(again.id), /\d+ bytes of output were dropped/);
});

test("console and the standard streams report to the invocation; they cannot be ended", async () => {
  await using instance = await start();
  const running = instance.http({ url: "/streams" });
  assert.equal((await running.answer).body.toString(), "1,2,");
  const of = (stream: string): string =>
    instance.logs.flatMap((log) => (log.stream === stream && log.id === running.id ? [log.text] : [])).join("");
  assert.equal(of("stdout"), "abde is 5\n");
  assert.equal(of("stderr"), "cf\n");
});

test("what child processes write goes to the real descriptors", async () => {
  await using instance = await start();
  await instance.http({ url: "/child" }).answer;
  assert.match(instance.rawOutput, /from a child/);
});

test("code that closes descriptor 3 does not cut the function off", async () => {
  await using instance = await start();
  assert.equal((await instance.http({ url: "/close" }).answer).body.toString(), '["EBADF","EBADF"]');
});

test("a child process does not inherit the channel", async () => {
  await using instance = await start();
  assert.doesNotMatch((await instance.http({ url: "/descriptors" }).answer).body.toString(), / 3 -> socket:/);
});

test("when the engine closes the link, exit hooks run and their output arrives", async () => {
  await using instance = await start();
  instance.link.close();
  assert.equal(await instance.exited, 0);
  await instance.closed;
  assert.equal(instance.logText(null), "shutting down\n");
});
