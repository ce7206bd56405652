import assert from "node:assert/strict";
import { test } from "node:test";
import { HeadReader } from "../../bootstrap/nodejs/call.mjs";
import type { Call } from "../core/invocation.ts";
import { HeadEncoder } from "./frame-json.ts";

test("an instance reads the heads that the engine writes, whatever they say and whichever came before", () => {
  const encoder = new HeadEncoder();
  const reader = new HeadReader();
  const texts = [
    "",
    "/",
    '/a,"headers":[',
    '","kind":"event',
    '\\","headers":[],"',
    "ä\u2028\ud83d\ude00",
    "x".repeat(300),
  ];
  const calls: Call[] = texts.flatMap((url): Call[] =>
    texts.map((value, index) => ({
      kind: "http",
      method: index % 2 === 0 ? "GET" : "POST",
      url,
      headers: ["Host", "localhost", "X-Value", value],
      headersJson: index % 3 === 0 ? undefined : JSON.stringify(["Host", "localhost", "X-Value", value]),
      basePath: `/fn/${value}`,
      origin: "http://localhost",
      remoteAddress: `127.0.0.${index}`,
      context: index % 4 === 0 ? { of: value, headers: [value] } : undefined,
    })),
  );
  const events = texts.map((text): Call => ({
    kind: "event",
    contentType: text,
    context: { kind: "http", headers: [text], a: ',"kind":"http","headers":' },
  }));
  for (let round = 0; round < 2; round++) {
    for (const [index, call] of [...calls, ...events].entries()) {
      const { headersJson: _, ...said } = call as Call & { readonly headersJson?: string };
      const invocation = {
        id: `${texts[index % texts.length]}${index}`,
        attempt: 1 + round,
        deadlineMs: 1_700_000_000_000,
      };
      const encoded = encoder.encode({ ...invocation, call, body: Buffer.alloc(0), bodyComplete: true });
      const read = reader.read(encoded.text + encoded.rest.toString("utf8"));
      assert.deepEqual({ ...read }, { ...invocation, ...said });
    }
  }
});

test("what two calls share cannot be changed by one of them", () => {
  const reader = new HeadReader();
  const text =
    '{"id":"1","attempt":1,"deadlineMs":1,"kind":"http","method":"GET","url":"/","headers":["a","b"],"basePath":"","origin":"","remoteAddress":""}';
  const first = reader.read(text);
  assert.ok(first.kind === "http");
  assert.throws(() => first.headers.push("c", "d"), TypeError);
  assert.deepEqual(reader.read(text), first);
});
