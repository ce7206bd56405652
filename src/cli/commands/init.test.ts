import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { checkTypes } from "../dev/type-check.ts";
import { planDeploy } from "../plan.ts";
import { readProjectFolder } from "../project-folder.ts";
import { templates } from "../templates.ts";
import { run, temporaryFolder } from "../testing/run.ts";

const runFile = promisify(execFile);

test("every template makes a project that can be deployed as it is, with a test that passes", async () => {
  await using home = await temporaryFolder();
  for (const template of Object.keys(templates)) {
    const name = `my-${template}`;
    const ran = await run(null, ["init", name, "-t", template], { cwd: home.path });
    assert.deepEqual([ran.code, ran.stdout], [0, ""], ran.stderr);
    assert.match(ran.stderr, new RegExp(`next {2}cd ${name} && koine dev`));
    const path = join(home.path, name);
    const folder = await readProjectFolder(path);
    const { ref, request } = planDeploy(folder, {}, { namespace: "default", environment: {} });
    assert.equal(ref.name, name);
    const isPython = template.startsWith("python");
    assert.match(request.runtime ?? "", isPython ? /^python3$/ : /^nodejs26\.x$/);
    const readme = await readFile(join(path, "README.md"), "utf8");
    assert.ok(readme.includes(`koine logs ${name} -f`));
    assert.doesNotMatch(
      (await Promise.all((await readdir(path)).map((file) => readFile(join(path, file), "utf8")))).join(""),
      /%name%/,
    );
    const [command, ...argv] = /Test: `(.*?)`/.exec(readme)?.[1]?.split(" ") ?? [];
    const { NODE_TEST_CONTEXT: _, ...environment } = process.env;
    await runFile(command === "node" ? process.execPath : (command ?? ""), argv, { cwd: path, env: environment });
    if (template === "typescript") {
      assert.deepEqual(
        await checkTypes(folder, { environment: process.env, signal: new AbortController().signal }),
        [],
      );
    }
  }
});

test("the current folder can be the project", async () => {
  await using home = await temporaryFolder();
  await mkdir(join(home.path, "here", ".git"), { recursive: true });
  const ran = await run(null, ["init", "-o", "json"], { cwd: join(home.path, "here") });
  assert.equal(JSON.parse(ran.stdout).name, "here");
});

test("a folder that is not empty is left alone unless forced", async () => {
  await using home = await temporaryFolder();
  await mkdir(join(home.path, "my-fn"));
  await writeFile(join(home.path, "my-fn", "kept.txt"), "mine");
  const refused = await run(null, ["init", "my-fn"], { cwd: home.path });
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /is not empty\n {2}hint: Choose another folder, or add --force/);
  assert.deepEqual(await readdir(join(home.path, "my-fn")), ["kept.txt"]);
  assert.equal((await run(null, ["init", "my-fn", "--force"], { cwd: home.path })).code, 0);
  assert.equal(await readFile(join(home.path, "my-fn", "kept.txt"), "utf8"), "mine");
});

test("names and templates that cannot be are refused with what could", async () => {
  const name = await run(null, ["init", "my fn!"]);
  assert.equal(name.code, 2);
  assert.match(name.stderr, /'my-fn', for instance/);
  const template = await run(null, ["init", "x", "--template", "typscript"]);
  assert.equal(template.code, 2);
  assert.match(template.stderr, /Did you mean 'typescript'\?/);
  assert.match((await run(null, ["init", "--list"])).stdout, /^lambda +JavaScript: a Lambda handler$/m);
});
