import assert from "node:assert/strict";
import { test } from "node:test";
import { Reachable } from "./reachable.ts";

test("the internet may be reached; this machine, private networks and what only looks public may not", () => {
  const reachable = new Reachable([]);
  for (const address of ["1.1.1.1", "93.184.216.34", "2606:4700::1111"])
    assert.ok(reachable.mayReach(address), address);
  const others = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.1.2.3",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "fe80::1",
    "fd12::1",
    "ff02::1",
    "example.com",
  ];
  for (const address of others) assert.equal(reachable.mayReach(address), false, address);
});

test("the configuration allows addresses and networks, also without encryption, and nothing else", () => {
  const reachable = new Reachable(["127.0.0.1", "10.0.0.0/8", "fd00::/8"]);
  for (const address of ["127.0.0.1", "10.9.9.9", "fd12::1"]) assert.equal(reachable.refusal(address, false), null);
  assert.match(reachable.refusal("127.0.0.2", true) ?? "", /KOINE_DESTINATIONS_ALLOW/);
  assert.match(reachable.refusal("1.1.1.1", false) ?? "", /only https/);
  assert.equal(reachable.refusal("1.1.1.1", true), null);
  for (const wrong of ["localhost", "10.0.0.0/33", "10.0.0.0/x", ""])
    assert.throws(() => new Reachable([wrong]), { code: "invalid-configuration" }, wrong);
});

test("a name is judged by what it resolves to, and only that is connected to", async () => {
  const resolve = (reachable: Reachable, all: boolean): Promise<unknown> =>
    new Promise((answer, reject) => {
      reachable.lookupFor(true)("localhost", { all }, (error, found) =>
        error === null ? answer(found) : reject(error),
      );
    });
  await assert.rejects(resolve(new Reachable([]), true), { code: "destination-refused" });
  assert.deepEqual(await resolve(new Reachable(["127.0.0.1"]), true), [{ address: "127.0.0.1", family: 4 }]);
  assert.equal(await resolve(new Reachable(["127.0.0.1"]), false), "127.0.0.1");
});
