import assert from "node:assert/strict";
import { test } from "node:test";
import {
  checkEntryPath,
  checkLinkTarget,
  isDigest,
  packageDigest,
  PackagePaths,
  type PackageEntry,
} from "./code-package.ts";
import { KoineError } from "./errors.ts";

const SHA = "0".repeat(64);
const file = (path: string, executable = false, sha256 = SHA): PackageEntry => ({
  kind: "file",
  path,
  executable,
  sha256,
});

const refusal = (entry: string, detail: RegExp) => (thrown: unknown) =>
  thrown instanceof KoineError &&
  thrown.code === "invalid-package" &&
  thrown.values["entry"] === entry &&
  detail.test(thrown.message);

test("the digest does not depend on the order of the entries", () => {
  const entries = [file("b"), file("a/z"), file("a-b"), file("é"), file("\u{1F600}"), file("\uFB01")];
  assert.equal(packageDigest(entries), packageDigest(entries.toReversed()));
  assert.ok(isDigest(packageDigest(entries)));
});

test("the digest is the same in every version of koine", () => {
  const entries: PackageEntry[] = [
    file("index.js"),
    file("bin/run", true),
    { kind: "link", path: "current", target: "bin/run" },
  ];
  assert.equal(packageDigest(entries), "sha256:d5ec7aa098c20581b7be467c69ebb46ecd9e11907b3650b7f458ec8597d7a94a");
});

test("path, content, executable bit and kind each change the digest", () => {
  const variants: PackageEntry[] = [
    file("a"),
    file("b"),
    file("a", true),
    file("a", false, "1".repeat(64)),
    { kind: "link", path: "a", target: SHA },
  ];
  assert.equal(new Set(variants.map((entry) => packageDigest([entry]))).size, variants.length);
});

test("plain relative paths are accepted, with unicode, spaces and dots in names", () => {
  for (const path of ["a", "a/b/c.js", ".hidden", "..a", "a..", "ü/名前.txt", "with space", "a\nb", "xy:z"])
    checkEntryPath(path);
});

test("a path that leaves the package or means something else elsewhere is refused, and the entry is named", () => {
  const refused: readonly (readonly [string, RegExp])[] = [
    ["", /empty/],
    ["/etc/passwd", /absolute/],
    ["../x", /leaves/],
    ["a/../../x", /leaves/],
    ["a/..", /leaves/],
    ["a\\b", /backslash/],
    ["C:x", /drive/],
    ["a\0b", /NUL/],
    ["a//b", /component/],
    ["./a", /component/],
    ["a/", /component/],
    ["a/".repeat(600) + "b", /longer than 1024/],
    ["x".repeat(256), /longer than 255/],
    ["\uD800", /Unicode/],
  ];
  for (const [path, detail] of refused) assert.throws(() => checkEntryPath(path), refusal(path, detail), path);
});

test("a refusal does not carry control characters to the terminal", () => {
  assert.throws(
    () => checkEntryPath("/\u001B[31mred"),
    (thrown: unknown) => thrown instanceof KoineError && !thrown.message.includes("\u001B"),
  );
});

test("links may point anywhere inside, also to what is missing", () => {
  checkLinkTarget("node_modules/.bin/tool", "../tool/cli.js");
  checkLinkTarget("node_modules/.pnpm/a@1/node_modules/b", "../../b@1/node_modules/b");
  checkLinkTarget("a", "b");
  checkLinkTarget("d/a", "./b/");
  checkLinkTarget("d/root", "..");
});

test("a link that leaves the package is refused, also where another link would help it out", () => {
  const refused: readonly (readonly [string, string, RegExp])[] = [
    ["a", "/etc/passwd", /absolute/],
    ["a", "C:\\x", /backslash/],
    ["a", "..", /leaves/],
    ["d/a", "../../x", /leaves/],
    ["a", "b/../../x", /goes up after/],
    ["a", "deep/link/../x", /goes up after/],
    ["a", "", /no target/],
    ["a", "x\0", /NUL/],
    ["a", "x".repeat(1025), /longer/],
  ];
  for (const [path, target, detail] of refused) {
    assert.throws(() => checkLinkTarget(path, target), refusal(path, detail), target);
  }
});

test("two entries that one file system would take for one are refused", () => {
  const collide = (...names: readonly string[]) => {
    const paths = new PackagePaths();
    for (const name of names) paths.add(name, "file");
  };
  assert.throws(() => collide("a", "a"), refusal("a", /two entries/));
  assert.throws(() => collide("readme", "README"), refusal("README", /case/));
  assert.throws(() => collide("caf\u00E9", "cafe\u0301"), refusal("cafe\u0301", /Unicode form/));
  assert.throws(() => collide("lib/a", "Lib/b"), refusal("Lib/b", /case/));
  assert.throws(() => collide("a", "a/b"), refusal("a/b", /two entries/));
  assert.throws(() => collide("a/b", "a"), refusal("a", /two entries/));
  collide("a/b", "a/c", "ab", "b/a");
});

test("nothing may lie below a link, whichever comes first", () => {
  const first = new PackagePaths();
  first.add("out", "link");
  assert.throws(() => first.add("out/x", "file"), refusal("out/x", /below the link 'out'/));
  assert.throws(() => first.add("OUT/x", "file"), refusal("OUT/x", /below the link/));
  const second = new PackagePaths();
  second.add("out/x", "file");
  assert.throws(() => second.add("out", "link"), refusal("out", /two entries/));
});

test("a folder may be listed again and again", () => {
  const paths = new PackagePaths();
  paths.add("a", "folder");
  paths.add("a/b", "file");
  paths.add("a", "folder");
});
