import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { BROKEN, clockJumps, fullDisk, mayMount, powerCuts } from "../crash/fates.ts";
import { Random } from "../crash/random.ts";
import type { Verdict } from "../crash/reader.ts";
import { type CrashOptions, type Fate, runCrashes } from "../crash/run.ts";

/** A short run of what `npm run crash` does at length. */
const scratch = mkdtempSync(join(tmpdir(), "koine-crash-"));
after(() => rmSync(scratch, { recursive: true, force: true }));

const place = (name: string): string => join(scratch, name);

async function crash(name: string, points: number, rest: Partial<CrashOptions> = {}): Promise<Verdict> {
  return await runCrashes({ folder: place(name), seed: 10, points, pointsPerLap: points, say: () => {}, ...rest });
}

function assertKept({ violations, figures }: Verdict): void {
  assert.deepEqual(violations, []);
  assert.ok((figures["accepted"] ?? 0) > 30 && (figures["outcomes"] ?? 0) > 20, JSON.stringify(figures));
  assert.equal(figures["instances that outlived their platform"], 0);
}

test("nothing that was accepted is lost by kills, and what comes twice has a higher attempt number", async () => {
  assertKept(await crash("kill", 4));
});

test("nothing that was accepted is lost when the power goes, and with it all that was not synced", async () => {
  let lost = 0;
  const fate = powerCuts(place("power-fate"), new Random(7), (changes) => (lost += changes));
  assertKept(await crash("power", 3, { fate }));
  assert.ok(lost > 0, "the cuts took something");
});

test("a store that acknowledges before it syncs is found out", async () => {
  for (let seed = 1; seed <= 3; seed++) {
    const fate: Fate = powerCuts(place(`broken-fate-${seed}`), new Random(seed));
    const { violations } = await crash(`broken-${seed}`, 2, { fate, env: BROKEN, seed });
    if (violations.some(({ rule }) => rule === "accepted but lost")) return;
  }
  assert.fail("three seeds have not found what was lost");
});

test("nothing that was accepted is lost when the clock jumps", async () => {
  assertKept(await crash("clock", 2, { fate: clockJumps(place("clock-fate"), new Random(7)) }));
});

test(
  "nothing that was accepted is lost on a disk that is full now and then",
  { skip: !mayMount() && "needs the right to mount" },
  async () => {
    assertKept(await crash("full", 2, { fate: fullDisk(place("full-fate"), new Random(7)) }));
  },
);
