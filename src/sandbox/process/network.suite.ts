import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { parseNetworkRules } from "../../core/network.ts";
import { next, nodeRequest, run, start, testLimits } from "../conformance.ts";
import { isAttachable, type SandboxDriver, type SandboxRequest } from "../sandbox.ts";
import { openProcessDriver } from "./driver.ts";

/**
 * Run by network.real.test.ts in a network namespace of its own, which is "the machine" here. What is around it lies in another one,
 * made by this suite: stand-ins for the internet, a private network and a metadata service. Nothing else can be reached from either.
 */
const MACHINE = "172.31.0.1";
const MACHINE_PORT = 5432;

let driver: SandboxDriver;
let folder: string;
let machineServer: Server;
const standIns = spawn(
  "unshare",
  ["--net", process.execPath, fileURLToPath(new URL("../network/stand-ins.fixture.mjs", import.meta.url))],
  {
    stdio: ["pipe", "pipe", "inherit"],
  },
);

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "koine-network-"));
  await untilItHasItsOwnNetwork();
  connectMachine(String(standIns.pid));
  const up = once(standIns.stdout, "data");
  standIns.stdin.write("go\n");
  await up;
  await writeFile(join(folder, "resolv.conf"), "nameserver 1.1.1.53\n");
  execFileSync("mount", ["--bind", join(folder, "resolv.conf"), "/etc/resolv.conf"]);
  machineServer = createServer((socket) => socket.on("error", () => {}).end("machine\n"));
  await new Promise<void>((resolve) => machineServer.listen(MACHINE_PORT, "0.0.0.0", () => resolve()));
  driver = await openProcessDriver({
    directory: join(folder, "driver"),
    tag: `network-${process.pid}`,
    privateMounts: true,
    logger: { log: () => {} },
    launchesAhead: 1,
    networkAhead: { mode: "egress", allow: [] },
  });
});

after(async () => {
  await driver.close();
  machineServer.close();
  standIns.kill();
  await rm(folder, { recursive: true, force: true });
});

/** `unshare` has replaced itself by Node once it is in its new namespace. */
async function untilItHasItsOwnNetwork(): Promise<void> {
  const link = (pid: string): string => execFileSync("readlink", [`/proc/${pid}/ns/net`]).toString();
  while (link(String(standIns.pid)) === link("self")) await new Promise((resolve) => setImmediate(resolve));
}

function connectMachine(far: string): void {
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
    ...["1.1.1.1", "1.1.1.53", "169.254.169.254", "10.1.2.3", "10.1.2.4"].map(
      (one) => `${inside} address add ${one}/32 dev lo`,
    ),
    ...["2606:4700::1", "fd00:ec2::254"].map((one) => `${inside} -6 address add ${one}/128 dev lo nodad`),
    "ip route add default via 172.31.0.2",
    "ip -6 route add default via fd00:1::2",
  ];
  execFileSync("sh", ["-ec", script.join("\n")]);
}

/** What code in the sandbox calls: `tcp` and `udp` answer the first line or the error's code. */
const CALLS = `
  const net = require("node:net"), dgram = require("node:dgram"), dns = require("node:dns").promises;
  const tcp = (host, port) => new Promise((resolve) => {
    const socket = net.connect({ host, port });
    let said = "";
    socket.on("data", (chunk) => { said += chunk; socket.end(); }).on("error", (error) => resolve(error.code));
    socket.on("close", () => resolve(said.trim()));
  });
  const udp = (host, port) => new Promise((resolve) => {
    const socket = dgram.createSocket("udp4");
    const done = (answer) => { resolve(answer); socket.close(); };
    socket.on("message", (packet) => done(String(packet))).on("error", (error) => done(error.code));
    socket.send("ping", port, host, (error) => error && done(error.code));
  });
  const all = async (calls) => { console.log(JSON.stringify(await Promise.all(calls))); process.exit(); };
`;

async function inside(calls: string, more: Partial<SandboxRequest>): Promise<unknown> {
  const { stdout, stderr } = await run(driver, nodeRequest(`${CALLS} all([${calls}]);`, more));
  assert.notEqual(stdout, "", stderr);
  return JSON.parse(stdout);
}

const egress = (...allow: string[]): Partial<SandboxRequest> => ({
  network: "egress",
  allowNetwork: parseNetworkRules(allow),
});

test("egress reaches the internet over TCP and UDP, by IPv4 and IPv6, and finds names", async () => {
  const calls = `tcp("1.1.1.1", 80), tcp("2606:4700::1", 80), udp("1.1.1.1", 9999), tcp("internet.test", 80), dns.resolve4("internet.test")`;
  assert.deepEqual(await inside(calls, egress()), ["1.1.1.1", "2606:4700::1", "echo ping", "1.1.1.1", ["1.1.1.1"]]);
});

