import { createHash } from "node:crypto";
import { z } from "zod";
import { type CloudEvent, PARTITION_KEY } from "../core/event.ts";
import { limits } from "../core/limits.ts";
import { BucketListing, type ListedObject } from "./bucket/listing.ts";
import { hasWholeKey, signingSettings } from "./connection/signed.ts";
import { tlsSettings } from "./connection/tls.ts";
import { address, type Emit, type PullKind, pullKind, type SourceHost, type TriggerSource } from "./trigger.ts";

const POLL_MS_DEFAULT = 30_000;
const LATE_MS_DEFAULT = 900_000;
/** Objects that are remembered beyond a restart; those that are not are told of again then, and recognised. */
const REMEMBERED_MAX = 10_000;
const SEEN_MAX = 500_000;

const schema = z
  .strictObject({
    endpoint: address("The store's address.", ["http", "https"]),
    bucket: z
      .string()
      .min(1)
      .max(255)
      .regex(/^[A-Za-z0-9._-]+$/, "must be the name of a bucket")
      .meta({ description: "The bucket." }),
    prefix: z.string().max(1_024).default("").meta({ description: "Only keys that begin so." }),
    suffixes: z
      .array(z.string().max(64))
      .default([])
      .meta({ description: "Only keys that end so, such as .csv; empty: all." }),
    pathStyle: z
      .boolean()
      .default(true)
      .meta({ description: "Whether the bucket is in the path of addresses, or before the host's name." }),
    ...signingSettings,
    tls: tlsSettings.optional(),
    pollMs: z
      .int()
      .min(500)
      .max(24 * 3_600_000)
      .default(POLL_MS_DEFAULT)
      .meta({ description: "Time between two looks at the whole listing." }),
    lateMs: z
      .int()
      .min(10_000)
      .max(7 * 24 * 3_600_000)
      .default(LATE_MS_DEFAULT)
      .meta({ description: "How long an upload may take: stores date an object to the begin of its upload." }),
    existing: z
      .boolean()
      .default(false)
      .meta({ description: "Whether objects that are there at first are told of, too." }),
  })
  .refine(hasWholeKey, { error: "need both accessKeyId and secretAccessKey, or none" });

type Settings = z.output<typeof schema>;

/** Objects that appear or change in a bucket, found by looking at its listing: for stores that send no notifications. */
export function createBucketKind(): PullKind {
  return pullKind({
    name: "bucket",
    summary: "objects that appear or change in an S3-compatible bucket, found by looking at its listing",
    settings: schema,
    abilities: { ordering: false, replay: true },
    open: (settings, host) => new Bucket(settings, host),
    async check(settings, host, signal) {
      using listing = await BucketListing.open(settings, host);
      await listing.page(null, 1, signal);
    },
    sample: (settings) =>
      objectEvent(settings, {
        key: `${settings.prefix}report.csv`,
        etag: "0123456789abcdef",
        bytes: 1_024,
        modifiedMs: 1_900_000_000_000,
      }),
  });
}

/** How far a source is, as it is stored. Times are of the server's clock. */
interface Position {
  /** Objects of before this time, less the time that uploads may take, were told of by an earlier look. */
  readonly sinceMs: number;
  /** What was told of and is not older than that. */
  readonly seen: readonly string[];
  /** A look that has not ended: when it began, and the last key that it has dealt with. */
  readonly look: { readonly begunMs: number; readonly after: string } | null;
}

class Bucket implements TriggerSource {
  readonly #settings: Settings;
  readonly #host: SourceHost;
  /** Marks of what was told of, with their times. */
  #seen = new Map<string, number>();
  #sinceMs = 0;
  #savedMs = 0;

  constructor(settings: Settings, host: SourceHost) {
    this.#settings = settings;
    this.#host = host;
  }

  async run(emit: Emit, signal: AbortSignal): Promise<void> {
    using listing = await BucketListing.open(this.#settings, this.#host);
    const { pollMs, existing } = this.#settings;
    const stored = await this.#host.checkpoint.read();
    const begun = stored === null ? null : this.#recall(JSON.parse(stored) as Position);
    const tells = stored !== null || existing;
    await this.#look(listing, begun, { emit: tells ? emit : null, signal });
    for (;;) {
      this.#host.report({ state: "connected" });
      await this.#wait(pollMs, signal);
      await this.#look(listing, null, { emit, signal });
    }
  }

  #recall({ sinceMs, seen, look }: Position): Position["look"] {
    this.#sinceMs = sinceMs;
    this.#seen = new Map(seen.map((mark) => [mark, sinceMs]));
    return look;
  }

