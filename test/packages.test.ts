import assert from "node:assert/strict";
import { chmod, lstat, mkdir, mkdtemp, readFile, readlink, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createWriteStream } from "node:fs";
import { after, before, test } from "node:test";
import { packCode } from "../src/cli/pack.ts";
import { limits } from "../src/core/limits.ts";
import { unpackArchive, type UnpackedPackage } from "../src/platform/unpack.ts";

let root: string;
before(async () => {
  root = await mkdtemp(join(tmpdir(), "koine-round-trip-"));
});
after(() => rm(root, { recursive: true, force: true }));

async function unpack(archive: Readable, name: string): Promise<UnpackedPackage> {
  const path = join(root, `${name}.zip`);
  await pipeline(archive, createWriteStream(path));
  return unpackArchive(path, join(root, name), { limits, signal: new AbortController().signal });
}

test("a folder is unpacked as it was packed, and both sides know it by the same digest", async () => {
  const folder = join(root, "folder");
  const random = Buffer.from(Array.from({ length: 3_000_000 }, (_, index) => (index * 2_654_435_761) >>> 24));
  const files: Readonly<Record<string, string | Buffer>> = {
    "index.js": "export default {}",
    empty: "",
    "名前/ünï codé 🚀.txt": "text",
    "node_modules/tool/cli.js": "#!/usr/bin/env node",
    "assets/large.bin": random,
    "line\nbreak": "1",
  };
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), content);
  }
  await chmod(join(folder, "node_modules/tool/cli.js"), 0o755);
  await mkdir(join(folder, "node_modules/.bin"));
  await symlink("../tool/cli.js", join(folder, "node_modules/.bin/tool"));
  await symlink("名前", join(folder, "names"));

  const packed = await packCode(folder);
  const unpacked = await unpack(packed.archive(), "unpacked");
  assert.deepEqual(unpacked, { digest: packed.digest, files: packed.files, bytes: packed.bytes });
  for (const [path, content] of Object.entries(files)) {
    assert.deepEqual(await readFile(join(root, "unpacked", path)), Buffer.from(content), path);
  }
  assert.equal((await lstat(join(root, "unpacked/node_modules/tool/cli.js"))).mode & 0o777, 0o755);
  assert.equal((await lstat(join(root, "unpacked/index.js"))).mode & 0o777, 0o644);
  assert.equal(await readlink(join(root, "unpacked/node_modules/.bin/tool")), "../tool/cli.js");
  assert.equal(await readFile(join(root, "unpacked/names/ünï codé 🚀.txt"), "utf8"), "text");

  const again = await packCode(join(root, "unpacked"));
  assert.equal(again.digest, packed.digest);
});

test("a single file makes the same package as a folder that holds it", async () => {
  const file = join(root, "hello.js");
  await writeFile(file, "export default () => 'hello'");
  const packed = await packCode(file);
  const unpacked = await unpack(packed.archive(), "single");
  assert.equal(unpacked.digest, packed.digest);
  assert.equal((await packCode(join(root, "single"))).digest, packed.digest);
});
