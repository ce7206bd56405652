import assert from "node:assert/strict";
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { KoineError } from "../core/errors.ts";
import { openVault } from "./vault.ts";

test("a sealed value opens again, also after a restart, and does not show what it holds", async (context) => {
  const keyFile = await keyFileFor(context);
  const sealed = (await openVault({ keyFile })).seal("s3cret ä😀", "default/token");
  assert.ok(!sealed.includes("s3cret"));
  assert.equal((await openVault({ keyFile })).open(sealed, "default/token"), "s3cret ä😀");
});

test("the same value sealed twice looks different, and an empty one can be sealed", async (context) => {
  const vault = await openVault({ keyFile: await keyFileFor(context) });
  assert.notEqual(vault.seal("x", "a/b"), vault.seal("x", "a/b"));
  assert.equal(vault.open(vault.seal("", "a/b"), "a/b"), "");
});

test("the key is a file of its own that only its owner may read, and nothing else is left beside it", async (context) => {
  const keyFile = await keyFileFor(context);
  await openVault({ keyFile });
  assert.equal((await stat(keyFile)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(join(keyFile, "..")), ["key"]);
});

test("a value does not open for another name, nor when it was changed", async (context) => {
  const vault = await openVault({ keyFile: await keyFileFor(context) });
  const sealed = vault.seal("s3cret", "default/token");
  const refused = { code: "secret-key-unusable" };
  assert.throws(() => vault.open(sealed, "other/token"), refused);
  assert.throws(() => vault.open(sealed.slice(0, -2), "default/token"), refused);
  assert.throws(() => vault.open(sealed.slice(0, 14), "default/token"), refused);
  assert.throws(() => vault.open("", "default/token"), refused);
});

test("a lost key is told from a damaged value, without showing either", async (context) => {
  const keyFile = await keyFileFor(context);
  const sealed = (await openVault({ keyFile })).seal("s3cret", "default/token");
  const key = (await readFile(keyFile, "utf8")).trim();
  await rm(keyFile);
  const vault = await openVault({ keyFile });
  assert.throws(
    () => vault.open(sealed, "default/token"),
    (error) => {
      assert.ok(error instanceof KoineError);
      assert.match(error.message, /'default\/token' was sealed with another key/);
      assert.ok(error.hint.includes(keyFile));
      assert.ok(!JSON.stringify(error.report()).includes(key));
      return true;
    },
  );
});

test("a key file that holds no key, or that everybody may read, is refused", async (context) => {
  const keyFile = await keyFileFor(context);
  await writeFile(keyFile, "not a key", { mode: 0o600 });
  await assert.rejects(openVault({ keyFile }), { code: "secret-key-unusable", message: /holds no key/ });
  await writeFile(keyFile, "ab".repeat(32));
  await chmod(keyFile, 0o644);
  await assert.rejects(openVault({ keyFile }), { code: "secret-key-unusable", message: /mode 0600/ });
});

async function keyFileFor(context: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "koine-vault-"));
  context.after(() => rm(directory, { recursive: true }));
  return join(directory, "key");
}
