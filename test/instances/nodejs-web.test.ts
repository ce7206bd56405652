import assert from "node:assert/strict";
import { test } from "node:test";
import { type Answer, NodeInstance, type Running } from "./node-instance.ts";

/** Runs the body of a web handler once; `before` is module-level code. */
async function run(
  code: string,
  begin: (instance: NodeInstance) => Running = (i) => i.http(),
  before = "",
): Promise<Answer> {
  const module = `${before}\nexport default async function (request, context) { ${code} }`;
  await using instance = await NodeInstance.start({ files: { "index.mjs": module } });
  // Awaited here: the instance ends with this block.
  return await begin(instance).answer;
}

/** What a handler's expression makes of a POST, as JSON. */
async function valueOf(expression: string, before = ""): Promise<unknown> {
  const headers = ["Host", "localhost:4000", "Content-Type", "application/json", "X-Twice", "1", "x-twice", "2"];
  const begin = (instance: NodeInstance): Running => {
    return instance.http({ method: "POST", url: "/a%20b?c=d", headers }, '{"n":1}');
  };
  const answer = await run(`return Response.json(${expression});`, begin, before);
  assert.equal(answer.ending, "succeeded", answer.error?.message ?? "");
  return JSON.parse(answer.body.toString());
}

for (const [what, expression, expected] of [
  ["method and address", "[request.method, request.url]", ["POST", "http://localhost:4000/a%20b?c=d"]],
  ["headers", `[request.headers.get("HOST"), request.headers.get("x-twice")]`, ["localhost:4000", "1, 2"]],
  ["body as JSON", "await request.json()", { n: 1 }],
  ["body as text", "await request.text()", '{"n":1}'],
  [
    "body as bytes",
    "[(await request.bytes()).length, Buffer.isBuffer(await new Response(new Uint8Array(2)).bytes())]",
    [7, false],
  ],
  ["body as a buffer", "(await request.arrayBuffer()).byteLength", 7],
  ["body as a stream", "await new Response(request.body).text()", '{"n":1}'],
  [
    "body as a form",
    `(await new Request("http://x", { method: "POST", body: new URLSearchParams("a=b") }).formData()).get("a")`,
    "b",
  ],
  ["a clone", "[await request.clone().text(), await request.text()]", ['{"n":1}', '{"n":1}']],
  ["a copy", `await new Request(request, { headers: { a: "b" } }).text()`, '{"n":1}'],
  ["a copy for elsewhere", `new Request("http://else.where/", request).method`, "POST"],
  [
    "its class",
    "[request instanceof Request, request.constructor === Request, String(request)]",
    [true, true, "[object Request]"],
  ],
  [
    "whether its body was used",
    "[request.bodyUsed, (await request.text()).length, request.bodyUsed]",
    [false, 7, true],
  ],
  [
    "a body that was used",
    `[await request.text(), await request.text().catch((e) => e.name), request.clone ? "" : ""]`,
    ['{"n":1}', "TypeError", ""],
  ],
  [
    "the rest of its members",
    "[request.redirect, request.signal.aborted, request.cache]",
    ["follow", false, "default"],
  ],
  [
    "context",
    "[context.requestId === context.activationId, context.functionName, context.namespace, context.version, context.attempt]",
    [true, "greet", "default", 3, 1],
  ],
  [
    "more context",
    "[context.remainingMs() > 0, context.deadline instanceof Date, context.basePath, context.remoteAddress, typeof context.env.PATH]",
    [true, true, "/fn/greet", "127.0.0.1", "string"],
  ],
] as const) {
  test(`a web handler sees the request: ${what}`, async () => {
    assert.deepEqual(await valueOf(expression), expected);
  });
}

