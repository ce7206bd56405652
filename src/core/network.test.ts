import assert from "node:assert/strict";
import { test } from "node:test";
import { closerThanInternet, judgeDestination } from "./destination.ts";
import { KoineError } from "./errors.ts";
import {
  type Address,
  formatAddress,
  grantNetwork,
  type NetworkAccess,
  parseAddress,
  parseNetworkRule,
  parseNetworkRules,
} from "./network.ts";

const address = (text: string): Address => {
  const parsed = parseAddress(text);
  assert.ok(parsed !== null, text);
  return parsed;
};

test("addresses are read in their usual spellings and no other", () => {
  for (const [text, expected] of [
    ["10.1.2.3", "10.1.2.3"],
    ["::1", "0:0:0:0:0:0:0:1"],
    ["2001:DB8::1:0:0:1", "2001:db8:0:0:1:0:0:1"],
    ["::ffff:10.1.2.3", "10.1.2.3"],
    ["::ffff:a01:203", "10.1.2.3"],
    ["64:ff9b::10.1.2.3", "64:ff9b:0:0:0:0:a01:203"],
  ] as const)
    assert.equal(formatAddress(address(text)), expected, text);
  for (const text of ["", "10.1.2", "010.1.2.3", "0x0a010203", "167838211", "fe80::1%eth0", "[::1]", "a.b"])
    assert.equal(parseAddress(text), null, text);
});

test("a rule names addresses, ranges, names or localhost, with or without ports", () => {
  const kindOf = (text: string): unknown => {
    const { target, portMin, portMax } = parseNetworkRule(text);
    return [target.kind, portMin, portMax];
  };
  assert.deepEqual(kindOf("10.1.2.0/24:5432"), ["range", 5432, 5432]);
  assert.deepEqual(kindOf("10.1.2.3"), ["range", 1, 65_535]);
  assert.deepEqual(kindOf("[fd00::1]:80-90"), ["range", 80, 90]);
  assert.deepEqual(kindOf("fd00::/8"), ["range", 1, 65_535]);
  assert.deepEqual(kindOf("db.internal:5432"), ["name", 5432, 5432]);
  assert.deepEqual(kindOf("localhost:5432"), ["localhost", 5432, 5432]);
});

test("a rule that is not one is refused with the reason", () => {
  for (const [text, reason] of [
    ["", /TARGET/],
    ["localhost", /needs a port/],
    ["localhost:1-100", /at most 16 ports/],
    ["10.1.2.3/24", /first address/],
    ["10.1.2.0/33", /first address/],
    ["10.1.2:80", /not an address/],
    ["10.1.2.3:0", /port/],
    ["10.1.2.3:70000", /port/],
    ["10.1.2.3:90-80", /port/],
    ["::ffff:0:0/96", /not an address/],
    ["db_internal!:80", /host name/],
    ["*", /host name/],
    ["x".repeat(301), /TARGET/],
  ] as const) {
    const thrown = assert.throws(() => parseNetworkRule(text), { code: "invalid-network-rule" }, text);
    assert.equal(thrown, undefined);
    try {
      parseNetworkRule(text);
    } catch (error) {
      assert.match(error instanceof KoineError ? error.message : "", reason, text);
    }
  }
  assert.throws(() => parseNetworkRules(Array.from({ length: 65 }, () => "10.1.2.3")), { code: "limit-exceeded" });
});

test("only the public internet is not closer", () => {
  for (const text of [
    "1.1.1.1",
    "172.15.0.1",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1",
    "64:ff9b::1.1.1.1",
    "2002:101:101::1",
  ])
    assert.equal(closerThanInternet(address(text)), null, text);
  const closer = `0.0.0.0 10.0.0.1 127.0.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.168.0.1 100.64.0.1 192.0.0.1 192.0.2.1 198.18.0.1
    198.51.100.1 203.0.113.1 224.0.0.1 255.255.255.255 :: ::1 ::10.0.0.1 fe80::1 fc00::1 fd00:ec2::254 fec0::1 ff02::1 2001:db8::1 2001::1
    64:ff9b::10.0.0.1 64:ff9b::169.254.169.254 64:ff9b:1::1 2002:a00:1::1 2002:7f00:1::1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 4000::1`;
  for (const text of closer.split(/\s+/)) assert.notEqual(closerThanInternet(address(text)), null, text);
});

