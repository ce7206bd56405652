import {
  CloudWatchLogsClient,
  CreateLogGroupCommand,
  CreateLogStreamCommand,
  DeleteLogGroupCommand,
  DeleteLogStreamCommand,
  DeleteRetentionPolicyCommand,
  DescribeLogGroupsCommand,
  DescribeLogStreamsCommand,
  FilterLogEventsCommand,
  type FilterLogEventsCommandOutput,
  GetLogEventsCommand,
  ListTagsForResourceCommand,
  ListTagsLogGroupCommand,
  PutLogEventsCommand,
  PutRetentionPolicyCommand,
  StartLiveTailCommand,
  TagLogGroupCommand,
  TagResourceCommand,
  UntagLogGroupCommand,
  UntagResourceCommand,
} from "@aws-sdk/client-cloudwatch-logs";
import { CreateFunctionCommand, InvokeCommand, LambdaClient } from "@aws-sdk/client-lambda";
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { zip } from "../api.ts";
import { type RunningPlatform, startPlatform } from "../platform.ts";

let platform: RunningPlatform;
let logs: CloudWatchLogsClient;
let lambda: LambdaClient;

before(async () => {
  platform = await startPlatform();
  const settings = {
    endpoint: platform.url,
    region: "us-east-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    maxAttempts: 1,
  };
  logs = new CloudWatchLogsClient({ ...settings, disableHostPrefix: true });
  lambda = new LambdaClient(settings);
  const content =
    "exports.handler = async ({ level, n }) => { process.stdout.write(JSON.stringify({ level, n }) + String.fromCharCode(10)); };";
  const ZipFile = zip([{ path: "index.js", content }]);
  const Role = "arn:aws:iam::000000000000:role/any";
  await lambda.send(
    new CreateFunctionCommand({
      FunctionName: "talks",
      Role,
      Runtime: "nodejs22.x",
      Handler: "index.handler",
      Code: { ZipFile },
    }),
  );
});

after(async () => {
  logs.destroy();
  lambda.destroy();
  await platform.stop();
});

const named = (name: string) => (thrown: unknown) => thrown instanceof Error && thrown.name === name;

async function say(level: string, n: number): Promise<void> {
  await lambda.send(new InvokeCommand({ FunctionName: "talks", Payload: Buffer.from(JSON.stringify({ level, n })) }));
}

test("what a function writes is in its group, in a stream of its instance, and found by patterns", async () => {
  for (let n = 0; n < 6; n++) await say(n % 3 === 0 ? "error" : "info", n);
  const logGroupName = "/aws/lambda/talks";
  const groups = await logs.send(new DescribeLogGroupsCommand({ logGroupNamePrefix: "/aws/lambda/" }));
  assert.deepEqual(
    groups.logGroups?.map((group) => group.logGroupName),
    [logGroupName],
  );
  const filterPattern = '{ $.level = "error" }';
  const found = await logs.send(new FilterLogEventsCommand({ logGroupName, filterPattern }));
  assert.deepEqual(
    found.events?.map(({ message }) => (JSON.parse(message ?? "") as { n: number }).n),
    [0, 3],
  );
  const { logStreams = [] } = await logs.send(
    new DescribeLogStreamsCommand({ logGroupName, orderBy: "LastEventTime", descending: true }),
  );
  assert.match(logStreams[0]?.logStreamName ?? "", /^\d{4}\/\d{2}\/\d{2}\/\[\$LATEST\][0-9a-f]{32}$/);

  const seen: number[] = [];
  for (let nextToken: string | undefined; ;) {
    const page: FilterLogEventsCommandOutput = await logs.send(
      new FilterLogEventsCommand({
        logGroupName,
        filterPattern: "{ $.n = * }",
        limit: 2,
        ...(nextToken === undefined ? {} : { nextToken }),
      }),
    );
    seen.push(...(page.events ?? []).map(({ message }) => (JSON.parse(message ?? "") as { n: number }).n));
    nextToken = page.nextToken;
    if (nextToken === undefined) break;
  }
  assert.deepEqual(seen, [0, 1, 2, 3, 4, 5]);
});