for (const [what, expression, expected] of [
  [
    "class and kind",
    "(r => [r instanceof Response, r.constructor === Response, String(r)])(new Response('x'))",
    [true, true, "[object Response]"],
  ],
  [
    "status",
    "[new Response('x', { status: 404 }).ok, new Response().status, Response.error().type]",
    [false, 200, "error"],
  ],
  ["headers", "new Response('x').headers.get('content-type')", "text/plain;charset=UTF-8"],
  ["headers of JSON", "Response.json({}).headers.get('content-type')", "application/json"],
  ["headers that were changed", "(r => (r.headers.set('A', 'b'), [...r.headers]))(new Response())", [["a", "b"]]],
  ["a clone", "await (r => (r.clone(), r.text()))(new Response('x'))", "x"],
  ["a body that was used", "await (async (r) => { await r.text(); return r.bodyUsed; })(new Response('x'))", true],
  [
    "two classes",
    "[new Headers() instanceof Response, Response.error() instanceof Response, new (class A extends Headers {})() instanceof Headers]",
    [false, true, true],
  ],
  ["a redirect", "Response.redirect('http://a/', 303).headers.get('location')", "http://a/"],
  [
    "a subclass",
    "new (class Mine extends Response { get mine() { return this.status; } })('x', { status: 202 }).mine",
    202,
  ],
  ["without new", "(() => { try { Response('x'); } catch (e) { return e.name; } })()", "TypeError"],
  [
    "a status out of range",
    "(() => { try { new Response('x', { status: 99 }); } catch (e) { return e.name; } })()",
    "RangeError",
  ],
  [
    "a body where none may be",
    "(() => { try { new Response('x', { status: 204 }); } catch (e) { return e.name; } })()",
    "TypeError",
  ],
  [
    "a header with a line break",
    "(() => { try { new Response('x', { headers: { a: 'b\\nc' } }); } catch (e) { return e.name; } })()",
    "TypeError",
  ],
  ["text that is no Unicode", "await new Response('\\ud800').text()", "\ufffd"],
  [
    "bytes that change later",
    "await (b => { const r = new Response(b); b[0] = 50; return r.text(); })(new Uint8Array([49]))",
    "1",
  ],
] as const) {
  test(`Response is as it should be: ${what}`, async () => {
    assert.deepEqual(await valueOf(expression), expected);
  });
}

for (const [what, expression, expected] of [
  [
    "by pairs",
    "[...new Headers([['B', '1'], ['a', '2'], ['b', '3']])]",
    [
      ["a", "2"],
      ["b", "1, 3"],
    ],
  ],
  [
    "by name",
    "[...new Headers({ B: '1', a: '2' }).keys()].concat(...new Headers({ B: '1', a: '2' }).values())",
    ["a", "b", "2", "1"],
  ],
  ["of others", "[...new Headers(new Headers({ a: '1' }))]", [["a", "1"]]],
  [
    "cookies",
    "(h => (h.append('set-cookie', 'a'), h.append('Set-Cookie', 'b'), [h.get('set-cookie'), h.getSetCookie(), [...h].length]))(new Headers())",
    ["a, b", ["a", "b"], 2],
  ],
  [
    "changes",
    "(h => (h.set('A', '2'), h.append('b', 'x'), h.append('b', 'y'), h.delete('c'), [h.has('a'), h.get('B'), h.get('c')]))(new Headers({ a: '1', c: '3' }))",
    [true, "x, y", null],
  ],
  ["white space around values", "new Headers({ a: ' x ' }).get('a')", "x"],
  [
    "each",
    "(seen => (new Headers({ b: '1' }).forEach((value, name, all) => seen.push(name, value, all instanceof Headers)), seen))([])",
    ["b", "1", true],
  ],
  ["a wrong name", "(() => { try { new Headers().append('a b', 'c'); } catch (e) { return e.name; } })()", "TypeError"],
  ["a wrong value", "(() => { try { new Headers({ a: 'b\\nc' }); } catch (e) { return e.name; } })()", "TypeError"],
  ["for the real ones", "new Request('http://x/', { headers: new Headers({ a: 'b' }) }).headers.get('a')", "b"],
  [
    "after the real ones were made",
    "(r => (r.headers.set('a', '1'), r.clone(), r.headers.set('a', '2'), [r.headers.get('a'), r.clone().headers.get('a')]))(new Response('x'))",
    ["2", "2"],
  ],
  [
    "the same each time",
    "(r => [r.headers === r.headers, (r.clone(), r.headers === r.headers)])(new Response('x'))",
    [true, true],
  ],
  [
    "removed for good",
    "(r => (r.headers.delete('content-type'), r.clone().headers.has('content-type')))(new Response('x'))",
    false,
  ],
  [
    "their class",
    "(h => [String(h), h.constructor === Headers, h instanceof Headers])(request.headers)",
    ["[object Headers]", true, true],
  ],
] as const) {
  test(`Headers are as they should be: ${what}`, async () => {
    assert.deepEqual(await valueOf(expression), expected);
  });
}

