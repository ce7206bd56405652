import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { manage } from "../system/api.ts";
import { type RunningPlatform, startPlatform } from "../system/platform.ts";
import { compileAttack, deployAttackers, invoke, type Result, secretOf } from "./stage.ts";

/**
 * Run by network.test.ts in a network namespace of its own, which is "the machine" here; around it are stand-ins for the internet, a private
 * network and a metadata service in another one. Nothing real can be reached from either.
 */
const MACHINE = "172.31.0.1";
const PORT = 5_432;
const LISTENER_PORT = 7_777;
const METADATA = ["169.254.169.254", "fd00:ec2::254"];
const PRIVATE = ["10.1.2.3", "172.31.0.2", "fd00:1::2"];
const INTERNET = ["1.1.1.1", "2606:4700::1"];

let folder: string;
let program: string;
let server: Server;
const standIns = spawn(
  "unshare",
  [
    "--net",
    process.execPath,
    fileURLToPath(new URL("../../src/sandbox/network/stand-ins.fixture.mjs", import.meta.url)),
  ],
  { stdio: ["pipe", "pipe", "inherit"] },
);

before(async () => {
  assert.ok(!Object.keys(networkInterfaces()).some((name) => name.startsWith("eth")), "not in a namespace of its own");
  folder = mkdtempSync(join(tmpdir(), "koine-network-"));
  program = compileAttack(folder);
  const namespaceOf = (pid: string): string => execFileSync("readlink", [`/proc/${pid}/ns/net`]).toString();
  while (namespaceOf(String(standIns.pid)) === namespaceOf("self"))
    await new Promise((resolve) => setImmediate(resolve));
  surroundMachine(String(standIns.pid));
  const up = once(standIns.stdout, "data");
  standIns.stdin.write("go\n");
  await up;
  server = createServer((socket) => socket.on("error", () => {}).end(secretOf("server")));
  await new Promise<void>((resolve) => server.listen(PORT, "::", () => resolve()));
});
after(() => {
  server.close();
  standIns.kill();
  rmSync(folder, { recursive: true, force: true });
});

function surroundMachine(far: string): void {
  const inside = `nsenter --net=/proc/${far}/ns/net ip`;
  const script = [
    "ip link set lo up",
    `ip link add machine0 type veth peer name far0 netns ${far}`,
    `ip address add ${MACHINE}/24 dev machine0`,
    "ip -6 address add fd00:1::1/64 dev machine0 nodad",
    "ip link set machine0 up",
    `${inside} link set lo up`,
    `${inside} link set far0 up`,
    `${inside} address add 172.31.0.2/24 dev far0`,
    `${inside} -6 address add fd00:1::2/64 dev far0 nodad`,
    ...["1.1.1.1", "1.1.1.53", "169.254.169.254", "10.1.2.3"].map((one) => `${inside} address add ${one}/32 dev lo`),
    ...["2606:4700::1", "fd00:ec2::254"].map((one) => `${inside} -6 address add ${one}/128 dev lo nodad`),
    "ip route add default via 172.31.0.2",
    "ip -6 route add default via fd00:1::2",
  ];
  execFileSync("sh", ["-ec", script.join("\n")]);
}

/** What code of a function with this network gets hold of, by the name of what it called. */
async function reached(platform: RunningPlatform): Promise<readonly string[]> {
  const own = Number(new URL(platform.url).port);
  const targets: Readonly<Record<string, readonly { readonly host: string; readonly port: number }[]>> = {
    "the machine's loopback": ["127.0.0.1", "::1", "127.9.9.9", "::ffff:127.0.0.1"].map((host) => ({
      host,
      port: PORT,
    })),
    "the machine's own address": [MACHINE, "fd00:1::1", "0.0.0.0"].map((host) => ({ host, port: PORT })),
    "the platform's API": [{ host: "127.0.0.1", port: own }],
    "the metadata service": METADATA.map((host) => ({ host, port: 80 })),
    "a private network": PRIVATE.map((host) => ({ host, port: 80 })),
    "another sandbox": ["127.0.0.1", MACHINE].map((host) => ({ host, port: LISTENER_PORT })),
    "the internet": INTERNET.map((host) => ({ host, port: 80 })),
  };
  const listening = (await invoke(platform, "listener", {
    attack: "listen",
    args: ["0.0.0.0", LISTENER_PORT],
    scratch: "/tmp/koine-network",
  })) as Result;
  assert.ok("took" in listening, JSON.stringify(listening));
  const found: string[] = [];
  for (const [what, addresses] of Object.entries(targets)) {
    const results = await Promise.all(
      addresses.map(async (target) => {
        const event = { attack: "connect", args: [target], scratch: "/tmp/koine-network" };
        return (await invoke(platform, "attacker", event)) as Result;
      }),
    );
    // One of several ways is enough.
    if (results.some((result) => "took" in result)) found.push(what);
  }
  return found;
}

async function attackersWith(platform: RunningPlatform, network: string): Promise<void> {
  await deployAttackers(platform, program);
  const shown = await manage(platform, "GET", "/v1/namespaces/default/functions/attacker");
  const { spec } = JSON.parse(shown.text) as { spec: { code: { digest: string } | string } };
  const digest = typeof spec.code === "string" ? spec.code : spec.code.digest;
  for (const name of ["attacker", "listener"]) {
    const path = `/v1/namespaces/default/functions/${name}`;
    const put = await manage(platform, "PUT", path, { code: digest, handlerModel: "lambda", network });
    assert.ok(put.status < 300, put.text);
  }
}

const everything = [
  "the machine's loopback",
  "the machine's own address",
  "the platform's API",
  "the metadata service",
  "a private network",
  "another sandbox",
  "the internet",
];

test("network modes: none reaches nothing, egress the internet only, host everything", async () => {
  await using platform = await startPlatform({ sandbox: "process", args: ["--network", "host"] });
  for (const [network, expected] of [
    ["none", []],
    ["egress", ["the internet"]],
    ["host", everything],
  ] as const) {
    await attackersWith(platform, network);
    assert.deepEqual(await reached(platform), expected, network);
  }
});

test("without a sandbox everything is reached", async () => {
  await using platform = await startPlatform({ sandbox: "none" });
  await attackersWith(platform, "host");
  assert.deepEqual(await reached(platform), everything);
});
