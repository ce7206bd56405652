import assert from "node:assert/strict";
import { test } from "node:test";
import { KoineError } from "../../src/core/errors.ts";
import { type InstanceOptions, PythonInstance } from "./python-instance.ts";

const returning = (value: string): string => `def handler(event, context):\n    return ${value}\n`;

async function result(options: InstanceOptions): Promise<unknown> {
  await using instance = await PythonInstance.start(options);
  const answer = await instance.event({}).answer;
  return answer.error ?? (JSON.parse(answer.body.toString()) as unknown);
}

async function refusal(options: InstanceOptions): Promise<KoineError> {
  await using instance = await PythonInstance.boot(options.files);
  const error = await instance.specialise(options).then(
    () => assert.fail("it was loaded"),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof KoineError);
  assert.equal(await instance.exited, 1);
  return error;
}

test("a handler is named by file, by file and attribute, with folders, dots, a colon or the file's extension", async () => {
  const files = { "src/my-app/main.py": `other = None\n${returning("'there'")}go = handler\n` };
  for (const handler of [
    "src/my-app/main",
    "src/my-app/main.go",
    "src/my-app/main:go",
    "./src/my-app/main.py",
    "src.my-app.main",
  ]) {
    assert.equal(await result({ files, handler }), "there", handler);
  }
  assert.equal(await result({ files: { "pkg/__init__.py": returning("1") }, handler: "pkg" }), 1);
  assert.equal(
    await result({ files: { "a.py": `class Box:\n    go = lambda event, context: 2\n` }, handler: "a:Box.go" }),
    2,
  );
});

test("code comes before dependencies, and dependencies before nothing else", async () => {
  const files = {
    "app.py": `import both, only, azure, sys\n${returning("[both.x, only.x, azure.x, 'site' in sys.modules]")}`,
    "both.py": "x = 'code'\n",
    "python_modules/both.py": "x = 'dependency'\n",
    "python_modules/only.py": "x = 'dependency'\n",
    ".python_packages/lib/site-packages/azure.py": "x = 'azure'\n",
  };
  assert.deepEqual(await result({ files }), ["code", "dependency", "azure", false]);
});

test("path files of dependencies are honoured", async () => {
  const files = {
    "app.py": `import linked\n${returning("linked.x")}`,
    "python_modules/linked.pth": "deep\n",
    "python_modules/deep/linked.py": "x = 'deep'\n",
  };
  assert.equal(await result({ files }), "deep");
});

test("files named like modules that are in use are still the user's", async () => {
  for (const name of ["json", "frames", "load", "select", "main", "threading"]) {
    assert.equal(await result({ files: { [`${name}.py`]: returning(`'${name}'`) }, handler: `${name}.handler` }), name);
  }
});

test("environment, working directory and built-in names are those of a script in the package", async () => {
  const files = {
    "app.py": `import os\n${returning("[os.environ['A'], open('note.txt').read(), callable(exit), os.environ['TZ']]")}`,
    "note.txt": "here",
  };
  assert.deepEqual(await result({ files, environment: { A: "1", TZ: "Asia/Tokyo" } }), [
    "1",
    "here",
    true,
    "Asia/Tokyo",
  ]);
});

test("modules beside a handler in a folder can be imported", async () => {
  const files = { "src/app.py": `import sibling\n${returning("sibling.x")}`, "src/sibling.py": "x = 3\n" };
  assert.equal(await result({ files, handler: "src/app.handler" }), 3);
});

test("without a name, applications are tried before handlers", async () => {
  const app = "def app(environ, start_response):\n    pass\n";
  for (const [source, model] of [
    [`${app}${returning("1")}`, "wsgi"],
    [
      `async ${app.replace("environ, start_response", "scope, receive, send")}    raise ValueError\n${returning("1")}`,
      "asgi",
    ],
    [`app = object()\n${returning("1")}`, "lambda"],
    ["class Chalice:\n    def __call__(self, event, context):\n        return 1\napp = Chalice()\n", "lambda"],
    ["def main(event, context):\n    return 1\n", "lambda"],
  ] as const) {
    await using instance = await PythonInstance.boot({ "app.py": source });
    assert.equal((await instance.specialise({})).handlerModel, model, source);
  }
});

test("a model that is asked for is used, one that is unknown is refused", async () => {
  const files = { "app.py": "def serve(a, b):\n    b('200 OK', [])\n    return [b'\"wsgi\"']\n" };
  assert.equal(await result({ files, handler: "app.serve", handlerModel: "wsgi" }), "wsgi");
  const error = await refusal({ files, handlerModel: "openwhisk" });
  assert.equal(error.code, "unknown-handler-model");
});

test("a syntax error tells file, line and text, in imported files too", async () => {
  const broken = "x = 1\ndef broken(:\n    pass\n";
  for (const files of [{ "app.py": broken }, { "app.py": "import lib\n", "lib.py": broken }]) {
    const error = await refusal({ files });
    assert.equal(error.code, "handler-syntax-error");
    const file = "lib.py" in files ? "lib.py" : "app.py";
    assert.match(error.message, new RegExp(`${file}, line 2: .*def broken\\(:`));
  }
});

test("a missing attribute names what the module defines", async () => {
  const files = { "app.py": `import json\ndef greet(e, c):\n    pass\nclass Thing:\n    pass\n` };
  const error = await refusal({ files, handler: "app.great" });
  assert.equal(error.code, "handler-not-found");
  assert.match(error.message, /module 'app' has no 'great'; it defines Thing, greet/);
  assert.equal(error.values["exports"], "Thing, greet");
});

test("a missing file names the files that are there", async () => {
  for (const handler of ["other", "other.handler", "lib/other.handler"]) {
    const error = await refusal({ files: { "app.py": "" }, handler });
    assert.equal(error.code, "handler-not-found", handler);
    assert.match(error.message, /there is no file for .*the package has app\.py/);
  }
});

test("a module with nothing to call says so", async () => {
  const error = await refusal({ files: { "app.py": "x = 1\n" } });
  assert.equal(error.code, "handler-not-found");
  assert.match(error.message, /nothing that a handler model knows/);
});

test("a module that raises, lacks an import, or exits fails the load", async () => {
  const raised = await refusal({ files: { "app.py": "def f():\n    raise KeyError('k')\nprint('said')\nf()\n" } });
  assert.equal(raised.code, "handler-load-failed");
  assert.equal(raised.thrown?.type, "KeyError");
  assert.match(raised.thrown?.stack ?? "", /line 2, in f/);
  assert.doesNotMatch(raised.thrown?.stack ?? "", /importlib|load\.py/);
  const lacking = await refusal({ files: { "app.py": "import absent_thing\n" } });
  assert.equal(lacking.code, "handler-load-failed");
  assert.match(lacking.message, /No module named 'absent_thing'/);
  const exited = await refusal({ files: { "app.py": "import sys\nsys.exit(3)\n" } });
  assert.equal(exited.code, "handler-load-failed");
  assert.match(exited.message, /called sys\.exit\(3\) while it was loaded/);
});

test("a module that ends the process while loading is reported by the link", async () => {
  await using instance = await PythonInstance.boot({ "app.py": "import os\nprint('last words')\nos._exit(5)\n" });
  await assert.rejects(instance.specialise({}), { code: "handler-load-failed" });
  assert.equal(await instance.exited, 5);
  assert.equal(instance.logText(null), "last words\n");
});
