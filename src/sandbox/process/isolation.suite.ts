import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readFileSync, readlinkSync } from "node:fs";
import { chmod, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline/promises";
import { after, before, describe, test } from "node:test";
import {
  folderWith,
  next,
  nodeRequest,
  run,
  sandboxConformance,
  shellRequest,
  start,
  testLimits,
} from "../conformance.ts";
import { isAttachable, type SandboxDriver } from "../sandbox.ts";
import { openProcessDriver } from "./driver.ts";
import { isMachineRoot } from "./identity.ts";

/**
 * Run by driver.real.test.ts in processes of different rights, as a driver's abilities depend on who the platform is. Whether its mount
 * namespace is private is said by the environment.
 */
const privateMounts = process.env["KOINE_TEST_PRIVATE_MOUNTS"] === "1";
const isRoot = isMachineRoot();
const MIB = 1024 * 1024;

const directories: string[] = [];
let lastTag = 0;

async function place(): Promise<{ readonly directory: string; readonly tag: string }> {
  const directory = await mkdtemp(join(tmpdir(), "koine-process-"));
  directories.push(directory);
  return { directory, tag: `test-${process.pid}-${++lastTag}` };
}

const open = async (): Promise<SandboxDriver> =>
  openProcessDriver({ ...(await place()), privateMounts, logger: { log: () => {} }, launchesAhead: 2 });

after(() => Promise.all(directories.map((directory) => rm(directory, { recursive: true, force: true }))));

sandboxConformance("process", open);

describe("a sandbox of the driver 'process' isolates:", () => {
  let driver: SandboxDriver;
  before(async () => {
    driver = await open();
  });
  after(() => driver.close());
  const shell = async (script: string, more = {}): Promise<string> =>
    (await run(driver, shellRequest(script, more))).stdout;
  const holds = async (ability: string): Promise<boolean> =>
    (await driver.inspect()).find((fact) => fact.ability === ability)?.holds ?? false;

  test("it sees its own root and nothing of the machine's folders", async () => {
    const seen = (await shell("ls /")).trim().split("\n");
    for (const folder of ["home", "root", "var", "sys", "run", "work", "mnt", "srv"])
      assert.ok(!seen.includes(folder), folder);
    assert.doesNotMatch(await shell("cat /etc/passwd; ls /etc /etc/ssl"), /private|shadow|koine-/);
  });

  test("nothing but its home and shared memory can be written to", async () => {
    const script = `for d in / /usr /etc /dev /koine /koine/runtime/node /proc/sys/kernel/hostname /proc/sys/kernel/core_pattern /proc/irq/default_smp_affinity; do
      (echo x > $d/written || echo x > $d) 2>/dev/null && echo $d; done; touch /tmp/a /dev/shm/b && echo fine`;
    assert.equal(await shell(script), "fine\n");
  });

  test("what tells of the machine is empty", async () => {
    const script = `cat /proc/cmdline /proc/keys /proc/modules /proc/kallsyms /proc/config.gz 2>/dev/null | wc -c
      for d in /proc/acpi /proc/asound /proc/scsi /usr/local/etc /usr/src; do ls $d 2>/dev/null; done; test -e /sys && echo sys`;
    assert.equal(await shell(script), "0\n");
  });

  test("it sees only its own processes", async () => {
    const pids = (await shell("echo /proc/[0-9]*")).trim().split(" ");
    assert.ok(pids.length <= 3, pids.join());
  });

  test("it has no capabilities, cannot gain privileges, and runs under a filter", async () => {
    const status = await shell("cat /proc/self/status");
    for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
      assert.match(status, new RegExp(`^${set}:\\t0{16}$`, "m"));
    assert.match(status, /^NoNewPrivs:\t1$/m);
    assert.match(status, /^Seccomp:\t2$/m);
    assert.match(status, /^Uid:\t65534\t65534\t65534\t65534$/m);
  });

  test("six of its namespaces are new, seven without network", async () => {
    const names = ["user", "mnt", "pid", "ipc", "uts", "cgroup", "net"];
    const inside = await Promise.all(
      (["host", "none"] as const).map(async (network) =>
        (await shell(`for n in ${names.join(" ")}; do readlink /proc/self/ns/$n; done`, { network }))
          .trim()
          .split("\n"),
      ),
    );
    const outside = names.map((name) => readlinkSync(`/proc/self/ns/${name}`));
    const fresh = inside.map((links) => names.filter((_, index) => links[index] !== outside[index]));
    assert.deepEqual(fresh, [names.slice(0, 6), names]);
  });

  test("only its own file descriptors are open", async () => {
    // ls itself opens the folder it lists.
    assert.deepEqual((await shell("ls /proc/self/fd")).trim().split("\n"), ["0", "1", "2", "3", "4"]);
  });

  test("its kernel user is not root where the platform is", async (context) => {
    if (!isRoot || !privateMounts) return context.skip("the platform has one user only");
    const sandboxes = await Promise.all(
      [1, 2].map(() => start(driver, nodeRequest(`channel.write("up"); setInterval(() => {}, 1000)`))),
    );
    await Promise.all(sandboxes.map((sandbox) => next(sandbox.channel)));
    const owners = new Set<string>();
    for (const pid of await readdir("/proc")) {
      const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      if (!command.startsWith("/koine/runtime/node")) continue;
      const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
      owners.add(/^Uid:\t(\d+)/m.exec(status)?.[1] ?? "gone");
    }
    await Promise.all(sandboxes.map((sandbox) => sandbox.stop(0)));
    assert.ok(owners.size >= 2 && !owners.has("0"), [...owners].join());
  });

  test("memory beyond its limit ends it, and the reason is told", async () => {
    const program = `const kept = []; setInterval(() => kept.push(Buffer.alloc(${8 * MIB}, 1)), 1);`;
    const limits = { ...testLimits, memoryBytesMax: 128 * MIB };
    assert.deepEqual((await run(driver, nodeRequest(program, { limits }))).end, { kind: "out-of-memory" });
  });

  test("a memory limit that is set with the code holds", async (context) => {
    const program = `channel.on("data", () => { const kept = []; setInterval(() => kept.push(Buffer.alloc(${8 * MIB}, 1)), 1); });`;
    const sandbox = await start(driver, nodeRequest(program, { attachable: true }));
    if (!isAttachable(sandbox)) {
      await sandbox.stop(0);
      return context.skip("nothing can be attached here");
    }
    await sandbox.attach([], { ...testLimits, memoryBytesMax: 128 * MIB });
    sandbox.channel.write("go");
    assert.deepEqual(await sandbox.ended, { kind: "out-of-memory" });
  });

  test("a fork bomb is contained and goes with it", async () => {
    const limits = { ...testLimits, pidsMax: 24 };
    const script = "bomb() { bomb & bomb & wait; }; bomb";
    const { end } = await run(driver, shellRequest(script, { limits }));
    assert.notDeepEqual(end, { kind: "stopped" });
  });

  test("failing for want of processes is told as the reason where it is known", async (context) => {
    if (!(await holds("cpu limit"))) return context.skip("only a cgroup knows");
    const limits = { ...testLimits, pidsMax: 12 };
    const script = "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done";
    assert.deepEqual((await run(driver, shellRequest(script, { limits }))).end, { kind: "too-many-processes" });
  });

  test("its /tmp holds no more than allowed", async () => {
    const limits = { ...testLimits, tmpBytesMax: 2 * MIB };
    const script = `head -c ${4 * MIB} /dev/zero > /tmp/four; stat -c %s /tmp/four`;
    assert.ok(Number(await shell(script, { limits })) <= 2 * MIB);
  });

  test("its files and open files have limits, and it leaves no core dump", async () => {
    assert.equal(await shell("ulimit -n; ulimit -c; ulimit -f"), `512\n0\n${(32 * MIB) / 512}\n`);
  });

  test("its code cannot be changed, whether it was there at the start or came later", async () => {
    const source = await folderWith("file", "code");
    const script =
      "read -r go <&3; for d in /first /later; do (echo x > $d/file || rm $d/file || touch $d/new) 2>/dev/null && echo $d; done; echo done";
    const sandbox = await start(
      driver,
      shellRequest(script, { mounts: [{ source, target: "/first" }], attachable: true }),
    );
    if (isAttachable(sandbox)) await sandbox.attach([{ source, target: "/later" }], testLimits);
    const said = next(sandbox.stdout);
    sandbox.channel.write("\n");
    // Without the ability the folder is not there, which cannot be written to either.
    assert.equal(await said, "done\n");
    await sandbox.ended;
    await rm(source, { recursive: true });
  });

  test("what was attached to one sandbox is not seen by another", async (context) => {
    const source = await folderWith("file", "private");
    const [one, other] = await Promise.all(
      [1, 2].map(() => start(driver, shellRequest("read -r go <&3; ls / /code", { attachable: true }))),
    );
    if (one === undefined || other === undefined || !isAttachable(one))
      return context.skip("nothing can be attached here");
    await one.attach([{ source, target: "/code" }], testLimits);
    const seen = next(other.stdout);
    other.channel.write("\n");
    assert.doesNotMatch(await seen, /code/);
    await Promise.all([one.stop(0), other.stop(0)]);
    await rm(source, { recursive: true });
  });

  test("an id that would lead out of its folder is refused", async () => {
    for (const id of ["..", ".", "a/b", "", "x".repeat(65)]) {
      await assert.rejects(start(driver, { ...shellRequest("exit"), id }), { code: "sandbox-failed" }, id);
    }
  });

  test("calls that open ways out are refused", async (context) => {
    if (!existsSync("/usr/bin/python3")) return context.skip("needs Python to make the calls");
    const calls =
      process.arch === "x64"
        ? { unshare: 272, mount: 165, ptrace: 101, bpf: 321, keyctl: 250, clone3: 435 }
        : { unshare: 97, mount: 40, ptrace: 117, bpf: 280, keyctl: 219, clone3: 435 };
    const program = `import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
for number in sys.argv[1:]:
    libc.syscall(int(number), 0x10000000, 0, 0, 0, 0); print(ctypes.get_errno())`;
    const request = {
      ...shellRequest(""),
      command: ["/usr/bin/python3", "-c", program, ...Object.values(calls).map(String)],
    };
    // EPERM, and for clone3 ENOSYS, which sends C libraries to clone.
    assert.equal((await run(driver, request)).stdout.trim().split("\n").join(), "1,1,1,1,1,38");
  });

  test("sockets of packets, ciphers, hypervisor and firewall, and raw ones, cannot be made", async (context) => {
    if (!existsSync("/usr/bin/python3")) return context.skip("needs Python to make the calls");
    const program = `import socket
for family, kind, protocol in [(17, 3, 0), (38, 5, 0), (40, 1, 0), (16, 3, 12), (2, 3, 255), (10, 3, 58)]:
    try: socket.socket(family, kind, protocol); print("made")
    except OSError as error: print(error.errno)
socket.socket(1); socket.socket(2); socket.socket(10, 2); socket.socket(16, 3, 0); print(len(socket.if_nameindex()))`;
    const request = { ...shellRequest(""), command: ["/usr/bin/python3", "-c", program] };
    const { stdout, stderr } = await run(driver, request);
    assert.equal(stdout.trim().split("\n").join(), "97,97,97,97,1,1,1", stderr);
  });

  test("a share of the processor is not exceeded by one that spins", async (context) => {
    if (!(await holds("cpu limit"))) return context.skip("needs a cgroup");
    const program = `const begunMs = performance.now(), before = process.cpuUsage();
      while (performance.now() - begunMs < 1000);
      const { user, system } = process.cpuUsage(before);
      console.log((user + system) / 1000 / (performance.now() - begunMs)); process.exit();`;
    const limits = { ...testLimits, cpuCores: 0.2 };
    const { stdout } = await run(driver, nodeRequest(program, { limits }));
    assert.ok(Number(stdout) > 0 && Number(stdout) < 0.5, stdout);
  });

  test("threads and child processes of Node and Python work under the filter", async () => {
    const program = `
      const { Worker } = require("node:worker_threads");
      new Worker('require("node:worker_threads").parentPort.postMessage("thread")', { eval: true }).once("message", (said) => {
        console.log(said, String(require("node:child_process").execFileSync("/bin/echo", ["child"])).trim());
        require("node:fs").writeFileSync("/tmp/file", "x"); process.exit();
      });`;
    const node = await run(driver, nodeRequest(program));
    assert.equal(node.stdout, "thread child\n", node.stderr);
    if (!existsSync("/usr/bin/python3")) return;
    const python = `import threading, subprocess, multiprocessing, ssl, socket
t = threading.Thread(target=lambda: print("thread", flush=True)); t.start(); t.join()
multiprocessing.Lock()
print(subprocess.check_output(["/bin/echo", "child"]).decode().strip())`;
    const request = { ...shellRequest(""), command: ["/usr/bin/python3", "-c", python] };
    const { stdout, stderr } = await run(driver, request);
    assert.equal(stdout, "thread\nchild\n", stderr);
  });

  test("what is attached must not hide what is there", async (context) => {
    const source = await folderWith("file", "x");
    const sandbox = await start(driver, nodeRequest("setInterval(() => {}, 1000)", { attachable: true }));
    if (!isAttachable(sandbox)) {
      await sandbox.stop(0);
      return context.skip("nothing can be attached here");
    }
    for (const target of ["/usr/lib", "/tmp/x", "/koine/runtime/node", "relative", "/a/../b"]) {
      await assert.rejects(sandbox.attach([{ source, target }], testLimits), { code: "sandbox-failed" }, target);
    }
    await sandbox.stop(0);
    await rm(source, { recursive: true });
  });

  test("a folder that others may not read is refused with its path, where the sandbox is another user", async (context) => {
    if (!isRoot || !privateMounts) return context.skip("the platform has one user only");
    const source = await folderWith("file", "x");
    await chmod(source, 0o700);
    await assert.rejects(
      start(driver, shellRequest("exit", { mounts: [{ source, target: "/code" }] })),
      (thrown: Error) => thrown.message.includes(`${source} is not readable`),
    );
    await rm(source, { recursive: true });
  });
});

test("what a killed platform leaves behind is ended, and swept by the next one", async () => {
  const where = await place();
  const fixture = join(import.meta.dirname, "abandoned.fixture.ts");
  const args = [
    "--disable-warning=ExperimentalWarning",
    fixture,
    where.directory,
    where.tag,
    privateMounts ? "1" : "0",
  ];
  const platform = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const [line = ""] = (await createInterface(platform.stdout)[Symbol.asyncIterator]().next()).value?.split("\n") ?? [];
  const pids = line.split(" ").map(Number);
  assert.ok(pids.length >= 2, line);
  platform.kill("SIGKILL");
  await new Promise((resolve) => platform.once("exit", resolve));
  const driver = await openProcessDriver({ ...where, privateMounts, logger: { log: () => {} } });
  const cgroups = (await driver.inspect()).some((fact) => fact.ability === "cpu limit" && fact.holds);
  assert.equal(await driver.sweep(), cgroups ? 1 : 0);
  assert.equal(await driver.sweep(), 0);
  // The kernel ends them without anybody waiting for it where there was no cgroup to sweep.
  while (pids.some((pid) => isAlive(pid))) await new Promise((resolve) => setImmediate(resolve));
  await driver.close();
});

/** A process that has ended stays visible as a zombie until its parent asks for its end. */
function isAlive(pid: number): boolean {
  try {
    return !/^[ZX]/.test(readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1) ?? "");
  } catch {
    return false;
  }
}
