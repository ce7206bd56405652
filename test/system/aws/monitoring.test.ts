import {
  CloudWatchClient,
  GetMetricDataCommand,
  GetMetricStatisticsCommand,
  ListMetricsCommand,
} from "@aws-sdk/client-cloudwatch";
import { CreateFunctionCommand, InvokeCommand, LambdaClient } from "@aws-sdk/client-lambda";
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { zip } from "../api.ts";
import { type RunningPlatform, startPlatform } from "../platform.ts";

let platform: RunningPlatform;
let metrics: CloudWatchClient;
let lambda: LambdaClient;
const window = { StartTime: new Date(Date.now() - 3_600_000), EndTime: new Date(Date.now() + 3_600_000) };
const Dimensions = [{ Name: "FunctionName", Value: "counted" }];

before(async () => {
  platform = await startPlatform();
  const settings = {
    endpoint: platform.url,
    region: "us-east-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    maxAttempts: 1,
  };
  metrics = new CloudWatchClient(settings);
  lambda = new LambdaClient(settings);
  const content = "exports.handler = async ({ fail }) => { if (fail) throw new Error('asked'); };";
  const ZipFile = zip([{ path: "index.js", content }]);
  const Role = "arn:aws:iam::000000000000:role/any";
  await lambda.send(
    new CreateFunctionCommand({
      FunctionName: "counted",
      Role,
      Runtime: "nodejs22.x",
      Handler: "index.handler",
      Code: { ZipFile },
    }),
  );
  for (const fail of [false, false, true]) {
    const Payload = Buffer.from(JSON.stringify({ fail }));
    await lambda.send(new InvokeCommand({ FunctionName: "counted", Payload }));
  }
});

after(async () => {
  metrics.destroy();
  lambda.destroy();
  await platform.stop();
});

test("calls, errors and durations of a function are told as statistics", async () => {
  const ask = async (MetricName: string, Statistics: ("Sum" | "Average" | "SampleCount")[]) =>
    await metrics.send(
      new GetMetricStatisticsCommand({
        Namespace: "AWS/Lambda",
        MetricName,
        Dimensions,
        ...window,
        Period: 86_400,
        Statistics,
      }),
    );
  const total = async (name: string): Promise<number> =>
    ((await ask(name, ["Sum"])).Datapoints ?? []).reduce((sum, { Sum = 0 }) => sum + Sum, 0);
  assert.equal(await total("Invocations"), 3);
  assert.equal(await total("Errors"), 1);
  const { Datapoints = [] } = await ask("Duration", ["Average", "SampleCount"]);
  assert.ok(
    Datapoints.every(
      ({ Average = 0, Unit, Timestamp }) => Average > 0 && Unit === "Milliseconds" && Timestamp instanceof Date,
    ),
  );
});

test("metric data answers several questions at once, and metrics that are not measured with nothing", async () => {
  const question = (Id: string, MetricName: string, Stat: string) => ({
    Id,
    MetricStat: { Metric: { Namespace: "AWS/Lambda", MetricName, Dimensions }, Period: 86_400, Stat },
  });
  const { MetricDataResults = [] } = await metrics.send(
    new GetMetricDataCommand({
      ...window,
      MetricDataQueries: [
        question("a", "Invocations", "Sum"),
        question("b", "Duration", "p99"),
        question("c", "IteratorAge", "Maximum"),
      ],
    }),
  );
  const valuesOf = (id: string): readonly number[] => MetricDataResults.find(({ Id }) => Id === id)?.Values ?? [];
  assert.equal(
    valuesOf("a").reduce((sum, value) => sum + value, 0),
    3,
  );
  assert.ok((valuesOf("b")[0] ?? 0) > 0);
  assert.deepEqual(valuesOf("c"), []);
  const { Metrics = [] } = await metrics.send(
    new ListMetricsCommand({ Namespace: "AWS/Lambda", MetricName: "Errors" }),
  );
  assert.deepEqual(
    Metrics.map((metric) => metric.Dimensions),
    [Dimensions],
  );
});
