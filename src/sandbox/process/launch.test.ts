import assert from "node:assert/strict";
import { test } from "node:test";
import { nodeRequest } from "../conformance.ts";
import { type LaunchPlan, planLaunch } from "./launch.ts";

const plan: LaunchPlan = {
  machine: {
    bubblewrap: "/usr/bin/bwrap",
    bubblewrapVersion: "0.8.0",
    limitsTmp: true,
    setpriv: "/usr/bin/setpriv",
    shell: "/bin/sh",
    systemFolders: [
      { kind: "link", path: "/bin", to: "usr/bin" },
      { kind: "folder", path: "/lib64" },
    ],
  },
  request: nodeRequest("", { environment: { TOKEN: "a secret" } }),
  rootFolder: "/staging/roots/one",
  etcFolder: "/staging/etc",
  mounts: [{ source: "/staging/sources/1", target: "/code" }],
  userId: 70_001,
  joinFiles: ["/sys/fs/cgroup/memory/one/cgroup.procs"],
  filterFile: "/staging/seccomp.bpf",
  covered: [],
  limitPidsByUser: false,
};
const hidden = (changed: Partial<LaunchPlan>): string =>
  planLaunch({ ...plan, ...changed })
    .hiddenArguments.toString()
    .replaceAll("\0", " ");

test("the environment is not in the arguments, which every user of the machine can see", () => {
  const launch = planLaunch(plan);
  assert.doesNotMatch(launch.args.join(" "), /secret/);
  assert.match(launch.hiddenArguments.toString(), /--setenv\0TOKEN\0a secret\0/);
});

test("the cgroup is joined and the user changed before bubblewrap starts", () => {
  const { args } = planLaunch(plan);
  const order = [...plan.joinFiles, "--reuid=70001", "--clear-groups", "/usr/bin/bwrap"].map((argument) =>
    args.indexOf(argument),
  );
  assert.deepEqual(
    order,
    order.toSorted((a, b) => a - b),
  );
  assert.ok(!order.includes(-1));
});

test("who stays the same user needs no setpriv", () => {
  assert.ok(!planLaunch({ ...plan, userId: null }).args.includes("/usr/bin/setpriv"));
});

test("a root in memory gets the machine's links and is closed against writing at the end", () => {
  assert.match(hidden({ rootFolder: null }), /--symlink usr\/bin \/bin .*--remount-ro \/ /);
  assert.match(hidden({}), /--ro-bind \/staging\/roots\/one \/ /);
  assert.doesNotMatch(hidden({}), /--symlink|--remount-ro \/ /);
});

test("the network namespace is new only where no network was asked for", () => {
  assert.match(hidden({}), /--unshare-net/);
  assert.doesNotMatch(hidden({ request: { ...plan.request, network: "host" } }), /--unshare-net/);
});

test("only mounts that ask for it are writable", () => {
  assert.match(hidden({}), /--ro-bind \/staging\/sources\/1 \/code/);
  assert.match(hidden({ mounts: [{ source: "/a", target: "/b", writable: true }] }), / --bind \/a \/b/);
});
