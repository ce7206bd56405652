import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { holdExitCodes, holdGo, holdProgram, holdSays, NOT_EXECUTABLE } from "./hold-program.ts";

let folder = "";
let program = "";

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "koine-hold-"));
  const bytes = holdProgram(process.arch === "x64" ? "x86_64" : process.arch);
  assert.ok(bytes !== null, `the hold program was not written for ${process.arch}`);
  program = join(folder, "hold");
  await writeFile(program, bytes);
  await chmod(program, 0o755);
});
after(() => rm(folder, { recursive: true, force: true }));

async function held(args: readonly string[], input: Buffer): Promise<readonly [string, string, number | null]> {
  const child = spawn(program, args, { env: { NAME: "value" }, stdio: "pipe" });
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  const exit = new Promise<number | null>((resolve) => child.once("exit", resolve));
  return await Promise.all([text(child.stdout), text(child.stderr), exit]);
}

const ready = String.fromCharCode(holdSays.ready);
const missing = String.fromCharCode(holdSays.missing);

test("it becomes the first candidate that is there, with the arguments and the environment", async () => {
  const args = ["/nowhere/sh", "/bin/sh", "", "a name", "-c", 'echo "$0 $NAME $1"', "zero", "one"];
  assert.deepEqual(await held(args, holdGo), [`${ready}zero value one\n`, "", 0]);
});

test("what follows the byte that lets it go is the program's input", async () => {
  const input = Buffer.concat([holdGo, Buffer.from("for the program")]);
  assert.deepEqual(await held(["/bin/cat", "", "cat"], input), [`${ready}for the program`, "", 0]);
});

test("it says at once when none of the candidates may be executed", async () => {
  assert.deepEqual(await held(["/nowhere", folder + "/none", "", "none"], holdGo), [
    missing,
    "",
    holdExitCodes.missing,
  ]);
});

test("without the byte nothing runs", async () => {
  assert.deepEqual(await held(["/bin/echo", "", "echo", "must not run"], Buffer.alloc(0)), [ready, "", 0]);
});

test("what the system cannot execute is said in words", async () => {
  const strange = join(folder, "strange");
  await writeFile(strange, "\x7fELF of another machine");
  await chmod(strange, 0o755);
  assert.deepEqual(await held([strange, "", "strange"], holdGo), [ready, NOT_EXECUTABLE, holdExitCodes.notExecutable]);
});

test("alone it stays until it is ended", async () => {
  const child = spawn(program, [], { stdio: "ignore" });
  const exit = new Promise((resolve) => child.once("exit", (_, signal) => resolve(signal)));
  child.once("spawn", () => child.kill("SIGTERM"));
  assert.equal(await exit, "SIGTERM");
});

test("for other processors there is none", () => {
  assert.equal(holdProgram("s390x"), null);
  assert.equal(holdProgram("aarch64")?.readUInt16LE(18), 183);
});
