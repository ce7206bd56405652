import assert from "node:assert/strict";
import { test } from "node:test";
import { CliFailure } from "./failure.ts";
import type { PackageJson, ProjectChoice } from "./project.ts";
import { nameFrom, nodeMajorFor, recogniseProject } from "./project.ts";

function recognised(
  files: readonly string[],
  packageJson: PackageJson | null = null,
  chosen: ProjectChoice = {},
): string {
  const { runtime, handler } = recogniseProject({ files, packageJson }, chosen);
  return `${runtime} ${handler}`;
}

function refusal(files: readonly string[], packageJson: PackageJson | null = null): string {
  try {
    recognised(files, packageJson);
  } catch (thrown) {
    if (thrown instanceof CliFailure) return thrown.message;
  }
  throw new Error("it was not refused");
}

test("a folder with one usual file needs nothing said", () => {
  assert.equal(recognised(["index.mjs", "lib.mjs", "README.md"]), "nodejs26.x index.mjs");
  assert.equal(recognised(["app.ts", "app.test.ts", "types.d.ts"]), "nodejs26.x app.ts");
  assert.equal(recognised(["app.py", "requirements.txt"]), "python3 app.py");
  assert.equal(recognised(["src/server.ts", "package.json"], {}), "nodejs26.x src/server.ts");
  assert.equal(recognised(["lambda_function.py"]), "python3 lambda_function.lambda_handler");
});

test("a folder with one source file of any name is that file", () => {
  assert.equal(recognised(["thumbnail.mjs", "README.md"]), "nodejs26.x thumbnail.mjs");
  assert.equal(recognised(["words.py", "test_words.py"]), "python3 words.py");
});

test("what package.json calls its entry is the handler", () => {
  const files = ["index.mjs", "lib/main.js", "package.json"];
  assert.equal(recognised(files, { main: "./lib/main" }), "nodejs26.x lib/main.js");
  assert.equal(
    recognised(files, { exports: { ".": { import: "./lib/main.js" } }, main: "index.mjs" }),
    "nodejs26.x lib/main.js",
  );
});

test("an entry that was not built is passed over with a remark", () => {
  const project = recogniseProject({ files: ["src/index.ts"], packageJson: { main: "dist/index.js" } });
  assert.equal(project.handler, "src/index.ts");
  assert.match(project.notes[0] ?? "", /main 'dist\/index\.js' is not there/);
});

test("the Node asked for by engines is used, and a remark made when there is none such", () => {
  assert.equal(recognised(["index.js"], { engines: { node: "^22.3" } }), "nodejs22.x index.js");
  const project = recogniseProject({ files: ["index.js"], packageJson: { engines: { node: "16" } } });
  assert.equal(project.runtime, "nodejs26.x");
  assert.match(project.notes[0] ?? "", /asks for Node '16'/);
});

test("ranges of Node versions are understood", () => {
  const expected: Readonly<Record<string, number | undefined>> = {
    "*": 26,
    ">=18": 26,
    ">= 20 < 25": 24,
    "^22.1 || ^24": 24,
    "22": 22,
    "24.x": 24,
    "~22.3.1": 22,
    "20 - 24": 24,
    "<26": 24,
    "<26.1": 26,
    ">24": 26,
    "<=22": 22,
    "18 || 20": undefined,
    lts: undefined,
  };
  const found = Object.fromEntries(Object.keys(expected).map((range) => [range, nodeMajorFor(range)]));
  assert.deepEqual(found, expected);
});

test("several likely handlers are an error that lists them", () => {
  assert.equal(refusal(["app.ts", "server.ts"]), "More than one file could be the handler: app.ts, server.ts");
  assert.equal(refusal(["index.js", "index.ts"]), "More than one file could be the handler: index.js, index.ts");
  assert.equal(refusal(["one.mjs", "two.mjs"]), "More than one file could be the handler: one.mjs, two.mjs");
  assert.equal(refusal(["app.py", "index.mjs"]), "More than one file could be the handler: index.mjs, app.py");
  assert.match(refusal(["README.md"]), /no file here that looks like a handler/);
});

test("index is more likely than its siblings, and a marker file decides between languages", () => {
  assert.equal(recognised(["app.js", "index.js", "server.js"]), "nodejs26.x index.js");
  assert.equal(recognised(["app.py", "build.mjs", "requirements.txt"]), "python3 app.py");
  assert.equal(recognised(["index.js", "main.py", "package.json"], {}), "nodejs26.x index.js");
});

test("what was said is kept, and decides the rest", () => {
  const files = ["app.py", "index.mjs"];
  assert.equal(recognised(files, null, { runtime: "python3" }), "python3 app.py");
  assert.equal(recognised(files, null, { handler: "index.handler" }), "nodejs26.x index.handler");
  assert.equal(recognised(files, null, { handler: "app.main" }), "python3 app.main");
  assert.equal(recognised([], null, { runtime: "custom", handler: "run.sh" }), "custom run.sh");
});

test("names are made valid or given up", () => {
  assert.deepEqual(["@me/my-fn", "My Folder!", "..x..", "***"].map(nameFrom), ["my-fn", "My-Folder", "x", undefined]);
});

test("an executable bootstrap is a custom runtime, unless something else is said", () => {
  const folder = { files: ["bootstrap", "index.mjs"], executables: ["bootstrap"], packageJson: null };
  const { notes, ...project } = recogniseProject(folder);
  assert.deepEqual(project, { runtime: "custom", protocol: "lambda-runtime-api" });
  assert.match(notes.join(), /'bootstrap' can be executed/);
  assert.equal(recogniseProject({ ...folder, executables: [] }).handler, "index.mjs");
  assert.equal(recogniseProject(folder, { handler: "index.mjs" }).protocol, undefined);
  assert.equal(recogniseProject(folder, { runtime: "nodejs22.x" }).protocol, undefined);
  assert.equal(recogniseProject(folder, { protocol: "stdio" }).command, undefined);
});

test("a program's runtime is that of its interpreter, and a single file is its own command", () => {
  const folder = { files: ["server", "x"], executables: ["server"], packageJson: null };
  const runtimeOf = (command: string): string => recogniseProject(folder, { command: command.split(" ") }).runtime;
  assert.equal(runtimeOf("./server"), "custom");
  assert.equal(runtimeOf("node x"), "nodejs26.x");
  assert.equal(runtimeOf("gunicorn app:app"), "python3");
  assert.equal(recogniseProject(folder, { command: ["./server"] }).protocol, "http");
  const alone = { files: ["shout.sh"], executables: ["shout.sh"], packageJson: null };
  const { notes: _, ...project } = recogniseProject(alone, { protocol: "stdio" });
  assert.deepEqual(project, { runtime: "custom", protocol: "stdio", command: ["./shout.sh"] });
});
