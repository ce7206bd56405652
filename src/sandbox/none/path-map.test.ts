import assert from "node:assert/strict";
import { test } from "node:test";
import { PathMap } from "./path-map.ts";

const map = new PathMap([
  { source: "/srv/package", target: "/code" },
  { source: "/opt/node", target: "/koine/runtime/node" },
  { source: "/opt/boot", target: "/koine/bootstrap" },
  { source: "/opt/other", target: "/koine/bootstrap/other" },
]);

test("a path below a target becomes one below its source", () => {
  assert.equal(map.toOutside("/code/index.mjs"), "/srv/package/index.mjs");
  assert.equal(map.toOutside("/code"), "/srv/package");
});

test("the longest target decides", () => {
  assert.equal(map.toOutside("/koine/bootstrap/other/x"), "/opt/other/x");
  assert.equal(map.toOutside("/koine/bootstrap/others"), "/opt/boot/others");
});

test("a path that only begins alike stays", () => {
  assert.equal(map.toOutside("/codes/index.mjs"), "/codes/index.mjs");
});

test("paths in options and lists are found, those in the middle of text are not", () => {
  assert.equal(map.translate("--import=/koine/bootstrap/x.mjs"), "--import=/opt/boot/x.mjs");
  assert.equal(map.translate("/code/a:/usr/lib"), "/srv/package/a:/usr/lib");
  assert.equal(map.translate('require("/code/a")'), 'require("/code/a")');
});

test("what is attached later is found too", () => {
  const later = new PathMap([]);
  later.add({ source: "/srv/one", target: "/code" });
  later.add({ source: "/srv/two", target: "/code" });
  assert.equal(later.toOutside("/code/a"), "/srv/two/a");
});
