import {
  AddPermissionCommand,
  CancelMessageMoveTaskCommand,
  ChangeMessageVisibilityBatchCommand,
  ChangeMessageVisibilityCommand,
  CreateQueueCommand,
  DeleteMessageBatchCommand,
  DeleteMessageCommand,
  DeleteQueueCommand,
  GetQueueAttributesCommand,
  GetQueueUrlCommand,
  ListDeadLetterSourceQueuesCommand,
  ListMessageMoveTasksCommand,
  ListQueuesCommand,
  ListQueueTagsCommand,
  PurgeQueueCommand,
  ReceiveMessageCommand,
  RemovePermissionCommand,
  SendMessageBatchCommand,
  SendMessageCommand,
  SetQueueAttributesCommand,
  SQSClient,
  StartMessageMoveTaskCommand,
  TagQueueCommand,
  UntagQueueCommand,
} from "@aws-sdk/client-sqs";
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventually } from "../api.ts";
import { type RunningPlatform, startPlatform } from "../platform.ts";

let platform: RunningPlatform;
let client: SQSClient;

function connect(): SQSClient {
  return new SQSClient({
    endpoint: platform.url,
    region: "us-east-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    maxAttempts: 1,
    useQueueUrlAsEndpoint: false,
  });
}

before(async () => {
  platform = await startPlatform();
  client = connect();
});

after(async () => {
  client.destroy();
  await platform.stop();
});

const named = (name: string) => (thrown: unknown) => thrown instanceof Error && thrown.name === name;

async function create(QueueName: string, Attributes: Record<string, string> = {}): Promise<string> {
  return (await client.send(new CreateQueueCommand({ QueueName, Attributes }))).QueueUrl ?? "";
}

test("a message is sent with its attributes, received with what the service adds, and deleted", async () => {
  const QueueUrl = await create("orders");
  assert.equal(QueueUrl, `${platform.url}/000000000000/orders`);
  const sent = await client.send(
    new SendMessageCommand({
      QueueUrl,
      MessageBody: "hello ä",
      MessageAttributes: {
        kind: { DataType: "String", StringValue: "greeting" },
        raw: { DataType: "Binary", BinaryValue: Buffer.from([1, 2]) },
      },
    }),
  );
  assert.match(sent.MessageId ?? "", /^[0-9a-f-]{36}$/);
  const { Messages } = await client.send(
    new ReceiveMessageCommand({
      QueueUrl,
      MessageAttributeNames: ["All"],
      MessageSystemAttributeNames: ["All"],
      WaitTimeSeconds: 1,
    }),
  );
  const [message] = Messages ?? [];
  assert.equal(message?.Body, "hello ä");
  assert.equal(message?.MessageAttributes?.["kind"]?.StringValue, "greeting");
  assert.deepEqual([...(message?.MessageAttributes?.["raw"]?.BinaryValue ?? [])], [1, 2]);
  assert.equal(message?.MD5OfMessageAttributes, sent.MD5OfMessageAttributes);
  assert.equal(message?.Attributes?.ApproximateReceiveCount, "1");
  await client.send(
    new ChangeMessageVisibilityCommand({ QueueUrl, ReceiptHandle: message?.ReceiptHandle, VisibilityTimeout: 0 }),
  );
  const again = await client.send(new ReceiveMessageCommand({ QueueUrl, WaitTimeSeconds: 1 }));
  await client.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: again.Messages?.[0]?.ReceiptHandle }));
  const counts = await client.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["All"] }));
  assert.equal(counts.Attributes?.ApproximateNumberOfMessages, "0");
  assert.equal(counts.Attributes?.QueueArn, "arn:aws:sqs:us-east-1:000000000000:orders");
});

test("who waits gets a message the moment it is sent", async () => {
  const QueueUrl = await create("waiting");
  const received = client.send(new ReceiveMessageCommand({ QueueUrl, WaitTimeSeconds: 20 }));
  await client.send(new SendMessageCommand({ QueueUrl, MessageBody: "now" }));
  assert.equal((await received).Messages?.[0]?.Body, "now");
});

