import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../../core/clock.ts";
import { durable, eventsIn, openTriggers, target } from "../../platform/triggers/testing/hosted.ts";
import { stateOf } from "../../platform/triggers/triggers.ts";
import type { SourceUnderTest } from "../conformance.ts";
import type { PullKind } from "../trigger.ts";

const PATIENCE_MS = 60_000;
const ROUND = 30;

/** Tells that two platforms, which know nothing of each other, share what comes when their settings name the same group. */
export function shareStory(name: string, kind: PullKind, open: () => Promise<SourceUnderTest>): void {
  void test(`${name}: two platforms of one group share the events, each gets some and none is lost`, async () => {
    await using source = await open();
    await using first = await join(kind, source);
    await using second = await join(kind, source);
    const deadlineMs = performance.now() + PATIENCE_MS;
    let sent = 0;
    while (first.texts().length === 0 || second.texts().length === 0) {
      assert.ok(performance.now() < deadlineMs, `${first.texts().length} and ${second.texts().length} of ${sent}`);
      const texts = Array.from({ length: ROUND }, (_, index) => `n${sent + index}`);
      sent += ROUND;
      for (const text of texts) await source.publish([text], text);
      await sleep(100);
    }
    const all = (): ReadonlySet<string> => new Set([...first.texts(), ...second.texts()]);
    while (all().size < sent) {
      assert.ok(performance.now() < deadlineMs, `${all().size} of ${sent}`);
      await sleep(20);
    }
  });
}

async function join(
  kind: PullKind,
  source: SourceUnderTest,
): Promise<AsyncDisposable & { texts(): readonly string[] }> {
  const own = durable();
  const { triggers, secrets } = openTriggers([kind], own, { clock: systemClock });
  for (const [name, value] of Object.entries(source.secrets ?? {})) await secrets.put("default", name, value, 0);
  await triggers.load();
  await triggers.start();
  await triggers.put("default", "t", { kind: kind.name, target, settings: source.settings });
  const deadlineMs = performance.now() + PATIENCE_MS;
  while (stateOf(triggers.get("default", "t")) !== "connected") {
    assert.ok(performance.now() < deadlineMs, JSON.stringify(triggers.get("default", "t").runner?.status));
    await sleep(20);
  }
  return {
    texts: () => eventsIn(own.queue).flatMap((event) => source.textOf(event) ?? []),
    [Symbol.asyncDispose]: () => triggers.stop(),
  };
}
