import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { createJavaRuntime } from "./java.ts";

const signal = (): AbortSignal => AbortSignal.timeout(15_000);

async function machines(context: TestContext, versions: readonly string[]): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "koine-java-"));
  context.after(() => rm(folder, { recursive: true, force: true }));
  for (const version of versions) {
    const home = join(folder, `some-${version}`);
    await mkdir(join(home, "bin"), { recursive: true });
    await writeFile(join(home, "bin", "java"), "");
    await writeFile(join(home, "release"), `IMPLEMENTOR="any"\nJAVA_VERSION="${version}"\n`);
  }
  await mkdir(join(folder, "nothing"));
  return folder;
}

test("the machine's Java of the version that is asked for is used, or else the next newer one", async (context) => {
  const folder = await machines(context, ["11.0.2", "21.0.1", "25"]);
  const java17 = await createJavaRuntime({ name: "java17", folder }).prepare(signal());
  assert.equal(java17.version, "21.0.1");
  assert.equal(java17.environment["JAVA_HOME"], join(folder, "some-21.0.1"));
  assert.equal((await createJavaRuntime({ name: "java25", folder }).prepare(signal())).version, "25");
});

test("without one it is said what to install, and one that comes later is found", async (context) => {
  const folder = await machines(context, ["11.0.2"]);
  const runtime = createJavaRuntime({ name: "java17", folder });
  await assert.rejects(runtime.prepare(signal()), /no Java 17 or newer/);
  await mkdir(join(folder, "new", "bin"), { recursive: true });
  await writeFile(join(folder, "new", "bin", "java"), "");
  await writeFile(join(folder, "new", "release"), 'JAVA_VERSION="17.0.3"\n');
  assert.equal((await runtime.prepare(signal())).version, "17.0.3");
});