test("a stream is read from its head and from its end, page by page, until nothing more comes", async () => {
  const logGroupName = "own/group";
  const logStreamName = "one";
  await logs.send(new CreateLogGroupCommand({ logGroupName }));
  await assert.rejects(logs.send(new CreateLogGroupCommand({ logGroupName })), named("ResourceAlreadyExistsException"));
  await assert.rejects(
    logs.send(
      new PutLogEventsCommand({ logGroupName, logStreamName, logEvents: [{ timestamp: Date.now(), message: "x" }] }),
    ),
    named("ResourceNotFoundException"),
  );
  await logs.send(new CreateLogStreamCommand({ logGroupName, logStreamName }));
  const now = Date.now();
  const logEvents = Array.from({ length: 5 }, (_, index) => ({ timestamp: now + index, message: `line ${index}` }));
  const put = await logs.send(
    new PutLogEventsCommand({
      logGroupName,
      logStreamName,
      logEvents: [{ timestamp: now - 30 * 24 * 3_600_000, message: "too old" }, ...logEvents],
    }),
  );
  assert.equal(put.rejectedLogEventsInfo?.tooOldLogEventEndIndex, 1);
  const head = await logs.send(new GetLogEventsCommand({ logGroupName, logStreamName, startFromHead: true, limit: 3 }));
  assert.deepEqual(
    head.events?.map(({ message }) => message),
    ["line 0", "line 1", "line 2"],
  );
  const rest = await logs.send(
    new GetLogEventsCommand({ logGroupName, logStreamName, nextToken: head.nextForwardToken }),
  );
  assert.deepEqual(
    rest.events?.map(({ message }) => message),
    ["line 3", "line 4"],
  );
  const end = await logs.send(
    new GetLogEventsCommand({ logGroupName, logStreamName, nextToken: rest.nextForwardToken }),
  );
  assert.deepEqual(end.events, []);
  assert.equal(end.nextForwardToken, rest.nextForwardToken);
  const tail = await logs.send(new GetLogEventsCommand({ logGroupName, logStreamName, limit: 2 }));
  assert.deepEqual(
    tail.events?.map(({ message }) => message),
    ["line 3", "line 4"],
  );
  const earlier = await logs.send(
    new GetLogEventsCommand({ logGroupName, logStreamName, limit: 2, nextToken: tail.nextBackwardToken }),
  );
  assert.deepEqual(
    earlier.events?.map(({ message }) => message),
    ["line 1", "line 2"],
  );
  await logs.send(new DeleteLogStreamCommand({ logGroupName, logStreamName }));
  await logs.send(new DeleteLogGroupCommand({ logGroupName }));
  await assert.rejects(logs.send(new FilterLogEventsCommand({ logGroupName })), named("ResourceNotFoundException"));
});

test("retention and tags of a group are kept, of a function's too", async () => {
  const logGroupName = "/aws/lambda/talks";
  await logs.send(new PutRetentionPolicyCommand({ logGroupName, retentionInDays: 7 }));
  const told = await logs.send(new DescribeLogGroupsCommand({ logGroupNamePrefix: logGroupName }));
  assert.equal(told.logGroups?.[0]?.retentionInDays, 7);
  await assert.rejects(
    logs.send(new PutRetentionPolicyCommand({ logGroupName, retentionInDays: 8 })),
    (thrown) => thrown instanceof Error,
  );
  await logs.send(new DeleteRetentionPolicyCommand({ logGroupName }));
  const resourceArn = told.logGroups?.[0]?.logGroupArn ?? "";
  await logs.send(new TagResourceCommand({ resourceArn, tags: { a: "1", b: "2" } }));
  await logs.send(new UntagResourceCommand({ resourceArn, tagKeys: ["a"] }));
  await logs.send(new TagLogGroupCommand({ logGroupName, tags: { c: "3" } }));
  assert.deepEqual((await logs.send(new ListTagsForResourceCommand({ resourceArn }))).tags, { b: "2", c: "3" });
  await logs.send(new UntagLogGroupCommand({ logGroupName, tags: ["b"] }));
  assert.deepEqual((await logs.send(new ListTagsLogGroupCommand({ logGroupName }))).tags, { c: "3" });
});

test("a live tail tells new lines as they are written", async () => {
  const logGroupIdentifiers = ["arn:aws:logs:us-east-1:000000000000:log-group:/aws/lambda/talks"];
  const { responseStream } = await logs.send(
    new StartLiveTailCommand({ logGroupIdentifiers, logEventFilterPattern: "live" }),
  );
  assert.ok(responseStream !== undefined);
  let started = false;
  for await (const event of responseStream) {
    if (event.sessionStart !== undefined) {
      started = true;
      await say("live", 99);
    }
    const results = event.sessionUpdate?.sessionResults ?? [];
    if (results.length === 0) continue;
    assert.match(results[0]?.message ?? "", /"n":99/);
    break;
  }
  assert.ok(started);
});

test("a pattern that cannot be read is the caller's error", async () => {
  await assert.rejects(
    logs.send(new FilterLogEventsCommand({ logGroupName: "/aws/lambda/talks", filterPattern: "{ $.a = " })),
    named("InvalidParameterException"),
  );
});
