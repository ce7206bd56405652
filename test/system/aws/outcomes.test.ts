import {
  CreateAliasCommand,
  CreateFunctionCommand,
  DeleteFunctionConcurrencyCommand,
  DeleteProvisionedConcurrencyConfigCommand,
  GetProvisionedConcurrencyConfigCommand,
  InvokeCommand,
  LambdaClient,
  PublishVersionCommand,
  PutFunctionConcurrencyCommand,
  PutFunctionEventInvokeConfigCommand,
  PutProvisionedConcurrencyConfigCommand,
  UpdateFunctionConfigurationCommand,
} from "@aws-sdk/client-lambda";
import {
  CreateQueueCommand,
  DeleteMessageCommand,
  GetQueueAttributesCommand,
  type Message,
  ReceiveMessageCommand,
  SQSClient,
} from "@aws-sdk/client-sqs";
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { ActivationView, Page } from "../../../src/core/api.ts";
import { eventually, zip } from "../api.ts";
import { type RunningPlatform, startPlatform } from "../platform.ts";

const Role = "arn:aws:iam::000000000000:role/any";
const SOURCE = `exports.handler = async (event) => {
  if (event.fail) throw new TypeError("as asked");
  if (event.wait) await new Promise((resolve) => setTimeout(resolve, event.wait));
  if (event.requestContext) console.log("told", JSON.stringify(event));
  return { doubled: event.n * 2 };
};`;

let platform: RunningPlatform;
let client: LambdaClient;
let sqs: SQSClient;

before(async () => {
  platform = await startPlatform();
  connect();
});

after(async () => {
  client.destroy();
  sqs.destroy();
  await platform.stop();
});

function connect(): void {
  const credentials = { accessKeyId: "test", secretAccessKey: "test" };
  const shared = { endpoint: platform.url, region: "us-east-1", credentials, maxAttempts: 1 };
  client = new LambdaClient(shared);
  sqs = new SQSClient(shared);
}

async function create(FunctionName: string, more: object = {}): Promise<void> {
  const ZipFile = zip([{ path: "index.js", content: SOURCE }]);
  await client.send(
    new CreateFunctionCommand({
      FunctionName,
      Role,
      Runtime: "nodejs22.x",
      Handler: "index.handler",
      Code: { ZipFile },
      Timeout: 20,
      ...more,
    }),
  );
}

async function call(FunctionName: string, event: unknown = {}, more: object = {}) {
  return await client.send(new InvokeCommand({ FunctionName, Payload: Buffer.from(JSON.stringify(event)), ...more }));
}

async function createQueue(QueueName: string): Promise<{ readonly url: string; readonly arn: string }> {
  const { QueueUrl = "" } = await sqs.send(new CreateQueueCommand({ QueueName }));
  const { Attributes } = await sqs.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["QueueArn"] }));
  return { url: QueueUrl, arn: Attributes?.["QueueArn"] ?? "" };
}

async function receive(QueueUrl: string): Promise<Message> {
  const { Messages = [] } = await sqs.send(
    new ReceiveMessageCommand({ QueueUrl, WaitTimeSeconds: 20, MessageAttributeNames: ["All"] }),
  );
  const [message] = Messages;
  assert.ok(message, "no message came");
  await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: message.ReceiptHandle }));
  return message;
}

async function activations(name: string): Promise<readonly ActivationView[]> {
  const answer = await fetch(`${platform.url}/v1/namespaces/default/activations?function=${name}`);
  return ((await answer.json()) as Page<ActivationView>).items;
}

test("a failed event goes to its destination with its record, and to the dead-letter queue with its attributes", async () => {
  const failures = await createQueue("failures");
  const dead = await createQueue("dead");
  await create("failing", { DeadLetterConfig: { TargetArn: dead.arn } });
  await client.send(
    new PutFunctionEventInvokeConfigCommand({
      FunctionName: "failing",
      MaximumRetryAttempts: 0,
      DestinationConfig: { OnFailure: { Destination: failures.arn } },
    }),
  );
  const { $metadata } = await call("failing", { fail: true, n: 1 }, { InvocationType: "Event" });
  const record = JSON.parse((await receive(failures.url)).Body ?? "") as Record<string, Record<string, unknown>>;
  assert.deepEqual(record["requestContext"], {
    requestId: $metadata.requestId,
    functionArn: "arn:aws:lambda:us-east-1:000000000000:function:failing:$LATEST",
    condition: "RetriesExhausted",
    approximateInvokeCount: 1,
  });
  assert.equal(record["version"], "1.0");
  assert.deepEqual(record["requestPayload"], { fail: true, n: 1 });
  assert.deepEqual(record["responseContext"], {
    statusCode: 200,
    executedVersion: "$LATEST",
    functionError: "Unhandled",
  });
  assert.equal(record["responsePayload"]?.["errorType"], "TypeError");
  assert.equal(record["responsePayload"]["errorMessage"], "as asked");
  const letter = await receive(dead.url);
  assert.deepEqual(JSON.parse(letter.Body ?? ""), { fail: true, n: 1 });
  assert.equal(letter.MessageAttributes?.["RequestID"]?.StringValue, $metadata.requestId);
  assert.equal(letter.MessageAttributes?.["ErrorCode"]?.StringValue, "200");
  assert.equal(letter.MessageAttributes?.["ErrorMessage"]?.StringValue, "as asked");
  // What its queues have need not be kept twice.
  const letters = await fetch(`${platform.url}/v1/namespaces/default/dead-letters?function=failing`);
  assert.deepEqual(((await letters.json()) as Page<unknown>).items, []);
});

