import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { dependencyInputs, type DependencyInputs } from "./dependency-inputs.ts";

const made: string[] = [];
after(async () => {
  for (const folder of made) await rm(folder, { recursive: true });
});

async function inputs(lockFile: string, files: Readonly<Record<string, string>>): Promise<DependencyInputs> {
  const folder = await mkdtemp(join(tmpdir(), "koine-inputs-"));
  made.push(folder);
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  return dependencyInputs(folder, lockFile);
}

const npm = (files: Readonly<Record<string, string>>) =>
  inputs("package-lock.json", { "package.json": "{}", "package-lock.json": "{}", ...files });
const pip = (text: string, files: Readonly<Record<string, string>> = {}) =>
  inputs("requirements.txt", { "requirements.txt": text, ...files });

test("an npm installation from registries depends on manifest, lock file and registry settings alone", async () => {
  const manifest = { "package.json": '{"name":"x","scripts":{"test":"node ."},"dependencies":{"is-number":"^7.0.0"}}' };
  const one = await npm({ ...manifest, "index.js": "1" });
  assert.deepEqual(one.files, ["package-lock.json", "package.json"]);
  assert.deepEqual(await npm({ ...manifest, "index.js": "2" }), one);
  assert.notEqual((await npm({ ...manifest, "package-lock.json": "{ }" })).digest, one.digest);
  const registry = {
    ".npmrc": "# ours\n@acme:registry=https://npm.example\n//npm.example/:_authToken=secret\nfund=false\n",
  };
  const other = await npm({ ...manifest, ...registry });
  assert.deepEqual(other.files, [".npmrc", "package-lock.json", "package.json"]);
  assert.notEqual(other.digest, one.digest);
});

test("an npm installation that can run or read code of the package depends on all of it", async () => {
  const whole: readonly Readonly<Record<string, string>>[] = [
    { "package.json": '{"scripts":{"postinstall":"node x.js"}}' },
    { "package.json": '{"scripts":{"prepare":"tsc"}}' },
    { "package.json": '{"workspaces":["packages/*"]}' },
    { "package.json": '{"dependencies":{"x":"file:lib"}}' },
    { "package.json": '{"optionalDependencies":{"x":"../lib"}}' },
    { "package.json": "no json" },
    { "package-lock.json": '{"packages":{"node_modules/x":{"resolved":"lib","link": true}}}' },
    { "package-lock.json": '{"packages":{"node_modules/x":{"resolved": "file:x.tgz"}}}' },
    { ".npmrc": "script-shell=./evil.sh" },
    { ".npmrc": "node-options=--require ./evil.js" },
    { "binding.gyp": "{}" },
  ];
  for (const files of whole) assert.equal((await npm(files)).files, null, JSON.stringify(files));
});

test("a pip installation of named distributions depends on the requirements files alone", async () => {
  const text =
    "six==1.16.0\nflask[async]>=2 ; python_version > '3.8'  # web\n-r requirements-base.txt\n--no-binary :all:\n\n";
  const one = await pip(text, { "requirements-base.txt": "idna", "app.py": "1" });
  assert.deepEqual(one.files, ["requirements-base.txt", "requirements.txt"]);
  assert.notEqual((await pip(text, { "requirements-base.txt": "idna==3" })).digest, one.digest);
  assert.notEqual((await pip("six \\\n  --hash=sha256:00")).files, null);
});

test("a pip installation of something local depends on the whole package", async () => {
  for (const text of [".", "-e .", "./lib", "/x", "file:x", "x @ file:x", "lib/x.whl", "-r lib/more.txt", "-f ."]) {
    assert.equal((await pip(`six\n${text}`)).files, null, text);
  }
});

test("a lock file of an unknown kind may depend on everything", async () => {
  assert.equal((await inputs("Gemfile.lock", { "Gemfile.lock": "" })).files, null);
});
