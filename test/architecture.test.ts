import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** What each folder of src/ may import beside itself and packages. */
const allowed: Record<string, readonly string[]> = {
  core: [],
  store: ["core"],
  sandbox: ["core"],
  runtimes: ["core", "sandbox"],
  protocols: ["core"],
  triggers: ["core"],
  engine: ["core", "sandbox", "runtimes", "protocols"],
  queue: ["core", "store"],
  workflow: ["core", "store"],
  platform: ["core", "store", "engine", "queue", "triggers", "workflow", "sandbox", "runtimes"],
  dialects: ["core", "platform", "store"],
  gateway: ["core", "dialects"],
  engines: ["core", "store", "engine", "platform", "dialects", "gateway"],
  cli: ["core"],
};

/** Families: implementations do not know each other. */
const families: Record<string, RegExp> = {
  sandbox: /^src\/sandbox\/(process|none|container|kubernetes)\//,
  dialects: /^src\/dialects\/([a-z]+)\//,
};

/** Test suites stand beside the code they test; the rules are for the code. */
const TESTS = /\.test\.ts$|\.suite\.ts$|\/conformance\.ts$|\/conformance\/|\/testing\//;
const files = globSync("src/**/*.{ts,mjs}", { cwd: root }).filter((path) => !TESTS.test(path));

function importsOf(path: string): readonly string[] {
  const text = readFileSync(join(root, path), "utf8");
  const specifiers = [...text.matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)].map(([, specifier = ""]) => specifier);
  return specifiers.map((specifier) => relative(root, join(root, dirname(path), specifier)));
}

test("a folder imports only what the design's table allows it", () => {
  const offences = files.flatMap((path) => {
    const folder = path.split("/")[1] ?? "";
    if (folder.endsWith(".ts")) return [];
    const targets = importsOf(path).filter((target) => target.startsWith("src/"));
    const wrong = targets.filter((target) => {
      const other = target.split("/")[1] ?? "";
      return other !== folder && !(allowed[folder] ?? []).includes(other);
    });
    return wrong.map((target) => `${path} imports ${target}`);
  });
  assert.deepEqual(offences, []);
});

test("an implementation does not import a sibling of its family", () => {
  const offences = files.flatMap((path) =>
    Object.values(families).flatMap((family) => {
      const own = family.exec(path)?.[1];
      if (own === undefined) return [];
      return importsOf(path)
        .filter((target) => (family.exec(target)?.[1] ?? own) !== own)
        .map((target) => `${path} imports ${target}`);
    }),
  );
  assert.deepEqual(offences, []);
});

test("every implementation is wired in compose.ts", () => {
  const compose = readFileSync(join(root, "src/compose.ts"), "utf8");
  const folders = [
    "src/sandbox/*/driver.ts",
    "src/runtimes/*.ts",
    "src/protocols/{frames,http,stdio,lambda-runtime-api,action-proxy}.ts",
    "src/dialects/*/*.ts",
    "src/triggers/*.ts",
  ];
  const entries = folders
    .flatMap((pattern) => globSync(pattern, { cwd: root }))
    .filter((path) => !path.endsWith(".test.ts") && !path.endsWith("/runtime.ts"))
    .filter((path) => !/^src\/triggers\/(?:trigger|pattern|batch|progress|conformance)\.ts$/.test(path))
    .filter((path) => !path.startsWith("src/dialects/") || path.endsWith(`/${path.split("/")[2]}.ts`));
  const missing = entries.filter((path) => !compose.includes(`"./${path.slice(4)}"`));
  assert.deepEqual(missing, []);
});

test("the environment is read in config.ts and at the program's entry only", () => {
  const readers = files.filter((path) => /process\.env\b/.test(readFileSync(join(root, path), "utf8")));
  const expected = new Set(["src/main.ts", "src/examples.ts"]);
  assert.deepEqual(
    readers.filter((path) => !expected.has(path) && path.endsWith(".ts")),
    [],
  );
});

test("nothing outside a dialect's folder and compose.ts names the dialect", () => {
  const offences = files.filter((path) => {
    if (path.startsWith("src/dialects/aws/") || path === "src/compose.ts") return false;
    return /\baws\b|amazon/i.test(readFileSync(join(root, path), "utf8"));
  });
  assert.deepEqual(offences, []);
});
