import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { sandboxConformance } from "../conformance.ts";
import { startTimeOf } from "../tree.ts";
import { openNoneDriver } from "./driver.ts";

const folders: string[] = [];
async function folder(): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), "koine-none-"));
  folders.push(made);
  return made;
}
after(() => Promise.all(folders.map((made) => rm(made, { recursive: true, force: true }))));

sandboxConformance("none", async () => openNoneDriver({ directory: await folder() }));

test("a process that a killed platform left behind is ended by the sweep", async () => {
  const directory = await folder();
  const orphan = spawn("sleep", ["1000"], { detached: true, stdio: "ignore" });
  const ended = new Promise((resolve) => orphan.once("exit", (_, signal) => resolve(signal)));
  const pid = orphan.pid ?? 0;
  await writeFile(join(directory, `${pid}.pid`), JSON.stringify({ home: null, startTime: startTimeOf(pid) }));
  const driver = await openNoneDriver({ directory });
  assert.equal(await driver.sweep(), 1);
  assert.equal(await ended, "SIGKILL");
  assert.equal(await driver.sweep(), 0);
});

test("a process that got the number of one that is gone is left alone by the sweep", async () => {
  const directory = await folder();
  const other = spawn("sleep", ["1000"], { detached: true, stdio: "ignore" });
  await writeFile(join(directory, `${other.pid}.pid`), JSON.stringify({ home: null, startTime: "1" }));
  assert.equal(await (await openNoneDriver({ directory })).sweep(), 0);
  assert.equal(other.exitCode ?? other.signalCode, null);
  other.kill("SIGKILL");
});
