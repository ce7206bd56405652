import { z } from "zod";
import { KoineError } from "../../core/errors.ts";
import { type HttpConnections, httpConnections } from "../connection/http.ts";
import { openSigner, type Sign, type signingSettings } from "../connection/signed.ts";
import type { TlsSettings } from "../connection/tls.ts";
import type { SourceHost } from "../trigger.ts";

export interface ListedObject {
  readonly key: string;
  readonly etag: string;
  readonly bytes: number;
  readonly modifiedMs: number;
}

export interface ListingPage {
  readonly objects: readonly ListedObject[];
  /** Null: there is no further page. */
  readonly next: string | null;
  /** What the server's clock said; null: it does not tell. */
  readonly serverMs: number | null;
}

type Settings = z.output<z.ZodObject<typeof signingSettings>> & {
  readonly endpoint: string;
  readonly bucket: string;
  readonly prefix: string;
  readonly pathStyle: boolean;
  readonly tls?: TlsSettings | undefined;
};

const ANSWER_MS_MAX = 60_000;
const EMPTY_DIGEST = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const listingSchema = z.object({
  ListBucketResult: z.object({
    Contents: z
      .array(
        z.object({
          Key: z.string(),
          ETag: z.string().default(""),
          Size: z.string().default("0"),
          LastModified: z.string(),
        }),
      )
      .default([]),
    IsTruncated: z.string().default("false"),
    NextContinuationToken: z.string().optional(),
  }),
});
const errorSchema = z.object({ Error: z.object({ Code: z.string().default(""), Message: z.string().default("") }) });

/** Lists a bucket of an S3-compatible store (ListObjectsV2), in the order of its keys. */
export class BucketListing implements Disposable {
  readonly #settings: Settings;
  readonly #connections: HttpConnections;
  readonly #sign: Sign;
  readonly #parse: (xml: string) => unknown;

  private constructor(
    settings: Settings,
    parts: { readonly connections: HttpConnections; readonly sign: Sign; readonly parse: (xml: string) => unknown },
  ) {
    this.#settings = settings;
    this.#connections = parts.connections;
    this.#sign = parts.sign;
    this.#parse = parts.parse;
  }

  static async open(settings: Settings, host: Pick<SourceHost, "secret">): Promise<BucketListing> {
    const [{ XMLParser }, sign] = await Promise.all([import("fast-xml-parser"), openSigner(settings, "s3", host)]);
    const parser = new XMLParser({
      ignoreAttributes: true,
      parseTagValue: false,
      trimValues: false,
      processEntities: true,
      isArray: (name) => name === "Contents",
    });
    return new BucketListing(settings, {
      connections: httpConnections(settings.tls, host, { connections: 2 }),
      sign,
      parse: (xml) => parser.parse(xml) as unknown,
    });
  }

  /** Objects whose keys come after the given one. */
  async page(after: string | null, most: number, signal: AbortSignal): Promise<ListingPage> {
    const { prefix } = this.#settings;
    const url = this.#bucketUrl();
    url.searchParams.set("list-type", "2");
    url.searchParams.set("max-keys", String(most));
    url.searchParams.set("encoding-type", "url");
    if (prefix !== "") url.searchParams.set("prefix", prefix);
    if (after !== null) url.searchParams.set("start-after", after);
    // Form encoding writes a space as a plus, which signatures do not.
    url.search = url.search.replaceAll("+", "%20");
    const headers = await this.#sign({
      method: "GET",
      url,
      headers: { "x-amz-content-sha256": EMPTY_DIGEST },
      body: "",
    });
    const answer = await this.#connections.ask({ method: "GET", url, headers, timeoutMs: ANSWER_MS_MAX, signal });
    if (answer.status !== 200) throw this.#refusal(answer.status, answer.body);
    const found = listingSchema.safeParse(this.#parse(answer.body));
    if (!found.success)
      throw new KoineError("source-failed", { detail: `${url.origin} did not answer with the listing of a bucket` });
    const { Contents, IsTruncated } = found.data.ListBucketResult;
    const encoded = /<EncodingType>url<\/EncodingType>/i.test(answer.body);
    const objects = Contents.map(({ Key, ETag, Size, LastModified }) => ({
      key: encoded ? decodedKey(Key) : Key,
      etag: ETag.replaceAll(/^"|"$|&quot;/g, ""),
      bytes: Number(Size),
      modifiedMs: Date.parse(LastModified),
    }));
    const serverMs = Date.parse(answer.header("date") ?? "");
    const next = IsTruncated === "true" ? (objects.at(-1)?.key ?? null) : null;
    return { objects, next, serverMs: Number.isNaN(serverMs) ? null : serverMs };
  }

  [Symbol.dispose](): void {
    this.#connections[Symbol.dispose]();
  }

  #bucketUrl(): URL {
    const { endpoint, bucket, pathStyle } = this.#settings;
    const url = new URL(endpoint);
    const path = url.pathname.replace(/\/$/, "");
    if (pathStyle) url.pathname = `${path}/${bucket}`;
    else {
      url.hostname = `${bucket}.${url.hostname}`;
      url.pathname = `${path}/`;
    }
    return url;
  }

  #refusal(status: number, body: string): KoineError {
    let why = "";
    try {
      const { Code, Message } = errorSchema.parse(this.#parse(body)).Error;
      why = `, ${[Code, Message].filter((word) => word !== "").join(": ")}`;
    } catch {
      // Something in between has answered: the status says what there is to say.
    }
    const { bucket, endpoint } = this.#settings;
    return new KoineError("source-failed", {
      detail: `listing bucket '${bucket}' at ${new URL(endpoint).origin} was answered ${status}${why}`,
    });
  }
}

function decodedKey(key: string): string {
  try {
    return decodeURIComponent(key.replaceAll("+", " "));
  } catch {
    return key;
  }
}
