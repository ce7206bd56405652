import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, realpath, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { packCode } from "../../src/cli/pack.ts";
import { systemClock } from "../../src/core/clock.ts";
import { KoineError } from "../../src/core/errors.ts";
import { limits } from "../../src/core/limits.ts";
import { installSettingsPath } from "../../src/platform/install-dependencies.ts";
import { installEnvironment } from "../../src/platform/install-environment.ts";
import { CodePackages } from "../../src/platform/packages.ts";
import { createPythonRuntime } from "../../src/runtimes/python.ts";
import type { RuntimeLaunch } from "../../src/runtimes/runtime.ts";
import { openNoneDriver } from "../../src/sandbox/none/driver.ts";
import { openProcessDriver } from "../../src/sandbox/process/driver.ts";
import type { SandboxDriver } from "../../src/sandbox/sandbox.ts";
import { openFileBlobs } from "../../src/store/files.ts";

/** Installations from real registries, in a real sandbox where this machine has the means. */
const signal = new AbortController().signal;
const repository = fileURLToPath(new URL("../..", import.meta.url));
let root: string;
let driver: SandboxDriver;
let packages: CodePackages;

before(async () => {
  root = await mkdtemp(join(tmpdir(), "koine-install-"));
  driver = await openDriver(join(root, "sandbox"));
  packages = await CodePackages.open({
    blobs: await openFileBlobs(join(root, "blobs")),
    directory: join(root, "packages"),
    limits,
    driver,
    clock: systemClock,
    installEnvironment: installEnvironment({ environment: process.env, insideFolder: installSettingsPath }),
  });
});
after(async () => {
  await packages.close();
  await driver.close();
  await rm(root, { recursive: true, force: true });
});

async function openDriver(directory: string): Promise<SandboxDriver> {
  try {
    return await openProcessDriver({ directory, tag: "install-test", privateMounts: false, logger: { log: () => {} } });
  } catch (thrown) {
    if (!(thrown instanceof KoineError)) throw thrown;
    return openNoneDriver({ directory });
  }
}

async function deploy(name: string, files: Readonly<Record<string, string>>): Promise<string> {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, name, path)), { recursive: true });
    await writeFile(join(root, name, path), text);
  }
  const packed = await packCode(join(root, name));
  const received = await packages.receive(packed.archive(), signal);
  assert.equal(received.digest, packed.digest);
  return received.digest;
}

/** The machine's own npm, run by the Node of this test. */
async function npmLaunch(): Promise<RuntimeLaunch> {
  const program = execFileSync("sh", ["-c", "command -v npm"], { encoding: "utf8" }).trim();
  const npm = await realpath(program);
  const node = await realpath(process.execPath);
  const mounts = [dirname(dirname(npm)), node].map((path) => ({ source: path, target: path }));
  return {
    command: [],
    environment: {},
    mounts,
    overheadBytes: 0,
    version: process.versions.node,
    build: {
      lockFiles: ["package-lock.json"],
      installed: "node_modules",
      command: () => ({
        command: [node, npm, "ci", "--omit=dev"],
        environment: { PATH: [dirname(node), "/usr/bin", "/bin"].join(delimiter) },
        mounts,
      }),
    },
  };
}

const lockFile = (integrity: string): string =>
  JSON.stringify({
    name: "tiny",
    lockfileVersion: 3,
    requires: true,
    packages: {
      "": { name: "tiny", dependencies: { "is-number": "7.0.0" } },
      "node_modules/is-number": { version: "7.0.0", integrity },
    },
  });
const npmFiles = {
  "index.js": "export default () => 1;",
  "package.json": JSON.stringify({ name: "tiny", dependencies: { "is-number": "7.0.0" } }),
  "package-lock.json": lockFile(
    "sha512-41Cifkg6e8TylSpdtTpeLVMqvSBEVzTttHvERD741+pnZ8ANv0004MRL43QKPDlK9cGvNp6NZWZUBlbGXYxxng==",
  ),
};

test("npm ci installs a package's dependencies in a build sandbox, once", async () => {
  const runtime = { name: "nodejs26.x", launch: await npmLaunch() };
  const lines: string[] = [];
  const onOutput = (line: string): void => void lines.push(line);
  const digest = await deploy("tiny", npmFiles);
  const built = await packages.withDependencies(digest, runtime, { onOutput, signal });
  const manifest = JSON.parse(await readFile(join(built.folder, "node_modules/is-number/package.json"), "utf8"));
  assert.equal(manifest.version, "7.0.0");
  assert.equal(await readFile(join(built.folder, "index.js"), "utf8"), npmFiles["index.js"]);
  assert.ok(
    lines.some((line) => /added 1 package/.test(line)),
    lines.join("\n"),
  );
  assert.equal((await stat(join(built.folder, "node_modules/is-number/index.js"))).uid, process.getuid?.());

  const other = await deploy("tiny", { "index.js": "export default () => 2;" });
  lines.length = 0;
  const shared = await packages.withDependencies(other, runtime, { onOutput, signal });
  assert.deepEqual(lines, []);
  const inode = async (folder: string) => (await stat(join(folder, "node_modules/is-number/index.js"))).ino;
  assert.equal(await inode(shared.folder), await inode(built.folder));
});

test("a dependency that is not what the lock file says is reported with npm's words", async () => {
  const runtime = { name: "nodejs26.x", launch: await npmLaunch() };
  const digest = await deploy("forged", { ...npmFiles, "package-lock.json": lockFile(`sha512-${"A".repeat(86)}==`) });
  const installing = packages.withDependencies(digest, runtime, { onOutput: () => {}, signal });
  await assert.rejects(installing, (thrown: unknown) => {
    assert.ok(thrown instanceof KoineError && thrown.code === "build-failed", String(thrown));
    assert.match(String(thrown.values["output"]), /EINTEGRITY/);
    return true;
  });
});

test("pip installs requirements in a build sandbox", async () => {
  const python = createPythonRuntime({
    name: "python3",
    bootstrapFolder: join(repository, "bootstrap/python"),
    searchPath: process.env["PATH"] ?? "",
  });
  const launch = await python.prepare(signal);
  const digest = await deploy("six", { "app.py": "import six", "requirements.txt": "six==1.16.0\n" });
  const lines: string[] = [];
  const options = { onOutput: (line: string) => void lines.push(line), signal };
  const built = await packages.withDependencies(digest, { name: python.name, launch }, options);
  const installed = join(built.folder, launch.build?.installed ?? "");
  assert.match(await readFile(join(installed, "six.py"), "utf8"), /__version__ = "1\.16\.0"/);
  assert.equal(await readFile(join(built.folder, "app.py"), "utf8"), "import six");
});