const judge = (target: string, port: number, allow: readonly string[] = []): boolean =>
  judgeDestination(
    { address: address(target), port },
    {
      allow: parseNetworkRules(allow),
      ownAddresses: [address("1.2.3.4"), address("10.1.2.9")],
      addressesOf: (name) => (name === "db.internal" ? [address("10.7.7.7")] : []),
    },
  ).allowed;

test("the internet is reached, what is closer only by the list", () => {
  assert.equal(judge("1.1.1.1", 443), true);
  assert.equal(judge("10.1.2.3", 5432), false);
  assert.equal(judge("10.1.2.3", 5432, ["10.1.2.0/24:5432"]), true);
  assert.equal(judge("10.1.2.3", 5433, ["10.1.2.0/24:5432"]), false);
  assert.equal(judge("10.1.3.3", 5432, ["10.1.2.0/24:5432"]), false);
  assert.equal(judge("10.7.7.7", 80, ["db.internal:80"]), true);
  assert.equal(judge("10.7.7.8", 80, ["db.internal:80"]), false);
});

test("the machine's own addresses and metadata services need to be named exactly", () => {
  assert.equal(judge("1.2.3.4", 443), false);
  assert.equal(judge("10.1.2.9", 80, ["10.1.2.0/24"]), false);
  assert.equal(judge("10.1.2.9", 80, ["10.1.2.9:80"]), true);
  assert.equal(judge("169.254.169.254", 80, ["169.254.0.0/16"]), false);
  assert.equal(judge("fd00:ec2::254", 80, ["fd00::/8"]), false);
  assert.equal(judge("169.254.169.254", 80, ["169.254.169.254"]), true);
});

const platform = (mode: NetworkAccess["mode"], ...allow: string[]): NetworkAccess => ({
  mode,
  allow: parseNetworkRules(allow),
});
const granted = (asked: Parameters<typeof grantNetwork>[0], by: NetworkAccess): unknown => {
  const { mode, allow } = grantNetwork(asked, by);
  return [mode, ...allow.map(({ text }) => text)];
};

test("a function has what the platform gives unless it asks for less", () => {
  const wide = platform("egress", "10.0.0.0/8:5432", "db.internal", "localhost:6000-6009");
  assert.deepEqual(granted({}, wide), ["egress", "10.0.0.0/8:5432", "db.internal", "localhost:6000-6009"]);
  assert.deepEqual(granted({ network: "none" }, wide), ["none"]);
  assert.deepEqual(granted({ allowNetwork: [] }, wide), ["egress"]);
  const fewer = ["10.1.0.0/16:5432", "db.internal:80", "localhost:6001"];
  assert.deepEqual(granted({ allowNetwork: fewer }, wide), ["egress", ...fewer]);
  assert.deepEqual(granted({ network: "egress", allowNetwork: ["10.1.2.3"] }, platform("host")), [
    "egress",
    "10.1.2.3",
  ]);
});

test("a function never has more than the platform gives", () => {
  const refused = { code: "network-not-allowed" };
  const narrow = platform("egress", "10.1.0.0/16:5432", "localhost:6000");
  assert.throws(() => grantNetwork({ network: "host" }, narrow), refused);
  assert.throws(() => grantNetwork({ network: "egress" }, platform("none")), refused);
  for (const rule of [
    "10.0.0.0/8:5432",
    "10.1.2.3",
    "10.1.2.3:5433",
    "localhost:6001",
    "other.internal",
    "[fd00::1]:5432",
  ])
    assert.throws(() => grantNetwork({ allowNetwork: [rule] }, narrow), refused, rule);
});
