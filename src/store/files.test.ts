import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { test, type TestContext } from "node:test";
import { storeConformance } from "./conformance.ts";
import { openFileBlobs } from "./files.ts";

storeConformance("files", ["blobs"], async (context) => ({ blobs: await openFileBlobs(await directoryFor(context)) }));

test("blobs are there after reopening, and what a crash left half-written is swept away", async (context) => {
  const directory = await directoryFor(context);
  const first = await openFileBlobs(directory);
  await first.put("sha256:ab", Readable.from([Buffer.from("whole")]));
  await writeFile(join(directory, ".incoming", "left-by-a-crash"), "hal");

  const second = await openFileBlobs(directory);
  assert.deepEqual(await second.list(), ["sha256:ab"]);
  assert.deepEqual(await readdir(join(directory, ".incoming")), []);
});

test("a failed put leaves no file", async (context) => {
  const directory = await directoryFor(context);
  const blobs = await openFileBlobs(directory);
  const breaking = Readable.from(
    (async function* () {
      yield Buffer.alloc(100_000);
      throw new Error("lost");
    })(),
  );
  await assert.rejects(blobs.put("k", breaking), /lost/);
  assert.deepEqual(await readdir(join(directory, ".incoming")), []);
});

test("a directory that cannot be used is refused with its name", async (context) => {
  const directory = await directoryFor(context);
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, "file"), "");
  await assert.rejects(openFileBlobs(join(directory, "file", "blobs")), { code: "data-directory-unusable" });
});

test("a key that no file can be named after is refused", async (context) => {
  const blobs = await openFileBlobs(await directoryFor(context));
  await assert.rejects(blobs.has("x".repeat(300)), { code: "invalid-request" });
  await assert.rejects(blobs.has(""), { code: "invalid-request" });
});

async function directoryFor(context: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "koine-blobs-"));
  context.after(() => rm(directory, { recursive: true }));
  return directory;
}
