import {
  CreateEventSourceMappingCommand,
  CreateFunctionCommand,
  DeleteEventSourceMappingCommand,
  GetEventSourceMappingCommand,
  LambdaClient,
  ListEventSourceMappingsCommand,
  UpdateEventSourceMappingCommand,
} from "@aws-sdk/client-lambda";
import {
  CreateQueueCommand,
  GetQueueAttributesCommand,
  ReceiveMessageCommand,
  SendMessageBatchCommand,
  SendMessageCommand,
  SQSClient,
} from "@aws-sdk/client-sqs";
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { LogView, Page } from "../../../src/core/api.ts";
import { eventually, zip } from "../api.ts";
import { type RunningPlatform, startPlatform } from "../platform.ts";

let platform: RunningPlatform;
let lambda: LambdaClient;
let sqs: SQSClient;

function connect(): void {
  const settings = {
    endpoint: platform.url,
    region: "us-east-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    maxAttempts: 1,
  };
  lambda = new LambdaClient(settings);
  sqs = new SQSClient({ ...settings, useQueueUrlAsEndpoint: false });
}

before(async () => {
  platform = await startPlatform();
  connect();
});

after(async () => {
  lambda.destroy();
  sqs.destroy();
  await platform.stop();
});

const named = (name: string) => (thrown: unknown) => thrown instanceof Error && thrown.name === name;

async function queue(
  QueueName: string,
  Attributes: Record<string, string> = {},
): Promise<{ readonly url: string; readonly arn: string }> {
  const url = (await sqs.send(new CreateQueueCommand({ QueueName, Attributes }))).QueueUrl ?? "";
  const told = await sqs.send(new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames: ["QueueArn"] }));
  return { url, arn: told.Attributes?.QueueArn ?? "" };
}

async function consumer(FunctionName: string, body: string): Promise<void> {
  const content = `const write = (line) => process.stdout.write(line + "\\n");
exports.handler = async (event) => { ${body} };`;
  const ZipFile = zip([{ path: "index.js", content }]);
  const Role = "arn:aws:iam::000000000000:role/any";
  await lambda.send(
    new CreateFunctionCommand({
      FunctionName,
      Role,
      Runtime: "nodejs22.x",
      Handler: "index.handler",
      Code: { ZipFile },
    }),
  );
}

/** What a function has logged so far. */
async function logged(name: string): Promise<readonly string[]> {
  const answer = await fetch(`${platform.url}/v1/namespaces/default/functions/${name}/logs?limit=10000`);
  return ((await answer.json()) as Page<LogView>).items.map(({ line }) => line);
}

test("every message reaches the function, with what the service knows of it, and is gone then", async () => {
  const { url, arn } = await queue("numbers");
  await consumer(
    "adder",
    "for (const record of event.Records) write('got ' + record.body + ' ' + record.eventSource);",
  );
  const made = await lambda.send(
    new CreateEventSourceMappingCommand({ FunctionName: "adder", EventSourceArn: arn, BatchSize: 5 }),
  );
  assert.equal(made.State, "Creating");
  for (let round = 0; round < 3; round++) {
    const Entries = Array.from({ length: 10 }, (_, index) => ({
      Id: `e${index}`,
      MessageBody: String(round * 10 + index),
    }));
    await sqs.send(new SendMessageBatchCommand({ QueueUrl: url, Entries }));
  }
  const lines = await eventually("thirty messages", async () => {
    const seen = (await logged("adder")).filter((line) => line.startsWith("got "));
    return seen.length >= 30 ? seen : null;
  });
  assert.deepEqual(
    lines.map((line) => Number(line.split(" ")[1])).sort((a, b) => a - b),
    Array.from({ length: 30 }, (_, index) => index),
  );
  assert.ok(lines.every((line) => line.endsWith("aws:sqs")));
  await eventually("an empty queue", async () => {
    const { Attributes } = await sqs.send(new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames: ["All"] }));
    return Attributes?.ApproximateNumberOfMessages === "0" && Attributes.ApproximateNumberOfMessagesNotVisible === "0"
      ? true
      : null;
  });
});

