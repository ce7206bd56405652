import assert from "node:assert/strict";
import { test } from "node:test";
import { nodeRequest } from "../conformance.ts";
import { planLaunch, sandboxArguments, type SandboxPlan } from "./launch.ts";

const plan: SandboxPlan = {
  machine: {
    bubblewrap: "/usr/bin/bwrap",
    bubblewrapVersion: "0.8.0",
    limitsTmp: true,
    setpriv: "/usr/bin/setpriv",
    nsenter: "/usr/bin/nsenter",
    shell: "/bin/sh",
    systemFolders: [
      { kind: "link", path: "/bin", to: "usr/bin" },
      { kind: "folder", path: "/lib64" },
    ],
  },
  request: nodeRequest("", { environment: { TOKEN: "a secret" } }),
  rootFolder: "/staging/roots/one",
  etcFolder: "/staging/etc",
  resolversFile: "/staging/resolv.conf",
  hasOwnNetwork: false,
  mounts: [{ source: "/staging/sources/1", target: "/code" }],
  filterFile: "/staging/seccomp.bpf",
  covered: [],
  masked: { files: [], folders: [] },
  limitPidsByUser: false,
};
const launch = {
  ...plan,
  networkPath: "/proc/1/fd/20",
  userId: 70_001,
  joinFiles: ["/sys/fs/cgroup/memory/one/cgroup.procs"],
};
const hidden = (changed: Partial<SandboxPlan>): string =>
  sandboxArguments({ ...plan, ...changed })
    .toString()
    .replaceAll("\0", " ");

test("the environment is not in the arguments, which every user of the machine can see", () => {
  assert.doesNotMatch(planLaunch(launch).args.join(" "), /secret/);
  assert.match(hidden({}), / --setenv TOKEN a secret /);
});

test("the command reaches the shell inside as it is, whatever it contains", () => {
  const command = ["/bin/echo", "it's", "$HOME", ""];
  assert.ok(hidden({ request: { ...plan.request, command } }).includes(`set -- '/bin/echo' 'it'\\''s' '$HOME' ''`));
});

test("the cgroup is joined, the network entered and the user changed before bubblewrap starts", () => {
  const { args } = planLaunch(launch);
  const order = [...launch.joinFiles, "--net=/proc/1/fd/20", "--setuid=70001", "/usr/bin/bwrap"].map((argument) =>
    args.indexOf(argument),
  );
  assert.deepEqual(
    order,
    order.toSorted((a, b) => a - b),
  );
  assert.ok(!order.includes(-1));
});

test("in the machine's network another program changes the user", () => {
  const { args } = planLaunch({ ...launch, networkPath: null });
  assert.deepEqual(args.slice(args.indexOf("/usr/bin/setpriv"), -6), [
    "/usr/bin/setpriv",
    "--reuid=70001",
    "--regid=70001",
    "--clear-groups",
    "--",
    "/usr/bin/bwrap",
  ]);
});

test("who stays the same user needs no setpriv", () => {
  for (const networkPath of [null, launch.networkPath]) {
    const { args } = planLaunch({ ...launch, userId: null, networkPath });
    assert.doesNotMatch(args.join(" "), /setpriv|--setuid|--setgid/);
  }
});

test("a root in memory gets the machine's links and is closed against writing at the end", () => {
  assert.match(hidden({ rootFolder: null }), /--symlink usr\/bin \/bin .*--remount-ro \/ /);
  assert.match(hidden({}), /--ro-bind \/staging\/roots\/one \/ /);
  assert.doesNotMatch(hidden({}), /--symlink|--remount-ro \/ /);
});

test("the network namespace is made here only where no network was asked for and there is none yet", () => {
  assert.match(hidden({}), /--unshare-net/);
  assert.doesNotMatch(hidden({ hasOwnNetwork: true }), /--unshare-net/);
  assert.doesNotMatch(hidden({ request: { ...plan.request, network: "host" } }), /--unshare-net/);
});

test("only mounts that ask for it are writable", () => {
  assert.match(hidden({}), /--ro-bind \/staging\/sources\/1 \/code/);
  assert.match(hidden({ mounts: [{ source: "/a", target: "/b", writable: true }] }), / --bind \/a \/b/);
});
