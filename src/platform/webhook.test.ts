import assert from "node:assert/strict";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { Reachable } from "./reachable.ts";
import { sendWebhook, signatureOf, type WebhookAnswer } from "./webhook.ts";

const local = new Reachable(["127.0.0.1"]);

test("the signature is what others compute over the time and the body", () => {
  // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
  const signature = signatureOf(Buffer.from('{"a":1}'), "key", 1_700_000_000_999);
  assert.equal(signature, "t=1700000000,v1=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03");
});

test("an event is posted with its type, its id, its attempt and its signature", async (context) => {
  const seen: unknown[] = [];
  const url = await serve(context, (request, response) => {
    const { headers } = request;
    seen.push(
      request.method,
      headers["content-type"],
      headers["koine-delivery"],
      headers["koine-attempt"],
      headers["koine-signature"],
    );
    request.resume().on("end", () => response.writeHead(204).end());
  });
  assert.equal((await post(url)).status, 204);
  assert.deepEqual(seen, ["POST", "text/plain", "id", "2", signatureOf(Buffer.from("body"), "key", 1_000)]);
});

test("a redirect is an answer like others, and no more than the beginning of an answer is read", async (context) => {
  const url = await serve(context, (_, response) =>
    response.writeHead(302, { location: "http://10.0.0.1/" }).end("x".repeat(50)),
  );
  const { status, text } = await post(url);
  assert.deepEqual([status, text], [302, "x".repeat(16)]);
});

test("what does not answer, or answers never, is a failed delivery", async (context) => {
  const closed = await serve(context, () => {});
  await assert.rejects(post(closed, AbortSignal.timeout(50)), {
    code: "destination-failed",
    message: /did not answer in time/,
  });
  await assert.rejects(post("http://127.0.0.1:1/"), { code: "destination-failed" });
});

test("what is not of the internet is refused before anything is sent, by address and by name", async (context) => {
  let calls = 0;
  const url = await serve(context, (_, response) => {
    calls++;
    response.end();
  });
  const nowhere = new Reachable([]);
  const named = url.replace("127.0.0.1", "localhost");
  for (const target of [url, named, "http://[::ffff:127.0.0.1]/", "http://0x7f.1/", "http://169.254.169.254/"])
    await assert.rejects(post(target, undefined, nowhere), { code: "destination-refused" }, target);
  assert.equal(calls, 0);
});

async function post(url: string, signal = new AbortController().signal, reachable = local): Promise<WebhookAnswer> {
  const request = { url, id: "id", attempt: 2, contentType: "text/plain", body: Buffer.from("body"), secret: "key" };
  return await sendWebhook({ ...request, nowMs: 1_000 }, { reachable, answerBytesMax: 16, signal });
}

async function serve(context: TestContext, listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}