test("batches say of each entry how it went", async () => {
  const QueueUrl = await create("batches");
  const Entries = Array.from({ length: 10 }, (_, index) => ({ Id: `e${index}`, MessageBody: `m${index}` }));
  assert.equal((await client.send(new SendMessageBatchCommand({ QueueUrl, Entries }))).Successful?.length, 10);
  const { Messages = [] } = await client.send(new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10 }));
  assert.equal(Messages.length, 10);
  const visibility = Messages.slice(0, 2).map(({ ReceiptHandle }, index) => ({
    Id: `v${index}`,
    ReceiptHandle,
    VisibilityTimeout: 60,
  }));
  const changed = await client.send(
    new ChangeMessageVisibilityBatchCommand({
      QueueUrl,
      Entries: [...visibility, { Id: "bad", ReceiptHandle: "no", VisibilityTimeout: 1 }],
    }),
  );
  assert.equal(changed.Successful?.length, 2);
  assert.equal(changed.Failed?.[0]?.Code, "ReceiptHandleIsInvalid");
  const deletions = Messages.map(({ ReceiptHandle }, index) => ({ Id: `d${index}`, ReceiptHandle }));
  assert.equal(
    (await client.send(new DeleteMessageBatchCommand({ QueueUrl, Entries: deletions }))).Successful?.length,
    10,
  );
  await assert.rejects(client.send(new SendMessageBatchCommand({ QueueUrl, Entries: [] })), named("EmptyBatchRequest"));
  const twice = [
    { Id: "a", MessageBody: "1" },
    { Id: "a", MessageBody: "2" },
  ];
  await assert.rejects(
    client.send(new SendMessageBatchCommand({ QueueUrl, Entries: twice })),
    named("BatchEntryIdsNotDistinct"),
  );
});

test("a FIFO queue keeps the order of a group and takes the same message once", async () => {
  const QueueUrl = await create("orders.fifo", { FifoQueue: "true", ContentBasedDeduplication: "true" });
  for (const MessageBody of ["1", "2", "2", "3"])
    await client.send(new SendMessageCommand({ QueueUrl, MessageBody, MessageGroupId: "g" }));
  const { Messages = [] } = await client.send(
    new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10, MessageSystemAttributeNames: ["All"] }),
  );
  assert.deepEqual(
    Messages.map(({ Body }) => Body),
    ["1", "2", "3"],
  );
  assert.match(Messages[0]?.Attributes?.SequenceNumber ?? "", /^\d{20}$/);
  await assert.rejects(
    client.send(new SendMessageCommand({ QueueUrl, MessageBody: "no group" })),
    named("MissingParameter"),
  );
});

test("queues are found, listed, changed, tagged and removed", async () => {
  const QueueUrl = await create("managed", { VisibilityTimeout: "5" });
  assert.equal(await create("managed", { VisibilityTimeout: "5" }), QueueUrl);
  await assert.rejects(create("managed", { VisibilityTimeout: "6" }), named("QueueNameExists"));
  assert.equal((await client.send(new GetQueueUrlCommand({ QueueName: "managed" }))).QueueUrl, QueueUrl);
  assert.deepEqual((await client.send(new ListQueuesCommand({ QueueNamePrefix: "manag" }))).QueueUrls, [QueueUrl]);
  await client.send(new SetQueueAttributesCommand({ QueueUrl, Attributes: { DelaySeconds: "1" } }));
  const { Attributes } = await client.send(
    new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["DelaySeconds", "VisibilityTimeout"] }),
  );
  assert.deepEqual(Attributes, { DelaySeconds: "1", VisibilityTimeout: "5" });
  await client.send(new TagQueueCommand({ QueueUrl, Tags: { a: "1", b: "2" } }));
  await client.send(new UntagQueueCommand({ QueueUrl, TagKeys: ["a"] }));
  assert.deepEqual((await client.send(new ListQueueTagsCommand({ QueueUrl }))).Tags, { b: "2" });
  await client.send(
    new AddPermissionCommand({ QueueUrl, Label: "l", AWSAccountIds: ["111111111111"], Actions: ["SendMessage"] }),
  );
  assert.match(
    (await client.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["Policy"] }))).Attributes?.Policy ??
      "",
    /111111111111/,
  );
  await client.send(new RemovePermissionCommand({ QueueUrl, Label: "l" }));
  await client.send(new SendMessageCommand({ QueueUrl, MessageBody: "gone" }));
  await client.send(new PurgeQueueCommand({ QueueUrl }));
  await assert.rejects(client.send(new PurgeQueueCommand({ QueueUrl })), named("PurgeQueueInProgress"));
  await client.send(new DeleteQueueCommand({ QueueUrl }));
  await assert.rejects(client.send(new GetQueueUrlCommand({ QueueName: "managed" })), named("QueueDoesNotExist"));
  await assert.rejects(create("bad name!"), (thrown) => thrown instanceof Error);
  await assert.rejects(create("odd", { VisibilityTimeout: "-1" }), named("InvalidAttributeValue"));
});

