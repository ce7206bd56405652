import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmod, mkdir, mkdtemp, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { buffer } from "node:stream/consumers";
import { after, before, beforeEach, test } from "node:test";
import { KoineError } from "../core/errors.ts";
import { packCode } from "./pack.ts";

let root: string;
let folder: string;
let count = 0;
before(async () => {
  root = await mkdtemp(join(tmpdir(), "koine-pack-"));
});
after(() => rm(root, { recursive: true, force: true }));
beforeEach(async () => {
  folder = join(root, `${++count}`);
  await mkdir(folder);
});

async function write(files: Readonly<Record<string, string>>): Promise<void> {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), text);
  }
}

const refusal = (entry: string, detail: RegExp) => (thrown: unknown) =>
  thrown instanceof KoineError && thrown.values["entry"] === entry && detail.test(thrown.message);

test("all files of a folder are packed, those of node_modules and tests included", async () => {
  await write({ "index.js": "12", "node_modules/x/index.js": "1", "test/index.test.js": "1", "ü.txt": "" });
  await symlink("x/index.js", join(folder, "node_modules/bin"));
  const packed = await packCode(folder);
  assert.deepEqual(packed.paths, [
    "index.js",
    "node_modules/bin",
    "node_modules/x/index.js",
    "test/index.test.js",
    "ü.txt",
  ]);
  assert.deepEqual([packed.files, packed.bytes, packed.warnings], [5, 4, []]);
});

test("what never belongs to a function is left out", async () => {
  await write({
    "index.js": "1",
    ".git/HEAD": "1",
    ".koine/x": "1",
    ".env": "1",
    ".env.local": "1",
    "node_modules/.cache/x": "1",
    "debug.log": "1",
    "lib/__pycache__/x.pyc": "1",
    ".venv/x": "1",
    ".DS_Store": "1",
    ".koineignore": "",
  });
  assert.deepEqual((await packCode(folder)).paths, ["index.js"]);
});

test(".koineignore excludes more, and brings back what is excluded by default", async () => {
  await write({
    ".koineignore": "# comment\n/docs\n*.MAP\n!.env.example\nsrc/*\n!src/keep.js\n",
    ".env.example": "1",
    "docs/x": "1",
    "lib/docs/x": "1",
    "a.MAP": "1",
    "a.map": "1",
    "src/keep.js": "1",
    "src/other.js": "1",
  });
  assert.deepEqual((await packCode(folder)).paths, [".env.example", "a.map", "lib/docs/x", "src/keep.js"]);
});

test("a single file can be a package", async () => {
  await write({ "hello.js": "1", "other.js": "2" });
  const packed = await packCode(join(folder, "hello.js"));
  assert.deepEqual(packed.paths, ["hello.js"]);
  await rm(join(folder, "other.js"));
  assert.equal((await packCode(folder)).digest, packed.digest);
});

test("the digest follows content and executable bit, and nothing else", async () => {
  await write({ "index.js": "1", "run.sh": "1" });
  const first = (await packCode(folder)).digest;
  await write({ "index.js": "1", ".env": "2" });
  await chmod(join(folder, "index.js"), 0o600);
  await mkdir(join(folder, "void"));
  assert.equal((await packCode(folder)).digest, first);
  await chmod(join(folder, "run.sh"), 0o755);
  const executable = (await packCode(folder)).digest;
  assert.notEqual(executable, first);
  await write({ "index.js": "2" });
  assert.notEqual((await packCode(folder)).digest, executable);
});

test("equal folders make equal archives", async () => {
  await write({ "index.js": "1", "lib/a.js": "2" });
  await symlink("lib/a.js", join(folder, "a"));
  const first = await buffer((await packCode(folder)).archive());
  await write({ "lib/a.js": "2" });
  assert.deepEqual(await buffer((await packCode(folder)).archive()), first);
});

test("what cannot be packed is named", async () => {
  await assert.rejects(packCode(join(folder, "missing")), /missing': there is no such file/);
  await assert.rejects(packCode(folder), /no file to deploy/);
  execFileSync("mkfifo", [join(folder, "pipe")]);
  await assert.rejects(packCode(folder), refusal("pipe", /device, a pipe or a socket/));
  await assert.rejects(packCode(join(folder, "pipe")), refusal("pipe", /neither a file nor a folder/));
  await write({ ".koineignore": "pipe", "index.js": "1" });
  assert.equal((await packCode(folder)).files, 1);
});

test("links that leave the folder are refused, unless they are excluded", async () => {
  await write({ "index.js": "1" });
  await symlink("/etc", join(folder, "etc"));
  await assert.rejects(packCode(folder), refusal("etc", /absolute/));
  await write({ ".koineignore": "etc" });
  await symlink("../x", join(folder, "x"));
  await assert.rejects(packCode(folder), refusal("x", /leaves the package/));
});

test("names that cannot be packed are refused, unless they are excluded", async () => {
  await write({ "index.js": "1", "a\\b": "1" });
  await assert.rejects(packCode(folder), refusal("a\\b", /backslash/));
  await rm(join(folder, "a\\b"));
  await writeFile(Buffer.concat([Buffer.from(`${folder}/`), Buffer.from([0xff])]), "1");
  await assert.rejects(packCode(folder), /not valid Unicode/);
});

test("names that differ only in case are refused", async () => {
  await write({ readme: "1", README: "1" });
  await assert.rejects(packCode(folder), /only in case/);
});

test("a large package is reported with its largest parts", async () => {
  await write({ "index.js": "1", "node_modules/@acme/big/x": "", "node_modules/small/x": "12", "assets/x": "" });
  await truncate(join(folder, "node_modules/@acme/big/x"), 40_000_000);
  await truncate(join(folder, "assets/x"), 11_000_000);
  const [warning] = (await packCode(folder)).warnings;
  assert.match(
    warning ?? "",
    /51\.0 MB in 4 files; the largest: node_modules\/@acme\/big \(40\.0 MB\), assets \(11\.0 MB\)/,
  );
});

test("a file that is gone or changed when the archive is made ends it with an error", async () => {
  await write({ "a.js": "1", "b.js": "1" });
  const packed = await packCode(folder);
  await rm(join(folder, "b.js"));
  await assert.rejects(buffer(packed.archive()), /'b.js': it cannot be read any more/);
  await write({ "b.js": "longer" });
  await assert.rejects(buffer(packed.archive()), /unexpected number of bytes/);
});

test("what an image is built from is chosen by .dockerignore alone, and the Dockerfile is always in it", async () => {
  await write({
    Dockerfile: "FROM scratch",
    ".dockerignore": "Dockerfile\nprivate\n!private/public.txt\n*.log\n**/*.tmp\n",
    ".koineignore": "kept.txt",
    ".env": "A=1",
    "kept.txt": "1",
    "top.log": "1",
    "deep/inner.log": "1",
    "deep/x.tmp": "1",
    "private/key": "1",
    "private/public.txt": "1",
  });
  const { paths } = await packCode(folder, { dockerfile: "Dockerfile" });
  assert.deepEqual(
    paths.toSorted(),
    [
      ".dockerignore",
      ".env",
      ".koineignore",
      "Dockerfile",
      "deep/inner.log",
      "kept.txt",
      "private/public.txt",
    ].toSorted(),
  );
});
