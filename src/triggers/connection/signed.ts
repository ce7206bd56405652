import { createHash, createHmac, type Hash, type Hmac } from "node:crypto";
import type { SignatureV4 } from "@smithy/signature-v4";
import { z } from "zod";
import { secretReference, type SourceHost } from "../trigger.ts";

/** Who asks, for servers that check signatures of version 4; without a key requests are not signed. */
export const signingSettings = {
  region: z.string().min(1).max(64).default("us-east-1").meta({ description: "The region that signatures name." }),
  accessKeyId: z.string().max(256).optional().meta({ description: "The access key's id." }),
  secretAccessKey: secretReference("The secret access key").optional(),
  sessionToken: secretReference("The token of temporary credentials").optional(),
};

type Signing = z.output<z.ZodObject<typeof signingSettings>>;

interface Unsigned {
  readonly method: string;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Answers the headers of a request with its signature. */
export type Sign = (request: Unsigned) => Promise<Readonly<Record<string, string>>>;

/** Whether a key and its secret are both there or both not; for schemas. */
export function hasWholeKey({ accessKeyId, secretAccessKey }: Partial<Signing>): boolean {
  return (accessKeyId === undefined) === (secretAccessKey === undefined);
}

export async function openSigner(
  { region, accessKeyId, secretAccessKey, sessionToken }: Signing,
  service: "sqs" | "s3",
  host: Pick<SourceHost, "secret">,
): Promise<Sign> {
  if (accessKeyId === undefined || secretAccessKey === undefined) return ({ headers }) => Promise.resolve(headers);
  const { SignatureV4: Signer } = await import("@smithy/signature-v4");
  const signer: SignatureV4 = new Signer({
    service,
    region,
    credentials: {
      accessKeyId,
      secretAccessKey: host.secret(secretAccessKey),
      ...(sessionToken === undefined ? {} : { sessionToken: host.secret(sessionToken) }),
    },
    sha256: Sha256,
    // Object stores sign the path as it is sent.
    uriEscapePath: service !== "s3",
    applyChecksum: true,
  });
  return async ({ method, url, headers, body }) => {
    const signed = await signer.sign({
      method,
      protocol: url.protocol,
      hostname: url.hostname,
      path: url.pathname,
      query: Object.fromEntries(url.searchParams),
      headers: { ...headers, host: url.host },
      body,
    });
    return signed.headers;
  };
}

/** What the signer wants of a hash. */
class Sha256 {
  #hash: Hash | Hmac;
  readonly #begin: () => Hash | Hmac;

  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#begin = () => (secret === undefined ? createHash("sha256") : createHmac("sha256", bytesOf(secret)));
    this.#hash = this.#begin();
  }

  update(chunk: string | ArrayBuffer | ArrayBufferView): void {
    this.#hash.update(bytesOf(chunk));
  }

  digest(): Promise<Uint8Array> {
    return Promise.resolve(new Uint8Array(this.#hash.digest()));
  }

  reset(): void {
    this.#hash = this.#begin();
  }
}

function bytesOf(content: string | ArrayBuffer | ArrayBufferView): Buffer {
  if (typeof content === "string") return Buffer.from(content);
  if (ArrayBuffer.isView(content)) return Buffer.from(content.buffer, content.byteOffset, content.byteLength);
  return Buffer.from(content);
}
