import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Cgroup, Cgroups } from "./cgroup.ts";
import { cgroupPositions, claimControllers, type Controller, type ControllerBase } from "./cgroup-position.ts";

const MIB = 1024 * 1024;
const limits = {
  memoryBytesMax: 64 * MIB,
  pidsMax: 10,
  cpuCores: 0.5,
  tmpBytesMax: 1,
  openFilesMax: 1,
  fileBytesMax: 1,
};

test("a process is found in hierarchies of version 1, also where it is nested and where the mount shows a part only", () => {
  const mountinfo = [
    "30 20 0:25 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory",
    "31 20 0:26 /docker/abc /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids",
    "32 20 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct",
    "33 20 0:28 /other /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer",
  ].join("\n");
  const membership = "9:memory:/slice/unit\n8:pids:/docker/abc/koine\n7:cpu,cpuacct:/\n6:freezer:/elsewhere\n0::/\n";
  const positions = cgroupPositions(mountinfo, membership);
  assert.deepEqual(Object.fromEntries(positions.version1), {
    memory: "/sys/fs/cgroup/memory/slice/unit",
    pids: "/sys/fs/cgroup/pids/koine",
    cpu: "/sys/fs/cgroup/cpu,cpuacct",
  });
  assert.equal(positions.version2, null);
});

test("a process is found in the hierarchy of version 2", () => {
  const mountinfo = "30 20 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
  assert.deepEqual(cgroupPositions(mountinfo, "0::/user.slice/koine.service\n").version2, {
    folder: "/sys/fs/cgroup/user.slice/koine.service",
    mountPoint: "/sys/fs/cgroup",
  });
});

/** Folders with the files that the kernel would show. */
function hierarchy(folders: Readonly<Record<string, Readonly<Record<string, string>>>>): string {
  const mountPoint = mkdtempSync(join(tmpdir(), "koine-cgroup-"));
  for (const [folder, files] of Object.entries(folders)) {
    mkdirSync(join(mountPoint, folder), { recursive: true });
    for (const [name, text] of Object.entries(files)) writeFileSync(join(mountPoint, folder, name), text);
  }
  return mountPoint;
}

test("of version 2 the nearest folder above that hands controllers down is taken", () => {
  const kernel = { "cgroup.procs": "", "cgroup.controllers": "cpu memory pids" };
  const mountPoint = hierarchy({
    ".": { ...kernel, "cgroup.subtree_control": "cpu memory pids" },
    slice: { ...kernel, "cgroup.subtree_control": "cpu memory pids" },
    "slice/unit": { ...kernel, "cgroup.subtree_control": "" },
    "slice/koine-t": { ...kernel, "cgroup.subtree_control": "" },
  });
  const claimed = claimControllers(
    { version1: new Map(), version2: { folder: join(mountPoint, "slice/unit"), mountPoint } },
    "koine-t",
  );
  const folder = join(mountPoint, "slice/koine-t");
  assert.deepEqual([...claimed.keys()].toSorted(), ["cpu", "freezer", "memory", "pids"]);
  assert.deepEqual(new Set([...claimed.values()].map((base) => base.folder)), new Set([folder]));
  rmSync(mountPoint, { recursive: true });
});

test("where nobody hands controllers down, nothing is claimed that needs one", () => {
  const mountPoint = hierarchy({
    ".": { "cgroup.procs": "", "cgroup.controllers": "", "cgroup.subtree_control": "" },
    "koine-t": { "cgroup.procs": "" },
  });
  const claimed = claimControllers({ version1: new Map(), version2: { folder: mountPoint, mountPoint } }, "koine-t");
  assert.deepEqual([...claimed.keys()], ["freezer"]);
  rmSync(mountPoint, { recursive: true });
});

function fakeCgroup(
  version: 1 | 2,
  files: Readonly<Record<string, string>>,
): { cgroup: Cgroup; read(name: string): string; end(): void } {
  const folder = hierarchy({ one: files });
  const names: readonly Controller[] = ["memory", "pids", "cpu", "freezer"];
  const bases = new Map<Controller, ControllerBase>(names.map((name) => [name, { version, folder }]));
  return {
    cgroup: new Cgroup(bases, "one"),
    read: (name) => readFileSync(join(folder, "one", name), "utf8"),
    end: () => rmSync(folder, { recursive: true }),
  };
}

