import { z } from "zod";
import { type CloudEvent, PARTITION_KEY } from "../../core/event.ts";
import { eventOf, textOf } from "../connection/content.ts";
import { Every } from "../connection/every.ts";
import { Intake } from "../connection/intake.ts";
import { type Emit, type PullKind, pullKind, type SourceHost, type TriggerSource } from "../trigger.ts";
import {
  arrayOf,
  BLOCK_MS_MAX,
  bytesOf,
  checkType,
  connect,
  connectionSettings,
  connectTwice,
  type Redis,
  serverOf,
} from "./connect.ts";

const READ_MAX = 500;
const LAG_EVERY_MS = 5_000;
const CLAIM_COUNT = 100;

const schema = z.strictObject({
  ...connectionSettings,
  streams: z
    .array(z.string().min(1).max(512))
    .min(1)
    .max(32)
    .meta({ description: "Keys of the streams.", examples: [["orders"]] }),
  group: z.string().min(1).max(256).optional().meta({
    description: "The consumer group; by default one of the trigger's own. It is made where it is not there.",
  }),
  from: z
    .enum(["new", "beginning"])
    .default("new")
    .meta({ description: "Where a group that is made begins: with what comes, or with what is there." }),
  dataField: z
    .string()
    .max(256)
    .optional()
    .meta({ description: "The field whose value is the event's data; else data is an object of all fields." }),
  keyField: z
    .string()
    .max(256)
    .optional()
    .meta({ description: "The field whose value is the partitionkey; else that is the stream's key." }),
  claimIdleMs: z
    .int()
    .min(61_000)
    .max(24 * 3_600_000)
    .default(300_000)
    .meta({
      description: "What another consumer of the group has had for so long without acknowledging is taken over.",
    }),
  delete: z.boolean().default(false).meta({ description: "Whether entries are deleted once they are acknowledged." }),
});

type Settings = z.output<typeof schema>;

interface Receipt {
  readonly stream: string;
  readonly id: string;
}

/** Entries of Redis streams, read by a consumer group. */
export function createRedisStreamKind(): PullKind {
  return pullKind({
    name: "redis-stream",
    summary: "entries of Redis streams, read by a consumer group",
    settings: schema,
    abilities: { ordering: true, replay: true },
    open: (settings, host) => new Streams(settings, host),
    async check(settings, host, signal) {
      const redis = await connect(settings, host, { signal });
      try {
        for (const stream of settings.streams) await checkType(redis, stream, "stream");
      } finally {
        redis.close();
      }
    },
    sample: (settings) =>
      entryEvent(settings, settings.streams[0] ?? "", "1700000000000-0", [
        ...(settings.keyField === undefined ? [] : [Buffer.from(settings.keyField), Buffer.from("a")]),
        Buffer.from(settings.dataField ?? "hello"),
        Buffer.from("world"),
      ]),
  });
}

class Streams implements TriggerSource {
  readonly #settings: Settings;
  readonly #host: SourceHost;
  readonly #group: string;
  readonly #consumer: string;
  /** What this run has read and not acknowledged: taking over must not take it from itself. */
  readonly #inFlight = new Set<string>();

  constructor(settings: Settings, host: SourceHost) {
    this.#settings = settings;
    this.#host = host;
    const { id, namespace, name } = host.trigger;
    this.#group = settings.group ?? `koine:${namespace}:${name}`;
    // One node at a time runs a trigger, so whoever runs it next finds under this name what the one before did not acknowledge.
    this.#consumer = `koine-${id}`;
  }

