import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import type { LogRecord } from "../../core/invocation.ts";
import type { Channel } from "./channel.ts";
import type { JournalOperations } from "./formats.ts";
import { SqliteLog } from "./journal.ts";

test("a flush that finds everything taken by another waits until that is written", async () => {
  const written: (() => void)[] = [];
  const file = { call: () => new Promise<void>((resolve) => written.push(resolve)) };
  const log = new SqliteLog(file as unknown as Channel<JournalOperations>);
  log.append([], [line]);
  const first = log.flush();
  await turn();
  let ended = false;
  const second = log.flush().then(() => (ended = true));
  await turn();
  assert.equal(ended, false);
  for (const write of written) write();
  await Promise.all([first, second]);
});

test("a flush of what is written already asks nobody", async () => {
  const file = { call: () => assert.fail("nothing waits") };
  await new SqliteLog(file as unknown as Channel<JournalOperations>).flush();
});

const line: LogRecord = {
  namespace: "default",
  package: "",
  name: "f",
  version: 1,
  activationId: "a",
  instanceId: "i",
  timeMs: 1,
  stream: "stdout",
  line: "said",
};
