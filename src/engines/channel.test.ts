import assert from "node:assert/strict";
import { duplexPair } from "node:stream";
import { test } from "node:test";
import { KoineError } from "../core/errors.ts";
import { type ChannelEvents, EngineChannel } from "./channel.ts";

const quiet: ChannelEvents<string> = {
  told: () => {},
  called: async () => ({ value: null }),
  closed: () => {},
};

function pair(events: Partial<ChannelEvents<string>>): readonly [EngineChannel<string, string>, () => void] {
  const [near, far] = duplexPair();
  const other = new EngineChannel<string, string>(far, { ...quiet, ...events });
  return [new EngineChannel<string, string>(near, quiet), () => other.close()];
}

test("messages arrive in order, with their bytes untouched", async () => {
  const heard: string[] = [];
  const [channel] = pair({
    told: (message, bytes) => heard.push(`${message} ${bytes.toString("hex")}`),
    called: async (message, bytes) => ({ value: `${message}!`, bytes: Buffer.concat([bytes, bytes]) }),
  });
  channel.tell("one", Buffer.from([0, 255]));
  channel.tell("two");
  const { value, bytes } = await channel.call("three", Buffer.from([7]));
  assert.deepEqual([value, [...bytes]], ["three!", [7, 7]]);
  assert.deepEqual(heard, ["one 00ff", "two "]);
});

test("a large message that comes in pieces is one message", async () => {
  const [channel] = pair({ called: async (_, bytes) => ({ value: bytes.length }) });
  assert.equal((await channel.call("", Buffer.alloc(3_000_000))).value, 3_000_000);
});

test("what the other side throws is thrown here", async () => {
  const [channel] = pair({
    called: async (message) => {
      throw message === "known" ? new KoineError("version-not-found", { name: "f", qualifier: "7" }) : new Error("odd");
    },
  });
  await assert.rejects(channel.call("known"), { code: "version-not-found", message: /7/ });
  await assert.rejects(channel.call("other"), { code: "internal" });
});

test("when the other side is gone, calls that wait fail and new ones too", async () => {
  const [channel, destroy] = pair({ called: () => new Promise(() => {}) });
  const waiting = channel.call("never");
  destroy();
  channel.close();
  await assert.rejects(waiting, { code: "shutting-down" });
  await assert.rejects(channel.call("later"), { code: "shutting-down" });
  assert.equal(channel.closed, true);
});
