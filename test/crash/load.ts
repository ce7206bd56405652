import { Agent, request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { crc32 } from "node:zlib";
import type { Evidence } from "./evidence.ts";
import type { Random } from "./random.ts";

const NS = "/v1/namespaces/default";
const SENDERS = 6;
const ORDERING_KEYS = 5;
const IDEMPOTENCY_KEYS_KNOWN = 40;
const DELAY_MS_MAX = 1_500;
const PAD_MAX = 6_000;
/** Attempts that fail of an event that never succeeds. */
export const ALWAYS = 99;

export interface LoadOptions {
  readonly evidence: Evidence;
  readonly random: Random;
  /** Begins each event's id. */
  readonly name: string;
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Clients that send whatever the queue takes, and write down what they were told. They go on over all lives of a platform. */
export class Load {
  readonly #options: LoadOptions;
  /** Per ordering key: how many were sent, and the end of the last send. An order is one of acceptance only when each waits for the one before. */
  readonly #keys = Array.from({ length: ORDERING_KEYS }, () => ({ sent: 0, last: Promise.resolve() }));
  readonly #idempotencyKeys: string[] = [];
  #count = 0;

  constructor(options: LoadOptions) {
    this.#options = options;
  }

  get sent(): number {
    return this.#count;
  }

  /** Sends until the signal aborts or so many events were sent; resolves when every answer is there, or its connection broke. */
  async run(url: string, { events, signal }: { readonly events: number; readonly signal: AbortSignal }): Promise<void> {
    const agent = new Agent({ keepAlive: true });
    const end = this.#count + events;
    const sender = async (): Promise<void> => {
      while (!signal.aborted && this.#count < end) {
        await this.#sendOne(url, agent);
        await sleep(this.#options.random.between(0, 12));
      }
    };
    await Promise.all(Array.from({ length: SENDERS }, sender));
    agent.destroy();
  }

  async #sendOne(url: string, agent: Agent): Promise<void> {
    const { random, name } = this.#options;
    const event = `${name}-${this.#count++}`;
    const choice = random.next();
    if (choice < 0.12) return await this.#publish(url, agent, event);
    if (choice < 0.3) return await this.#sendOrdered(url, agent, event);
    const idempotencyKey = choice < 0.42 ? this.#idempotencyKey(event) : null;
    const delayMs = choice > 0.88 ? random.between(0, DELAY_MS_MAX) : 0;
    await this.#enqueue(url, agent, { event, idempotencyKey, delayMs, key: null, n: 0 });
  }

  /** Half of the time one that was used before, also in an earlier life. */
  #idempotencyKey(event: string): string {
    const { random } = this.#options;
    const known = this.#idempotencyKeys;
    if (known.length > 0 && random.chance(0.5)) return known[random.between(0, known.length - 1)] ?? event;
    known.push(event);
    if (known.length > IDEMPOTENCY_KEYS_KNOWN) known.shift();
    return event;
  }

  async #sendOrdered(url: string, agent: Agent, event: string): Promise<void> {
    const index = this.#options.random.between(0, ORDERING_KEYS - 1);
    const key = this.#keys[index];
    if (key === undefined) return;
    const send = key.last.then(async () => {
      const n = ++key.sent;
      await this.#enqueue(url, agent, { event, idempotencyKey: null, delayMs: 0, key: `key-${index}`, n });
    });
    key.last = send;
    await send;
  }

  async #enqueue(
    url: string,
    agent: Agent,
    item: {
      readonly event: string;
      readonly idempotencyKey: string | null;
      readonly delayMs: number;
      readonly key: string | null;
      readonly n: number;
    },
  ): Promise<void> {
    const { random, evidence } = this.#options;
    const { event, idempotencyKey, delayMs, key, n } = item;
    const fate = random.next();
    const failures = fate < 0.02 ? ALWAYS : fate < 0.12 ? 1 : fate < 0.15 ? 2 : 0;
    const vain = fate > 0.99;
    const pad = "x".repeat(random.chance(0.1) ? random.between(0, PAD_MAX) : 8);
    const pauseMs = random.chance(0.3) ? random.between(1, 60) : 0;
    const body = { id: event, key, n, failures, vain, pauseMs, pad, check: crc32(pad) };
    const headers = {
      ...(idempotencyKey === null ? {} : { "idempotency-key": idempotencyKey }),
      ...(delayMs === 0 ? {} : { "koine-delay": `${delayMs}ms` }),
      ...(key === null ? {} : { "koine-ordering-key": key }),
      ...(random.chance(0.1) ? { "koine-priority": "high" } : {}),
    };
    evidence.told({ kind: "sent", to: "work", event, idempotencyKey, delayMs, failures, vain, atMs: Date.now() });
    await this.#post(url, agent, { path: `${NS}/functions/work/invoke?mode=async`, headers, body, events: [event] });
  }

  async #publish(url: string, agent: Agent, first: string): Promise<void> {
    const { random, evidence } = this.#options;
    const events = Array.from(
      { length: random.between(1, 6) },
      (_, index) => `${first}.${index + random.between(0, 1) * 7}`,
    );
    const distinct = [...new Set(events)];
    for (const event of distinct)
      evidence.told({
        kind: "sent",
        to: "topic",
        event,
        idempotencyKey: null,
        delayMs: 0,
        failures: 0,
        vain: false,
        atMs: Date.now(),
      });
    const body = distinct.map((id) => ({ specversion: "1.0", id, source: "/crash", type: "made" }));
    const headers = { "content-type": "application/cloudevents-batch+json" };
    await this.#post(url, agent, { path: `${NS}/topics/made`, headers, body, events: distinct });
  }

  async #post(
    url: string,
    agent: Agent,
    sent: {
      readonly path: string;
      readonly headers: Record<string, string>;
      readonly body: unknown;
      readonly events: readonly string[];
    },
  ): Promise<void> {
    const { evidence } = this.#options;
    const { path, headers, body, events } = sent;
    const answer = await post(`${url}${path}`, agent, headers, JSON.stringify(body));
    // What is not answered may have been accepted or not.
    if (answer === null) return;
    const said = answer.text === "" ? {} : (JSON.parse(answer.text) as Said);
    for (const event of events) {
      if (answer.status === 202)
        evidence.told({
          kind: "accepted",
          event,
          activation: said.activationId ?? "",
          duplicate: said.duplicate ?? false,
        });
      else evidence.told({ kind: "refused", event, status: answer.status, code: said.error?.code ?? "" });
    }
  }
}

interface Said {
  readonly activationId?: string;
  readonly duplicate?: boolean;
  readonly error?: { readonly code: string };
}

/** Null when the connection broke before the answer was whole. */
async function post(url: string, agent: Agent, headers: Record<string, string>, body: string): Promise<Answer | null> {
  const { promise, resolve } = Promise.withResolvers<Answer | null>();
  const outgoing = request(url, { method: "POST", agent, headers: { "content-type": "application/json", ...headers } });
  outgoing.on("error", () => resolve(null));
  outgoing.on("response", (incoming) => {
    let text = "";
    incoming.setEncoding("utf8").on("data", (part: string) => (text += part));
    incoming.on("error", () => resolve(null));
    incoming.on("close", () => resolve(incoming.complete ? { status: incoming.statusCode ?? 0, text } : null));
  });
  outgoing.end(body);
  return await promise;
}
