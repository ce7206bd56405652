import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fillEtc } from "./etc.ts";

test("the inner /etc knows two users, has the machine's certificates, and none of its keys", async () => {
  const folder = await mkdtemp(join(tmpdir(), "koine-etc-"));
  await fillEtc(folder);
  assert.equal((await readFile(join(folder, "passwd"), "utf8")).trim().split("\n").length, 2);
  assert.equal(existsSync(join(folder, "ssl/certs")), existsSync("/etc/ssl/certs"));
  const names = await readdir(folder, { recursive: true });
  assert.deepEqual(
    names.filter((name) => /private|shadow|ssh|machine-id|sudoers/.test(name)),
    [],
  );
  await rm(folder, { recursive: true });
});
