import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../core/clock.ts";
import { KoineError } from "../core/errors.ts";
import { createBucketWebhookKind } from "./bucket-webhook.ts";
import { objectEventsOf } from "./connection/object-notifications.ts";
import type { RouteDecision, TriggerRequest } from "./trigger.ts";

/** As MinIO writes it: the name and key above the record, and names with `s3:`. */
const ofMinio = {
  EventName: "s3:ObjectCreated:Put",
  Key: "pictures/holiday 1.jpg",
  Records: [
    {
      eventVersion: "2.0",
      eventSource: "minio:s3",
      eventTime: "2030-01-31T12:00:00.123Z",
      eventName: "s3:ObjectCreated:Put",
      s3: {
        bucket: { name: "pictures", ownerIdentity: { principalId: "minio" } },
        object: { key: "in%2Fholiday+1.jpg", size: 5, eTag: "abc", sequencer: "16A0" },
      },
    },
  ],
};
const secret = "Bearer token-of-the-store";

function request(body: unknown, headers: Readonly<Record<string, string>> = { authorization: secret }): TriggerRequest {
  return {
    method: "POST",
    path: "/hooks/uploads",
    query: "",
    parameters: {},
    header: (name) => headers[name],
    rawHeaders: Object.entries(headers).flat(),
    body: Buffer.from(typeof body === "string" ? body : JSON.stringify(body)),
    remoteAddress: "127.0.0.1",
    receivedAtMs: 0,
  };
}

async function receive(given: TriggerRequest): Promise<RouteDecision> {
  const kind = createBucketWebhookKind();
  const auth = { kind: "key", header: "authorization", secret: { secret: "STORE_TOKEN" } };
  const settings = kind.parse({ path: "/hooks/uploads", auth });
  const trigger = { id: "t", namespace: "default", name: "t" };
  return await kind.open(settings, { trigger, clock: systemClock, secret: () => secret }).receive(given);
}

test("a notification becomes an event with the key as people wrote it", async () => {
  const decision = await receive(request(ofMinio));
  assert.equal(decision.kind, "accept");
  const [event] = decision.kind === "accept" ? decision.events : [];
  assert.equal(event?.type, "s3:ObjectCreated:Put");
  assert.equal(event?.source, "s3://pictures");
  assert.equal(event?.subject, "in/holiday 1.jpg");
  assert.equal(event?.time, "2030-01-31T12:00:00.123Z");
  assert.equal(event?.extensions?.["partitionkey"], "pictures/in/holiday 1.jpg");
});

test("a notification that is sent again is the same event, and another write of the object is another", () => {
  const [record] = ofMinio.Records;
  const later = { ...record, s3: { ...record?.s3, object: { ...record?.s3.object, sequencer: "16A1" } } };
  const [first] = objectEventsOf(ofMinio) ?? [];
  const [again] = objectEventsOf(structuredClone(ofMinio)) ?? [];
  const [other] = objectEventsOf({ Records: [later] }) ?? [];
  assert.equal(again?.id, first?.id);
  assert.notEqual(other?.id, first?.id);
});

test("names without the prefix, and notifications within those of a topic, mean the same", () => {
  const [record] = ofMinio.Records;
  const content = { Records: [{ ...record, eventName: "ObjectRemoved:Delete" }] };
  assert.equal(objectEventsOf(content)?.[0]?.type, "s3:ObjectRemoved:Delete");
  const wrapped = { Type: "Notification", Message: JSON.stringify(content) };
  assert.equal(objectEventsOf(wrapped)?.[0]?.type, "s3:ObjectRemoved:Delete");
});

test("the store's trial is no event, and what is no notification is none either", () => {
  assert.deepEqual(objectEventsOf({ Service: "S3", Event: "s3:TestEvent", Bucket: "pictures" }), []);
  assert.equal(objectEventsOf({ hello: "world" }), null);
  assert.equal(objectEventsOf({ Type: "Notification", Message: "not JSON" }), null);
});

test("who does not show the token is refused, and so is what is no notification", async () => {
  await assert.rejects(receive(request(ofMinio, { authorization: "Bearer other" })), KoineError);
  await assert.rejects(
    receive(request({ hello: "world" })),
    (error) => error instanceof KoineError && error.code === "invalid-event",
  );
});

test("a store that looks whether somebody is there is told so", async () => {
  const decision = await receive({ ...request(""), method: "HEAD" });
  assert.equal(decision.kind === "answer" ? decision.answer.status : 0, 200);
});
