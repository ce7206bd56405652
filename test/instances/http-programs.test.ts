import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { FunctionSpec, Version } from "../../src/core/function.ts";
import { limits } from "../../src/core/limits.ts";
import { createHttpProtocol } from "../../src/protocols/http.ts";
import { type Files, ProgramMachine } from "./program.ts";

describe("programs that speak http", { timeout: 180_000 }, () => {
  let machine: ProgramMachine;
  before(async () => {
    machine = await ProgramMachine.open([createHttpProtocol()]);
  });
  after(() => machine[Symbol.asyncDispose]());

  const node = (source: string, spec: Partial<FunctionSpec> = {}, files: Files = {}): Promise<Version> =>
    machine.deploy(
      { "server.mjs": source, ...files },
      { runtime: "nodejs26.x", protocol: "http", command: ["node", "server.mjs"], ...spec },
    );
  /** A server of one function, on the port it is given. */
  const serving = (body: string, spec: Partial<FunctionSpec> = {}): Promise<Version> =>
    node(
      `import { createServer } from "node:http";
       createServer((request, response) => { ${body} }).listen(Number(process.env.PORT), "127.0.0.1");`,
      spec,
    );

  test("busybox serves its files", async () => {
    const command = ["busybox", "httpd", "-f", "-p", "127.0.0.1:$PORT", "-h", "/code"];
    const version = await machine.deploy({ "index.html": "<p>hello</p>" }, { protocol: "http", command });
    const answer = machine.call(version, { url: "/index.html" });
    assert.equal(await answer.result, "succeeded", await answer.message);
    assert.equal(answer.text, "<p>hello</p>");
    assert.equal(answer.header("content-type"), "text/html");
  });

  test("Python's http.server, which closes every connection, serves call after call", async () => {
    const version = await machine.deploy(
      { "a.txt": "from Python" },
      { runtime: "python3", protocol: "http", command: ["python3", "-m", "http.server", "-b", "127.0.0.1", "$PORT"] },
    );
    for (let round = 0; round < 3; round++) {
      const answer = machine.call(version, { url: "/a.txt" });
      assert.equal(await answer.result, "succeeded", await answer.message);
      assert.equal(answer.text, "from Python");
    }
    const head = machine.call(version, { method: "HEAD", url: "/a.txt" });
    assert.deepEqual([await head.result, head.header("content-length"), head.text], ["succeeded", "11", ""]);
  });

  test("it sees the request as the client sent it, without what belongs to a connection", async () => {
    const version = await serving("response.end(JSON.stringify([request.method, request.url, request.rawHeaders]))");
    const headers = ["Host", "shop.test", "Connection", "x-secret", "X-Secret", "1", "TE", "gzip", "A", "1", "a", "2"];
    const proxied = ["X-Forwarded-For", "10.0.0.1", "X-Forwarded-Proto", "gopher", "Proxy-Authorization", "none"];
    const answer = machine.call(version, {
      method: "PATCH",
      url: "/x?y=%20z",
      headers: [...headers, ...proxied],
      origin: "http://shop.test",
    });
    await answer.result;
    const [method, url, raw] = JSON.parse(answer.text) as [string, string, string[]];
    assert.deepEqual([method, url], ["PATCH", "/x?y=%20z"]);
    const seen = (name: string): string[] =>
      raw.filter((_, index) => index % 2 === 1 && raw[index - 1]?.toLowerCase() === name);
    assert.deepEqual(seen("host"), ["shop.test"]);
    assert.deepEqual(seen("a"), ["1", "2"]);
    for (const dropped of ["x-secret", "te", "proxy-authorization"]) assert.deepEqual(seen(dropped), []);
    assert.deepEqual(seen("x-forwarded-for"), ["10.0.0.1, 127.0.0.1"]);
    assert.deepEqual(seen("x-forwarded-proto"), ["http"]);
    assert.deepEqual(seen("x-forwarded-prefix"), ["/fn/x"]);
    assert.deepEqual(seen("x-request-id"), [answer.id]);
  });

  test("an answer loses what belongs to its connection, trailers included", async () => {
    const version = await serving(`
      response.writeHead(203, { "connection": "x-hop, close", "x-hop": "1", "keep-alive": "timeout=9", "trailer": "x-end", "x-kept": "2" });
      response.addTrailers({ "x-end": "3" });
      response.end("whole");`);
    const answer = machine.call(version);
    assert.equal(await answer.result, "succeeded");
    assert.deepEqual([answer.status, answer.text], [203, "whole"]);
    assert.deepEqual(answer.headers, ["x-kept", "2"]);
  });

  test("connections are kept between calls, and one that the program closed is not missed", async () => {
    const version = await node(`
      import { createServer } from "node:http";
      let connections = 0;
      const server = createServer((request, response) => {
        if (request.url === "/reset") request.socket.resetAndDestroy();
        else response.end(String(connections));
        if (request.url === "/close") setImmediate(() => server.closeAllConnections());
      });
      server.on("connection", () => connections++);
      server.listen(Number(process.env.PORT), "127.0.0.1");`);
    let connections = 0;
    for (const url of ["/", "/", "/", "/", "/", "/", "/close"]) {
      const answer = machine.call(version, { url });
      assert.equal(await answer.result, "succeeded");
      connections = Number(answer.text);
    }
    // One asked whether it listens; a slow machine may let some run out of their time.
    assert.ok(connections < 7, `${connections} connections for 7 calls`);
    const after = machine.call(version, { url: "/" });
    assert.equal(await after.result, "succeeded", await after.message);
    const reset = machine.call(version, { url: "/reset" });
    assert.equal(await reset.result, "invalid-response");
    assert.match(await reset.message, /closed the connection before its answer/);
  });

  test("several calls run at a time on one instance", async () => {
    const version = await serving(
      `globalThis.waiting ??= [];
       waiting.push(response);
       if (waiting.length === 5) for (const each of waiting) each.end("together");`,
      { instanceConcurrency: 5 },
    );
    const answers = Array.from({ length: 5 }, () => machine.call(version));
    assert.deepEqual(await Promise.all(answers.map((answer) => answer.result)), Array(5).fill("succeeded"));
  });

  test("bodies flow in both directions while the call runs, at the speed of the slower side", async () => {
    const version = await serving("response.flushHeaders(); request.pipe(response);");
    const answer = machine.call(version, { method: "POST" }, null);
    answer.exchange.write(Buffer.from("first"));
    await answer.until(() => answer.text === "first");
    const part = Buffer.alloc(64 * 1024, "p");
    answer.accepting = false;
    let sent = 0;
    // What nobody takes fills the buffers on the way, and then stops the sender.
    while (answer.exchange.write(part)) sent++;
    assert.ok(sent < 500, `${sent} parts were taken`);
    answer.accepting = true;
    answer.exchange.resume();
    await answer.untilDrained();
    answer.exchange.end();
    assert.equal(await answer.result, "succeeded");
    assert.equal(answer.bytes, 5 + (sent + 1) * part.length);
  });

  test("a program that needs its time is waited for, one with a ready path until that answers", async () => {
    const source = `
      import { createServer } from "node:http";
      let asked = 0;
      const server = createServer((request, response) => {
        if (request.url === "/ready") response.writeHead(++asked < 3 ? 503 : 204).end();
        else response.end(String(asked));
      });
      setTimeout(() => server.listen(Number(process.env.PORT), "127.0.0.1"), 400);`;
    const slow = machine.call(await node(source), { url: "/x" });
    assert.deepEqual([await slow.result, slow.text], ["succeeded", "0"]);
    const ready = machine.call(await node(source, { readyPath: "/ready" }), { url: "/x" });
    assert.deepEqual([await ready.result, ready.text], ["succeeded", "3"]);
  });

  test("a program that ends while it starts tells what it wrote; its next start may do better", async () => {
    const version = await node(`console.error("no database"); process.exit(7);`);
    const answer = machine.call(version);
    assert.equal(await answer.result, "handler-load-failed");
    assert.match(await answer.message, /exited with code 7 while loading; it wrote: no database/);
  });

  test("a crash in the middle of a call is the call's error, and the next call gets another instance", async () => {
    const version = await serving(`
      if (request.url === "/crash") { response.write("half"); setTimeout(() => process.kill(process.pid, "SIGSEGV"), 50); }
      else if (request.url === "/exit") process.exit(9);
      else response.end("fine");`);
    const crash = machine.call(version, { url: "/crash" });
    assert.equal(await crash.result, "function-exited");
    assert.match(await crash.message, /SIGSEGV/);
    assert.equal(crash.bodyIsWhole, false);
    const exit = machine.call(version, { url: "/exit" });
    assert.match(await exit.message, /exit code 9/);
    assert.equal(await machine.call(version).result, "succeeded");
  });

  test("memory beyond the limit ends the instance with that reason", async () => {
    const version = await serving(`const kept = []; for (;;) kept.push(Buffer.alloc(8_000_000, 1));`, {
      memoryBytesMax: 96 * 1024 * 1024,
    });
    assert.equal(await machine.call(version).result, "out-of-memory");
  });

  test("a call that takes too long is ended with its instance", async () => {
    const version = await serving(`if (request.url !== "/hang") response.end("fine");`, { timeoutMs: 500 });
    assert.equal(await machine.call(version).result, "succeeded");
    const hanging = machine.call(version, { url: "/hang" });
    assert.equal(await hanging.result, "function-timed-out");
    assert.equal(await machine.call(version).result, "succeeded");
  });

  test("a program notices that nobody wants its answer any more", async () => {
    const version = await serving(
      `
      if (request.url === "/left") return response.end(String(globalThis.left ?? 0));
      response.on("close", () => (globalThis.left = (globalThis.left ?? 0) + 1));
      response.write("begun");`,
      { instanceConcurrency: 2 },
    );
    const given = machine.call(version, { url: "/hang" });
    await given.until(() => given.bytes > 0);
    given.exchange.cancel();
    assert.equal(await given.result, "client-closed-request");
    for (let text = "0"; text === "0";) {
      const asked = machine.call(version, { url: "/left" });
      await asked.result;
      text = asked.text;
    }
  });

  test("what it writes becomes the logs of its calls, from its first line on", async () => {
    const version = await node(`
      import { createServer } from "node:http";
      console.log("starting");
      createServer((request, response) => { console.log("serving " + request.url); response.end(); })
        .listen(Number(process.env.PORT), "127.0.0.1", () => console.log("listening"));`);
    const answer = machine.call(version, { url: "/a" });
    await answer.result;
    const own = machine.lines.filter(({ name }) => name === version.name);
    const started = own.filter(({ activationId }) => activationId === null).map(({ line }) => line);
    assert.deepEqual(started, ["starting", "listening"]);
    await machine.call(version, { url: "/b" }).result;
    assert.deepEqual(machine.linesOf(answer.id), ["serving /a"]);
  });

  test("an event is posted, and an error status is its failure", async () => {
    const version = await serving(`
      let text = "";
      request.on("data", (part) => (text += part)).on("end", () => {
        response.writeHead(text === "bad" ? 422 : 200).end([request.method, request.url, request.headers["content-type"], text].join(" "));
      });`);
    const call = { kind: "event", contentType: "application/json" } as const;
    const answer = machine.run(version, call, `{"a":1}`);
    assert.equal(await answer.result, "succeeded");
    assert.equal(answer.text, `POST / application/json {"a":1}`);
    const bad = machine.run(version, call, "bad");
    assert.equal(await bad.result, "handler-failed");
    assert.match(await bad.message, /the program answered 422: POST/);
  });

  test("answers that are not HTTP, or whose head is too large, are the function's fault and end with their call", async () => {
    const heads: Readonly<Record<string, string>> = {
      "/garbage": `"\\x00\\x01garbage\\r\\n\\r\\n"`,
      "/status": `"HTTP/1.1 99999 Odd\\r\\n\\r\\n"`,
      "/large": `"HTTP/1.1 200 OK\\r\\nX: " + "x".repeat(${limits.programHeadBytesMax}) + "\\r\\n\\r\\n"`,
      "/lengths": `"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\nContent-Length: 6\\r\\n\\r\\nhello!"`,
      "/chunks": `"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\nzz\\r\\n"`,
      "/short": `"HTTP/1.1 200 OK\\r\\nContent-Length: 50\\r\\n\\r\\nhello"`,
      "/switch": `"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: x\\r\\nConnection: Upgrade\\r\\n\\r\\n"`,
    };
    const cases = Object.entries(heads).map(
      ([url, bytes]) => `if (request.url === "${url}") return request.socket.end(${bytes});`,
    );
    const version = await serving(`${cases.join("\n")} response.end("fine");`);
    for (const url of Object.keys(heads)) {
      const answer = machine.call(version, { url });
      assert.equal(await answer.result, "invalid-response", url);
      assert.equal(answer.bodyIsWhole, false, url);
    }
    assert.equal(await machine.call(version).result, "succeeded");
  });

  test("an answer that nobody asked for reaches nobody", async () => {
    const version = await node(`
      import { createServer } from "node:net";
      const answer = (text) => "HTTP/1.1 200 OK\\r\\nContent-Length: " + text.length + "\\r\\n\\r\\n" + text;
      createServer((socket) => {
        socket.on("error", () => {});
        socket.on("data", (request) => {
          const path = String(request).split(" ")[1];
          socket.write(answer("to " + path));
          // Once with the answer, once while nothing is asked.
          if (path === "/twice") socket.write(answer("forged"));
          if (path === "/later") setTimeout(() => socket.write(answer("forged")), 20);
        });
      }).listen(Number(process.env.PORT), "127.0.0.1");`);
    for (const url of ["/twice", "/a", "/later"]) {
      const answer = machine.call(version, { url });
      await answer.result;
      assert.ok(answer.text === `to ${url}` || url === "/twice", answer.text);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
    const next = machine.call(version, { url: "/b" });
    assert.deepEqual([await next.result, next.text], ["succeeded", "to /b"]);
  });
});
