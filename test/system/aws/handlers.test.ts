import { CreateFunctionCommand, InvokeCommand, LambdaClient } from "@aws-sdk/client-lambda";
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventually, zip } from "../api.ts";
import { type RunningPlatform, startPlatform } from "../platform.ts";

const Role = "arn:aws:iam::000000000000:role/any";

let platform: RunningPlatform;
let client: LambdaClient;

before(async () => {
  platform = await startPlatform();
  client = new LambdaClient({
    endpoint: platform.url,
    region: "us-east-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    maxAttempts: 1,
  });
});

after(async () => {
  client.destroy();
  await platform.stop();
});

async function create(FunctionName: string, path: string, content: string, more: object = {}): Promise<void> {
  const isPython = path.endsWith(".py");
  await client.send(
    new CreateFunctionCommand({
      FunctionName,
      Role,
      Runtime: isPython ? "python3.11" : "nodejs26.x",
      Handler: `${path.replace(/\.\w+$/, "")}.handler`,
      Code: { ZipFile: zip([{ path, content }]) },
      Timeout: 20,
      ...more,
    }),
  );
}

async function call(FunctionName: string, payload: unknown = {}) {
  const answer = await client.send(
    new InvokeCommand({ FunctionName, Payload: Buffer.from(JSON.stringify(payload)), LogType: "Tail" }),
  );
  const lines = Buffer.from(answer.LogResult ?? "", "base64")
    .toString("utf8")
    .trimEnd()
    .split("\n");
  const result = JSON.parse(Buffer.from(answer.Payload ?? []).toString("utf8")) as unknown;
  return { result, isError: answer.FunctionError !== undefined, lines };
}

test("a callback's answer waits until nothing is left to do, unless the function says otherwise", async () => {
  const source = `let done = false;
exports.handler = (event, context, callback) => {
  if (event.ask) { callback(null, done); return; }
  context.callbackWaitsForEmptyEventLoop = event.waits;
  done = false;
  setTimeout(() => { done = true; console.log("later"); }, 300);
  callback(null, "answered");
};`;
  await create("calls-back", "index.js", source);
  const waited = await call("calls-back", { waits: true });
  assert.equal(waited.result, "answered");
  assert.ok(waited.lines.some((line) => line.endsWith("later")));
  const left = await call("calls-back", { waits: false });
  assert.equal(left.result, "answered");
  assert.ok(!left.lines.some((line) => line.endsWith("later")));
});

test("what a handler leaves behind stands still until the next call", async () => {
  const source = `let ticks = 0;
setInterval(() => ticks++, 5);
exports.handler = async () => ticks;`;
  await create("ticks", "index.js", source);
  await call("ticks");
  const frozen = async (): Promise<boolean> => {
    const { stdout } = await platform.koine(["status", "-o", "json"]);
    const { instances } = JSON.parse(stdout) as { instances: { idle: number; busy: number } };
    return instances.idle === 0 && instances.busy === 0;
  };
  await eventually("the instance is frozen", async () => ((await frozen()) ? true : null));
  const first = (await call("ticks")).result as number;
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  const second = (await call("ticks")).result as number;
  // Of some 300 ticks only those between an answer and the freeze happened.
  assert.ok(second - first < 100, `${second - first} ticks`);
});

test("errors have the shape of Lambda's own runtimes", async () => {
  const source = `class Special extends Error { constructor(m) { super(m); this.name = "Special"; } }
exports.handler = async ({ kind }) => {
  if (kind === "error") throw new Special("as asked");
  if (kind === "text") throw "only text";
};`;
  await create("fails", "index.js", source);
  const thrown = await call("fails", { kind: "error" });
  const { trace, ...rest } = thrown.result as { trace: string[] };
  assert.deepEqual(rest, { errorType: "Special", errorMessage: "as asked" });
  assert.equal(trace[0], "Special: as asked");
  assert.match(trace[1] ?? "", /^ {4}at exports\.handler/);
  assert.match(
    thrown.lines[1] ?? "",
    /\tERROR\tInvoke Error \t\{"errorType":"Special","errorMessage":"as asked","stack":\[/,
  );
  const text = await call("fails", { kind: "text" });
  assert.deepEqual(text.result, { errorType: "string", errorMessage: "only text", trace: [] });
  assert.equal((await call("fails")).result, null);

  const python = "def inner():\n    raise ValueError('as asked')\n\ndef handler(event, context):\n    inner()\n";
  await create("fails-python", "app.py", python);
  const { requestId, stackTrace, ...told } = (await call("fails-python")).result as {
    requestId: string;
    stackTrace: string[];
  };
  assert.deepEqual(told, { errorType: "ValueError", errorMessage: "as asked" });
  assert.match(requestId, /^[0-9a-f-]{36}$/);
  assert.equal(stackTrace.length, 2);
  assert.match(stackTrace[0] ?? "", /^ {2}File ".*app\.py", line 5, in handler\n {4}inner\(\)\n/);
});

test("lines of the format JSON say when, how important, whose and what, from the level on that is asked for", async () => {
  const LoggingConfig = { LogFormat: "JSON", ApplicationLogLevel: "INFO" };
  const source = `exports.handler = async () => {
  console.debug("left out");
  console.info({ some: "thing" });
  console.error("broken:", new TypeError("as asked"));
};`;
  await create("json", "index.js", source, { LoggingConfig });
  const lines = (await call("json")).lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.deepEqual(
    lines.map((line) => line["type"] ?? line["level"]),
    ["platform.start", "INFO", "ERROR", "platform.report"],
  );
  const { requestId } = (lines[0]?.["record"] ?? {}) as { requestId?: string };
  const { timestamp, ...info } = lines[1] ?? {};
  assert.match(String(timestamp), /^\d{4}-.*Z$/);
  assert.deepEqual(info, { level: "INFO", requestId, message: { some: "thing" } });
  assert.equal(lines[2]?.["errorType"], "TypeError");

  const python = `import logging
def handler(event, context):
    logging.debug("left out")
    logging.getLogger("own").warning("hello %s", "you")
    print("as it is")
`;
  await create("json-python", "app.py", python, { LoggingConfig });
  const own = (await call("json-python")).lines;
  const { timestamp: _, requestId: id, ...line } = JSON.parse(own[1] ?? "") as Record<string, unknown>;
  assert.equal(typeof id, "string");
  assert.deepEqual(line, { level: "WARNING", message: "hello you", logger: "own" });
  assert.equal(own[2], "as it is");
});

test("lines of Python's loggers have the form of Lambda's runtime", async () => {
  const python = `import logging
root = logging.getLogger()
root.setLevel(logging.INFO)
def handler(event, context):
    root.info("hello")
    return [len(root.handlers), context.function_version, context.memory_limit_in_mb]
`;
  await create("text-python", "app.py", python);
  const { result, lines } = await call("text-python");
  assert.deepEqual(result, [1, "$LATEST", "128"]);
  assert.match(lines[1] ?? "", /^\[INFO\]\t\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z\t[0-9a-f-]{36}\thello$/);
});

test("a call that takes too long is reported as such", async () => {
  await create("slow", "index.js", "exports.handler = () => new Promise(() => setInterval(() => {}, 1000));", {
    Timeout: 1,
  });
  const { result, lines } = await call("slow");
  const { errorMessage } = result as { errorMessage: string };
  assert.match(errorMessage, /Task timed out after 1\.00 seconds/);
  assert.match(lines.at(-2) ?? "", /^REPORT .*\tStatus: timeout\t$/);
  assert.match(lines.at(-1) ?? "", /Task timed out after 1\.00 seconds$/);
});
