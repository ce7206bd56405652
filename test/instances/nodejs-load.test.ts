import assert from "node:assert/strict";
import { test } from "node:test";
import { KoineError } from "../../src/core/errors.ts";
import { NodeInstance, type StartOptions } from "./node-instance.ts";

const hello = `export default () => new Response("hello");`;

async function answerOf(options: StartOptions): Promise<string> {
  await using instance = await NodeInstance.start(options);
  const answer = await instance.http().answer;
  assert.equal(answer.ending, "succeeded", answer.error?.message ?? "");
  return answer.body.toString();
}

async function failureOf(options: StartOptions): Promise<KoineError> {
  await using instance = await NodeInstance.boot(options);
  try {
    await instance.specialise(options);
  } catch (error) {
    assert.ok(error instanceof KoineError, String(error));
    assert.notEqual(await instance.exited, null);
    return error;
  }
  throw new assert.AssertionError({ message: "it was loaded" });
}

const places: readonly [string, StartOptions][] = [
  ["a file without its extension", { files: { "index.mjs": hello } }],
  ["a file with its extension", { files: { "index.mjs": hello }, handler: "index.mjs" }],
  ["a nested file", { files: { "src/api/greet.mjs": hello }, handler: "src/api/greet" }],
  ["a folder with an index file", { files: { "api/index.mjs": hello }, handler: "api" }],
  [
    "a TypeScript file",
    { files: { "index.ts": `const text: string = "hello"; export default () => new Response(text);` } },
  ],
  ["a CommonJS function", { files: { "index.cjs": `module.exports = () => new Response("hello");` } }],
  ["a .js file without package.json", { files: { "index.js": `module.exports = () => new Response("hello");` } }],
  [
    "an object with fetch",
    { files: { "index.mjs": `export default { text: "hello", fetch() { return new Response(this.text); } };` } },
  ],
  [
    "a named function",
    { files: { "index.mjs": `export const greet = () => new Response("hello");` }, handler: "index.greet" },
  ],
  [
    "an export below an export",
    { files: { "index.cjs": `exports.a = { b: () => new Response("hello") };` }, handler: "index.a.b" },
  ],
  [
    "a file with dots in its name",
    { files: { "v1.2/app.users.mjs": hello, "v1.2/app.mjs": "throw 1" }, handler: "v1.2/app.users" },
  ],
  [
    "ES modules compiled to CommonJS",
    {
      files: {
        "index.js": `Object.defineProperty(exports, "__esModule", { value: true }); exports.default = () => new Response("hello");`,
      },
    },
  ],
  [
    "an export that only running the module reveals",
    { files: { "index.cjs": `exports["gre" + "et"] = () => new Response("hello");` }, handler: "index.greet" },
  ],
  [
    "a Lambda function",
    {
      files: { "index.js": `exports.handler = async () => ({ statusCode: 200, body: "hello" });` },
      handler: "index.handler",
    },
  ],
  [
    "a module that waits at its top level",
    { files: { "index.mjs": `await new Promise((resolve) => setImmediate(resolve)); ${hello}` } },
  ],
];
for (const [what, options] of places) {
  test(`a handler is found: ${what}`, async () => {
    assert.equal(await answerOf(options), "hello");
  });
}

test("a missing file is reported with what the package holds", async () => {
  const error = await failureOf({ files: { "main.mjs": hello, "lib/x.txt": "" }, handler: "index.handler" });
  assert.equal(error.code, "handler-not-found");
  assert.match(error.message, /no such file; the package holds main\.mjs/);
});

test("a handler outside the package is not loaded", async () => {
  const error = await failureOf({ files: { "index.mjs": hello }, handler: "../../../../../../../../etc/passwd" });
  assert.equal(error.code, "handler-not-found");
});

test("a missing export is reported with what the module exports", async () => {
  const error = await failureOf({ files: { "index.mjs": `${hello} export const greet = 1;` }, handler: "index.main" });
  assert.equal(error.code, "handler-not-found");
  assert.match(error.message, /no export 'main'; 'index\.mjs' exports default, greet/);
  assert.equal(error.values["exports"], "default, greet");
});

test("a module without anything to call is reported with what it exports", async () => {
  const error = await failureOf({ files: { "index.mjs": `export const greet = () => 1;` } });
  assert.equal(error.code, "handler-not-found");
  assert.match(error.message, /exports greet/);
});