test("dead letters are found by their source and moved back", async () => {
  const dead = await create("dead");
  const arnOf = async (QueueUrl: string): Promise<string> =>
    (await client.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["QueueArn"] }))).Attributes
      ?.QueueArn ?? "";
  const deadArn = await arnOf(dead);
  const source = await create("source", {
    RedrivePolicy: JSON.stringify({ deadLetterTargetArn: deadArn, maxReceiveCount: "1" }),
  });
  assert.deepEqual((await client.send(new ListDeadLetterSourceQueuesCommand({ QueueUrl: dead }))).queueUrls, [source]);
  await client.send(new SendMessageCommand({ QueueUrl: source, MessageBody: "poison" }));
  const first = await client.send(new ReceiveMessageCommand({ QueueUrl: source, VisibilityTimeout: 0 }));
  assert.equal(first.Messages?.[0]?.Body, "poison");
  assert.equal(
    (await client.send(new ReceiveMessageCommand({ QueueUrl: source, WaitTimeSeconds: 1 }))).Messages,
    undefined,
  );
  const buried = await client.send(
    new ReceiveMessageCommand({ QueueUrl: dead, VisibilityTimeout: 0, MessageSystemAttributeNames: ["All"] }),
  );
  assert.equal(buried.Messages?.[0]?.Attributes?.DeadLetterQueueSourceArn, await arnOf(source));
  const { TaskHandle } = await client.send(new StartMessageMoveTaskCommand({ SourceArn: deadArn }));
  await eventually("the move", async () => {
    const { Results } = await client.send(new ListMessageMoveTasksCommand({ SourceArn: deadArn }));
    return Results?.[0]?.Status === "COMPLETED" ? Results : null;
  });
  assert.equal(
    (await client.send(new CancelMessageMoveTaskCommand({ TaskHandle }))).ApproximateNumberOfMessagesMoved,
    1,
  );
  assert.equal(
    (await client.send(new ReceiveMessageCommand({ QueueUrl: source, WaitTimeSeconds: 1 }))).Messages?.[0]?.Body,
    "poison",
  );
});

test("clients that speak the query protocol get XML", async () => {
  const ask = async (path: string, parameters: Record<string, string>): Promise<{ status: number; text: string }> => {
    const answer = await fetch(platform.url + path, {
      method: "POST",
      body: new URLSearchParams({ Version: "2012-11-05", ...parameters }),
    });
    return { status: answer.status, text: await answer.text() };
  };
  const made = await ask("/", {
    Action: "CreateQueue",
    QueueName: "old",
    "Attribute.1.Name": "VisibilityTimeout",
    "Attribute.1.Value": "7",
  });
  assert.match(made.text, /<CreateQueueResult><QueueUrl>http:[^<]*\/000000000000\/old<\/QueueUrl>/);
  const sent = await ask("/000000000000/old", {
    Action: "SendMessage",
    MessageBody: "a<b",
    "MessageAttribute.1.Name": "n",
    "MessageAttribute.1.Value.DataType": "Number",
    "MessageAttribute.1.Value.StringValue": "5",
  });
  assert.match(sent.text, /<MD5OfMessageBody>[0-9a-f]{32}</);
  const received = await ask("/000000000000/old", {
    Action: "ReceiveMessage",
    "MessageAttributeName.1": "All",
    "AttributeName.1": "SenderId",
  });
  assert.match(received.text, /<Message><MessageId>[^]*<Body>a&lt;b<\/Body><Attribute><Name>SenderId<\/Name>/);
  assert.match(received.text, /<MessageAttribute><Name>n<\/Name><Value><DataType>Number<\/DataType><StringValue>5</);
  const told = await ask("/", {
    Action: "GetQueueAttributes",
    QueueUrl: "http://x/000000000000/old",
    "AttributeName.1": "VisibilityTimeout",
  });
  assert.match(
    told.text,
    /<GetQueueAttributesResult><Attribute><Name>VisibilityTimeout<\/Name><Value>7<\/Value><\/Attribute>/,
  );
  const missing = await ask("/", { Action: "GetQueueUrl", QueueName: "nothing" });
  assert.equal(missing.status, 400);
  assert.match(missing.text, /<Code>AWS\.SimpleQueueService\.NonExistentQueue<\/Code>/);
});

test("messages and queues outlive a kill", async () => {
  const QueueUrl = await create("lasting");
  const Entries = Array.from({ length: 10 }, (_, index) => ({ Id: `e${index}`, MessageBody: `m${index}` }));
  await client.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
  await platform.kill9();
  await platform.restart();
  client.destroy();
  client = connect();
  const after_ = (await client.send(new GetQueueUrlCommand({ QueueName: "lasting" }))).QueueUrl ?? "";
  const { Messages = [] } = await client.send(
    new ReceiveMessageCommand({ QueueUrl: after_, MaxNumberOfMessages: 10, WaitTimeSeconds: 1 }),
  );
  assert.deepEqual(
    Messages.map(({ Body }) => Body),
    Entries.map(({ MessageBody }) => MessageBody),
  );
});