test("Node's own web classes are loaded when they are needed, not before", async () => {
  const loaded = "process.moduleLoadList.some((name) => name.includes('undici/undici'))";
  const light = `[request.method, request.url, request.headers.get("host"), await request.json(), new Headers({ a: "b" }).get("a"), ${loaded}].at(-1)`;
  assert.equal(await valueOf(light), false);
  assert.equal(await valueOf(`(request.clone(), ${loaded})`), true);
});

for (const [what, code, expected] of [
  [
    "text",
    `return new Response("é", { status: 202, headers: { "X-A": "b" } });`,
    [202, "é", { "x-a": "b", "content-type": "text/plain;charset=UTF-8" }],
  ],
  [
    "a varying answer",
    `return new Response("x", { headers: { vary: "content-type" } });`,
    [200, "x", { vary: "content-type", "content-type": "text/plain;charset=UTF-8" }],
  ],
  ["no body", `return new Response(null, { status: 204 });`, [204, "", {}]],
  [
    "two cookies",
    `const r = new Response(); r.headers.append("set-cookie", "a=1"); r.headers.append("set-cookie", "b=2"); return r;`,
    [200, "", { "set-cookie": "a=1|b=2" }],
  ],
  ["a class of its own", `return { status: 203, headers: new Map([["a", "b"]]), body: null };`, [203, "", { a: "b" }]],
  [
    "a blob",
    `return new Response(new Blob(["blob"]), { headers: { "content-type": "a/b" } });`,
    [200, "blob", { "content-type": "a/b" }],
  ],
] as const) {
  test(`a web handler answers ${what}`, async () => {
    const answer = await run(code);
    assert.deepEqual([answer.status, answer.body.toString(), answer.headers], expected);
  });
}

test("an answer larger than the window arrives whole, made at once or as a stream", async () => {
  for (const body of [`"x".repeat(2_000_000)`, `new Blob(["x".repeat(2_000_000)]).stream()`]) {
    const answer = await run(`return new Response(${body});`);
    assert.equal(answer.body.length, 2_000_000);
  }
});

for (const [what, expression, expected] of [
  ["its body is that stream", "response.body === stream", true],
  ["it is read like any other", "await response.text()", "part"],
  ["it can be cloned", "[await response.clone().text(), await response.text()]", ["part", "part"]],
  [
    "it says when its body was used",
    "[response.bodyUsed, await response.text(), response.bodyUsed]",
    [false, "part", true],
  ],
  ["it has no type by itself", `response.headers.get("content-type")`, null],
  ["it counts as used when the stream was read", "(await stream.getReader().read(), response.bodyUsed)", true],
  ["it cannot be made of a stream in use", `(stream.getReader(), await name(() => new Response(stream)))`, "TypeError"],
] as const) {
  test(`a Response of a stream: ${what}`, async () => {
    const before = `import { ReadableStream as Stream } from "node:stream/web";
      const name = async (make) => { try { await make(); return "none"; } catch (error) { return error.name; } };`;
    const code = `const stream = new Stream({ start(out) { out.enqueue(Buffer.from("part")); out.close(); } });
      const response = new Response(stream); return Response.json(${expression});`;
    const answer = await run(code, undefined, before);
    assert.deepEqual(JSON.parse(answer.body.toString()), expected);
  });
}

test("a stream that was read already is no answer", async () => {
  const code = `const stream = new Blob(["x"]).stream(); const response = new Response(stream);
    const reader = stream.getReader(); await reader.read(); reader.releaseLock(); return response;`;
  const answer = await run(code);
  assert.match(answer.error?.message ?? "", /has been used already/);
});

