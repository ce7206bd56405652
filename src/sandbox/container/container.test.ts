import assert from "node:assert/strict";
import { duplexPair } from "node:stream";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { VirtualClock } from "../../core/clock.ts";
import type { SandboxRequest } from "../sandbox.ts";
import { ContainersAhead } from "./ahead.ts";
import type { Container } from "./container.ts";
import { demultiplex } from "./demultiplex.ts";
import { engineSocket } from "./engine-address.ts";
import { cgroupFolders } from "./machine-view.ts";
import { PullProgress } from "./progress.ts";
import { formatReference, parseReference } from "./reference.ts";
import { candidatesOf, type ContainerPlan, containerSettings } from "./settings.ts";

const request: SandboxRequest = {
  id: "one",
  command: [],
  environment: {},
  mounts: [],
  limits: {
    memoryBytesMax: 1_000_000,
    pidsMax: 5,
    cpuCores: 0.5,
    tmpBytesMax: 10,
    openFilesMax: 20,
    fileBytesMax: 30,
  },
  network: "none",
  image: "x",
};

const plan: ContainerPlan = {
  request,
  image: {
    id: `sha256:${"1".repeat(64)}`,
    architecture: "amd64",
    os: "linux",
    environment: ["PATH=/a:/b"],
    entrypoint: ["serve"],
    arguments: ["--all"],
    user: "",
    stopSignal: "SIGTERM",
    volumes: ["/var/lib/data", "/tmp"],
    ports: [],
  },
  name: "koine-test",
  labels: {},
  holdFile: "/data/hold",
  resolversFile: "/data/resolv.conf",
  hasIPv6: true,
  withInit: true,
  publish: false,
};

test("names of images get the defaults that people expect", () => {
  const cases = {
    nginx: "docker.io/library/nginx:latest",
    "nginx:1.27": "docker.io/library/nginx:1.27",
    "you/api": "docker.io/you/api:latest",
    "ghcr.io/you/api:1": "ghcr.io/you/api:1",
    "localhost/api": "localhost/api:latest",
    "127.0.0.1:5000/a/b:c": "127.0.0.1:5000/a/b:c",
    [`nginx:1@sha256:${"a".repeat(64)}`]: `docker.io/library/nginx@sha256:${"a".repeat(64)}`,
  };
  for (const [text1, whole] of Object.entries(cases)) assert.equal(formatReference(parseReference(text1)), whole);
});

test("what is no image's name, or would lead elsewhere in the engine's API, is refused", () => {
  for (const name of [
    "",
    "A",
    "../x",
    "a/../b",
    "a//b",
    "a b",
    "a?x=1",
    "a#b",
    "..",
    "x@sha256:1",
    "a:b:c",
    "-a",
    "a/",
  ]) {
    assert.throws(() => parseReference(name), { code: "invalid-request" }, name);
  }
});

test("a container has no capabilities, no way to get some, and limits for everything", () => {
  const { HostConfig: host } = containerSettings(plan) as { HostConfig: Record<string, unknown> };
  assert.deepEqual(host["CapDrop"], ["ALL"]);
  assert.deepEqual(host["SecurityOpt"], ["no-new-privileges"]);
  assert.deepEqual(
    [
      host["ReadonlyRootfs"],
      host["Memory"],
      host["MemorySwap"],
      host["PidsLimit"],
      host["NanoCpus"],
      host["NetworkMode"],
    ],
    [true, 1_000_000, 1_000_000, 6, 500_000_000, "none"],
  );
});

test("an image's volumes are in memory, with the limit of /tmp", () => {
  const { HostConfig: host } = containerSettings(plan) as { HostConfig: { Tmpfs: Record<string, string> } };
  assert.deepEqual(Object.keys(host.Tmpfs).sort(), ["/run", "/tmp", "/var/lib/data"]);
  assert.match(host.Tmpfs["/var/lib/data"] ?? "", /size=10,/);
});

test("the image's program is looked for along its PATH, by the hold program", () => {
  const { Entrypoint: entrypoint } = containerSettings(plan);
  assert.deepEqual(entrypoint, ["/koine/hold", "/a/serve", "/b/serve", "", "serve", "--all"]);
  assert.deepEqual(candidatesOf("./serve", "/a"), ["./serve"]);
  const idle = containerSettings({ ...plan, request: { ...request, idle: true } });
  assert.deepEqual(idle["Entrypoint"], ["/koine/hold"]);
});

