import { randomUUID } from "node:crypto";
import { after, before } from "node:test";
import { createBucketKind } from "./bucket.ts";
import { sourceConformance } from "./conformance.ts";
import { freePort } from "./testing/servers.ts";
import { putObjects, startS3rver, STORE_KEY, type StoreServer } from "./testing/stores.ts";

let server: StoreServer;

before(async () => {
  server = await startS3rver();
});
after(() => server?.[Symbol.asyncDispose]());

sourceConformance({
  name: "bucket",
  kind: createBucketKind(),
  startsAtBeginning: true,
  async open() {
    const bucket = `b-${randomUUID()}`;
    await putObjects(server.url, bucket, [["", null]]);
    const { accessKeyId, secretAccessKey } = STORE_KEY;
    const settings = {
      endpoint: server.url,
      bucket,
      prefix: "in ü+/",
      existing: true,
      pollMs: 500,
      accessKeyId,
      secretAccessKey: { secret: "STORE_KEY" },
    };
    return {
      settings,
      secrets: { STORE_KEY: secretAccessKey },
      unreachable: { ...settings, endpoint: `http://127.0.0.1:${await freePort()}` },
      publish: (texts) =>
        putObjects(
          server.url,
          bucket,
          texts.map((text) => [`in ü+/${text}`, text] as const),
        ),
      textOf: ({ data }) => (data as { readonly key: string }).key.slice("in ü+/".length),
      restartServer: () => server.restart(),
      [Symbol.asyncDispose]: async () => {},
    };
  },
  wrongSettings: [
    [{ endpoint: "http://x" }, /bucket/],
    [{ endpoint: "ftp://x", bucket: "b" }, /https?:\/\//],
    [{ endpoint: "http://x", bucket: "a/b" }, /name of a bucket/],
    [{ endpoint: "http://x", bucket: "b", accessKeyId: "k" }, /secretAccessKey/],
    [{ endpoint: "http://x", bucket: "b", secretAccessKey: "in clear" }, /name of a secret/],
  ],
});