test("Node's own classes are loaded for neither plain nor streamed answers", async () => {
  const code = `
    const loaded = () => String(process.moduleLoadList.some((name) => name.endsWith("undici/undici")));
    export default (request) => {
      if (request.url.endsWith("/plain")) return new Response(loaded());
      return new Response(new ReadableStream({ start(out) { out.enqueue(Buffer.from(loaded())); out.close(); } }));
    }`;
  await using instance = await NodeInstance.start({ files: { "index.mjs": code } });
  for (const url of ["/plain", "/stream", "/plain"]) {
    assert.equal((await instance.http({ url }).answer).body.toString(), "false");
  }
});

test("server-sent events arrive one by one", async () => {
  const code = `
    let next; const gate = () => new Promise((resolve) => (next = resolve));
    export default (request) => {
      if (request.url.endsWith("/next")) { next(); return new Response(); }
      const encoder = new TextEncoder();
      const body = new ReadableStream({ async start(out) {
        for (const n of [1, 2]) { out.enqueue(encoder.encode("data: " + n + "\\n\\n")); await gate(); }
        out.close();
      } });
      return new Response(body, { headers: { "content-type": "text/event-stream" } });
    }`;
  await using instance = await NodeInstance.start({ files: { "index.mjs": code } });
  const events = instance.http();
  await events.until(() => events.text === "data: 1\n\n");
  await instance.http({ url: "/next" }).answer;
  await events.until(() => events.text === "data: 1\n\ndata: 2\n\n");
  await instance.http({ url: "/next" }).answer;
  assert.equal((await events.answer).ending, "succeeded");
});

test("a request's body can be read while it still comes", async () => {
  const code = `export default async (request) => {
    const out = new TransformStream(); const writer = out.writable.getWriter();
    (async () => { for await (const part of request.body) await writer.write(part); await writer.close(); })();
    return new Response(out.readable); }`;
  await using instance = await NodeInstance.start({ files: { "index.mjs": code } });
  const running = instance.http({ method: "POST" }, null);
  running.exchange?.write(Buffer.from("ping "));
  await running.until(() => running.text === "ping ");
  running.exchange?.write(Buffer.from("pong"));
  running.exchange?.end();
  assert.equal((await running.answer).body.toString(), "ping pong");
});

test("waitUntil keeps the invocation open after its answer is complete", async () => {
  const code = `
    let finish;
    export default (request, context) => {
      if (request.url.endsWith("/finish")) finish();
      else context.waitUntil(new Promise((resolve) => (finish = resolve)).then(() => console.log("finished")));
      return new Response("ok");
    }`;
  await using instance = await NodeInstance.start({ files: { "index.mjs": code } });
  const running = instance.http();
  await running.until(() => running.bodyComplete);
  await instance.http({ url: "/finish" }).answer;
  assert.equal((await running.answer).ending, "succeeded");
  assert.equal(instance.logText(running.id), "finished\n");
});

test("a client that goes away aborts the signals of request and context", async () => {
  const code = `export default async (request, context) => {
    context.waitUntil(0);
    await Promise.all([request.signal, context.signal].map((signal) => new Promise((resolve) => signal.addEventListener("abort", resolve))));
    console.log(context.signal.reason.name); return new Response("x"); }`;
  await using instance = await NodeInstance.start({ files: { "index.mjs": code } });
  const running = instance.http();
  running.exchange?.cancel();
  assert.notEqual((await running.answer).ending, "lost");
  assert.equal(instance.logText(running.id), "AbortError\n");
});

test("a payload reaches a web handler as a POST to /", async () => {
  const code = "return Response.json([request.method, new URL(request.url).pathname, await request.json()]);";
  const answer = await run(code, (instance) => instance.event({ a: 1 }));
  assert.deepEqual(JSON.parse(answer.body.toString()), ["POST", "/", { a: 1 }]);
});

test("fetch understands the request it is given", async () => {
  const before = `import { createServer } from "node:http";
    const server = createServer((q, r) => { let t = ""; q.on("data", (d) => (t += d)).on("end", () => r.end(q.method + t + q.headers["x-twice"])); });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve)); server.unref();
    const address = "http://127.0.0.1:" + server.address().port;`;
  assert.equal(await valueOf("await (await fetch(new Request(address, request))).text()", before), 'POST{"n":1}1, 2');
  assert.equal(await valueOf("(await fetch(address)) instanceof Response", before), true);
});
