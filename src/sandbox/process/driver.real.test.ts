import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chown, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { detectSandbox } from "./detect.ts";

const ORDINARY_USER = 65_534;
const suite = join(import.meta.dirname, "isolation.suite.ts");
const isRoot = process.getuid?.() === 0;
const become = ["setpriv", `--reuid=${ORDINARY_USER}`, `--regid=${ORDINARY_USER}`, "--clear-groups", "--"];

const ways = [
  {
    name: "root with mounts of its own",
    asRoot: true,
    privateMounts: true,
    before: ["unshare", "--mount", "--propagation", "slave", "--"],
  },
  { name: "root without mounts of its own", asRoot: true, privateMounts: false, before: [] },
  {
    name: "an ordinary user with mounts of its own",
    asRoot: false,
    privateMounts: true,
    before: ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "slave", "--"],
  },
  { name: "an ordinary user without mounts of its own", asRoot: false, privateMounts: false, before: [] },
] as const;

const found = (await detectSandbox()).process;

for (const way of ways) {
  test(`the driver 'process' isolates when the platform is ${way.name}`, async (context) => {
    if (!found.works) return context.skip(found.reason);
    if (way.asRoot && !isRoot) return context.skip("this test is not run by root");
    const command = [
      ...(isRoot && !way.asRoot ? become : []),
      ...way.before,
      process.execPath,
      "--disable-warning=ExperimentalWarning",
      "--test",
      "--test-reporter=tap",
      suite,
    ];
    const folder = await mkdtemp(join(tmpdir(), "koine-suite-"));
    if (isRoot && !way.asRoot) await chown(folder, ORDINARY_USER, ORDINARY_USER);
    const [file = "", ...args] = command;
    const child = spawn(file, args, {
      env: {
        PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
        TMPDIR: folder,
        KOINE_TEST_PRIVATE_MOUNTS: way.privateMounts ? "1" : "0",
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const [stdout, stderr, exitCode] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      new Promise((resolve) => child.once("exit", resolve)),
    ]);
    await rm(folder, { recursive: true, force: true });
    assert.equal(exitCode, 0, `${stdout}\n${stderr}`);
  });
}