test("an unknown handler model is reported with the known ones", async () => {
  const error = await failureOf({ files: { "index.mjs": hello }, handlerModel: "wsgi" });
  assert.equal(error.code, "unknown-handler-model");
  assert.match(error.hint, /auto, web, lambda/);
});

for (const [what, files, place] of [
  ["an ES module", { "index.mjs": "const a = 1;\nconst b = ;\n" }, /index\.mjs:2: Unexpected token ';'\nconst b = ;/],
  [
    "an imported ES module",
    { "index.mjs": `import "./lib/b.mjs";`, "lib/b.mjs": "\n\nlet let = 1;" },
    /lib\/b\.mjs:3: /,
  ],
  ["a CommonJS module", { "index.js": "const a = 1;\nfoo(;\n" }, /index\.js:2: Unexpected token ';'/],
  ["a required module", { "index.cjs": `require("./b.cjs")`, "b.cjs": "foo(;" }, /b\.cjs:1: /],
  ["TypeScript", { "index.ts": "const a: = 1;" }, /index\.ts:1: /],
  ["TypeScript that needs compiling", { "index.ts": "enum A { B }" }, /index\.ts:1: .*need a build step/],
  ["a missing import", { "index.mjs": `import { nope } from "node:fs";` }, /index\.mjs:1: .*'nope'/],
] as const) {
  test(`a syntax error is reported with its place: ${what}`, async () => {
    const error = await failureOf({ files });
    assert.equal(error.code, "handler-syntax-error", error.message);
    assert.match(error.message, place);
  });
}

test("an error thrown while loading is reported with type and stack", async () => {
  const error = await failureOf({
    files: { "index.mjs": `function boom() { throw new RangeError("too early"); }\nboom();` },
  });
  assert.equal(error.code, "handler-load-failed");
  assert.match(error.message, /RangeError: too early/);
  assert.match(error.thrown?.stack ?? "", /boom .*index\.mjs:1/s);
});

test("a SyntaxError that running code throws is no syntax error of the module", async () => {
  const error = await failureOf({ files: { "index.mjs": `JSON.parse("{");` } });
  assert.equal(error.code, "handler-load-failed");
});

test("something else than an error thrown while loading is reported as it prints", async () => {
  const error = await failureOf({ files: { "index.mjs": `throw { reason: "because" };` } });
  assert.match(error.message, /Object: \{ reason: 'because' \}/);
});

test("a module that exits while loading is reported, and what it logged before is kept", async () => {
  await using instance = await NodeInstance.boot({
    files: { "index.mjs": `console.log("last words"); process.exit(7);` },
  });
  await assert.rejects(instance.specialise({}), { code: "handler-load-failed" });
  assert.equal(await instance.exited, 7);
  assert.equal(instance.logText(null), "last words\n");
});

test("a module that hangs while loading is given up when the engine says so", async () => {
  await using instance = await NodeInstance.boot({
    files: { "index.mjs": `await new Promise(() => setInterval(() => {}, 1000));` },
  });
  const abort = new AbortController();
  const specialised = instance.link.specialise(
    {
      codePath: instance.folder,
      handler: "index",
      handlerModel: "auto",
      environment: {},
      function: { namespace: "", package: "", name: "x", version: 1 },
      memoryBytesMax: 1,
      timeoutMs: 1,
      instanceConcurrency: 1,
      adapters: [],
    },
    abort.signal,
  );
  abort.abort(new Error("enough"));
  await assert.rejects(specialised, { message: "enough" });
});

test("a function sees its own environment, its folder, and nothing of the platform", async () => {
  const text = await answerOf({
    files: {
      "index.mjs": `export default () => Response.json([process.env, process.cwd(), process.argv.length, process.argv[1]]);`,
    },
    environment: { GREETING: "hi", HOME: "/home/me" },
  });
  const [environment, folder, count, file] = JSON.parse(text);
  assert.deepEqual(Object.keys(environment).sort(), ["GREETING", "HOME", "PATH", "TMPDIR"]);
  assert.equal(environment.HOME, "/home/me");
  assert.match(folder, /koine-nodejs-/);
  assert.equal(count, 2);
  assert.match(file, /index\.mjs$/);
});
