import assert from "node:assert/strict";
import { test } from "node:test";
import { lines, serverSentEvents } from "./stream.ts";

async function* pieces(text: string, size: number): AsyncGenerator<Buffer> {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

test("lines come out whole, however they were cut on the way", async () => {
  for (const size of [1, 2, 5, 100]) {
    assert.deepEqual(await Array.fromAsync(lines(pieces("é one\r\ntwo\n\nlast", size))), ["é one", "two", "", "last"]);
  }
});

test("server-sent events carry their id and text; comments are left out", async () => {
  const text = ": hello\n\nevent: log\nid: 7\ndata: a\ndata: b\n\n: \n\ndata:x\n\n";
  assert.deepEqual(await Array.fromAsync(serverSentEvents(pieces(text, 3))), [
    { event: "log", id: "7", text: "a\nb" },
    { event: "message", id: "7", text: "x" },
  ]);
});
