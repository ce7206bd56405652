import { randomUUID } from "node:crypto";
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  CreateQueueCommand,
  GetQueueAttributesCommand,
  SendMessageBatchCommand,
  type SendMessageBatchRequestEntry,
  SendMessageCommand,
  SQSClient,
} from "@aws-sdk/client-sqs";
import { type RunningPlatform, startPlatform } from "../../test/system/platform.ts";
import { queueWording } from "../dialects/aws/sqs/sqs.ts";
import type { DeliveredEvent } from "../platform/triggers/testing/hosted.ts";
import { sourceConformance, type SourceUnderTest } from "./conformance.ts";
import { createSqsKind } from "./sqs.ts";
import { runTrigger } from "./testing/running.ts";
import { freePort } from "./testing/servers.ts";
import { startMoto, type StoreServer } from "./testing/stores.ts";

const KEY = { accessKeyId: "test", secretAccessKey: "queue-secret-of-test" };
const kind = createSqsKind(queueWording);

let platform: RunningPlatform;
let moto: StoreServer;

before(async () => {
  platform = await startPlatform({ sandbox: "none" });
  moto = await startMoto();
});
after(async () => {
  await platform?.stop();
  await moto?.[Symbol.asyncDispose]();
});

const textOf = ({ type, data }: DeliveredEvent): string | null =>
  type === "koine.sqs.message" && typeof data === "string" ? data : null;

async function queueAt(
  url: string,
  { fifo }: { readonly fifo: boolean },
): Promise<Omit<SourceUnderTest, "restartServer">> {
  const client = new SQSClient({ endpoint: url, region: "us-east-1", credentials: KEY, useQueueUrlAsEndpoint: false });
  const name = randomUUID();
  const { QueueUrl = "" } = await client.send(
    fifo
      ? new CreateQueueCommand({ QueueName: `${name}.fifo`, Attributes: { FifoQueue: "true" } })
      : new CreateQueueCommand({ QueueName: name }),
  );
  const { accessKeyId } = KEY;
  const settings = {
    queueUrl: QueueUrl,
    endpoint: url,
    accessKeyId,
    secretAccessKey: { secret: "QUEUE_KEY" },
    waitSeconds: 1,
  };
  return {
    settings,
    secrets: { QUEUE_KEY: KEY.secretAccessKey },
    unreachable: { ...settings, endpoint: `http://127.0.0.1:${await freePort()}` },
    async publish(texts: readonly string[], key = "all"): Promise<void> {
      for (let from = 0; from < texts.length; from += 10) {
        const entries: SendMessageBatchRequestEntry[] = texts.slice(from, from + 10).map((text, index) => ({
          Id: String(index),
          MessageBody: text,
          ...(fifo ? { MessageGroupId: key, MessageDeduplicationId: text } : {}),
        }));
        const sent = await client.send(new SendMessageBatchCommand({ QueueUrl, Entries: entries }));
        assert.deepEqual(sent.Failed ?? [], []);
      }
    },
    textOf,
    [Symbol.asyncDispose]: () => Promise.resolve(client.destroy()),
  };
}

sourceConformance({
  name: "sqs, with the platform's own queues",
  kind,
  startsAtBeginning: true,
  async open() {
    // The address of the server is another one after a restart, so none is restarted here.
    return await queueAt(platform.url, { fifo: true });
  },
  wrongSettings: [
    [{}, /queueUrl/],
    [{ queueUrl: "sqs://x" }, /https?:\/\//],
    [{ queueUrl: "http://x/q", accessKeyId: "a" }, /secretAccessKey/],
    [{ queueUrl: "http://x/q", visibilitySeconds: 5 }, /visibilitySeconds/],
    [{ queueUrl: "http://x/q", accessKeyId: "a", secretAccessKey: "in clear" }, /name of a secret/],
  ],
});

sourceConformance({
  name: "sqs, with a foreign server",
  kind: { ...kind, abilities: { ordering: false, replay: true } },
  startsAtBeginning: true,
  open: () => queueAt(moto.url, { fifo: false }),
  wrongSettings: [],
});

test("a bucket's notifications come through its queue as an event for each object", async () => {
  const client = new SQSClient({
    endpoint: moto.url,
    region: "us-east-1",
    credentials: KEY,
    useQueueUrlAsEndpoint: false,
  });
  const { QueueUrl = "" } = await client.send(new CreateQueueCommand({ QueueName: "notified" }));
  const { Attributes } = await client.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["QueueArn"] }));
  const configuration = `<NotificationConfiguration><QueueConfiguration><Id>all</Id><Queue>${Attributes?.["QueueArn"]}</Queue><Event>s3:ObjectCreated:*</Event></QueueConfiguration></NotificationConfiguration>`;
  const put = async (path: string, body: string): Promise<void> => {
    const answer = await fetch(`${moto.url}/${path}`, { method: "PUT", body });
    assert.ok(answer.status < 300, await answer.text());
  };
  await put("pictures", "");
  await put("pictures?notification", configuration);
  await put("pictures/holiday%20%C3%BC.jpg", "first");
  await client.send(new SendMessageCommand({ QueueUrl, MessageBody: "not a notification" }));
  const { accessKeyId, secretAccessKey } = KEY;
  const settings = {
    queueUrl: QueueUrl,
    endpoint: moto.url,
    accessKeyId,
    secretAccessKey: { secret: "QUEUE_KEY" },
    content: "objects",
    waitSeconds: 1,
  };
  await using trigger = await runTrigger(kind, settings, { QUEUE_KEY: secretAccessKey });
  const events = new Map((await trigger.events(2)).map((event) => [event.type, event]));
  const created = events.get("s3:ObjectCreated:Put");
  assert.equal(created?.["subject"], "holiday ü.jpg");
  assert.equal(created?.source, "s3://pictures");
  assert.match(JSON.stringify(created?.data), /"bytes":5,/);
  assert.equal(events.get("koine.sqs.message")?.data, "not a notification");
  client.destroy();
});
