import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { createPythonRuntime, findPython, pythonAliases } from "./python.ts";

const signal = (): AbortSignal => AbortSignal.timeout(15_000);
const machinePath = process.env["PATH"] ?? "";
const bootstrapFolder = fileURLToPath(new URL("../../bootstrap/python", import.meta.url));

async function folderWith(context: TestContext, script: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "koine-path-"));
  context.after(() => rm(folder, { recursive: true, force: true }));
  await writeFile(join(folder, "python3"), script);
  await chmod(join(folder, "python3"), 0o755);
  return folder;
}

test("a shim is followed to the interpreter behind it", async (context) => {
  const real = await findPython("python3", machinePath, signal());
  const shim = await folderWith(context, `#!/bin/sh\nexec ${real.executable} "$@"\n`);
  assert.deepEqual(await findPython("python3", shim, signal()), real);
});

test("a link and a virtual environment are followed, too", async (context) => {
  const real = await findPython("python3", machinePath, signal());
  const folder = await mkdtemp(join(tmpdir(), "koine-path-"));
  context.after(() => rm(folder, { recursive: true, force: true }));
  await symlink(real.executable, join(folder, "python3"));
  await writeFile(join(folder, "pyvenv.cfg"), `home = ${join(real.executable, "..")}\n`);
  assert.equal((await findPython("python3", folder, signal())).executable, real.executable);
});

test("what does not work, is too old, or is no Python is passed over", async (context) => {
  const refused = await Promise.all([
    folderWith(context, "#!/bin/sh\nexit 1\n"),
    folderWith(context, "#!/bin/sh\necho hello\n"),
    folderWith(
      context,
      `#!/bin/sh\necho '{"version":"3.8.1","implementation":"cpython","executable":"/x","folders":[]}'\n`,
    ),
    folderWith(
      context,
      `#!/bin/sh\necho '{"version":"3.11.1","implementation":"pypy","executable":"/x","folders":[]}'\n`,
    ),
  ]);
  const found = await findPython("python3", ["relative", ...refused, machinePath].join(delimiter), signal());
  assert.match(found.version, /^3\.\d+\.\d+$/);
  await assert.rejects(findPython("python3", refused.join(delimiter), signal()), {
    code: "runtime-unavailable",
    message: /does not run.*does not behave like Python.*is Python 3\.8\.1, older than 3\.9.*is pypy/,
    hint: /apt-get install python3/,
  });
});

test("without any Python the runtime is unavailable, and is looked for again", async (context) => {
  const folder = await mkdtemp(join(tmpdir(), "koine-path-"));
  context.after(() => rm(folder, { recursive: true, force: true }));
  const runtime = createPythonRuntime({ name: "python3", bootstrapFolder, searchPath: folder });
  await assert.rejects(runtime.prepare(signal()), { code: "runtime-unavailable", hint: /apt-get install python3/ });
  const real = await findPython("python3", machinePath, signal());
  await symlink(real.executable, join(folder, "python3"));
  assert.equal((await runtime.prepare(signal())).version, real.version);
});

test("the launch mounts the bootstrap and what lies outside the system's folders", async () => {
  const runtime = createPythonRuntime({ name: "python3", bootstrapFolder, searchPath: machinePath });
  const launch = await runtime.prepare(signal());
  assert.equal(await runtime.prepare(signal()), launch);
  assert.equal(launch.command.at(-1), "/koine/bootstrap/python/main.py");
  assert.ok(launch.mounts.some((mount) => mount.target === "/koine/bootstrap/python"));
  for (const { source, target, writable } of launch.mounts) {
    assert.doesNotMatch(source, /^\/(usr|lib|bin)(\/|$)/);
    assert.ok(writable === undefined && (source === target || source === bootstrapFolder));
  }
});

test("requirements are installed into python_modules by a script of ours", async () => {
  const runtime = createPythonRuntime({
    name: "python3",
    bootstrapFolder,
    searchPath: machinePath,
    buildEnvironment: { PIP_INDEX_URL: "https://packages.example/simple" },
  });
  const { build, command } = await runtime.prepare(signal());
  assert.deepEqual(build?.lockFiles, ["requirements.txt"]);
  assert.equal(build.installed, "python_modules");
  const recipe = build.command("requirements.txt");
  assert.equal(recipe.command[0], command[0]);
  assert.deepEqual(recipe.command.slice(-2), ["/code/requirements.txt", "/code/python_modules"]);
  assert.equal(recipe.environment["PIP_INDEX_URL"], "https://packages.example/simple");
});

test("a Python is offered under its version's name as well", () => {
  assert.deepEqual(pythonAliases("3.11.7"), ["python3", "python3.11"]);
});
