import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type Attack, attackGroups } from "./attacks.ts";
import { compileAttack, type Level, openStage, type Result, type Stage } from "./stage.ts";

/** Every attack, with and without a sandbox: what stops it must be the sandbox, and nothing else. */
const levels: readonly Level[] = [
  { name: "`--sandbox none`, as root", sandbox: "none", asRoot: true },
  { name: "`--sandbox none`, as an ordinary user", sandbox: "none", asRoot: false },
  { name: "`--sandbox process`, as root", sandbox: "process", asRoot: true },
  { name: "`--sandbox process`, as an ordinary user", sandbox: "process", asRoot: false },
];
const isRoot = process.getuid?.() === 0;
/** What a kernel says that has not what is attacked. */
const MISSING = /ENOSYS|EAFNOSUPPORT|EPROTONOSUPPORT|ENOENT|EIO|EACCES|EPERM/;

let folder: string;
let program: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), "koine-attack-"));
  program = compileAttack(folder);
});
after(() => rmSync(folder, { recursive: true, force: true }));

for (const level of levels.filter(({ asRoot }) => isRoot || !asRoot)) {
  describe(level.name, () => {
    let stage: Stage;
    before(async () => {
      stage = await openStage(level, program);
    });
    after(() => stage[Symbol.asyncDispose]());

    for (const { title, attacks } of attackGroups) {
      const chosen = attacks.filter((attack) => attack.onlyOn === undefined || attack.onlyOn === process.arch);
      test(`${title}: ${level.sandbox === "none" ? "attacks succeed" : "no attack succeeds"}`, async (context) => {
        const wrong: string[] = [];
        for (const attack of chosen) {
          const result = await stage.try(attack.attempt(stage.aims));
          const problem = level.sandbox === "none" ? missed(attack, result, level) : succeeded(attack, result);
          if (problem !== null) wrong.push(`${attack.what}: ${problem}`);
          else if ("refused" in result && level.sandbox === "none" && level.asRoot)
            context.diagnostic(`not to be had on this machine: ${attack.what} (${result.refused})`);
        }
        assert.deepEqual(wrong, []);
      });
    }
  });
}

/** Why an attack should have succeeded where nothing is isolated; null where all is as expected. */
function missed(attack: Attack, result: Result, { asRoot }: Level): string | null {
  if ("took" in result)
    return attack.loot === undefined || attack.loot.test(result.took)
      ? null
      : `only got '${result.took.slice(0, 200)}'`;
  if (attack.without !== "everybody" && !asRoot) return null;
  if (attack.without === "some kernels" && MISSING.test(result.refused)) return null;
  if (attack.capability !== undefined && !hasCapability(attack.capability)) return null;
  return `was refused with '${result.refused}', though nothing isolates`;
}

/** What an attack got hold of in spite of the sandbox; null where it was refused by it. */
function succeeded(attack: Attack, result: Result): string | null {
  if ("took" in result)
    return attack.loot === undefined || attack.loot.test(result.took) ? `got '${result.took.slice(0, 200)}'` : null;
  return /broken|TypeError|SyntaxError|EISDIR/.test(result.refused) ? `could not be tried: ${result.refused}` : null;
}

function hasCapability(bit: number): boolean {
  const [, effective = "0"] = /^CapEff:\t([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
  return ((BigInt(`0x${effective}`) >> BigInt(bit)) & 1n) === 1n;
}
