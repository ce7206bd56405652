import assert from "node:assert/strict";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { VirtualClock } from "../../core/clock.ts";
import { temporaryFolder } from "../testing/run.ts";
import { afterChanges, watchPath } from "./watch.ts";

/** Resolves when each of the paths was reported since the last call. */
function observed(path: string): { readonly close: () => void; seen(...paths: readonly string[]): Promise<void> } {
  const missing = new Set<string>();
  let found = new Set<string>();
  let done: (() => void) | null = null;
  const check = (): void => {
    if (done === null || ![...missing].every((wanted) => found.has(wanted))) return;
    found = new Set();
    missing.clear();
    done();
    done = null;
  };
  const watcher = watchPath(path, (changed) => {
    found.add(changed);
    check();
  });
  return {
    close: () => watcher.close(),
    async seen(...paths) {
      for (const wanted of paths) missing.add(wanted);
      await new Promise<void>((resolve) => {
        done = resolve;
        check();
      });
    },
  };
}

test("changes are seen in folders old and new, and after an editor replaced a file", async () => {
  await using home = await temporaryFolder();
  const at = (path: string): string => join(home.path, path);
  await mkdir(at("src"));
  await mkdir(at("node_modules/x"), { recursive: true });
  await writeFile(at("src/a.js"), "1");
  const watcher = observed(home.path);
  try {
    await writeFile(at("src/a.js"), "2");
    await watcher.seen("src/a.js");
    for (let round = 0; round < 3; round++) {
      await writeFile(at("src/a.js~"), "3");
      await rename(at("src/a.js~"), at("src/a.js"));
      await watcher.seen("src/a.js");
    }
    await mkdir(at("new"));
    await watcher.seen("new");
    await writeFile(at("new/b.js"), "1");
    await watcher.seen("new/b.js");
    await rm(at("new"), { recursive: true });
    await watcher.seen("new");
  } finally {
    watcher.close();
  }
});

test("what is in folders of dependencies and in logs is not a change", async () => {
  await using home = await temporaryFolder();
  const at = (path: string): string => join(home.path, path);
  await mkdir(at("node_modules"));
  const reported: string[] = [];
  const last = Promise.withResolvers<void>();
  const watcher = watchPath(home.path, (path) => {
    reported.push(path);
    if (path === "last") last.resolve();
  });
  await writeFile(at("node_modules/a.js"), "");
  await writeFile(at("out.log"), "");
  await writeFile(at("last"), "");
  await last.promise;
  watcher.close();
  assert.deepEqual([...new Set(reported)], ["last"]);
});

test("a single file is watched without its neighbours", async () => {
  await using home = await temporaryFolder();
  await writeFile(join(home.path, "one.mjs"), "1");
  const reported: string[] = [];
  const seen = Promise.withResolvers<void>();
  const watcher = watchPath(join(home.path, "one.mjs"), (path) => {
    reported.push(path);
    seen.resolve();
  });
  await writeFile(join(home.path, "two.mjs"), "1");
  await writeFile(join(home.path, "one.mjs"), "2");
  await seen.promise;
  watcher.close();
  assert.deepEqual([...new Set(reported)], ["one.mjs"]);
});

test("a burst of changes is one run, and changes during a run lead to exactly one more", async () => {
  const clock = new VirtualClock();
  let runs = 0;
  let finish: () => void = () => {};
  const run = async (): Promise<void> => {
    runs++;
    await new Promise<void>((resolve) => (finish = resolve));
  };
  const loop = afterChanges(clock, { settleMs: 50, run });
  loop.changed();
  await clock.advance(40);
  loop.changed();
  await clock.advance(40);
  assert.equal(runs, 0);
  await clock.advance(10);
  assert.equal(runs, 1);
  loop.changed();
  loop.changed();
  await clock.advance(1_000);
  assert.equal(runs, 1);
  finish();
  await clock.advance(0);
  await clock.advance(50);
  assert.equal(runs, 2);
  finish();
  await clock.advance(1_000);
  assert.equal(runs, 2);
  loop.changed();
  loop.stop();
  await clock.advance(1_000);
  assert.equal(runs, 2);
});
