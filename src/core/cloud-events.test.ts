import assert from "node:assert/strict";
import { test } from "node:test";
import { eventsOf, fromStructured, isCloudEvent, toBinary, toStructured } from "./cloud-events.ts";
import { KoineError } from "./errors.ts";
import type { CloudEvent } from "./event.ts";

const event: CloudEvent = {
  specversion: "1.0",
  id: "ä 1",
  source: "/shop",
  type: "order.paid",
  time: "2030-01-31T12:00:00Z",
  subject: 'say "hi" 100%',
  datacontenttype: "application/json",
  extensions: { partitionkey: "17", retries: 3 },
  data: { amount: 1 },
};

/** A request with these headers, names and values in turn. */
function message(rawHeaders: readonly string[], body: string | Buffer = "") {
  const header = (name: string): string | undefined => {
    const at = rawHeaders.findIndex((one, index) => index % 2 === 0 && one.toLowerCase() === name);
    return at < 0 ? undefined : rawHeaders[at + 1];
  };
  return { rawHeaders, header, body: Buffer.from(body) };
}

test("an event comes back from its JSON form, bytes included", () => {
  assert.deepEqual(fromStructured(JSON.parse(JSON.stringify(toStructured(event)))), event);
  const bytes = { ...event, datacontenttype: "image/png", data: Buffer.from([1, 2, 3]) };
  assert.deepEqual(fromStructured(toStructured(bytes)), bytes);
});

test("an event comes back from binary mode, whatever its attributes hold", () => {
  const { headers, body } = toBinary(event);
  assert.ok(headers.every((text) => /^[\u0020-\u007e]*$/.test(text)));
  const [back] = eventsOf(message(headers, body));
  assert.deepEqual(back, { ...event, extensions: { partitionkey: "17", retries: "3" } });
});

test("a request is read in the mode that it says", () => {
  const structured = message(
    ["Content-Type", "application/cloudevents+json; charset=utf-8"],
    JSON.stringify(toStructured(event)),
  );
  const batch = message(
    ["Content-Type", "application/cloudevents-batch+json"],
    JSON.stringify([toStructured(event), toStructured(event)]),
  );
  const text = message(
    ["CE-SpecVersion", "1.0", "ce-id", "1", "ce-source", "/a", "ce-type", "t", "content-type", "text/plain"],
    "hello",
  );
  const empty = message(["ce-specversion", "1.0", "ce-id", "1", "ce-source", "/a", "ce-type", "t"]);
  assert.equal(eventsOf(structured).length, 1);
  assert.equal(eventsOf(batch).length, 2);
  assert.equal(eventsOf(text)[0]?.data, "hello");
  assert.equal(eventsOf(empty)[0]?.data, undefined);
  assert.deepEqual([structured, batch, text].map(isCloudEvent), [true, true, true]);
  assert.equal(isCloudEvent(message(["content-type", "application/json"], "{}")), false);
});

test("what is no event is refused in words", () => {
  const json = ["content-type", "application/cloudevents+json"];
  const refusals: readonly (readonly [ReturnType<typeof message>, RegExp])[] = [
    [message(json, "{"), /JSON cannot be read/],
    [message(json, "[]"), /not a JSON object/],
    [message(json, '{"specversion":"0.3"}'), /specversion/],
    [message(json, '{"specversion":"1.0","id":"1","source":"/a"}'), /type is missing/],
    [message(json, '{"specversion":"1.0","id":"","source":"/a","type":"t"}'), /id is empty/],
    [message(json, '{"specversion":"1.0","id":"1","source":"/a","type":"t","time":"now"}'), /RFC 3339/],
    [message(json, '{"specversion":"1.0","id":"1","source":"/a","type":"t","Bad-Name":"x"}'), /not a name/],
    [message(json, '{"specversion":"1.0","id":"1","source":"/a","type":"t","data":1,"data_base64":""}'), /both data/],
    [message(["content-type", "application/cloudevents-batch+json"], "{}"), /JSON array/],
    [message(["content-type", "application/json"], "{}"), /ce- headers/],
  ];
  for (const [one, says] of refusals)
    assert.throws(
      () => eventsOf(one),
      (error) => error instanceof KoineError && error.code === "invalid-event" && says.test(error.message),
      String(says),
    );
  const avro = message(["content-type", "application/cloudevents+avro"]);
  assert.throws(
    () => eventsOf(avro),
    (error) => error instanceof KoineError && error.code === "unsupported-media-type",
  );
});
