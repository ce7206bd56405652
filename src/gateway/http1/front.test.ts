import assert from "node:assert/strict";
import { test } from "node:test";
import { AnswerHead } from "../../dialects/dialect.ts";
import { piecesOf } from "../../dialects/request-body.ts";
import type { EdgeRequest } from "../edge-request.ts";
import { answer, ServedFront, until } from "./testing/served.ts";

const get = (path: string, headers = ""): string => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`;
const post = (path: string, length: number, headers = ""): string =>
  `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${length}\r\n${headers}\r\n`;

test("requests follow each other on a connection, and each answer has id, length and date", async () => {
  await using served = await ServedFront.listen();
  const client = await served.connect();
  client.send(get("/a?b=c"));
  const first = await client.until("GET /a");
  assert.match(
    first,
    /^HTTP\/1\.1 200 OK\r\nx-request-id: [0-9a-f-]{36}\r\nContent-Length: 6\r\nDate: \w{3}, .* GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=65\r\n\r\nGET \/a$/,
  );
  client.send(post("/d", 3) + "xyz" + get("/e"));
  await client.until("GET /e");
  const [a, d, e] = served.requests;
  assert.deepEqual([a?.query, d?.body.whole?.toString(), e?.body.whole?.length], ["?b=c", "xyz", 0]);
});

test("pipelined requests that only read are begun together and answered in their order, others one after the other", async () => {
  await using served = await ServedFront.listen();
  const client = await served.connect();
  served.handle = () => {};
  client.send(get("/1") + get("/2") + get("/3") + post("/4", 2) + "ab" + get("/5"));
  const [one, two, three] = await served.read(3);
  assert.equal(served.requests.length, 3);
  assert.ok(one !== undefined && two !== undefined && three !== undefined);
  answer(three, "three");
  two.response.begin(new AnswerHead(200, []));
  two.response.write("tw");
  answer(one, "one");
  two.response.write("o");
  two.response.end();
  const [, , , four] = await served.read(4);
  await client.until("three");
  assert.deepEqual(client.received.match(/one|2\r\ntw|1\r\no|three/g), ["one", "2\r\ntw", "1\r\no", "three"]);
  assert.ok(four !== undefined);
  answer(four, "four");
  const [, , , , five] = await served.read(5);
  assert.ok(five !== undefined);
  answer(five, "five");
  await client.until("five");
});

test("an odd request goes to node:http with its connection, after the answers to those before it", async () => {
  await using served = await ServedFront.listen();
  const client = await served.connect();
  const waiting: EdgeRequest[] = [];
  served.handle = (request) => waiting.push(request);
  const chunked = "POST /odd HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
  client.send(get("/first") + chunked.slice(0, 80));
  await until(() => waiting.length === 1);
  client.send(chunked.slice(80) + get("/third"));
  const [first] = waiting;
  assert.ok(first !== undefined);
  answer(first, "first");
  const received = await client.until("node GET /third");
  assert.match(received, /first[^]*node POST \/odd[^]*node GET \/third/);
  assert.equal(served.requests.length, 1);
});

test("upgrades, other versions and expectations are answered by node:http", async () => {
  await using served = await ServedFront.listen();
  for (const [request, expected] of [
    [get("/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"), "node GET /ws"],
    ["GET /old HTTP/1.0\r\n\r\n", "node GET /old"],
    [post("/c", 3, "Expect: 100-continue\r\n") + "abc", "HTTP/1.1 100 Continue"],
    ["\x16\x03\x01\x00TLS", "HTTP/1.1 400 Bad Request"],
    [get("/a b"), "HTTP/1.1 400 Bad Request"],
  ] as const) {
    const client = await served.connect();
    client.send(request);
    await client.until(expected);
  }
  assert.equal(served.requests.length, 0);
});

test("heads and bodies may come in any pieces", async () => {
  await using served = await ServedFront.listen();
  const client = await served.connect();
  for (const character of post("/slow", 5) + "hello") {
    client.send(character);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await client.until("POST /slow");
  assert.equal(served.requests[0]?.body.whole?.toString(), "hello");
});

test("who takes too long to send a head or a small body is told so; who sends nothing more is let go", async () => {
  await using served = await ServedFront.listen();
  const [head, body, idle] = [await served.connect(), await served.connect(), await served.connect()];
  head.send("GET /never HTTP/1.1\r\nHost");
  body.send(post("/never", 10) + "abc");
  idle.send(get("/once"));
  await idle.until("GET /once");
  // What was sent has arrived when what was sent after it has.
  await served.clock.advance(59_000);
  head.send(": ");
  assert.equal(head.received + body.received, "");
  await served.clock.advance(1_000);
  for (const client of [head, body]) assert.match(await client.untilEnd(), /^HTTP\/1\.1 408 /);
  assert.equal(idle.ended, false);
  await served.clock.advance(5_000);
  await idle.untilEnd();
  assert.equal(served.requests.length, 1);
});

test("a large body is cut off when it stops coming, not when nobody takes it", async () => {
  await using served = await ServedFront.listen();
  const client = await served.connect();
  const events: string[] = [];
  served.handle = ({ body, response }) => {
    response.listener = { flowed: () => {}, left: () => events.push("left") };
    body.read({
      piece: () => {
        events.push("piece");
        body.pause();
      },
      completed: () => events.push("completed"),
      cut: () => events.push("cut"),
    });
  };
  client.send(post("/large", 5_000) + "x".repeat(2_000));
  await until(() => events.length > 0);
  await served.clock.advance(600_000);
  assert.deepEqual(events, ["piece"]);
  served.requests[0]?.body.resume();
  await served.clock.advance(60_000);
  await client.untilEnd();
  await until(() => events.length === 3);
  assert.deepEqual(events, ["piece", "cut", "left"]);
});

test("a large body flows as fast as it is taken, and what follows it is the next request", async () => {
  await using served = await ServedFront.listen();
  const client = await served.connect();
  const length = 20_000_000;
  let taken = 0;
  served.handle = (request) => {
    if (request.method === "GET") return answer(request, "next");
    void (async () => {
      for await (const piece of piecesOf(request.body)) taken += piece.length;
      answer(request, `took ${taken}`);
    })();
  };
  client.send(post("/large", length));
  client.socket.write(Buffer.alloc(length - 10, "x"));
  client.send("GET / HTTP" + get("/next"));
  await client.until("next");
  assert.match(client.received, /took 20000000[^]*next/);
});

test("a large answer waits for a client that does not read, and arrives whole", async () => {
  await using served = await ServedFront.listen();
  const client = await served.connect();
  client.socket.pause();
  const piece = Buffer.alloc(100_000, "x");
  let written = 0;
  served.handle = ({ response }) => {
    response.begin(new AnswerHead(200, [], { lengthBytes: 20_000_000 }));
    const write = (): void => {
      while (written < 20_000_000) {
        written += piece.length;
        if (!response.write(piece)) return;
      }
      response.end();
    };
    response.listener = { flowed: write, left: () => {} };
    write();
  };
  client.send(get("/large"));
  await until(() => written > 0);
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(written < 15_000_000, `${written} bytes were written to nobody`);
  client.socket.resume();
  await until(() => client.received.length > 20_000_000);
  assert.match(client.received.slice(0, 300), /Content-Length: 20000000\r\n[^]*\r\n\r\nx/);
});

test("HEAD, 204 and 304 have no body, and the connection goes on", async () => {
  await using served = await ServedFront.listen();
  const client = await served.connect();
  served.handle = (request) => {
    const { response, path } = request;
    if (path === "/304") response.send(new AnswerHead(304, [], { lengthBytes: 9 }), "dropped");
    else if (path === "/204") response.send(new AnswerHead(204, []), "dropped");
    else if (path === "/stream") {
      response.begin(new AnswerHead(200, []));
      response.write("dropped");
      response.end();
    } else answer(request, "kept");
  };
  client.send(
    ["HEAD /a", "HEAD /stream", "GET /204", "GET /304", "GET /b"]
      .map((line) => `${line} HTTP/1.1\r\nHost: a\r\n\r\n`)
      .join(""),
  );
  const received = await client.until("kept");
  const heads = received.split("\r\n\r\n");
  assert.deepEqual(
    heads.map((head) => [
      /^HTTP\/1\.1 (\d+)/.exec(head)?.[1],
      /content-length: (\d+)/i.exec(head)?.[1],
      /chunked/.test(head),
    ]),
    [
      ["200", "4", false],
      ["200", undefined, false],
      ["204", undefined, false],
      ["304", "9", false],
      ["200", "4", false],
      [undefined, undefined, false],
    ],
  );
  assert.equal(heads.at(-1), "kept");
});

test("an answer that comes before its body is taken leaves the connection usable, within bounds", async () => {
  await using served = await ServedFront.listen();
  const client = await served.connect();
  client.send(post("/early", 5_000) + "x".repeat(100));
  await client.until("POST /early");
  client.send("y".repeat(4_900) + get("/after"));
  await client.until("GET /after");
  const other = await served.connect();
  other.send(post("/huge", 2_000_000));
  await other.until("POST /huge");
  assert.match(await other.untilEnd(), /Connection: close/);
});

test("an answer that closes, or a client that asks for it, ends the connection after the answer", async () => {
  await using served = await ServedFront.listen();
  const asks = await served.connect();
  asks.send(get("/last", "Connection: close\r\n") + get("/never"));
  assert.match(await asks.untilEnd(), /Connection: close\r\n\r\nGET \/last$/);
  served.handle = ({ response }) => response.send(new AnswerHead(413, [], { closes: true }), "too much");
  const told = await served.connect();
  told.send(get("/last") + get("/never"));
  assert.match(await told.untilEnd(), /^HTTP\/1\.1 413 [^]*Connection: close\r\n\r\ntoo much$/);
  assert.deepEqual(
    served.requests.map(({ path }) => path).filter((path) => path === "/never"),
    [],
  );
  // A client that never closes its side is not waited for without end.
  await served.clock.advance(5_000);
  await until(() => told.closed || told.socket.destroyed || told.ended);
});

test("a client that ends its side with its request gets the answer; one that leaves later is gone", async () => {
  await using served = await ServedFront.listen();
  const polite = await served.connect();
  const waiting: EdgeRequest[] = [];
  const gone: string[] = [];
  served.handle = (request) => {
    waiting.push(request);
    request.response.listener = { flowed: () => {}, left: () => gone.push(request.path) };
  };
  polite.socket.end(get("/polite"));
  await until(() => waiting.length === 1);
  // The end comes with the request, within a turn or two of the loop.
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
  const [first] = waiting;
  assert.ok(first !== undefined);
  answer(first, "still here");
  assert.match(await polite.untilEnd(), /still here$/);
  const leaving = await served.connect();
  leaving.send(get("/leaving") + get("/with-it"));
  await until(() => waiting.length === 3);
  await served.clock.advance(1_000);
  leaving.socket.destroy();
  await until(() => gone.length === 2);
  assert.deepEqual(gone, ["/leaving", "/with-it"]);
  // What is still said to it does no harm.
  for (const request of waiting) answer(request, "too late");
});

test("a body that is longer or shorter than its head promised breaks the connection", async () => {
  await using served = await ServedFront.listen();
  served.handle = ({ response, path }) => {
    response.begin(new AnswerHead(200, [], { lengthBytes: 5 }));
    response.write(path === "/more" ? "123456" : "1234");
    response.end();
  };
  for (const path of ["/more", "/less"]) {
    const client = await served.connect();
    client.send(get(path));
    assert.doesNotMatch(await client.untilEnd(), /123456/);
    await until(() => client.ended);
  }
});

test("a header that would break the answer's head is never sent", async () => {
  await using served = await ServedFront.listen();
  const client = await served.connect();
  const thrown: string[] = [];
  served.handle = (request) => {
    for (const headers of [
      ["A", "b\r\nC: d"],
      ["A\r\nB", "c"],
      ["A B", "c"],
      ["A", "\u0100"],
    ]) {
      try {
        answer(request, "", headers);
      } catch (error) {
        thrown.push(String(error));
      }
    }
    answer(request, "fine");
  };
  client.send(get("/"));
  await client.until("fine");
  assert.equal(thrown.length, 4);
});

test("closing lets go of idle connections, and ends the others with their answers", async () => {
  await using served = await ServedFront.listen();
  const [idle, busy] = [await served.connect(), await served.connect()];
  idle.send(get("/"));
  await idle.until("GET /");
  const waiting: EdgeRequest[] = [];
  served.handle = (request) => waiting.push(request);
  busy.send(get("/busy"));
  await until(() => waiting.length === 1);
  const closing = served.front.close(AbortSignal.timeout(10_000));
  await idle.untilEnd();
  const [request] = waiting;
  assert.ok(request !== undefined);
  answer(request, "done");
  assert.match(await busy.untilEnd(), /Connection: close[^]*done$/);
  busy.socket.end();
  await closing;
});