test("egress does not reach private hosts, metadata services, the machine's addresses, or its loopback", async () => {
  const refused = [
    ["10.1.2.3", 80],
    ["::ffff:10.1.2.3", 80],
    ["db.test", 80],
    ["169.254.169.254", 80],
    ["fd00:ec2::254", 80],
    ["172.31.0.2", 80],
    [MACHINE, MACHINE_PORT],
    ["fd00:1::1", MACHINE_PORT],
    ["224.0.0.1", 80],
    ["192.0.2.2", 80],
  ];
  const calls = refused.map((call) => `tcp(...${JSON.stringify(call)})`).join();
  assert.deepEqual(
    await inside(calls, egress()),
    refused.map(() => "EACCES"),
  );
  // Loopback is its own, and nobody is there.
  const loopback = ["127.0.0.1", "::1", "0.0.0.0", "127.1.2.3"].map((host) => `tcp("${host}", ${MACHINE_PORT})`).join();
  assert.deepEqual(
    await inside(loopback, egress()),
    Array.from({ length: 4 }, () => "ECONNREFUSED"),
  );
  assert.deepEqual(await inside(`udp("10.1.2.3", 9999), udp("169.254.169.254", 53)`, egress()), ["EACCES", "EACCES"]);
});

test("the platform's own end of it passes nothing on that was not turned to it", async () => {
  assert.deepEqual(await inside(`tcp("192.0.0.1", 15), tcp("192.0.0.1", 80)`, egress()), ["ECONNRESET", "ECONNRESET"]);
});

test("what does not answer on the internet ends the connection", async () => {
  assert.deepEqual(await inside(`tcp("1.1.1.1", 81)`, egress()), ["ECONNRESET"]);
});

test("a list opens what it names and nothing beside", async () => {
  const calls = `tcp("10.1.2.3", 80), tcp("10.1.2.4", 80), tcp("10.1.2.3", 81), tcp("10.1.3.3", 80), tcp("169.254.169.254", 80), tcp("1.1.1.1", 80)`;
  assert.deepEqual(await inside(calls, egress("10.1.2.0/24:80")), [
    "10.1.2.3",
    "10.1.2.4",
    "ECONNRESET",
    "EACCES",
    "EACCES",
    "1.1.1.1",
  ]);
});

test("metadata services and the machine itself are opened only by their exact addresses", async () => {
  const calls = `tcp("169.254.169.254", 80), tcp("fd00:ec2::254", 80), tcp("${MACHINE}", ${MACHINE_PORT}), tcp("172.31.0.2", 80)`;
  const wide = egress("169.254.0.0/16", "fc00::/7", "172.16.0.0/12");
  assert.deepEqual(await inside(calls, wide), ["EACCES", "EACCES", "EACCES", "172.31.0.2"]);
  const exact = egress("169.254.169.254", "[fd00:ec2::254]:80", `${MACHINE}:${MACHINE_PORT}`);
  assert.deepEqual(await inside(calls, exact), ["169.254.169.254", "fd00:ec2::254", "machine", "EACCES"]);
});

test("a name in the list opens what it stands for", async () => {
  const calls = `tcp("db.test", 80), tcp("10.1.2.3", 80), tcp("10.1.2.4", 80), tcp("${MACHINE}", ${MACHINE_PORT})`;
  const said = await inside(calls, egress("db.test:80"));
  assert.deepEqual(said, ["10.1.2.3", "10.1.2.3", "ECONNRESET", "ECONNRESET"]);
});

test("localhost in the list is the machine's, under the same port, and no other", async () => {
  const calls = `tcp("localhost", ${MACHINE_PORT}), tcp("127.0.0.1", ${MACHINE_PORT}), tcp("127.0.0.1", ${MACHINE_PORT + 1})`;
  assert.deepEqual(await inside(calls, egress(`localhost:${MACHINE_PORT}`)), ["machine", "machine", "ECONNREFUSED"]);
});

test("none reaches nothing, its own loopback excepted", async () => {
  const calls = `new Promise((resolve) => { const server = net.createServer((socket) => socket.end("own")).listen(0, "127.0.0.1", async () => {
      resolve(await tcp("127.0.0.1", server.address().port)); server.close(); }); }),
    tcp("1.1.1.1", 80), tcp("10.1.2.3", 80), tcp("${MACHINE}", ${MACHINE_PORT}), tcp("127.0.0.1", ${MACHINE_PORT}), udp("1.1.1.53", 53)`;
  const unreachable = Array.from({ length: 3 }, () => "EACCES|ENETUNREACH");
  const said = (await inside(calls, { network: "none" })) as string[];
  assert.equal(said[0], "own");
  for (const [index, pattern] of [...unreachable, "ECONNREFUSED", "ENETUNREACH"].entries())
    assert.match(said[index + 1] ?? "", new RegExp(`^(${pattern})$`), String(index));
});