  async run(emit: Emit, signal: AbortSignal): Promise<void> {
    const { news, control, close } = await connectTwice(this.#settings, this.#host, signal);
    const intake = new Intake<Receipt>({
      emit,
      signal,
      acknowledge: (receipts) => this.#acknowledge(control, receipts),
    });
    intake.signal.addEventListener("abort", () => news.close(), { once: true });
    try {
      await this.#joinGroups(control);
      await this.#readPending(news, intake);
      this.#host.report({ state: "connected", detail: `group ${this.#group}` });
      await this.#follow(news, control, intake);
    } catch (thrown) {
      intake.signal.throwIfAborted();
      throw thrown;
    } finally {
      await intake.end();
      close();
    }
  }

  /** A group that was there once and is gone, with its server's data maybe, begins anew at the beginning: what was accepted before is recognised. */
  async #joinGroups(redis: Redis): Promise<void> {
    const joined = new Set(JSON.parse((await this.#host.checkpoint.read()) ?? "[]") as readonly string[]);
    for (const stream of this.#settings.streams) {
      const mark = `${stream} ${this.#group}`;
      const start = joined.has(mark) || this.#settings.from === "beginning" ? "0" : "$";
      try {
        await redis.send("XGROUP", "CREATE", stream, this.#group, start, "MKSTREAM");
      } catch (thrown) {
        if (!String(thrown).includes("BUSYGROUP")) throw thrown;
      }
      joined.add(mark);
    }
    await this.#host.checkpoint.write(JSON.stringify([...joined]));
  }

  /** What was read by an earlier run and not acknowledged comes first. */
  async #readPending(redis: Redis, intake: Intake<Receipt>): Promise<void> {
    for (const stream of this.#settings.streams) {
      for (let after = "0"; ;) {
        const count = String(Math.min(await intake.room(), READ_MAX));
        const reply = await redis.send(...this.#read(count), "STREAMS", stream, after);
        const last = this.#take(reply, intake);
        if (last === null) break;
        after = last;
      }
    }
  }

  async #follow(news: Redis, control: Redis, intake: Intake<Receipt>): Promise<void> {
    const { clock } = this.#host;
    const { streams, claimIdleMs } = this.#settings;
    const lag = new Every(clock, LAG_EVERY_MS);
    const claim = new Every(clock, Math.min(claimIdleMs, 60_000));
    const ends = streams.map(() => ">");
    for (;;) {
      if (lag.isDue()) await this.#reportLag(control);
      if (claim.isDue()) await this.#takeOver(control, intake);
      const count = String(Math.min(await intake.room(), READ_MAX));
      const block = ["BLOCK", String(BLOCK_MS_MAX)];
      this.#take(await news.send(...this.#read(count), ...block, "STREAMS", ...streams, ...ends), intake);
    }
  }

  #read(count: string): readonly string[] {
    return ["XREADGROUP", "GROUP", this.#group, this.#consumer, "COUNT", count];
  }

  /** Hands over what was read; answers the last entry's id. */
  #take(reply: unknown, intake: Intake<Receipt>): string | null {
    let last: string | null = null;
    for (const pair of arrayOf(reply)) {
      const [stream, entries] = arrayOf(pair);
      for (const entry of arrayOf(entries)) last = this.#takeEntry(bytesOf(stream).toString(), entry, intake);
    }
    return last;
  }

  #takeEntry(stream: string, entry: unknown, intake: Intake<Receipt>): string {
    const [idBytes, fields] = arrayOf(entry);
    const id = bytesOf(idBytes).toString();
    this.#inFlight.add(`${stream} ${id}`);
    // An entry that was deleted before it was read has no fields any more: there is nothing to deliver.
    const words = arrayOf(fields ?? null).map(bytesOf);
    const events = words.length === 0 ? [] : [entryEvent(this.#settings, stream, id, words)];
    const bytes = words.reduce((sum, word) => sum + word.length, 0);
    intake.take(events, { stream, id }, bytes);
    return id;
  }

  /** What others of the group have read long ago and not acknowledged. */
  async #takeOver(redis: Redis, intake: Intake<Receipt>): Promise<void> {
    const { streams, claimIdleMs } = this.#settings;
    for (const stream of streams) {
      for (let cursor = "0-0"; ;) {
        await intake.room();
        const words = [stream, this.#group, this.#consumer, String(claimIdleMs), cursor, "COUNT", String(CLAIM_COUNT)];
        const [next, entries] = arrayOf(await redis.send("XAUTOCLAIM", ...words));
        for (const entry of arrayOf(entries)) {
          const [id] = arrayOf(entry);
          if (!this.#inFlight.has(`${stream} ${bytesOf(id).toString()}`)) this.#takeEntry(stream, entry, intake);
        }
        cursor = bytesOf(next).toString();
        if (cursor === "0-0") break;
      }
    }
  }

  async #acknowledge(redis: Redis, receipts: readonly Receipt[]): Promise<void> {
    const byStream = Map.groupBy(receipts, ({ stream }) => stream);
    for (const [stream, some] of byStream) {
      const ids = some.map(({ id }) => id);
      await redis.send("XACK", stream, this.#group, ...ids);
      if (this.#settings.delete) await redis.send("XDEL", stream, ...ids);
      for (const id of ids) this.#inFlight.delete(`${stream} ${id}`);
    }
  }

  async #reportLag(redis: Redis): Promise<void> {
    let events: number | null = 0;
    let oldestMs: number | null = null;
    for (const stream of this.#settings.streams) {
      const group = await this.#groupFacts(redis, stream);
      // Servers before version 7 do not tell how many entries have not been read.
      const lag: number | null = group.lag;
      events = events === null || lag === null ? null : events + lag + group.pending;
      if (lag === 0) continue;
      const [entry] = arrayOf(await redis.send("XRANGE", stream, `(${group.lastDelivered}`, "+", "COUNT", "1"));
      const atMs = entry === undefined ? null : timeOf(bytesOf(arrayOf(entry)[0]).toString());
      if (atMs !== null) oldestMs = Math.min(oldestMs ?? atMs, atMs);
    }
    const ms = oldestMs === null ? 0 : Math.max(0, this.#host.clock.nowMs() - oldestMs);
    this.#host.report({ lag: { events, ms } });
  }

  async #groupFacts(
    redis: Redis,
    stream: string,
  ): Promise<{ readonly lag: number | null; readonly pending: number; readonly lastDelivered: string }> {
    for (const group of arrayOf(await redis.send("XINFO", "GROUPS", stream))) {
      const words = arrayOf(group);
      const facts = new Map(
        Array.from({ length: words.length / 2 }, (_, index) => [
          bytesOf(words[index * 2]).toString(),
          words[index * 2 + 1],
        ]),
      );
      if (bytesOf(facts.get("name")).toString() !== this.#group) continue;
      const lag = facts.get("lag");
      return {
        lag: typeof lag === "number" ? lag : null,
        pending: Number(facts.get("pending") ?? 0),
        lastDelivered: bytesOf(facts.get("last-delivered-id")).toString(),
      };
    }
    return { lag: null, pending: 0, lastDelivered: "0-0" };
  }
}

function entryEvent(settings: Settings, stream: string, id: string, words: readonly Buffer[]): CloudEvent {
  const { url, dataField, keyField } = settings;
  const fields = new Map<string, Buffer>();
  for (let index = 0; index + 1 < words.length; index += 2)
    fields.set(String(words[index]), words[index + 1] ?? Buffer.alloc(0));
  const key = keyField === undefined ? undefined : fields.get(keyField)?.toString();
  const atMs = timeOf(id);
  const attributes = {
    id,
    source: `${serverOf(url)}/${encodeURIComponent(stream)}`,
    type: "koine.redis.entry",
    subject: stream,
    ...(atMs === null ? {} : { time: new Date(atMs).toISOString() }),
    extensions: { [PARTITION_KEY]: key ?? stream },
  };
  const value = dataField === undefined ? undefined : fields.get(dataField);
  if (value !== undefined) return eventOf(value, attributes);
  const data = Object.fromEntries(
    [...fields].map(([name, bytes]) => [name, textOf(bytes) ?? bytes.toString("base64")]),
  );
  return { specversion: "1.0", ...attributes, datacontenttype: "application/json", data };
}

/** Ids begin with the time, unless the producer makes its own. */
function timeOf(id: string): number | null {
  const ms = Number(id.slice(0, id.indexOf("-")));
  return ms > 1e12 && ms < 1e13 ? ms : null;
}
