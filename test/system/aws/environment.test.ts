import {
  CreateFunctionCommand,
  DeleteLayerVersionCommand,
  GetFunctionConfigurationCommand,
  InvokeCommand,
  LambdaClient,
  PublishLayerVersionCommand,
  PublishVersionCommand,
  UpdateFunctionConfigurationCommand,
} from "@aws-sdk/client-lambda";
import { CloudWatchLogsClient, FilterLogEventsCommand } from "@aws-sdk/client-cloudwatch-logs";
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";
import { type Entry, zip as zipEntries } from "../api.ts";
import { type RunningPlatform, startPlatform } from "../platform.ts";

const Role = "arn:aws:iam::000000000000:role/env-role";

let platform: RunningPlatform;
let client: LambdaClient;
let logs: CloudWatchLogsClient;

before(async () => {
  platform = await startPlatform();
  const settings = {
    endpoint: platform.url,
    region: "eu-west-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    maxAttempts: 1,
  };
  client = new LambdaClient(settings);
  logs = new CloudWatchLogsClient(settings);
});

after(async () => {
  client.destroy();
  logs.destroy();
  await platform.stop();
});

const zip = (files: Readonly<Record<string, string>>): Buffer =>
  zipEntries(Object.entries(files).map(([path, content]) => ({ path, content })));

async function create(FunctionName: string, files: Readonly<Record<string, string>>, more: object = {}): Promise<void> {
  await client.send(
    new CreateFunctionCommand({
      FunctionName,
      Role,
      Runtime: "nodejs26.x",
      Handler: "index.handler",
      Code: { ZipFile: zip(files) },
      ...more,
    }),
  );
}

interface Called {
  readonly result: unknown;
  readonly error: string | undefined;
  readonly tail: string;
}

async function call(FunctionName: string, payload: unknown = {}, Qualifier?: string): Promise<Called> {
  const answer = await client.send(
    new InvokeCommand({
      FunctionName,
      Payload: Buffer.from(JSON.stringify(payload)),
      LogType: "Tail",
      ...(Qualifier === undefined ? {} : { Qualifier }),
    }),
  );
  return {
    result: JSON.parse(Buffer.from(answer.Payload ?? []).toString("utf8")),
    error: answer.FunctionError,
    tail: Buffer.from(answer.LogResult ?? "", "base64").toString("utf8"),
  };
}

type Variables = Readonly<Record<string, string>>;

test("a function finds the variables of its runtime, its version and its log stream", async () => {
  await create("env", {
    "index.js":
      "exports.handler = async (_, context) => ({ env: process.env, version: context.functionVersion, stream: context.logStreamName, memory: context.memoryLimitInMB });",
  });
  const { env, ...context } = (await call("env")).result as { env: Variables };
  const expected = {
    _HANDLER: "index.handler",
    AWS_REGION: "eu-west-1",
    AWS_DEFAULT_REGION: "eu-west-1",
    AWS_EXECUTION_ENV: "AWS_Lambda_nodejs26.x",
    AWS_LAMBDA_FUNCTION_NAME: "env",
    AWS_LAMBDA_FUNCTION_VERSION: "$LATEST",
    AWS_LAMBDA_FUNCTION_MEMORY_SIZE: "128",
    AWS_LAMBDA_INITIALIZATION_TYPE: "on-demand",
    AWS_LAMBDA_LOG_GROUP_NAME: "/aws/lambda/env",
    AWS_LAMBDA_LOG_FORMAT: "Text",
    LAMBDA_RUNTIME_DIR: "/var/runtime",
    TZ: ":UTC",
  };
  for (const [name, value] of Object.entries(expected)) assert.equal(env[name], value, name);
  assert.match(env["AWS_LAMBDA_LOG_STREAM_NAME"] ?? "", /^\d{4}\/\d\d\/\d\d\/\[\$LATEST\][0-9a-f]{32}$/);
  assert.match(env["AWS_ACCESS_KEY_ID"] ?? "", /^ASIA/);
  assert.match(env["_X_AMZN_TRACE_ID"] ?? "", /^Root=1-[0-9a-f]{8}-[0-9a-f]{24};/);
  assert.deepEqual(context, { version: "$LATEST", stream: env["AWS_LAMBDA_LOG_STREAM_NAME"], memory: "128" });

  await client.send(new PublishVersionCommand({ FunctionName: "env" }));
  const published = (await call("env", {}, "1")).result as { env: Variables; version: string };
  assert.equal(published.env["AWS_LAMBDA_FUNCTION_VERSION"], "1");
  assert.equal(published.version, "1");
  assert.match(published.env["AWS_LAMBDA_LOG_STREAM_NAME"] ?? "", /\/\[1\]/);
});