test("a success goes to a queue, or to a function as an event of its own", async () => {
  const successes = await createQueue("successes");
  await create("told");
  await create("working");
  const config = (Destination: string) =>
    new PutFunctionEventInvokeConfigCommand({
      FunctionName: "working",
      DestinationConfig: { OnSuccess: { Destination } },
    });
  await client.send(config(successes.arn));
  await call("working", { n: 4 }, { InvocationType: "Event" });
  const record = JSON.parse((await receive(successes.url)).Body ?? "") as Record<string, Record<string, unknown>>;
  assert.equal(record["requestContext"]?.["condition"], "Success");
  assert.deepEqual(record["responsePayload"], { doubled: 8 });
  await client.send(config("arn:aws:lambda:us-east-1:000000000000:function:told"));
  await call("working", { n: 5 }, { InvocationType: "Event" });
  await eventually("the destination's run", async () => {
    const runs = await activations("told");
    return runs.some(({ state }) => state === "succeeded") ? runs : null;
  });
});

test("a destination that nothing could reach is refused, with what there is", async () => {
  await create("strict");
  const put = (Destination: string) =>
    client.send(
      new PutFunctionEventInvokeConfigCommand({
        FunctionName: "strict",
        DestinationConfig: { OnFailure: { Destination } },
      }),
    );
  await assert.rejects(put("arn:aws:sqs:us-east-1:000000000000:nowhere"), /there is no such queue/);
  await assert.rejects(put("arn:aws:sns:us-east-1:000000000000:topic"), /there is no service 'sns' here yet/);
  await assert.rejects(put("arn:aws:lambda:us-east-1:000000000000:function:nobody"), /there is no such function/);
  const update = new UpdateFunctionConfigurationCommand({
    FunctionName: "strict",
    DeadLetterConfig: { TargetArn: "arn:aws:lambda:us-east-1:000000000000:function:strict" },
  });
  await assert.rejects(client.send(update), /must be the ARN of a queue/);
});

test("reserved concurrency bounds all versions together, from the next call on, and 0 stops them", async () => {
  const FunctionName = "bounded";
  await create(FunctionName);
  await client.send(new PublishVersionCommand({ FunctionName }));
  await call(FunctionName, { n: 1 }, { Qualifier: "1" });
  await client.send(new PutFunctionConcurrencyCommand({ FunctionName, ReservedConcurrentExecutions: 1 }));
  const busy = call(FunctionName, { wait: 4_000 }, { Qualifier: "1" });
  const throttled = (thrown: unknown): boolean =>
    thrown instanceof Error && thrown.name === "TooManyRequestsException" && /Rate Exceeded/.test(thrown.message);
  await eventually("the other version to be refused", async () => {
    try {
      await call(FunctionName, { n: 1 });
      return null;
    } catch (thrown) {
      return throttled(thrown) ? true : null;
    }
  });
  assert.equal((await busy).FunctionError, undefined);
  await client.send(new PutFunctionConcurrencyCommand({ FunctionName, ReservedConcurrentExecutions: 0 }));
  await assert.rejects(call(FunctionName, { n: 1 }), throttled);
  await assert.rejects(call(FunctionName, { n: 1 }, { Qualifier: "1" }), throttled);
  await client.send(new DeleteFunctionConcurrencyCommand({ FunctionName }));
  assert.equal((await call(FunctionName, { n: 1 })).StatusCode, 200);
});

test("provisioned instances are there before the first call, and again after a kill -9", async () => {
  const FunctionName = "ready";
  await create(FunctionName);
  await client.send(new PublishVersionCommand({ FunctionName }));
  await client.send(new CreateAliasCommand({ FunctionName, Name: "live", FunctionVersion: "1" }));
  const one = { FunctionName, Qualifier: "live" };
  const put = await client.send(
    new PutProvisionedConcurrencyConfigCommand({ ...one, ProvisionedConcurrentExecutions: 2 }),
  );
  assert.equal(put.Status, "IN_PROGRESS");
  assert.equal(put.AvailableProvisionedConcurrentExecutions, 0);
  const becomesReady = async (): Promise<void> => {
    await eventually("both to be ready", async () => {
      const state = await client.send(new GetProvisionedConcurrencyConfigCommand(one));
      return state.Status === "READY" && state.AvailableProvisionedConcurrentExecutions === 2 ? state : null;
    });
  };
  await becomesReady();
  await Promise.all([call(FunctionName, { wait: 200 }, one), call(FunctionName, { wait: 200 }, one)]);
  const runs = await eventually("both runs", async () => {
    const found = await activations(FunctionName);
    return found.length === 2 ? found : null;
  });
  assert.deepEqual(
    runs.map(({ cold }) => cold),
    [false, false],
  );
  await platform.kill9();
  await platform.restart();
  client.destroy();
  sqs.destroy();
  connect();
  await becomesReady();
  await client.send(new DeleteProvisionedConcurrencyConfigCommand(one));
  await assert.rejects(
    client.send(new GetProvisionedConcurrencyConfigCommand(one)),
    (thrown) => thrown instanceof Error && thrown.name === "ProvisionedConcurrencyConfigNotFoundException",
  );
});
