import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chown, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { KoineError } from "../../core/errors.ts";

const ORDINARY_USER = 65_534;
const isRoot = process.getuid?.() === 0;
const node = [process.execPath, "--experimental-ffi", "--disable-warning=ExperimentalWarning"];
const fresh = ["unshare", "--net", "--mount", "--propagation", "slave", "--"];
const mapped = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--propagation", "slave", "--"];
const become = ["setpriv", `--reuid=${ORDINARY_USER}`, `--regid=${ORDINARY_USER}`, "--clear-groups", "--"];

async function runAs(
  command: readonly string[],
  isOrdinary: boolean,
): Promise<{ exitCode: unknown; stdout: string; stderr: string }> {
  const folder = await mkdtemp(join(tmpdir(), "koine-suite-"));
  if (isRoot && isOrdinary) await chown(folder, ORDINARY_USER, ORDINARY_USER);
  const [file = "", ...args] = isRoot && isOrdinary ? [...become, ...command] : command;
  const child = spawn(file, args, {
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", TMPDIR: folder },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise((resolve) => child.once("exit", resolve)),
  ]);
  await rm(folder, { recursive: true, force: true });
  return { exitCode, stdout, stderr };
}

const suite = [...node, "--test", "--test-reporter=tap", join(import.meta.dirname, "network.suite.ts")];

test("network modes hold when the platform is root", async (context) => {
  if (!isRoot) return context.skip("this test is not run by root");
  const { exitCode, stdout, stderr } = await runAs([...fresh, ...suite], false);
  assert.equal(exitCode, 0, `${stdout}\n${stderr}`);
});

test("network modes hold when the platform is an ordinary user with namespaces of its own", async () => {
  const { exitCode, stdout, stderr } = await runAs([...mapped, ...suite], true);
  assert.equal(exitCode, 0, `${stdout}\n${stderr}`);
});

test("where egress cannot be had, asking for it is an error that says what to do, and nothing is given instead", async () => {
  const program = `
    import { openProcessDriver } from ${JSON.stringify(join(import.meta.dirname, "driver.ts"))};
    import { shellRequest, run } from ${JSON.stringify(join(import.meta.dirname, "../conformance.ts"))};
    const driver = await openProcessDriver({ directory: process.env.TMPDIR + "/driver", tag: "plain", privateMounts: false, logger: { log() {} } });
    const error = await driver.create(shellRequest("exit", { network: "egress" }), AbortSignal.timeout(10_000)).catch((thrown) => thrown);
    const none = await run(driver, shellRequest("cat /proc/net/dev | wc -l", { network: "none" }));
    console.log(JSON.stringify({ code: error.code, hint: error.hint, egress: driver.networks.egress.had, devices: Number(none.stdout) - 2 }));
    await driver.close();`;
  const { stdout, stderr } = await runAs([...node, "--input-type=module", "-e", program], true);
  const said = JSON.parse(stdout === "" ? `"${stderr}"` : stdout) as Record<string, unknown>;
  const { hint } = new KoineError("network-unavailable", {
    mode: "egress",
    detail: "",
    remedy:
      "Start koine with bin/koine, which gives it the right where the machine allows user namespaces, or run it as root; in a container allow CAP_SYS_ADMIN.",
  });
  assert.deepEqual(said, { code: "network-unavailable", hint, egress: false, devices: 1 });
});
