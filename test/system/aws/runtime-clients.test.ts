import {
  CreateFunctionCommand,
  InvokeCommand,
  LambdaClient,
  PublishLayerVersionCommand,
  UpdateFunctionConfigurationCommand,
} from "@aws-sdk/client-lambda";
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { runtimeClientsFolder } from "../../../scripts/runtime-clients.mjs";
import { type Entry, eventually, zip } from "../api.ts";
import { type RunningPlatform, startPlatform } from "../platform.ts";

const Role = "arn:aws:iam::000000000000:role/any";
const sources = fileURLToPath(new URL("clients", import.meta.url));
const clients = runtimeClientsFolder();

let platform: RunningPlatform;
let client: LambdaClient;
let scratch: string;

before(async () => {
  scratch = await mkdtemp(join(tmpdir(), "koine-clients-"));
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
  await rm(scratch, { recursive: true, force: true });
});

/** All files of a folder, below another path in the archive. */
async function entriesOf(folder: string, below = ""): Promise<readonly Entry[]> {
  const found = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = found.filter((entry) => entry.isFile() && !entry.parentPath.includes("__pycache__"));
  return await Promise.all(
    files.map(async ({ parentPath, name }) => {
      const path = join(parentPath, name);
      return { path: `${below}${path.slice(folder.length + 1)}`, content: await readFile(path) };
    }),
  );
}

async function layer(LayerName: string, entries: readonly Entry[]): Promise<string> {
  const made = await client.send(new PublishLayerVersionCommand({ LayerName, Content: { ZipFile: zip(entries) } }));
  return made.LayerVersionArn ?? "";
}

async function create(FunctionName: string, entries: readonly Entry[], more: object): Promise<void> {
  await client.send(
    new CreateFunctionCommand({
      FunctionName,
      Role,
      Runtime: "provided.al2023",
      Handler: "app.handler",
      Code: { ZipFile: zip(entries) },
      Timeout: 20,
      MemorySize: 512,
      ...more,
    }),
  );
}

async function call(FunctionName: string, payload: unknown) {
  const answer = await client.send(
    new InvokeCommand({ FunctionName, Payload: Buffer.from(JSON.stringify(payload)), LogType: "Tail" }),
  );
  const result = JSON.parse(Buffer.from(answer.Payload ?? []).toString("utf8")) as Record<string, unknown>;
  const tail = Buffer.from(answer.LogResult ?? "", "base64").toString("utf8");
  return { result, isError: answer.FunctionError !== undefined, tail };
}

/** What all of these functions do. */
async function check(name: string, errorType: string): Promise<void> {
  for (const hello of ["one", "two"]) {
    const { result, tail } = await call(name, { name: hello });
    assert.deepEqual(result, {
      hello,
      arn: `arn:aws:lambda:us-east-1:000000000000:function:${name}`,
      version: "$LATEST",
    });
    assert.match(tail, /^START RequestId: .* Version: \$LATEST\n/);
    assert.match(tail, /\nREPORT RequestId: .*\tMax Memory Used: [1-9]/);
  }
  const failed = await call(name, { fail: true });
  assert.ok(failed.isError);
  assert.equal(failed.result["errorType"], errorType);
  assert.match(String(failed.result["errorMessage"]), /as asked/);
}

test("a Go function runs with aws-lambda-go", async () => {
  const program = join(scratch, "bootstrap");
  execFileSync("go", ["build", "-ldflags", "-s -w", "-o", program, "."], {
    cwd: join(sources, "go"),
    env: { ...process.env, CGO_ENABLED: "0", GOFLAGS: "-mod=mod" },
    stdio: ["ignore", "ignore", "inherit"],
  });
  await create("go", [{ path: "bootstrap", content: await readFile(program), mode: 0o755 }], {});
  await check("go", "errorString");
});

test("a Node function runs with the client of the vendor's own runtime", async () => {
  const folder = join(scratch, "node");
  await mkdir(folder);
  await writeFile(
    join(folder, "app.js"),
    `exports.handler = async (event, context) => {
  if (event.fail) throw new RangeError("as asked");
  return { hello: event.name, arn: context.invokedFunctionArn, version: context.functionVersion };
};`,
  );
  await mkdir(join(folder, "ric"));
  for (const file of ["index.mjs", "package.json", "rapid-client.node"])
    await copyFile(join(clients, "nodejs", "node_modules", "aws-lambda-ric", file), join(folder, "ric", file));
  const command = ["--protocol", "lambda-runtime-api", "--command", "node ric/index.mjs"];
  const deployed = await platform.koine([
    "deploy",
    folder,
    "--name",
    "node-ric",
    "--runtime",
    "nodejs26.x",
    "--env",
    "_HANDLER=app.handler",
    ...command,
  ]);
  assert.equal(deployed.code, 0, deployed.stderr);
  const { result } = await call("node-ric", { name: "one" });
  assert.equal(result["hello"], "one");
  const failed = await call("node-ric", { fail: true });
  assert.ok(failed.isError);
  assert.equal(failed.result["errorType"], "RangeError");
});