test("limits and readings of version 2", () => {
  const { cgroup, read, end } = fakeCgroup(2, {
    "memory.max": "",
    "memory.swap.max": "",
    "memory.oom.group": "",
    "pids.max": "",
    "cpu.max": "",
    "memory.current": "1000\n",
    "memory.peak": "3000\n",
    "memory.events": "low 0\noom 2\noom_kill 1\n",
    "pids.events": "max 4\n",
  });
  cgroup.setLimits(limits);
  assert.equal(read("memory.max"), String(64 * MIB));
  assert.equal(read("memory.swap.max"), "0");
  assert.equal(read("memory.oom.group"), "1");
  assert.equal(read("pids.max"), "12", "bubblewrap's own two processes do not count against the sandbox");
  assert.equal(read("cpu.max"), "50000 100000");
  assert.deepEqual(cgroup.memory(), { currentBytes: 1000, peakBytes: 3000 });
  assert.equal(cgroup.outOfMemoryKills(), 1);
  assert.equal(cgroup.refusedForks(), 4);
  cgroup.setLimits({ ...limits, cpuCores: null });
  assert.equal(read("cpu.max"), "max 100000");
  end();
});

test("limits and readings of version 1, on a kernel without swap accounting", () => {
  const { cgroup, read, end } = fakeCgroup(1, {
    "memory.limit_in_bytes": "",
    "pids.max": "",
    "cpu.cfs_quota_us": "",
    "memory.usage_in_bytes": "1000\n",
    "memory.max_usage_in_bytes": "3000\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
  });
  cgroup.setLimits(limits);
  assert.equal(read("memory.limit_in_bytes"), String(64 * MIB));
  assert.equal(read("cpu.cfs_quota_us"), "50000");
  assert.deepEqual(cgroup.memory(), { currentBytes: 1000, peakBytes: 3000 });
  assert.equal(cgroup.outOfMemoryKills(), 2);
  assert.equal(cgroup.refusedForks(), 0);
  cgroup.setLimits({ ...limits, cpuCores: null });
  assert.equal(read("cpu.cfs_quota_us"), "-1");
  end();
});

test("without any controller a cgroup does nothing and says so", async () => {
  const cgroups = new Cgroups(new Map());
  const cgroup = await cgroups.create("one", limits);
  assert.deepEqual([cgroups.has("memory"), cgroup.memory(), cgroup.joinFiles], [false, null, []]);
  await cgroup.destroy();
  assert.equal(await cgroups.sweep(new Set()), 0);
});

test("the kernel's version 2 freezes, thaws and ends a process", async (context) => {
  const read = (name: string): string => readFileSync(`/proc/self/${name}`, "utf8");
  const { version2 } =
    process.platform === "linux" ? cgroupPositions(read("mountinfo"), read("cgroup")) : { version2: null };
  const bases = claimControllers({ version1: new Map(), version2 }, `koine-test-${process.pid}`);
  if (!bases.has("freezer")) return context.skip("no hierarchy of version 2 that can be written to");
  const cgroups = new Cgroups(bases);
  const cgroup = await cgroups.create("one", limits);
  const [joinFile = ""] = cgroup.joinFiles;
  const child = spawn("cat", { stdio: ["pipe", "pipe", "inherit"] });
  writeFileSync(joinFile, String(child.pid));
  assert.deepEqual(cgroup.members(), [child.pid]);
  await cgroup.freeze();
  assert.match(readFileSync(joinFile.replace("cgroup.procs", "cgroup.events"), "utf8"), /frozen 1/);
  cgroup.thaw();
  child.stdin.write("thawed");
  assert.equal(await new Promise((resolve) => child.stdout.once("data", (chunk) => resolve(String(chunk)))), "thawed");
  await cgroup.freeze();
  const ended = new Promise((resolve) => child.once("exit", (_, signal) => resolve(signal)));
  await cgroup.destroy();
  assert.equal(await ended, "SIGKILL");
  cgroups.close();
});