/** A package and all that it needs, as it lies in node_modules. */
function nodeModules(name: string): readonly Entry[] {
  const root = fileURLToPath(new URL("../../../node_modules", import.meta.url));
  const wanted = [name];
  const entries: Entry[] = [];
  for (const each of wanted) {
    const description = JSON.parse(readFileSync(join(root, each, "package.json"), "utf8")) as {
      dependencies?: Record<string, string>;
    };
    for (const needed of Object.keys(description.dependencies ?? {})) if (!wanted.includes(needed)) wanted.push(needed);
    for (const file of readdirSync(join(root, each), { recursive: true, encoding: "utf8" })) {
      if (!/\.(?:c?js|json)$/.test(file) || /dist-(?:es|types)|^node_modules\//.test(file)) continue;
      const content = readFileSync(join(root, each, file), "utf8");
      entries.push({ path: `nodejs/node_modules/${each}/${file}`, content });
    }
  }
  return entries;
}

test("code calls the platform's services with the SDK of a layer, in the function's role and without settings of its own", async () => {
  const sdk = await client.send(
    new PublishLayerVersionCommand({
      LayerName: "sdk",
      Content: { ZipFile: zipEntries([...nodeModules("@aws-sdk/client-sts")]) },
    }),
  );
  await create(
    "whoami",
    {
      "index.js": `const { STSClient, GetCallerIdentityCommand } = require("@aws-sdk/client-sts");
const sts = new STSClient({});
exports.handler = async () => (await sts.send(new GetCallerIdentityCommand({}))).Arn;`,
    },
    { Layers: [sdk.LayerVersionArn], Timeout: 30, MemorySize: 256 },
  );
  assert.equal((await call("whoami")).result, "arn:aws:sts::000000000000:assumed-role/env-role/whoami");
});

test("layers are seen at /opt, the later over the earlier, and stay when they are deleted", async () => {
  const publish = async (LayerName: string, files: Readonly<Record<string, string>>): Promise<string> => {
    const made = await client.send(new PublishLayerVersionCommand({ LayerName, Content: { ZipFile: zip(files) } }));
    return made.LayerVersionArn ?? "";
  };
  const one = await publish("one", { "nodejs/node_modules/one/index.js": "module.exports = 1;", "same.txt": "one" });
  const two = await publish("two", { "python/two.py": "VALUE = 2", "same.txt": "two" });
  const source = `const fs = require("node:fs");
exports.handler = async () => ({ one: require("one"), same: fs.readFileSync("/opt/same.txt", "utf8") });`;
  await create("layered", { "index.js": source }, { Layers: [one, two] });
  assert.deepEqual((await call("layered")).result, { one: 1, same: "two" });
  const configuration = await client.send(new GetFunctionConfigurationCommand({ FunctionName: "layered" }));
  assert.ok(configuration.Layers?.every(({ CodeSize }) => (CodeSize ?? 0) > 0));

  await create(
    "layered-python",
    { "app.py": "import two\ndef handler(event, context):\n    return two.VALUE" },
    { Runtime: "python3.11", Handler: "app.handler", Layers: [one, two] },
  );
  assert.equal((await call("layered-python")).result, 2);

  await client.send(new DeleteLayerVersionCommand({ LayerName: "one", VersionNumber: 1 }));
  await client.send(new UpdateFunctionConfigurationCommand({ FunctionName: "layered", Timeout: 5 }));
  assert.deepEqual((await call("layered")).result, { one: 1, same: "two" });
  await assert.rejects(
    client.send(new UpdateFunctionConfigurationCommand({ FunctionName: "env", Layers: [one] })),
    /Layer version arn:aws:lambda:eu-west-1:000000000000:layer:one:1 does not exist/,
  );
});

test("each call is framed by START, END and REPORT with measured figures, in its tail and in the log group", async () => {
  await create("framed", { "index.js": 'exports.handler = async () => { console.log("hello"); };' });
  const { tail } = await call("framed");
  const [start = "", line = "", end = "", report = ""] = tail.split("\n");
  const id = /^START RequestId: (\S+) Version: \$LATEST$/.exec(start)?.[1] ?? "";
  assert.match(line, new RegExp(`^\\d{4}-\\S+Z\\t${id}\\tINFO\\thello$`));
  assert.equal(end, `END RequestId: ${id}`);
  assert.match(
    report,
    new RegExp(
      `^REPORT RequestId: ${id}\\tDuration: [\\d.]+ ms\\tBilled Duration: \\d+ ms\\tMemory Size: 128 MB\\tMax Memory Used: [1-9]\\d* MB\\tInit Duration: [\\d.]+ ms\\t$`,
    ),
  );
  assert.doesNotMatch((await call("framed")).tail, /Init Duration/);
  const found = await logs.send(new FilterLogEventsCommand({ logGroupName: "/aws/lambda/framed" }));
  const messages = found.events?.map(({ message = "" }) => message.split(/[ \t]/)[0]) ?? [];
  assert.deepEqual(
    messages.filter((word) => /^[A-Z_]+$/.test(word ?? "")),
    ["INIT_START", "START", "END", "REPORT", "START", "END", "REPORT"],
  );
});
