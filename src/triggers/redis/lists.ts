import { z } from "zod";
import { type CloudEvent, PARTITION_KEY } from "../../core/event.ts";
import { eventOf } from "../connection/content.ts";
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

const TAKE_MAX = 200;
const LAG_EVERY_MS = 5_000;

const schema = z.strictObject({
  ...connectionSettings,
  list: z.string().min(1).max(512).meta({ description: "Key of the list." }),
  take: z.enum(["left", "right"]).default("left").meta({
    description: "Which end elements are taken from: left for producers that RPUSH, right for those that LPUSH.",
  }),
});

type Settings = z.output<typeof schema>;

/**
 * Moves elements into a hash of what is being handled, each under an id that stays its own when it is delivered again: the server's time tells apart what
 * a server that has lost its newest writes would count twice.
 */
const TAKE = `local taken = {}
local now = redis.call('TIME')
local at = now[1] .. string.format('%06d', now[2])
for _ = 1, tonumber(ARGV[1]) do
  local element = redis.call(ARGV[2], KEYS[1])
  if not element then break end
  local id = at .. '-' .. redis.call('INCR', KEYS[3])
  redis.call('HSET', KEYS[2], id, element)
  taken[#taken + 1] = id
  taken[#taken + 1] = element
end
return taken`;

/** Elements of a Redis list, each moved aside until it is accepted. */
export function createRedisListKind(): PullKind {
  return pullKind({
    name: "redis-list",
    summary: "elements of a Redis list, each kept aside in Redis until it is accepted",
    settings: schema,
    abilities: { ordering: true, replay: true },
    open: (settings, host) => new List(settings, host),
    async check(settings, host, signal) {
      const redis = await connect(settings, host, { signal });
      try {
        await checkType(redis, settings.list, "list");
      } finally {
        redis.close();
      }
    },
    sample: (settings) => elementEvent(settings, "1700000000000000-1", Buffer.from('{"hello":"world"}')),
  });
}

class List implements TriggerSource {
  readonly #settings: Settings;
  readonly #host: SourceHost;
  readonly #aside: string;
  readonly #counter: string;

  constructor(settings: Settings, host: SourceHost) {
    this.#settings = settings;
    this.#host = host;
    // The braces keep all three keys in one slot of a cluster.
    const { list } = settings;
    const tag = list.includes("{") ? list : `{${list}}`;
    this.#aside = `${tag}:koine:${host.trigger.id}`;
    this.#counter = `${this.#aside}:n`;
  }

  async run(emit: Emit, signal: AbortSignal): Promise<void> {
    const { news, control, close } = await connectTwice(this.#settings, this.#host, signal);
    const intake = new Intake<string>({
      emit,
      signal,
      acknowledge: async (ids) => void (await control.send("HDEL", this.#aside, ...ids)),
    });
    intake.signal.addEventListener("abort", () => news.close(), { once: true });
    try {
      await this.#takeAside(control, intake);
      this.#host.report({ state: "connected", detail: `list ${this.#settings.list}` });
      await this.#follow(news, control, intake);
    } catch (thrown) {
      intake.signal.throwIfAborted();
      throw thrown;
    } finally {
      await intake.end();
      close();
    }
  }

  /** What an earlier run has moved aside and not acknowledged comes first, in its order. There are at most as many as may be in flight. */
  async #takeAside(redis: Redis, intake: Intake<string>): Promise<void> {
    const left = pairsOf(await redis.send("HGETALL", this.#aside));
    left.sort(([a], [b]) => orderOf(a) - orderOf(b));
    await this.#takeAll(left, intake);
  }

  async #follow(news: Redis, control: Redis, intake: Intake<string>): Promise<void> {
    const { list, take } = this.#settings;
    const [pop, side] = take === "left" ? ["LPOP", "LEFT"] : ["RPOP", "RIGHT"];
    const lag = new Every(this.#host.clock, LAG_EVERY_MS);
    for (;;) {
      const most = String(Math.min(await intake.room(), TAKE_MAX));
      const taken = await news.send("EVAL", TAKE, "3", list, this.#aside, this.#counter, most, pop);
      if (lag.isDue()) await this.#reportLag(control);
      if (arrayOf(taken).length > 0) await this.#takeAll(pairsOf(taken), intake);
      // An element that is moved from an end to the same end stays where it is: this only waits until there is one.
      else await news.send("BLMOVE", list, list, side, side, String(BLOCK_MS_MAX / 1_000));
    }
  }

  async #takeAll(elements: readonly (readonly [string, Buffer])[], intake: Intake<string>): Promise<void> {
    for (const [id, element] of elements) {
      await intake.room();
      intake.take([elementEvent(this.#settings, id, element)], id, element.length);
    }
  }

  async #reportLag(redis: Redis): Promise<void> {
    const [waiting, aside] = [await redis.send("LLEN", this.#settings.list), await redis.send("HLEN", this.#aside)];
    this.#host.report({ lag: { events: Number(waiting) + Number(aside), ms: null } });
  }
}

function elementEvent({ url, list }: Settings, id: string, element: Buffer): CloudEvent {
  return eventOf(element, {
    id,
    source: `${serverOf(url)}/${encodeURIComponent(list)}`,
    type: "koine.redis.element",
    subject: list,
    time: new Date(Number(id.slice(0, id.indexOf("-"))) / 1_000).toISOString(),
    extensions: { [PARTITION_KEY]: list },
  });
}

function pairsOf(reply: unknown): (readonly [string, Buffer])[] {
  const words = arrayOf(reply);
  return Array.from({ length: words.length / 2 }, (_, index) => [
    bytesOf(words[index * 2]).toString(),
    bytesOf(words[index * 2 + 1]),
  ]);
}

/** The count that is the second half of an id. */
function orderOf(id: string): number {
  return Number(id.slice(id.indexOf("-") + 1));
}
