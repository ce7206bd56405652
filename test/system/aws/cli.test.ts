import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { eventually, zip } from "../api.ts";
import { type RunningPlatform, startPlatform } from "../platform.ts";
import { runCli, runPython } from "./python-clients.ts";

const ROLE = "arn:aws:iam::000000000000:role/any";
const QUEUE = "arn:aws:sqs:us-east-1:000000000000";

const API = `const { greet } = require("greet");
exports.handler = async (event) => {
  console.log("greeting");
  return { statusCode: 200, body: greet(process.env.MARK ?? "one") };
};`;
const LAYER = `exports.greet = (who) => "hello from " + who;`;
const CONSUMER = `import json

def lambda_handler(event, context):
    failed = []
    for record in event["Records"]:
        if record["body"] == "poison":
            failed.append({"itemIdentifier": record["messageId"]})
        else:
            print("consumed", record["body"])
    return {"batchItemFailures": failed}
`;
const WORKER = `exports.handler = async (event) => {
  await new Promise((resolve) => setTimeout(resolve, 500));
  return { worked: event.n };
};`;

let platform: RunningPlatform;
let folder: string;
let secondPort: number;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "koine-cli-"));
  secondPort = await freePort();
  platform = await startPlatform({ env: { KOINE_SECOND_PORT: String(secondPort) } });
});

after(async () => {
  await platform.stop();
  await rm(folder, { recursive: true, force: true });
});