test("host reaches what the machine reaches, so the other tests could fail", async () => {
  const calls = `tcp("10.1.2.3", 80), tcp("127.0.0.1", ${MACHINE_PORT}), tcp("169.254.169.254", 80), tcp("internet.test", 80)`;
  assert.deepEqual(await inside(calls, { network: "host" }), ["10.1.2.3", "machine", "169.254.169.254", "1.1.1.1"]);
});

test("sandboxes do not reach each other", async () => {
  const server = `require("node:net").createServer((socket) => socket.end("neighbour")).listen(8080, "0.0.0.0", () => channel.write("up")); setInterval(() => {}, 1000);`;
  const one = await start(driver, nodeRequest(server, egress()));
  assert.equal(await next(one.channel), "up");
  const hosts = ["127.0.0.1", "192.0.0.1", "192.0.0.2", MACHINE];
  const said = await inside(hosts.map((host) => `tcp("${host}", 8080)`).join(), egress());
  assert.deepEqual(said, ["ECONNREFUSED", "ECONNRESET", "ECONNREFUSED", "EACCES"]);
  await one.stop(0);
});

test("sockets of the machine without a path are not found inside", async () => {
  const server = createServer((socket) => socket.end("machine")).listen("\0koine-network-test");
  await once(server, "listening");
  const program = `require("node:net").connect("\\0koine-network-test").on("error", (error) => { console.log(error.code); process.exit(); })`;
  assert.equal((await run(driver, nodeRequest(program, egress()))).stdout, "ECONNREFUSED\n");
  server.close();
});

test("much can pass in both directions, and the end of one direction is not that of the other", async () => {
  const program = `
    const socket = require("node:net").connect({ host: "1.1.1.1", port: 80, allowHalfOpen: true });
    let count = 0;
    socket.on("data", (chunk) => { count += chunk.length; }).on("end", () => { console.log(count); process.exit(); });
    socket.end(Buffer.alloc(8 * 1024 * 1024, 1));`;
  const { stdout, stderr } = await run(driver, nodeRequest(program, egress()));
  assert.equal(stdout, `${8 * 1024 * 1024 + "1.1.1.1\n".length}\n`, stderr);
});

test("its connections end with it", async () => {
  const accepted = Promise.withResolvers<Socket>();
  const server = createServer((socket) => accepted.resolve(socket.on("error", () => {}))).listen(0, MACHINE);
  await once(server, "listening");
  const address = server.address();
  const port = typeof address === "object" ? address?.port : null;
  const program = `require("node:net").connect(${port}, "${MACHINE}"); setInterval(() => {}, 1000);`;
  const sandbox = await start(driver, nodeRequest(program, egress(`${MACHINE}:${port}`)));
  const socket = await accepted.promise;
  const closed = new Promise((resolve) => socket.once("close", resolve).resume());
  await sandbox.stop(0);
  await closed;
  server.close();
});

test("one that waits for its code gets the network that goes with the code", async () => {
  const program = `${CALLS} channel.on("data", async () => channel.write(JSON.stringify(await Promise.all([tcp("1.1.1.1", 80), tcp("10.1.2.3", 80)]))));`;
  const accesses = [
    { access: undefined, expected: ["1.1.1.1", "EACCES"] },
    { access: { mode: "egress", allow: parseNetworkRules(["10.1.2.3"]) }, expected: ["1.1.1.1", "10.1.2.3"] },
    { access: { mode: "none", allow: [] }, expected: ["ENETUNREACH", "EACCES"] },
  ] as const;
  for (const { access, expected } of accesses) {
    const sandbox = await start(driver, nodeRequest(program, { ...egress(), attachable: true }));
    assert.ok(isAttachable(sandbox));
    await sandbox.attach([], testLimits, access);
    const answer = next(sandbox.channel);
    sandbox.channel.write("go");
    assert.deepEqual(JSON.parse(await answer), expected);
    await sandbox.stop(0);
  }
});

test("a list that was left behind opens nothing any more", async () => {
  const program = `${CALLS} channel.on("data", async () => channel.write(JSON.stringify(await tcp("10.1.2.3", 80))));`;
  const sandbox = await start(driver, nodeRequest(program, { ...egress("10.1.2.3"), attachable: true }));
  assert.ok(isAttachable(sandbox));
  await sandbox.attach([], testLimits, { mode: "egress", allow: [] });
  const answer = next(sandbox.channel);
  sandbox.channel.write("go");
  assert.equal(JSON.parse(await answer), "ECONNRESET");
  await sandbox.stop(0);
});

test("code inside cannot change what was decided for it", async () => {
  const program = `const { spawnSync } = require("node:child_process");
    const said = ["ip route del prohibit 10.0.0.0/8", "ip address add 10.9.9.9/8 dev lo", "ip link add x type veth", "nft flush ruleset"]
      .filter((line) => spawnSync("/bin/sh", ["-c", line]).status === 0);
    console.log(JSON.stringify(said)); process.exit();`;
  assert.equal((await run(driver, nodeRequest(program, egress()))).stdout, "[]\n");
});
