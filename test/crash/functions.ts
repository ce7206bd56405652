/**
 * The functions of the load. Each notes whatever it is given, before and after it does what the event asks for, in a file that the platform knows
 * nothing of: with an append of its own, or over a connection to the recorder where a sandbox hides the file. It goes on when that is done.
 */
const RECORDER = `import { appendFileSync } from "node:fs";
import { connect } from "node:net";
import { crc32 } from "node:zlib";
const { RECORD } = process.env;
const waiting = [];
const socket = /^[0-9]+$/.test(RECORD) ? connect(Number(RECORD), "127.0.0.1") : null;
socket?.on("data", (bytes) => { for (const _ of bytes) waiting.shift()?.(); });
const note = (line) => {
  const text = JSON.stringify({ ...line, atMs: Date.now() }) + "\\n";
  if (socket === null) return appendFileSync(RECORD, text);
  return new Promise((resolve) => { waiting.push(resolve); socket.write(text); });
};
`;

/** Does what the event says: waits, fails the first attempts, fails always, or says that another attempt would be in vain. */
export const WORK = `${RECORDER}
export default async (request, context) => {
  const { id, key = null, n = 0, failures = 0, pauseMs = 0, vain = false, pad = "", check = 0 } = await request.json();
  const line = { at: "work", activation: context.activationId, attempt: context.attempt, event: id, key, n };
  await note({ ...line, kind: "begin", whole: crc32(pad) === check });
  if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs));
  if (vain || context.attempt <= failures) {
    await note({ ...line, kind: "fail" });
    throw Object.assign(new Error("as asked"), { retryable: !vain });
  }
  await note({ ...line, kind: "end" });
  return Response.json({ id });
};`;

/** Gets outcomes of \`work\`. */
export const AUDIT = `${RECORDER}
export default async (request, context) => {
  const header = (name) => request.headers.get("ce-" + name);
  const line = { at: "audit", activation: context.activationId, attempt: context.attempt, event: header("subject"), key: header("type"), n: (await request.json()).attempts };
  await note({ ...line, kind: "begin", whole: true });
  await note({ ...line, kind: "end" });
  return Response.json({});
};`;

/** Gets the slots of a schedule, and what is published to a topic: one by one, and in batches of which parts fail. */
export const EVENTS = `${RECORDER}
export default async (request, context) => {
  const batch = (request.headers.get("content-type") ?? "").startsWith("application/cloudevents-batch");
  const header = (name) => request.headers.get("ce-" + name) ?? "";
  const text = await request.text();
  const events = batch ? JSON.parse(text) : [{ id: header("id"), type: header("type") }];
  const at = batch ? "batch" : events[0].type.startsWith("koine.schedule") ? "schedule" : "topic";
  const line = { at, activation: context.activationId, attempt: context.attempt, key: null, n: 0 };
  for (const { id } of events) await note({ ...line, kind: "begin", event: id, whole: true });
  const failed = batch && context.attempt === 1 ? events.filter(({ id }) => id.endsWith("7")) : [];
  for (const event of events) await note({ ...line, kind: failed.includes(event) ? "fail" : "end", event: event.id });
  return Response.json({ batchItemFailures: failed.map(({ id }) => ({ itemIdentifier: id })) });
};`;
