import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { after, before, test } from "node:test";
import { importImage, startEngine, type TestEngine } from "../../src/sandbox/container/testing/engine.ts";
import { call } from "../system/api.ts";
import { asProgram, attackGroups } from "./attacks.ts";
import { compileAttack, openStage, type Stage } from "./stage.ts";

/** The attacks that need no language, from inside an image. That each succeeds where nothing isolates is shown by walls.test.ts. */
let engine: TestEngine;
let stage: Stage;
let folder: string;

before(async () => {
  // Programs have the same path in an image as on the machine, and a container's /tmp is its own.
  folder = mkdtempSync("/var/tmp/koine-attack-");
  const program = compileAttack(folder);
  engine = await startEngine();
  await importImage(engine, { name: "koine-test/attacker", programs: [program] });
  const level = { name: "container", sandbox: "process", asRoot: true } as const;
  stage = await openStage(level, program, ["--container-engine", engine.address]);
  const command = `sh -c 'mkdir -p ${stage.aims.scratch}; read -r words; ${program} $words; true'`;
  const settings = ["--protocol", "stdio", "--command", command, "--network", "none", "--name", "attacker-image"];
  const { code, stderr } = await stage.platform.koine(["deploy", "--image", "koine-test/attacker", ...settings]);
  assert.equal(code, 0, stderr);
});
after(async () => {
  await stage?.[Symbol.asyncDispose]();
  await engine?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

for (const { title, attacks } of attackGroups) {
  test(`${title}: no attack from a container succeeds`, async () => {
    const wrong: string[] = [];
    for (const { what, attempt, onlyOn, loot, inContainer } of attacks) {
      const words = asProgram(attempt(stage.aims));
      if (words === null || (onlyOn !== undefined && onlyOn !== process.arch)) continue;
      const answer = await call(stage.platform, "attacker-image", { method: "POST", body: `${words.join(" ")}\n` });
      const said = answer.text.trim();
      assert.equal(answer.status, 200, said);
      const [, took] = /^took: ([^]*)$/.exec(said) ?? [];
      if (took === undefined) {
        if (!said.startsWith("refused: ") && inContainer === undefined)
          wrong.push(`${what}: could not be tried: ${said}`);
      } else if (inContainer === undefined && (loot === undefined || loot.test(took)))
        wrong.push(`${what}: got '${took}'`);
    }
    assert.deepEqual(wrong, []);
  });
}