/** Runs a command line of the CLI and answers what it prints, which is JSON or nothing. */
async function aws(line: string, ...more: readonly string[]): Promise<Record<string, unknown>> {
  const run = await runCli(platform.url, [...line.trim().split(/\s+/), ...more], folder);
  assert.equal(run.code, 0, `aws ${line} ${more.join(" ")}\n${run.stderr}`);
  return run.stdout.trim() === "" ? {} : (JSON.parse(run.stdout) as Record<string, unknown>);
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

async function pack(name: string, files: Readonly<Record<string, string>>): Promise<string> {
  await writeFile(join(folder, name), zip(Object.entries(files).map(([path, content]) => ({ path, content }))));
  return `fileb://${name}`;
}

async function buildGo(): Promise<string> {
  const source = join(folder, "go");
  await cp(fileURLToPath(new URL("go", import.meta.url)), source, { recursive: true });
  const env = { ...process.env, CGO_ENABLED: "0", GOFLAGS: "-mod=mod" };
  const built = spawnSync("go", ["build", "-tags", "lambda.norpc", "-ldflags=-s", "-o", "bootstrap", "."], {
    cwd: source,
    env,
    encoding: "utf8",
  });
  assert.equal(built.status, 0, built.stderr);
  const content = await readFile(join(source, "bootstrap"));
  await writeFile(join(folder, "go.zip"), zip([{ path: "bootstrap", content, mode: 0o755 }]));
  return "fileb://go.zip";
}

async function get(address: string): Promise<{ readonly status: number; readonly text: string }> {
  const { host, pathname } = new URL(address);
  const { port } = new URL(platform.url);
  return await new Promise((resolve, reject) => {
    const sent = request({ host: "127.0.0.1", port, path: pathname, headers: { host } }, (incoming) => {
      let text = "";
      incoming.setEncoding("utf8").on("data", (piece: string) => void (text += piece));
      incoming.once("end", () => resolve({ status: incoming.statusCode ?? 0, text }));
    });
    sent.once("error", reject);
    sent.end();
  });
}

test("an application of several functions deploys with the CLI alone, and a kill -9 in the middle loses nothing", async (t) => {
  const [apiZip, layerZip, consumerZip, workerZip, goZip] = await Promise.all([
    pack("api.zip", { "index.js": API }),
    pack("layer.zip", { "nodejs/node_modules/greet/index.js": LAYER }),
    pack("consumer.zip", { "lambda_function.py": CONSUMER }),
    pack("worker.zip", { "index.js": WORKER }),
    buildGo(),
  ]);
  await t.test("functions in three languages, a layer, an alias with weights and an address", async () => {
    assert.equal((await aws("sts get-caller-identity"))["Account"], "000000000000");
    const layer = await aws(`lambda publish-layer-version --layer-name greet --zip-file ${layerZip}`);
    const create = `lambda create-function --role ${ROLE} --timeout 10`;
    await Promise.all([
      aws(
        `${create} --function-name api --runtime nodejs22.x --handler index.handler --zip-file ${apiZip} --layers ${String(layer["LayerVersionArn"])}`,
      ),
      aws(
        `${create} --function-name consumer --runtime python3.12 --handler lambda_function.lambda_handler --zip-file ${consumerZip} --timeout 2`,
      ),
      aws(`${create} --function-name worker --runtime nodejs22.x --handler index.handler --zip-file ${workerZip}`),
      aws(`${create} --function-name gopher --runtime provided.al2023 --handler bootstrap --zip-file ${goZip}`),
    ]);
    await aws("lambda wait function-active-v2 --function-name api");
    await aws("lambda publish-version --function-name api");
    await aws("lambda update-function-configuration --function-name api --environment Variables={MARK=two}");
    await aws("lambda wait function-updated-v2 --function-name api");
    await aws("lambda publish-version --function-name api");
    await aws(
      "lambda create-alias --function-name api --name live --function-version 1 --routing-config AdditionalVersionWeights={2=0.5}",
    );
    const url = await aws("lambda create-function-url-config --function-name api --qualifier live --auth-type NONE");
    const seen = new Set<string>();
    for (let call = 0; call < 64 && seen.size < 2; call++) {
      const { status, text } = await get(String(url["FunctionUrl"]));
      assert.equal(status, 200);
      seen.add(text);
    }
    assert.deepEqual([...seen].sort(), ["hello from one", "hello from two"]);
    const answer = await aws("lambda invoke --function-name gopher --payload {} out.json");
    assert.equal(answer["FunctionError"], undefined, await readFile(join(folder, "out.json"), "utf8"));
    assert.deepEqual(JSON.parse(await readFile(join(folder, "out.json"), "utf8")), { language: "go", bytes: 2 });
  });
  await t.test("queues, one with a dead-letter queue, and destinations", async () => {
    await aws("sqs create-queue --queue-name dead");
    const redrive = JSON.stringify({ deadLetterTargetArn: `${QUEUE}:dead`, maxReceiveCount: "2" });
    const attributes = JSON.stringify({ VisibilityTimeout: "2", RedrivePolicy: redrive });
    await Promise.all([
      aws("sqs create-queue --queue-name work --attributes", attributes),
      aws("sqs create-queue --queue-name results"),
    ]);
    await Promise.all([
      aws(
        `lambda create-event-source-mapping --function-name consumer --event-source-arn ${QUEUE}:work --no-enabled --function-response-types ReportBatchItemFailures`,
      ),
      aws(
        "lambda put-function-event-invoke-config --function-name worker --destination-config",
        JSON.stringify({ OnSuccess: { Destination: `${QUEUE}:results` } }),
      ),
    ]);
  });
  await t.test("what was accepted before a kill -9 is done after it", async () => {
    const QueueUrl = `${platform.url}/000000000000/work`;
    const bodies = [...Array.from({ length: 8 }, (_, n) => `message-${n}`), "poison"];
    const entries = JSON.stringify(bodies.map((MessageBody, n) => ({ Id: `m${n}`, MessageBody })));
    await aws(`sqs send-message-batch --queue-url ${QueueUrl} --entries`, entries);
    const later = "lambda invoke --function-name worker --invocation-type Event --payload";
    await Promise.all([1, 2, 3].map((n) => aws(later, JSON.stringify({ n }), `later-${n}.json`)));
    await platform.kill9();
    await platform.restart();
    const mappings = await aws("lambda list-event-source-mappings --function-name consumer");
    const [mapping] = mappings["EventSourceMappings"] as { UUID: string }[];
    await aws(`lambda update-event-source-mapping --uuid ${mapping?.UUID ?? ""} --enabled`);
    const results = new Set<unknown>();
    await eventually("the results of all events", async () => {
      const url = `${platform.url}/000000000000/results`;
      const got = await aws(`sqs receive-message --wait-time-seconds 5 --max-number-of-messages 10 --queue-url ${url}`);
      for (const { Body } of (got["Messages"] ?? []) as { Body: string }[])
        results.add((JSON.parse(Body) as { responsePayload: { worked: number } }).responsePayload.worked);
      return results.size === 3 ? results : null;
    });
    const letters = await eventually("the poison to be dead", async () => {
      const url = `${platform.url}/000000000000/dead`;
      const got = await aws(`sqs receive-message --wait-time-seconds 5 --queue-url ${url}`);
      return (got["Messages"] as { Body: string }[] | undefined) ?? null;
    });
    assert.deepEqual(
      letters.map(({ Body }) => Body),
      ["poison"],
    );
    const consumed = await eventually("all messages to be consumed", async () => {
      const found = await aws("logs filter-log-events --log-group-name /aws/lambda/consumer --filter-pattern consumed");
      const told = (found["events"] as { message: string }[]).flatMap(
        ({ message }) => /message-\d/.exec(message) ?? [],
      );
      return new Set(told).size === 8 ? told : null;
    });
    assert.ok(consumed.length >= 8);
  });
  await t.test("logs, figures and failures as the CLI shows them", async () => {
    const told = await aws("lambda invoke --function-name api --log-type Tail out.json");
    assert.match(Buffer.from(String(told["LogResult"]), "base64").toString("utf8"), /greeting/);
    const streams = await aws("logs describe-log-streams --log-group-name /aws/lambda/api");
    assert.ok((streams["logStreams"] as unknown[]).length > 0);
    const metric = {
      Id: "m",
      MetricStat: {
        Metric: {
          Namespace: "AWS/Lambda",
          MetricName: "Invocations",
          Dimensions: [{ Name: "FunctionName", Value: "api" }],
        },
        Period: 3_600,
        Stat: "Sum",
      },
    };
    const iso = (ms: number): string => new Date(ms).toISOString();
    const figures = await eventually("the figures", async () => {
      const data = await aws(
        `cloudwatch get-metric-data --start-time ${iso(Date.now() - 7_200_000)} --end-time ${iso(Date.now() + 60_000)} --metric-data-queries`,
        JSON.stringify([metric]),
      );
      const [result] = data["MetricDataResults"] as { Values: number[] }[];
      return (result?.Values.length ?? 0) > 0 ? result : null;
    });
    assert.ok((figures?.Values[0] ?? 0) > 0);
    const missing = await runCli(platform.url, ["lambda", "get-function", "--function-name", "nobody"], folder);
    assert.notEqual(missing.code, 0);
    assert.match(missing.stderr, /\(ResourceNotFoundException\).*GetFunction operation.*nobody/s);
  });
});

const BOTO = `
import json, sys, urllib.request, datetime
import boto3

client = boto3.client("lambda")
names = [f["FunctionName"] for page in client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2}) for f in page["Functions"]]
try:
    client.get_function(FunctionName="nobody")
    error = None
except client.exceptions.ResourceNotFoundException as thrown:
    error = thrown.response["Error"]["Code"]
try:
    client.create_alias(FunctionName="api", Name="live", FunctionVersion="1")
    conflict = None
except client.exceptions.ResourceConflictException as thrown:
    conflict = thrown.response["ResponseMetadata"]["HTTPStatusCode"]
signed = client.generate_presigned_url("get_function", Params={"FunctionName": "api"}, ExpiresIn=60)
fetched = json.load(urllib.request.urlopen(signed))
waited = client.get_waiter("function_active_v2").wait(FunctionName="api")
answer = client.invoke(FunctionName="gopher", Payload=b'{"a":1}')
streamed = [event for event in client.invoke_with_response_stream(FunctionName="worker", Payload=b'{"n":9}')["EventStream"]]
now = datetime.datetime.now(datetime.timezone.utc)
figures = boto3.client("cloudwatch").get_metric_statistics(Namespace="AWS/Lambda", MetricName="Duration", Dimensions=[{"Name": "FunctionName", "Value": "api"}], StartTime=now - datetime.timedelta(hours=2), EndTime=now + datetime.timedelta(minutes=1), Period=3600, Statistics=["Average"])
sqs = boto3.client("sqs")
queue = sqs.create_queue(QueueName="from-boto")["QueueUrl"]
sent = sqs.send_message(QueueUrl=queue, MessageBody="hello", MessageAttributes={"kind": {"DataType": "String", "StringValue": "test"}})
received = sqs.receive_message(QueueUrl=queue, MessageAttributeNames=["All"])["Messages"][0]
print(json.dumps({
    "names": names, "error": error, "conflict": conflict, "presigned": fetched["Configuration"]["FunctionName"],
    "payload": json.load(answer["Payload"]), "streamed": b"".join(e["PayloadChunk"]["Payload"] for e in streamed if "PayloadChunk" in e).decode(),
    "unit": figures["Datapoints"][0]["Unit"], "received": received["Body"], "attribute": received["MessageAttributes"]["kind"]["StringValue"],
    "who": boto3.client("sts").get_caller_identity()["Arn"],
}))
`;

test("the SDK for Python pages, raises errors by class, waits, presigns, streams and reads figures, at the second port", async () => {
  await writeFile(join(folder, "boto.py"), BOTO);
  const run = await runPython(`http://127.0.0.1:${secondPort}`, ["boto.py"], folder);
  assert.equal(run.code, 0, run.stderr);
  assert.deepEqual(JSON.parse(run.stdout), {
    names: ["api", "consumer", "gopher", "worker"],
    error: "ResourceNotFoundException",
    conflict: 409,
    presigned: "api",
    payload: { language: "go", bytes: 7 },
    streamed: '{"worked":9}',
    unit: "Milliseconds",
    received: "hello",
    attribute: "test",
    who: "arn:aws:iam::000000000000:root",
  });
});
