import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import type { Values } from "../store.ts";

export function valuesConformance(open: (context: TestContext) => Promise<Values>): void {
  test("a value comes back as it was put, with its revision", async (context) => {
    const values = await open(context);
    const value = { text: "ä\u0000\n😀", list: [1, 2.5, null, true], nested: { deep: "" } };
    const [revision] = await values.commit([{ collection: "a", key: "k", value, expect: "absent" }]);
    assert.deepEqual(await values.get("a", "k"), { key: "k", value, revision });
    assert.equal(await values.get("b", "k"), null);
    assert.equal(await values.get("a", "K"), null);
  });

  test("a change whose expectation does not hold is refused and changes nothing", async (context) => {
    const values = await open(context);
    const [first = 0] = await values.commit([{ collection: "a", key: "k", value: 1, expect: "absent" }]);
    const change = { collection: "a", key: "k", value: 2 };
    await assert.rejects(values.commit([{ ...change, expect: "absent" }]), { code: "conflict", values: { name: "k" } });
    await assert.rejects(values.commit([{ ...change, expect: first + 1 }]), { code: "conflict" });
    await assert.rejects(values.commit([{ ...change, key: "none", expect: first }]), { code: "conflict" });
    assert.equal((await values.get("a", "k"))?.value, 1);

    const [second = 0] = await values.commit([{ ...change, expect: first }]);
    assert.ok(second > first);
    await assert.rejects(values.commit([{ ...change, value: 3, expect: first }]), { code: "conflict" });
    assert.equal((await values.get("a", "k"))?.value, 2);
  });

  test("of two writers that read the same revision exactly one wins", async (context) => {
    const values = await open(context);
    const [expect = 0] = await values.commit([{ collection: "a", key: "k", value: 0, expect: "any" }]);
    const attempts = await Promise.allSettled(
      Array.from({ length: 20 }, (_, value) => values.commit([{ collection: "a", key: "k", value, expect }])),
    );
    assert.equal(attempts.filter(({ status }) => status === "fulfilled").length, 1);
    const winner = attempts.findIndex(({ status }) => status === "fulfilled");
    assert.equal((await values.get("a", "k"))?.value, winner);
  });

  test("several changes are applied together or not at all", async (context) => {
    const values = await open(context);
    await values.commit([{ collection: "a", key: "old", value: "here", expect: "absent" }]);
    await assert.rejects(
      values.commit([
        { collection: "a", key: "new", value: 1, expect: "absent" },
        { collection: "a", key: "old", value: null, expect: "any" },
        { collection: "b", key: "x", value: 1, expect: 12_345 },
      ]),
      { code: "conflict", values: { name: "x" } },
    );
    assert.deepEqual(
      (await values.list("a", { limit: 10 })).map(({ key }) => key),
      ["old"],
    );

    const revisions = await values.commit([
      { collection: "a", key: "new", value: 1, expect: "absent" },
      { collection: "a", key: "old", value: null, expect: "any" },
      { collection: "b", key: "x", value: 1, expect: "absent" },
    ]);
    assert.equal(revisions[1], 0);
    assert.equal((await values.get("a", "new"))?.revision, revisions[0]);
    assert.equal((await values.get("b", "x"))?.revision, revisions[2]);
    assert.equal(await values.get("a", "old"), null);
  });

  test("a key that was deleted is absent, and made anew has a revision it never had", async (context) => {
    const values = await open(context);
    const [first = 0] = await values.commit([{ collection: "a", key: "k", value: 1, expect: "absent" }]);
    assert.deepEqual(await values.commit([{ collection: "a", key: "k", value: null, expect: first }]), [0]);
    assert.deepEqual(await values.commit([{ collection: "a", key: "k", value: null, expect: "any" }]), [0]);
    const [second = 0] = await values.commit([{ collection: "a", key: "k", value: 2, expect: "absent" }]);
    assert.ok(second > first);
    await assert.rejects(values.commit([{ collection: "a", key: "k", value: 3, expect: first }]), { code: "conflict" });
  });

  test("a listing goes in byte order, by prefix, and continues after a key", async (context) => {
    const values = await open(context);
    const keys = ["a", "a/1", "a/10", "a/2", "a/é", "a/\u{ffff}", "a/😀", "a0", "b", "Z", "%", "a/_"];
    await values.commit(keys.map((key) => ({ collection: "c", key, value: key, expect: "absent" })));
    await values.commit([{ collection: "other", key: "a/3", value: 1, expect: "absent" }]);
    const list = async (query: { prefix?: string; after?: string; limit: number }): Promise<string[]> =>
      (await values.list("c", query)).map(({ key }) => key);

    const ordered = keys.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    assert.deepEqual(await list({ limit: 100 }), ordered);
    assert.deepEqual(await list({ limit: 2, after: "a" }), ["a/1", "a/10"]);
    const below = ["a/1", "a/10", "a/2", "a/_", "a/é", "a/\u{ffff}", "a/😀"];
    assert.deepEqual(await list({ prefix: "a/", limit: 100 }), below);
    assert.deepEqual(await list({ prefix: "a/", after: "a/10", limit: 2 }), ["a/2", "a/_"]);
    assert.deepEqual(await list({ prefix: "a/", after: "Z", limit: 1 }), ["a/1"]);
    assert.deepEqual(await list({ prefix: "a/", after: "b", limit: 1 }), []);
    assert.deepEqual(await list({ prefix: "a/😀", limit: 5 }), ["a/😀"]);
    assert.deepEqual(await list({ prefix: "none", limit: 5 }), []);
  });
}
