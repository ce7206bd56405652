import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { CliFailure } from "./failure.ts";
import { planDeploy, readEnvironment } from "./plan.ts";
import { parseProjectFile } from "./project-file.ts";
import type { ProjectFolder } from "./project-folder.ts";
import { temporaryFolder } from "./testing/run.ts";

const given = { namespace: "default", environment: {} };
const folder: ProjectFolder = {
  path: "/projects/my-fn",
  isFile: false,
  facts: { files: ["index.mjs"], packageJson: null },
  projectFile: parseProjectFile(
    JSON.stringify({
      name: "from-file",
      memoryMb: 128,
      timeout: "10s",
      environment: { A: "1", B: "2" },
      secrets: ["KEY"],
      public: true,
    }),
  ),
};

test("flags come before koine.json, and that before what the folder holds", () => {
  const flags = { name: "tools/by-flag", timeout: "1m", secret: ["OTHER", "KEY"], concurrency: "5", live: false };
  const { ref, request } = planDeploy(folder, flags, { ...given, environment: { B: "3" } });
  assert.deepEqual(ref, { namespace: "default", package: "tools", name: "by-flag" });
  assert.deepEqual(request, {
    runtime: "nodejs26.x",
    handler: "index.mjs",
    memoryBytesMax: 128 * 1024 * 1024,
    timeoutMs: 60_000,
    instanceConcurrency: 5,
    access: "public",
    environment: { A: "1", B: "3" },
    secrets: ["KEY", "OTHER"],
    live: false,
  });
});

test("the name comes from package.json, else from the folder or file", () => {
  const named = (part: Partial<ProjectFolder>): string =>
    planDeploy({ ...folder, projectFile: null, ...part }, {}, given).ref.name;
  assert.equal(named({}), "my-fn");
  assert.equal(named({ facts: { files: ["index.mjs"], packageJson: { name: "@me/api" } } }), "api");
  assert.equal(
    named({ path: "/x/hello.mjs", isFile: true, facts: { files: ["hello.mjs"], packageJson: null } }),
    "hello",
  );
});

test("environment comes from a file and from the command line", async () => {
  await using home = await temporaryFolder();
  await writeFile(join(home.path, "vars"), "# remark\nexport A='one two'\nB=2\n");
  const environment = await readEnvironment({ envFile: "vars", env: ["B=3", "C=x=y"] }, home.path);
  assert.deepEqual(environment, { A: "one two", B: "3", C: "x=y" });
  await assert.rejects(readEnvironment({ env: ["NOVALUE"] }, home.path), /'NOVALUE' is not an environment variable/);
});

test("an unknown key of koine.json is an error that says what was probably meant", () => {
  const refused = (text: string): string => {
    try {
      parseProjectFile(text);
    } catch (thrown) {
      if (thrown instanceof CliFailure && thrown.code === "invalid-project") return thrown.message;
    }
    throw new Error("it was not refused");
  };
  assert.match(refused('{"memorymb": 5}'), /there is no 'memorymb' \(did you mean 'memoryMb'\?\)/);
  assert.match(refused('{"timeout": "10"}'), /timeout: must be a duration/);
  assert.match(refused('{"environment": {"A": 1}}'), /environment\.A: /);
  assert.match(refused("{"), /is not JSON/);
});
