import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { joinModules } from "./join-modules.ts";

async function inFolder<T>(files: Readonly<Record<string, string>>, run: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "koine-join-"));
  try {
    for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
    return await run(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const files = {
  "main.mjs": `import { double } from "./double.mjs";\nimport {\n  base,\n  Thing,\n} from "./base.mjs";\nglobalThis.joined = [double(base), new Thing().name, import.meta.url];\n`,
  "double.mjs": `import { base } from "./base.mjs";\nconst own = 2;\nexport function double(number) { return number * own + base - base; }\n`,
  "base.mjs": `const own = 21;\nexport const base = own;\nexport class Thing { name = "thing"; }\n`,
};

test("joined modules do what they did, and names of one are not seen by another", async () => {
  await inFolder(files, async (folder) => {
    const text = await joinModules(folder, "main.mjs");
    assert.doesNotMatch(text, /^import/m);
    const path = join(folder, "joined.mjs");
    await writeFile(path, text);
    const url = pathToFileURL(path).href;
    await import(url);
    assert.deepEqual((globalThis as { joined?: unknown }).joined, [42, "thing", url]);
  });
});

test("a module that something else in the folder imports stays apart", async () => {
  await inFolder({ ...files, "other.mjs": `import { Thing } from "./base.mjs";\nnew Thing();\n` }, async (folder) => {
    const text = await joinModules(folder, "main.mjs");
    assert.deepEqual(text.match(/^import.*$/gm), ['import * as $base from "./base.mjs";']);
  });
});

test("what cannot be joined is said", async () => {
  for (const odd of ["export default 1;", 'import thing from "thing";', "export { a };"]) {
    await inFolder({ "main.mjs": `${odd}\n` }, async (folder) => {
      await assert.rejects(joinModules(folder, "main.mjs"), /main\.mjs cannot be joined/);
    });
  }
});

test("our bootstrap can be joined", async () => {
  const text = await joinModules(join(import.meta.dirname, "../../../bootstrap/nodejs"), "main.mjs");
  assert.match(text, /\$connection/);
});