test("a Python function runs with awslambdaric", async () => {
  const bootstrap = `#!/bin/sh
exec /usr/bin/python3 -m awslambdaric "$_HANDLER"
`;
  const arn = await layer("python-ric", [
    ...(await entriesOf(join(clients, "python"), "python/")),
    { path: "bootstrap", content: bootstrap, mode: 0o755 },
  ]);
  const content = `def handler(event, context):
    if event.get("fail"):
        raise ValueError("as asked")
    return {"hello": event["name"], "arn": context.invoked_function_arn, "version": context.function_version}
`;
  await create("python-ric", [{ path: "app.py", content }], { Layers: [arn] });
  await check("python-ric", "ValueError");
});

test("a Java function runs by its managed name with the runtime interface client of a layer, and says so when there is none", async () => {
  const jars = join(clients, "java");
  const source = join(sources, "java", "Hello.java");
  execFileSync("javac", ["--release", "17", "-cp", `${jars}/*`, "-d", join(scratch, "classes"), source]);
  const classes = await entriesOf(join(scratch, "classes"));
  const settings = { Runtime: "java17", Handler: "example.Hello::handleRequest" };
  await assert.rejects(create("java", classes, settings), /aws-lambda-java-runtime-interface-client/);
  const arn = await layer("java-ric", await entriesOf(jars, "java/lib/"));
  await create("java", classes, { ...settings, Layers: [arn] });
  await check("java", "java.lang.IllegalArgumentException");
});

test("a managed runtime that is not here is refused with what can be done", async () => {
  await assert.rejects(create("ruby", [{ path: "app.rb", content: "" }], { Runtime: "ruby3.4" }), /aws_lambda_ric/);
});

/** An extension as people write them: registers, asks for events, and tells of each. */
const EXTENSION = `#!/usr/bin/python3
import json, os, urllib.request
api = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2020-01-01/extension"
def ask(path, headers, body=None):
    return urllib.request.urlopen(urllib.request.Request(api + path, body, headers), timeout=60)
with ask("/register", {"Lambda-Extension-Name": "teller"}, json.dumps({"events": ["INVOKE", "SHUTDOWN"]}).encode()) as answer:
    identity = {"Lambda-Extension-Identifier": answer.headers["Lambda-Extension-Identifier"]}
    print("registered for", json.load(answer)["functionName"], flush=True)
while True:
    with ask("/event/next", identity) as answer:
        event = json.load(answer)
    print("told of", event["eventType"], event.get("requestId") or event["shutdownReason"], flush=True)
    if event["eventType"] == "SHUTDOWN":
        break
`;

test("extensions of layers run beside the runtime, are told of each call and, before the end, of that", async () => {
  const arn = await layer("teller", [{ path: "extensions/teller", content: EXTENSION, mode: 0o755 }]);
  const linesOf = async (name: string): Promise<string> => (await platform.koine(["logs", name])).stdout;
  const node = { path: "app.js", content: "exports.handler = async (event, context) => context.awsRequestId;" };
  await create("told", [node], { Runtime: "nodejs26.x", Layers: [arn] });
  const bootstrap = `#!/bin/sh
base="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
while true; do
  id=$(curl -sS -D - -o /dev/null "$base/next" | tr -d '\\r' | sed -n 's/^[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: //p')
  curl -sS -o /dev/null -X POST -d "\\"$id\\"" "$base/$id/response"
done
`;
  await create("told-shell", [{ path: "bootstrap", content: bootstrap, mode: 0o755 }], { Layers: [arn] });
  for (const name of ["told", "told-shell"]) {
    const { result } = await call(name, {});
    await eventually(`${name}'s extension was told`, async () => {
      // Should it begin so late that the instance stands still by then, a call lets it go on.
      await call(name, {});
      const lines = await linesOf(name);
      return lines.includes(`registered for ${name}`) && lines.includes(`told of INVOKE ${String(result)}`)
        ? true
        : null;
    });
  }
  await client.send(new UpdateFunctionConfigurationCommand({ FunctionName: "told", Description: "another version" }));
  await eventually("the extension was told of the end", async () =>
    (await linesOf("told")).includes("told of SHUTDOWN spindown") ? true : null,
  );
});