test("of a batch that fails in part only that part comes again, until it is a dead letter", async () => {
  const dead = await queue("parts-dead");
  const { url, arn } = await queue("parts", {
    VisibilityTimeout: "1",
    RedrivePolicy: JSON.stringify({ deadLetterTargetArn: dead.arn, maxReceiveCount: 2 }),
  });
  await consumer(
    "partial",
    `const batchItemFailures = [];
     for (const { messageId, body } of event.Records) {
       write("try " + body);
       if (body === "bad") batchItemFailures.push({ itemIdentifier: messageId });
     }
     return { batchItemFailures };`,
  );
  const FunctionResponseTypes = ["ReportBatchItemFailures" as const];
  await lambda.send(
    new CreateEventSourceMappingCommand({ FunctionName: "partial", EventSourceArn: arn, FunctionResponseTypes }),
  );
  const Entries = ["good", "bad", "fine"].map((MessageBody) => ({ Id: MessageBody, MessageBody }));
  await sqs.send(new SendMessageBatchCommand({ QueueUrl: url, Entries }));
  const buried = await eventually("the dead letter", async () => {
    const { Messages } = await sqs.send(new ReceiveMessageCommand({ QueueUrl: dead.url, WaitTimeSeconds: 1 }));
    return Messages ?? null;
  });
  assert.deepEqual(
    buried.map(({ Body }) => Body),
    ["bad"],
  );
  const tries = (await logged("partial")).filter((line) => line.startsWith("try "));
  assert.deepEqual(tries.toSorted(), ["try bad", "try bad", "try fine", "try good"]);
});

test("filters keep out what the function does not want, and a disabled mapping keeps everything in the queue", async () => {
  const { url, arn } = await queue("filtered");
  await consumer("picky", "for (const { body } of event.Records) write('picked ' + body);");
  const FilterCriteria = { Filters: [{ Pattern: JSON.stringify({ body: { kind: ["wanted"] } }) }] };
  const { UUID } = await lambda.send(
    new CreateEventSourceMappingCommand({ FunctionName: "picky", EventSourceArn: arn, FilterCriteria }),
  );
  for (const kind of ["other", "wanted"])
    await sqs.send(new SendMessageCommand({ QueueUrl: url, MessageBody: JSON.stringify({ kind }) }));
  const lines = await eventually("the wanted one", async () => {
    const seen = (await logged("picky")).filter((line) => line.startsWith("picked "));
    return seen.length > 0 ? seen : null;
  });
  assert.deepEqual(lines, ['picked {"kind":"wanted"}']);
  await lambda.send(new UpdateEventSourceMappingCommand({ UUID, Enabled: false }));
  assert.equal((await lambda.send(new GetEventSourceMappingCommand({ UUID }))).State, "Disabled");
  await sqs.send(new SendMessageCommand({ QueueUrl: url, MessageBody: '{"kind":"wanted","late":true}' }));
  assert.equal(
    (await lambda.send(new ListEventSourceMappingsCommand({ FunctionName: "picky" }))).EventSourceMappings?.length,
    1,
  );
  await platform.kill9();
  await platform.restart();
  connect();
  assert.equal((await logged("picky")).filter((line) => line.includes("late")).length, 0);
  await lambda.send(new UpdateEventSourceMappingCommand({ UUID, Enabled: true }));
  await eventually("the late one", async () =>
    (await logged("picky")).some((line) => line.includes("late")) ? true : null,
  );
  await lambda.send(new DeleteEventSourceMappingCommand({ UUID }));
  await assert.rejects(lambda.send(new GetEventSourceMappingCommand({ UUID })), named("ResourceNotFoundException"));
});

test("a mapping from nothing, to nothing, or twice is refused", async () => {
  const { arn } = await queue("refused");
  await consumer("refusing", "return null;");
  const one = { FunctionName: "refusing", EventSourceArn: arn };
  await assert.rejects(
    lambda.send(new CreateEventSourceMappingCommand({ ...one, FunctionName: "nobody" })),
    named("ResourceNotFoundException"),
  );
  await assert.rejects(
    lambda.send(new CreateEventSourceMappingCommand({ ...one, EventSourceArn: `${arn}x` })),
    named("InvalidParameterValueException"),
  );
  await assert.rejects(
    lambda.send(new CreateEventSourceMappingCommand({ ...one, BatchSize: 100 })),
    named("InvalidParameterValueException"),
  );
  const FilterCriteria = { Filters: [{ Pattern: '{"body": "not a list"}' }] };
  await assert.rejects(
    lambda.send(new CreateEventSourceMappingCommand({ ...one, FilterCriteria })),
    named("InvalidParameterValueException"),
  );
  await lambda.send(new CreateEventSourceMappingCommand({ ...one, Enabled: false }));
  await assert.rejects(lambda.send(new CreateEventSourceMappingCommand(one)), named("ResourceConflictException"));
});
