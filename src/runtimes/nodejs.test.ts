import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type NodeRuntimeOptions, createNodeRuntime } from "./nodejs.ts";

const signal = new AbortController().signal;
const packageName = `node-${process.platform}-${process.arch}`;

async function temporaryFolder(context: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "koine-node-runtime-"));
  context.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function options(context: TestContext, more: Partial<NodeRuntimeOptions> = {}): Promise<NodeRuntimeOptions> {
  return {
    name: "nodejs24.x",
    cacheDirectory: join(await temporaryFolder(context), "runtimes"),
    bootstrapFolder: "/where/bootstrap/nodejs",
    adapters: [{ path: "/koine/handlers/native/nodejs/web.mjs" }],
    environment: {},
    own: { executable: process.execPath, version: "26.10.0" },
    ...more,
  };
}

/** An npm that delivers a program which says a version. */
function installing(version: string, calls: string[] = []): NonNullable<NodeRuntimeOptions["install"]> {
  return async (folder, packageSpec) => {
    calls.push(packageSpec);
    const bin = join(folder, "node_modules", packageName, "bin");
    await mkdir(bin, { recursive: true });
    await writeFile(join(bin, "node"), `#!/bin/sh\necho v${version}\n`);
    await chmod(join(bin, "node"), 0o755);
  };
}

test("the version that we run on is not fetched", async (context) => {
  const runtime = createNodeRuntime(await options(context, { name: "nodejs26.x" }));
  const launch = await runtime.prepare(signal);
  assert.equal(launch.version, "26.10.0");
  assert.equal(launch.command[0], "/koine/runtime/bin/node");
  assert.deepEqual(launch.command.slice(-2), [
    "/koine/bootstrap/nodejs/main.mjs",
    "/koine/handlers/native/nodejs/web.mjs",
  ]);
  assert.deepEqual(
    launch.mounts.map(({ target, writable }) => [target, writable]),
    [
      ["/koine/runtime/bin/node", undefined],
      ["/koine/bootstrap/nodejs", undefined],
    ],
  );
});

test("another version is fetched once, however many ask, and kept for the next start", async (context) => {
  const calls: string[] = [];
  const given = await options(context, { install: installing("24.9.1", calls) });
  const runtime = createNodeRuntime(given);
  const launches = await Promise.all([runtime.prepare(signal), runtime.prepare(signal)]);
  assert.equal(launches[0], launches[1]);
  assert.equal(launches[0]?.version, "24.9.1");
  assert.deepEqual(calls, [`${packageName}@24`]);
  assert.equal((await createNodeRuntime(given).prepare(signal)).version, "24.9.1");
  assert.equal(calls.length, 1);
  assert.deepEqual(await readdir(given.cacheDirectory), ["nodejs24"]);
});

test("two platforms that fetch at the same time end with one whole Node", async (context) => {
  const given = await options(context, { install: installing("24.9.1") });
  const [one, other] = await Promise.all([
    createNodeRuntime(given).prepare(signal),
    createNodeRuntime(given).prepare(signal),
  ]);
  assert.deepEqual(one.mounts, other.mounts);
  assert.deepEqual(await readdir(given.cacheDirectory), ["nodejs24"]);
});

test("who gives up waiting does not end the preparation for others", async (context) => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const install = installing("24.9.1");
  const given = await options(context, { install: (folder, spec) => promise.then(() => install(folder, spec)) });
  const runtime = createNodeRuntime(given);
  const impatient = new AbortController();
  const abandoned = runtime.prepare(impatient.signal);
  const patient = runtime.prepare(signal);
  impatient.abort(new Error("enough"));
  await assert.rejects(abandoned, { message: "enough" });
  resolve();
  assert.equal((await patient).version, "24.9.1");
});

test("a fetch that fails says why and what to do, leaves nothing behind, and can be repeated", async (context) => {
  let works = false;
  const install = installing("24.9.1");
  const given = await options(context, {
    install: async (folder, spec) => {
      if (!works) throw new Error("the registry cannot be reached");
      await install(folder, spec);
    },
  });
  const runtime = createNodeRuntime(given);
  await assert.rejects(runtime.prepare(signal), {
    code: "runtime-unavailable",
    message: /nodejs24\.x.*the registry cannot be reached/,
    hint: /npm registry once, or put a Node 24 at .*nodejs24\/bin\/node/,
  });
  assert.deepEqual(await readdir(given.cacheDirectory), []);
  works = true;
  assert.equal((await runtime.prepare(signal)).version, "24.9.1");
});

test("a Node of another version than asked for is not used", async (context) => {
  const given = await options(context, { install: installing("22.1.0") });
  await assert.rejects(createNodeRuntime(given).prepare(signal), {
    code: "runtime-unavailable",
    message: /does not run here/,
  });
});

test("dependencies are installed by the machine's npm, from its own place", async (context) => {
  const folder = await temporaryFolder(context);
  await mkdir(join(folder, "lib/npm/bin"), { recursive: true });
  await mkdir(join(folder, "bin"));
  await writeFile(join(folder, "lib/npm/package.json"), "{}");
  await writeFile(join(folder, "lib/npm/bin/npm-cli.js"), "");
  await symlink("../lib/npm/bin/npm-cli.js", join(folder, "bin/npm"));
  const given = await options(context, { name: "nodejs26.x", environment: { PATH: join(folder, "bin") } });
  const { build } = await createNodeRuntime(given).prepare(signal);
  const { command, mounts } = build?.command("package-lock.json") ?? { command: [], mounts: [] };
  assert.deepEqual(command.slice(0, 4), [
    "/koine/runtime/bin/node",
    join(folder, "lib/npm/bin/npm-cli.js"),
    "ci",
    "--omit=dev",
  ]);
  const npm = join(folder, "lib/npm");
  assert.deepEqual(mounts.at(-1), { source: npm, target: npm });
});

test("a lock file whose tool is missing is a clear failure of the build", async (context) => {
  const { build } = await createNodeRuntime(await options(context, { name: "nodejs26.x" })).prepare(signal);
  assert.equal(build?.lockFiles[0], "package-lock.json");
  assert.throws(() => build?.command("pnpm-lock.yaml"), {
    code: "build-failed",
    message: /pnpm-lock\.yaml needs pnpm/,
  });
});
