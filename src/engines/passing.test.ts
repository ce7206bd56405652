import assert from "node:assert/strict";
import { duplexPair } from "node:stream";
import { test } from "node:test";
import { AnswerHead, type BodyReader, type GatewayResponse, type RequestBody } from "../dialects/dialect.ts";
import { RequestHeaders } from "../dialects/request-headers.ts";
import { wholeOf } from "../dialects/request-body.ts";
import type { EdgeRequest } from "../gateway/edge-request.ts";
import { answerPassed, Passing } from "./passing.ts";

/** A client's request as a front end would hand it over, and what the client got. */
class TestRequest implements EdgeRequest, RequestBody, GatewayResponse {
  readonly id = "id-1";
  readonly receivedAtMs = 7;
  readonly method: string;
  readonly path = "/v1/x";
  readonly query = "?a=b";
  readonly headers = new RequestHeaders(["Host", "here", "X-Odd", "ü"]);
  readonly remoteAddress = "192.0.2.1";
  readonly lengthBytes: number | null = null;
  readonly whole = null;
  readonly caller = null;
  readonly body = this;
  readonly response = this;
  listener: GatewayResponse["listener"] = null;
  begun = false;
  head: AnswerHead | null = null;
  text = "";
  reader: BodyReader | null = null;
  paused = false;
  readonly over = Promise.withResolvers<"ended" | "aborted">();

  constructor(method = "POST") {
    this.method = method;
  }

  read(reader: BodyReader): void {
    this.reader = reader;
  }
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
  }
  send(head: AnswerHead, body: Buffer | string | null): void {
    this.begin(head);
    this.write(body ?? "");
    this.end();
  }
  begin(head: AnswerHead): void {
    this.begun = true;
    this.head = head;
  }
  write(chunk: Buffer | string): boolean {
    this.text += String(chunk);
    return true;
  }
  end(): void {
    this.over.resolve("ended");
  }
  abort(): void {
    this.over.resolve("aborted");
  }
}

function passed(request: TestRequest, handle: (request: EdgeRequest) => void): void {
  const [near, far] = duplexPair();
  answerPassed(far, handle);
  new Passing(near).pass(request);
}

test("a request arrives as it was received, and its answer comes back in pieces", async () => {
  const request = new TestRequest();
  let seen: EdgeRequest | null = null;
  passed(request, (received) => {
    seen = received;
    void wholeOf(received.body, 1_000, "it").then((body) => {
      received.response.begin(new AnswerHead(201, ["X-Answer", "yes"]));
      received.response.write("got ");
      received.response.write(body);
      received.response.end();
    });
  });
  request.reader?.piece(Buffer.from("some "));
  request.reader?.piece(Buffer.from("bytes"));
  request.reader?.completed();
  assert.equal(await request.over.promise, "ended");
  assert.equal(request.text, "got some bytes");
  assert.deepEqual([request.head?.status, request.head?.headers], [201, ["X-Answer", "yes"]]);
  const { id, receivedAtMs, path, query, headers, remoteAddress } = seen as unknown as EdgeRequest;
  assert.deepEqual(
    [id, receivedAtMs, path, query, headers.raw, remoteAddress],
    ["id-1", 7, "/v1/x", "?a=b", ["Host", "here", "X-Odd", "ü"], "192.0.2.1"],
  );
});

test("a client that leaves is heard of where its request is answered", async () => {
  const request = new TestRequest();
  const left = Promise.withResolvers<void>();
  const arrived = Promise.withResolvers<void>();
  passed(request, (received) => {
    received.response.listener = { flowed: () => {}, left: () => left.resolve() };
    received.response.begin(new AnswerHead(200, []));
    arrived.resolve();
  });
  await arrived.promise;
  request.listener?.left();
  await left.promise;
});

test("an answer that breaks off breaks off for the client", async () => {
  const request = new TestRequest();
  passed(request, (received) => {
    received.response.begin(new AnswerHead(200, []));
    received.response.write("half");
    setImmediate(() => received.response.abort());
  });
  assert.equal(await request.over.promise, "aborted");
});

test("an answer to HEAD has the length of what it leaves out", async () => {
  const request = new TestRequest("HEAD");
  passed(request, (received) => received.response.send(new AnswerHead(200, []), "0123456789"));
  assert.equal(await request.over.promise, "ended");
  assert.deepEqual([request.head?.lengthBytes, request.text], [10, ""]);
});

test("when the first engine is gone, the client gets an error", async () => {
  const [near, far] = duplexPair();
  const passing = new Passing(near);
  const request = new TestRequest();
  passing.pass(request);
  far.destroy();
  near.destroy();
  await request.over.promise;
  assert.equal(request.head?.status, 503);
});

test("clients that leave, however many, are no reason to pass no more on", async () => {
  const [near, far] = duplexPair();
  answerPassed(far, (received) => received.response.begin(new AnswerHead(200, [])));
  const passing = new Passing(near);
  for (let leaving = 0; leaving < 2_000; leaving++) {
    const request = new TestRequest();
    passing.pass(request);
    request.listener?.left();
  }
  const last = new TestRequest();
  const [begun, begin] = [Promise.withResolvers<void>(), last.begin.bind(last)];
  last.begin = (head) => {
    begin(head);
    begun.resolve();
  };
  passing.pass(last);
  await begun.promise;
  assert.equal(last.head?.status, 200);
});
