import { SignatureV4 } from "@smithy/signature-v4";
import assert from "node:assert/strict";
import { createHash, createHmac, type Hash, type Hmac } from "node:crypto";
import { test } from "node:test";
import { AwsError } from "./error.ts";
import { readSignature, sha256, type SignedRequest, verifySignature } from "./sigv4.ts";

const secretAccessKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const signedAt = new Date("2026-01-01T12:00:00Z");
const nowMs = signedAt.getTime();

/** The hash that the signer wants, in its own terms. */
class Sha256 {
  readonly #hash: Hash | Hmac;

  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    const key = typeof secret === "string" ? secret : secret === undefined ? null : Buffer.from(secret as Uint8Array);
    this.#hash = key === null ? createHash("sha256") : createHmac("sha256", key);
  }

  update(content: Uint8Array): void {
    this.#hash.update(content);
  }

  async digest(): Promise<Uint8Array> {
    return this.#hash.digest();
  }

  reset(): void {}
}

interface Sent {
  readonly method?: string;
  readonly path?: string;
  readonly query?: Record<string, string | string[]>;
  readonly headers?: Record<string, string>;
  readonly body?: string;
}

function signer(service: string): SignatureV4 {
  return new SignatureV4({
    service,
    region: "eu-central-1",
    sha256: Sha256,
    credentials: { accessKeyId: "AKIDEXAMPLE", secretAccessKey },
  });
}

/** A request as the SDKs' own signer signs it, and as a server then sees it. */
async function signed(service: string, sent: Sent, presign = false): Promise<SignedRequest & { body: string }> {
  const { method = "POST", path = "/", query = {}, body = "" } = sent;
  const headers = { host: "127.0.0.1:4566", ...sent.headers };
  const request = { method, protocol: "http:", hostname: "127.0.0.1", port: 4566, path, query, headers, body };
  const result = presign
    ? await signer(service).presign({ ...request, body: undefined }, { signingDate: signedAt, expiresIn: 900 })
    : await signer(service).sign(request, { signingDate: signedAt });
  const wire = new URLSearchParams();
  for (const [name, value] of Object.entries(result.query ?? {}))
    for (const each of Array.isArray(value) ? value : [value ?? ""]) wire.append(name, each);
  const lower = new Map(Object.entries(result.headers).map(([name, value]) => [name.toLowerCase(), value]));
  return { method, path, query: wire.toString(), header: (name) => lower.get(name), body };
}

function check(
  request: SignedRequest & { body: string },
  changes: { secret?: string; body?: string; laterMs?: number } = {},
): void {
  const claim = readSignature(request);
  assert.ok(claim !== null);
  verifySignature(claim, request, {
    secretAccessKey: changes.secret ?? secretAccessKey,
    bodyDigest: sha256(changes.body ?? request.body),
    nowMs: nowMs + (changes.laterMs ?? 0),
  });
}

function refuses(code: string, run: () => void): void {
  assert.throws(run, (thrown) => thrown instanceof AwsError && thrown.code === code);
}

test("what the SDKs' own signer signed is accepted, whatever stands in path, query, headers and body", async () => {
  const requests: readonly Sent[] = [
    {},
    { body: '{"FunctionName":"a"}', headers: { "content-type": "application/json" } },
    {
      method: "GET",
      path: "/2015-03-31/functions/hello%3Aprod/policy",
      query: { Qualifier: "a b&c=d", Marker: "ä/+~*'()!" },
    },
    { method: "GET", path: "/2015-03-31/event-source-mappings/", query: { tagKeys: ["b", "a", "a/"] } },
    {
      method: "DELETE",
      path: "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af",
      query: { tagKeys: "x" },
    },
    { path: "/a//b/../c/./d%20e", headers: { "x-amz-meta-many": "  a   b  " } },
  ];
  for (const sent of requests) check(await signed("lambda", sent));
});

test("a presigned request is accepted for as long as it says", async () => {
  const request = await signed(
    "sqs",
    { method: "GET", path: "/000000000000/orders", query: { Action: "ReceiveMessage" } },
    true,
  );
  check(request, { laterMs: 899_000 });
  refuses("RequestExpired", () => check(request, { laterMs: 901_000 }));
});

test("another secret, another body, or another time than the signed one is refused", async () => {
  const request = await signed("lambda", { body: "{}" });
  refuses("SignatureDoesNotMatch", () => check(request, { secret: "another" }));
  refuses("SignatureDoesNotMatch", () => check(request, { body: '{"more":1}' }));
  refuses("SignatureDoesNotMatch", () => check(request, { laterMs: 301_000 }));
  refuses("SignatureDoesNotMatch", () => check(request, { laterMs: -301_000 }));
});

test("nothing that was signed can be changed", async () => {
  const request = await signed("lambda", { path: "/2015-03-31/functions/a", query: { Qualifier: "1" } });
  refuses("SignatureDoesNotMatch", () => check({ ...request, method: "DELETE" }));
  refuses("SignatureDoesNotMatch", () => check({ ...request, path: "/2015-03-31/functions/b" }));
  refuses("SignatureDoesNotMatch", () => check({ ...request, query: "Qualifier=2" }));
  refuses("SignatureDoesNotMatch", () =>
    check({ ...request, header: (name) => (name === "host" ? "other" : request.header(name)) }),
  );
});

test("a claim that cannot be read is told so", async () => {
  const authorized = (value: string): SignedRequest => ({
    method: "GET",
    path: "/",
    query: "",
    header: (name) => (name === "authorization" ? value : undefined),
  });
  for (const text of [
    "AWS4-HMAC-SHA256",
    "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=00",
    `AWS4-HMAC-SHA256 Credential=a/20260101/r/lambda/aws4_request, SignedHeaders=host, Signature=${"0".repeat(63)}`,
    `AWS4-HMAC-SHA256 Credential=a/20260101/r/lambda/aws4_request, SignedHeaders=host, Signature=${"0".repeat(64)}`,
  ])
    refuses("IncompleteSignature", () => readSignature(authorized(text)));
  assert.equal(readSignature(authorized("Bearer abc")), null);
});
