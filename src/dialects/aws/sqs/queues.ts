import { randomUUID } from "node:crypto";
import type { Clock } from "../../../core/clock.ts";
import type { Supervise } from "../../../core/telemetry.ts";
import type { Values } from "../../../store/store.ts";
import { accountIdOf } from "../account.ts";
import { AwsError } from "../wire/error.ts";
import type { QueueSettings } from "./attributes.ts";
import { MessageQueue } from "./queue.ts";

/** A queue as it is kept. */
export interface QueueRecord {
  readonly namespace: string;
  readonly name: string;
  /** Distinguishes it from an earlier one of the same name. */
  readonly generation: string;
  readonly region: string;
  readonly settings: QueueSettings;
  readonly tags: Readonly<Record<string, string>>;
  readonly createdAtMs: number;
  readonly modifiedAtMs: number;
}

const COLLECTION = "aws.sqs.queues";
const PAGE = 1_000;
const QUEUES_MAX = 10_000;

interface QueuesParts {
  readonly values: Values;
  readonly clock: Clock;
  readonly supervise: Supervise;
}

/** All queues of all namespaces; what is in one is read when it is used for the first time. */
export class Queues {
  readonly #values: Values;
  readonly #clock: Clock;
  readonly #supervise: Supervise;
  readonly #records: Map<string, QueueRecord>;
  readonly #open = new Map<string, Promise<MessageQueue>>();

  private constructor({ values, clock, supervise }: QueuesParts, records: ReadonlyMap<string, QueueRecord>) {
    this.#values = values;
    this.#clock = clock;
    this.#supervise = supervise;
    this.#records = new Map(records);
  }

  static async open(parts: QueuesParts): Promise<Queues> {
    const { values } = parts;
    const records = new Map<string, QueueRecord>();
    for (let after: string | undefined; ;) {
      const page = await values.list(COLLECTION, { limit: PAGE, ...(after === undefined ? {} : { after }) });
      for (const { key, value } of page) records.set(key, value as QueueRecord);
      after = page.at(-1)?.key;
      if (page.length < PAGE) return new Queues(parts, records);
    }
  }

  find(namespace: string, name: string): QueueRecord | null {
    return this.#records.get(`${namespace}/${name}`) ?? null;
  }

  /** The queue of `arn:aws:sqs:REGION:ACCOUNT:NAME` as seen from a namespace; null: there is none. */
  findByArn(namespace: string, arn: string): QueueRecord | null {
    const [, , service, , account, name] = arn.split(":");
    if (service !== "sqs" || account !== accountIdOf(namespace) || name === undefined) return null;
    return this.find(namespace, name);
  }

  /** In the order of their names. */
  list(namespace: string): readonly QueueRecord[] {
    return [...this.#records.values()]
      .filter((record) => record.namespace === namespace)
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  async create(given: Pick<QueueRecord, "namespace" | "name" | "region" | "settings" | "tags">): Promise<QueueRecord> {
    if (this.#records.size >= QUEUES_MAX)
      throw new AwsError("OverLimit", `There can be at most ${QUEUES_MAX} queues.`, { status: 403 });
    const nowMs = this.#clock.nowMs();
    const record: QueueRecord = {
      ...given,
      generation: randomUUID().slice(0, 8),
      createdAtMs: nowMs,
      modifiedAtMs: nowMs,
    };
    await this.#put(record);
    return record;
  }

  async change(record: QueueRecord, change: Partial<Pick<QueueRecord, "settings" | "tags">>): Promise<void> {
    await this.#put({ ...record, ...change, modifiedAtMs: this.#clock.nowMs() });
  }

  async delete(record: QueueRecord): Promise<void> {
    const key = keyOf(record);
    const queue = await this.messages(record);
    await this.#values.commit([{ collection: COLLECTION, key, value: null, expect: "any" }]);
    this.#records.delete(key);
    this.#open.delete(key);
    await queue.destroy();
  }

  /** What is in a queue. */
  async messages(record: QueueRecord): Promise<MessageQueue> {
    const key = keyOf(record);
    let opened = this.#open.get(key);
    if (opened === undefined) {
      opened = MessageQueue.open({
        values: this.#values,
        clock: this.#clock,
        supervise: this.#supervise,
        key,
        generation: record.generation,
        arn: arnOf(record),
        settings: () => this.#records.get(key)?.settings ?? record.settings,
        deadLetters: async (arn) => {
          const target = this.findByArn(record.namespace, arn);
          return target === null ? null : await this.messages(target);
        },
      });
      this.#open.set(key, opened);
      opened.catch(() => this.#open.delete(key));
    }
    return await opened;
  }

  async #put(record: QueueRecord): Promise<void> {
    await this.#values.commit([{ collection: COLLECTION, key: keyOf(record), value: record, expect: "any" }]);
    this.#records.set(keyOf(record), record);
  }
}

function keyOf({ namespace, name }: Pick<QueueRecord, "namespace" | "name">): string {
  return `${namespace}/${name}`;
}

export function arnOf({ namespace, name, region }: QueueRecord): string {
  return `arn:aws:sqs:${region}:${accountIdOf(namespace)}:${name}`;
}

/** `http://HOST/000000000000/NAME` */
export function urlOf({ namespace, name }: Pick<QueueRecord, "namespace" | "name">, origin: string): string {
  return `${origin}/${accountIdOf(namespace)}/${name}`;
}

/** The name at the end of a queue's address. */
export function nameInUrl(url: string): string {
  return url.split("?")[0]?.split("/").at(-1) ?? "";
}
