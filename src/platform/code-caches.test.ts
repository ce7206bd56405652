import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fakeVersion } from "../engine/fakes.ts";
import { CodeCaches } from "./code-caches.ts";

const code = `sha256:${"a".repeat(64)}`;
const files = [{ path: "v26/one", content: Buffer.from("compiled") }];

async function place(): Promise<AsyncDisposable & { readonly directory: string }> {
  const directory = await mkdtemp(join(tmpdir(), "koine-compiled-"));
  return { directory, [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }) };
}

test("what a check run compiled is found by versions with the same package and runtime, after a restart too", async () => {
  await using where = await place();
  const caches = await CodeCaches.open(where);
  assert.equal(caches.find(fakeVersion({ code })), null);
  await caches.keep(fakeVersion({ code }), files);
  for (const opened of [caches, await CodeCaches.open(where)]) {
    const folder = opened.find(fakeVersion({ code, handler: "other" }, { number: 2 }));
    assert.equal(await readFile(join(folder ?? "", "v26/one"), "utf8"), "compiled");
  }
});

test("what one namespace compiled is not executed by another, nor by another runtime or package", async () => {
  await using where = await place();
  const caches = await CodeCaches.open(where);
  await caches.keep(fakeVersion({ code }), files);
  assert.equal(caches.find({ ...fakeVersion({ code }), namespace: "other" }), null);
  assert.equal(caches.find(fakeVersion({ code, runtime: "nodejs24.x" })), null);
  assert.equal(caches.find(fakeVersion({ code: `sha256:${"b".repeat(64)}` })), null);
});

test("the first to be kept stays, and goes with its package", async () => {
  await using where = await place();
  const caches = await CodeCaches.open(where);
  const version = fakeVersion({ code });
  await caches.keep(version, files);
  await caches.keep(version, [{ path: "v26/one", content: Buffer.from("other") }]);
  assert.equal(await readFile(join(caches.find(version) ?? "", "v26/one"), "utf8"), "compiled");
  await caches.delete(code);
  assert.equal(caches.find(version), null);
  assert.equal((await CodeCaches.open(where)).find(version), null);
});

test("a cache whose folder is gone is forgotten", async () => {
  await using where = await place();
  const caches = await CodeCaches.open(where);
  await caches.keep(fakeVersion({ code }), files);
  await rm(caches.find(fakeVersion({ code })) ?? "", { recursive: true });
  assert.equal(caches.find(fakeVersion({ code })), null);
});
