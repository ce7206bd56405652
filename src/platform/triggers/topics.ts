import type { Clock } from "../../core/clock.ts";
import type { Accepted, EnqueueItem } from "../../core/enqueue.ts";
import { KoineError } from "../../core/errors.ts";
import type { CloudEvent } from "../../core/event.ts";
import type { Limits } from "../../core/limits.ts";
import type { Store } from "../../store/store.ts";
import type { Hosted } from "./host.ts";
import { invocationsFor } from "./delivery.ts";
import { triggerKey } from "./record.ts";

const TOPICS = "topics";

export interface Topic {
  readonly namespace: string;
  readonly name: string;
  readonly description: string;
  readonly createdAtMs: number;
}

export interface Published {
  /** Subscriptions whose filter took at least one of the events. */
  readonly subscriptions: number;
  readonly activationIds: readonly string[];
}

export interface TopicsParts {
  readonly values: Store["values"];
  readonly clock: Clock;
  readonly limits: Limits;
  subscriptions(namespace: string, topic: string): readonly Hosted[];
  put(items: readonly EnqueueItem[]): Promise<readonly Accepted[]>;
}

/** Named places to publish to. What is published is in the queue for every subscription, in one commit, before the publisher hears of it. */
export class Topics {
  readonly #parts: TopicsParts;
  /** Topics that were there when looked for last. */
  readonly #known = new Set<string>();

  constructor(parts: TopicsParts) {
    this.#parts = parts;
  }

  /** Answers whether it is new. @throws KoineError `invalid-name`, `limit-exceeded` */
  async put(
    namespace: string,
    name: string,
    description: string,
  ): Promise<{ readonly topic: Topic; readonly created: boolean }> {
    const { values, clock, limits } = this.#parts;
    const key = triggerKey(namespace, name);
    const before = await values.get(TOPICS, key);
    if (before === null && (await this.list(namespace)).length >= limits.topicsPerNamespaceMax)
      throw new KoineError("limit-exceeded", {
        what: `the number of topics in '${namespace}'`,
        value: limits.topicsPerNamespaceMax + 1,
        allowed: `at most ${limits.topicsPerNamespaceMax}`,
      });
    const createdAtMs = before === null ? clock.nowMs() : (before.value as Topic).createdAtMs;
    const topic: Topic = { namespace, name, description, createdAtMs };
    await values.commit([{ collection: TOPICS, key, value: topic, expect: "any" }]);
    this.#known.add(key);
    return { topic, created: before === null };
  }

  /** @throws KoineError `topic-not-found` */
  async get(namespace: string, name: string): Promise<Topic> {
    const entry = await this.#parts.values.get(TOPICS, triggerKey(namespace, name));
    if (entry === null) throw new KoineError("topic-not-found", { name });
    return entry.value as Topic;
  }

  async list(namespace: string): Promise<readonly Topic[]> {
    const { values, limits } = this.#parts;
    const entries = await values.list(TOPICS, { prefix: `${namespace}/`, limit: limits.topicsPerNamespaceMax });
    return entries.map(({ value }) => value as Topic);
  }

  /** @throws KoineError `topic-not-found`, `not-acceptable-state` while triggers subscribe to it */
  async delete(namespace: string, name: string): Promise<void> {
    await this.get(namespace, name);
    const subscribers = this.#parts.subscriptions(namespace, name).map(({ trigger }) => trigger.name);
    if (subscribers.length > 0)
      throw new KoineError("not-acceptable-state", {
        detail: `Topic '${name}' has the subscriptions ${subscribers.join(", ")}`,
      });
    const key = triggerKey(namespace, name);
    this.#known.delete(key);
    await this.#parts.values.commit([{ collection: TOPICS, key, value: null, expect: "any" }]);
  }

  subscriptionsOf(topic: Pick<Topic, "namespace" | "name">): readonly Hosted[] {
    return this.#parts.subscriptions(topic.namespace, topic.name);
  }

  /** @throws KoineError `topic-not-found`, and as `Platform.enqueueAll` */
  async publish(namespace: string, name: string, events: readonly CloudEvent[]): Promise<Published> {
    const key = triggerKey(namespace, name);
    if (!this.#known.has(key)) {
      await this.get(namespace, name);
      this.#known.add(key);
    }
    const nowMs = this.#parts.clock.nowMs();
    const items: EnqueueItem[] = [];
    const delivered: { readonly hosted: Hosted; readonly count: number }[] = [];
    for (const hosted of this.#parts.subscriptions(namespace, name)) {
      const { trigger, matches, counts } = hosted;
      if (trigger.paused) continue;
      const wanted = events.filter((event) => matches === null || matches(event));
      counts.add("received", events.length);
      if (wanted.length < events.length) counts.add("filtered", events.length - wanted.length);
      if (wanted.length === 0) continue;
      items.push(...invocationsFor(trigger, wanted, nowMs));
      delivered.push({ hosted, count: wanted.length });
    }
    const accepted = await this.#parts.put(items);
    for (const { hosted, count } of delivered) hosted.counts.add("delivered", count);
    return { subscriptions: delivered.length, activationIds: accepted.map(({ activationId }) => activationId) };
  }
}