test("where containers cannot be entered, only the machine's network is to be had", () => {
  for (const network of ["none", "egress"] as const) {
    const wanted = { ...plan, publish: true, request: { ...request, network } };
    assert.throws(() => containerSettings(wanted), { code: "network-unavailable" });
  }
  const { HostConfig: host } = containerSettings({
    ...plan,
    publish: true,
    request: { ...request, network: "host" },
  }) as {
    HostConfig: Record<string, unknown>;
  };
  assert.deepEqual([host["NetworkMode"], host["PublishAllPorts"]], ["bridge", true]);
});

test("both outputs are taken apart, however the stream is cut, and the first byte is not theirs", async () => {
  const frame = (stream: number, content: string): Buffer => {
    const header = Buffer.alloc(8);
    header[0] = stream;
    header.writeUInt32BE(content.length, 4);
    return Buffer.concat([header, Buffer.from(content)]);
  };
  const [here, there] = duplexPair();
  const { stdout, stderr, firstByte } = demultiplex(here, { withFirstByte: true });
  const bytes = Buffer.concat([frame(1, "\x06"), frame(2, "to stderr"), frame(1, "to "), frame(1, "stdout")]);
  for (const byte of bytes) there.write(Buffer.from([byte]));
  there.end();
  assert.deepEqual(await Promise.all([firstByte, text(stdout), text(stderr)]), [6, "to stdout", "to stderr"]);
});

test("a pull is told in one line that grows", () => {
  const progress = new PullProgress("nginx");
  const [a, b] = ["0123456789ab", "ba9876543210"];
  progress.take({ id: a, status: "Already exists" });
  progress.take({ id: b, status: "Downloading", progressDetail: { current: 1_048_576, total: 4_194_304 } });
  assert.equal(progress.line, "pulling nginx: 1 of 2 layers, 1.0 of 4.0 MB");
  assert.equal(progress.take({ id: b, status: "Pull complete" }), "pulling nginx: 2 of 2 layers, 4.0 of 4.0 MB");
});

test("cgroups are found in both versions", () => {
  const one = cgroupFolders("8:pids:/docker/x\n4:memory:/docker/x\n0::/\n");
  assert.deepEqual(one.memory, { folder: "/sys/fs/cgroup/memory/docker/x", version: 1 });
  assert.deepEqual(cgroupFolders("0::/system.slice/x.scope\n").pids, {
    folder: "/sys/fs/cgroup/system.slice/x.scope",
    version: 2,
  });
});

test("only Unix sockets are engines", () => {
  assert.equal(engineSocket("unix:///run/x.sock", undefined), "/run/x.sock");
  assert.throws(() => engineSocket("tcp://127.0.0.1:2375", undefined), { code: "invalid-configuration" });
});

test("a container waits for the next request like the last, for a while, and only so many wait", async () => {
  const clock = new VirtualClock();
  const made: string[] = [];
  const removed: string[] = [];
  const make = async (wanted: SandboxRequest): Promise<Container> => {
    const name = `${wanted.image} ${made.length + 1}`;
    made.push(name);
    const remove = async (): Promise<void> => void removed.push(name);
    return { name, remove, ended: new Promise(() => {}) } as unknown as Container;
  };
  const ahead = new ContainersAhead({ clock, max: 2, waitMs: 60_000, make });
  assert.equal(ahead.take(request), null);
  await clock.advance(1_000);
  assert.deepEqual(made, ["x 1"]);
  assert.equal((ahead.take({ ...request, id: "two" }) as unknown as { name: string }).name, "x 1");
  for (const image of ["y", "z"]) ahead.take({ ...request, image });
  await clock.advance(1_000);
  assert.deepEqual(made, ["x 1", "y 2", "z 3"], "of three kinds the one that was asked for longest ago has none");
  await clock.advance(60_000);
  assert.deepEqual(removed, ["y 2", "z 3"]);
  assert.equal(ahead.take({ ...request, network: "host" }), null);
  await clock.advance(1_000);
  assert.equal(made.length, 3, "instances in the machine's network are never alike");
  await ahead.close();
});