  /** Goes through the whole listing in the order of its keys, and tells of what is new. Without `emit` everything counts as told. */
  async #look(
    listing: BucketListing,
    begun: Position["look"],
    { emit, signal }: { readonly emit: Emit | null; readonly signal: AbortSignal },
  ): Promise<void> {
    let after = begun?.after ?? null;
    let begunMs = begun?.begunMs ?? null;
    for (let more = true; more;) {
      const { objects, next, serverMs } = await listing.page(after, limits.triggerInFlightMax, signal);
      begunMs ??= serverMs ?? this.#host.clock.nowMs();
      after = objects.at(-1)?.key ?? after;
      const news = objects.filter((object) => this.#isNew(object));
      if (emit !== null) {
        this.#host.report({ lag: { events: news.length, ms: ageOf(news, serverMs) } });
        await Promise.all(news.map((object) => emit(objectEvent(this.#settings, object))));
      }
      for (const object of news) this.#seen.set(markOf(object), object.modifiedMs);
      for (const [mark] of this.#seen) {
        if (this.#seen.size <= SEEN_MAX) break;
        this.#seen.delete(mark);
      }
      more = next !== null;
      if (more && news.length > 0 && emit !== null && after !== null) await this.#save({ begunMs, after });
      if (!more) await this.#ended(begunMs, { changed: news.length > 0 || begun !== null });
    }
    this.#host.report({ lag: { events: 0, ms: 0 } });
  }

  /** From now on nothing older than this look's begin can be new, but for uploads that were under way. */
  async #ended(begunMs: number, { changed }: { readonly changed: boolean }): Promise<void> {
    const { lateMs } = this.#settings;
    this.#sinceMs = begunMs;
    for (const [mark, modifiedMs] of this.#seen) if (modifiedMs < begunMs - lateMs) this.#seen.delete(mark);
    // A look that found nothing is written down now and then only.
    if (!changed && begunMs - this.#savedMs < lateMs / 2) return;
    await this.#save(null);
    this.#savedMs = begunMs;
  }

  async #save(look: Position["look"]): Promise<void> {
    const position: Position = { sinceMs: this.#sinceMs, seen: [...this.#seen.keys()].slice(-REMEMBERED_MAX), look };
    await this.#host.checkpoint.write(JSON.stringify(position));
  }

  #isNew(object: ListedObject): boolean {
    const { suffixes, lateMs } = this.#settings;
    if (object.modifiedMs < this.#sinceMs - lateMs) return false;
    if (suffixes.length > 0 && !suffixes.some((suffix) => object.key.endsWith(suffix))) return false;
    return !this.#seen.has(markOf(object));
  }

  async #wait(ms: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = this.#host.clock.after(ms, resolve);
    signal.addEventListener("abort", () => resolve(), { once: true });
    await promise;
    cancel();
    signal.throwIfAborted();
  }
}

function objectEvent({ endpoint, bucket }: Settings, { key, etag, bytes, modifiedMs }: ListedObject): CloudEvent {
  const modifiedAt = new Date(modifiedMs).toISOString();
  return {
    specversion: "1.0",
    // The same content written at the same time is the same event.
    id: createHash("sha256").update(`${key} ${etag} ${modifiedMs}`).digest("base64url"),
    source: `${new URL(endpoint).origin}/${bucket}`,
    type: "koine.bucket.object",
    subject: key,
    time: modifiedAt,
    datacontenttype: "application/json",
    data: { bucket, key, etag, bytes, modifiedAt },
    extensions: { [PARTITION_KEY]: `${bucket}/${key}` },
  };
}

/** A short name of an object as it is now. */
function markOf({ key, etag, modifiedMs }: ListedObject): string {
  return createHash("sha256").update(`${key} ${etag} ${modifiedMs}`).digest("base64url").slice(0, 12);
}

function ageOf(objects: readonly ListedObject[], serverMs: number | null): number | null {
  if (objects.length === 0) return 0;
  if (serverMs === null) return null;
  return Math.max(0, serverMs - Math.min(...objects.map(({ modifiedMs }) => modifiedMs)));
}
