import assert from "node:assert/strict";
import { PassThrough, Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { test, type TestContext } from "node:test";
import type { Blobs } from "../store.ts";

export function blobsConformance(open: (context: TestContext) => Promise<Blobs>): void {
  const key = `sha256:${"ab".repeat(32)}`;
  const of = (...chunks: Buffer[]): Readable => Readable.from(chunks, { objectMode: false });
  const read = async (blobs: Blobs, key: string): Promise<Buffer | null> => {
    const stream = await blobs.open(key);
    return stream === null ? null : await buffer(stream);
  };

  test("a blob comes back byte for byte", async (context) => {
    const blobs = await open(context);
    const bytes = Buffer.from(Uint8Array.from({ length: 300_000 }, (_, index) => (index * 7919) % 251));
    const { bytes: size } = await blobs.put(key, of(bytes.subarray(0, 100_001), bytes.subarray(100_001)));
    assert.equal(size, bytes.length);
    assert.equal(await blobs.has(key), true);
    assert.deepEqual(await read(blobs, key), bytes);
    assert.deepEqual(await blobs.list(), [key]);
  });

  test("an empty blob is a blob", async (context) => {
    const blobs = await open(context);
    assert.deepEqual(await blobs.put(key, of()), { bytes: 0 });
    assert.deepEqual(await read(blobs, key), Buffer.alloc(0));
  });

  test("nothing is there under an unknown key, and deleting it is no error", async (context) => {
    const blobs = await open(context);
    assert.equal(await blobs.has(key), false);
    assert.equal(await blobs.open(key), null);
    await blobs.delete(key);
    assert.deepEqual(await blobs.list(), []);
  });

  test("a key with odd characters is a key like others", async (context) => {
    const blobs = await open(context);
    const keys = ["../escape", ".", "..", "a/b", "a%2Fb", ".hidden", "ü b"];
    for (const odd of keys) await blobs.put(odd, of(Buffer.from(odd)));
    for (const odd of keys) assert.equal(String(await read(blobs, odd)), odd);
    assert.deepEqual((await blobs.list()).toSorted(), keys.toSorted());
  });

  test("a blob cannot be seen until it is whole", async (context) => {
    const blobs = await open(context);
    const source = new PassThrough();
    const put = blobs.put(key, source);
    source.write("first half,");
    assert.equal(await blobs.has(key), false);
    assert.equal(await blobs.open(key), null);
    assert.deepEqual(await blobs.list(), []);
    source.end("second half");
    await put;
    assert.equal(String(await read(blobs, key)), "first half,second half");
  });

  test("a source that breaks leaves nothing behind", async (context) => {
    const blobs = await open(context);
    const source = new PassThrough();
    const put = blobs.put(key, source);
    source.write("first half");
    source.destroy(new Error("connection lost"));
    await assert.rejects(put, /connection lost/);
    assert.equal(await blobs.has(key), false);
    await blobs.put(key, of(Buffer.from("whole")));
    assert.equal(String(await read(blobs, key)), "whole");
  });

  test("the same key twice keeps the first, and the second source is still read to its end", async (context) => {
    const blobs = await open(context);
    await blobs.put(key, of(Buffer.from("first")));
    const second = of(Buffer.from("the second"));
    assert.deepEqual(await blobs.put(key, second), { bytes: 5 });
    assert.equal(second.readableEnded, true);
    assert.equal(String(await read(blobs, key)), "first");
  });

  test("concurrent puts of one key leave one whole blob", async (context) => {
    const blobs = await open(context);
    const contents = Array.from({ length: 10 }, (_, index) => String(index).repeat(50_000 + index));
    await Promise.all(contents.map((content) => blobs.put(key, of(Buffer.from(content)))));
    assert.ok(contents.includes(String(await read(blobs, key))));
    assert.deepEqual(await blobs.list(), [key]);
  });

  test("a reader that has begun gets the whole blob although it is deleted meanwhile", async (context) => {
    const blobs = await open(context);
    const bytes = Buffer.alloc(500_000, "x");
    await blobs.put(key, of(bytes));
    const stream = await blobs.open(key);
    await blobs.delete(key);
    assert.equal(await blobs.has(key), false);
    assert.ok(stream !== null);
    assert.deepEqual(await buffer(stream), bytes);
  });
}
