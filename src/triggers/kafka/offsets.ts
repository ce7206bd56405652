import type { Consumer, Message } from "@platformatic/kafka";
import { Progress } from "../progress.ts";

const LATEST = -1n;
/** A group that changes all the time lets nothing be committed for so many attempts at most. */
const FAILURES_MAX = 10;

/** A record that is on its way. */
export interface Taken {
  accept(): void;
}

interface Partition {
  readonly topic: string;
  readonly partition: number;
  /** Positions of records that are on their way. */
  readonly inFlight: Set<bigint>;
  readonly progress: Progress<Position>;
  /** The first record that is not known to be accepted, as far as the group knows; null: not known. */
  committed: bigint | null;
  /** Accepted and not committed yet. */
  next: Position | null;
}

interface Position {
  readonly offset: bigint;
  readonly leaderEpoch: number;
}

/** Where a group is in each partition, and up to where everything is accepted. */
export class Offsets {
  readonly #consumer: Consumer;
  readonly #partitions = new Map<string, Partition>();
  #failures = 0;

  constructor(consumer: Consumer) {
    this.#consumer = consumer;
  }

  /** Looks what the group has committed; where it has nothing, it begins where the stream does. */
  async learn(topics: readonly string[], begins: ReadonlyMap<string, bigint>): Promise<void> {
    const assigned = (this.#consumer.assignments ?? []).filter(({ topic }) => topics.includes(topic));
    if (assigned.length === 0) return;
    const commits = await this.#consumer.listCommittedOffsets({ topics: assigned });
    for (const { topic, partitions } of assigned)
      for (const number of partitions) {
        const entry = this.#partition(topic, number);
        const committed = commits.get(topic)?.[number] ?? LATEST;
        entry.committed = committed >= 0n ? committed : null;
        const begin = begins.get(`${topic}:${number}`);
        if (entry.committed === null && begin !== undefined) entry.next ??= { offset: begin, leaderEpoch: -1 };
      }
  }

  /** Commits where the group begins, for partitions in which it has nothing yet. */
  async commitStart(): Promise<void> {
    await this.#commit();
  }

  /** Null for a record that is on its way already. */
  take({ topic, partition, offset, leaderEpoch }: Message): Taken | null {
    const entry = this.#partition(topic, partition);
    if (entry.inFlight.has(offset)) return null;
    entry.inFlight.add(offset);
    const accepted = Promise.withResolvers<void>();
    void entry.progress.track({ offset: offset + 1n, leaderEpoch }, accepted.promise);
    return {
      accept: () => {
        entry.inFlight.delete(offset);
        accepted.resolve();
      },
    };
  }

  /** Commits up to where everything is accepted. */
  async commit(taken: readonly Taken[]): Promise<void> {
    for (const one of taken) one.accept();
    // Progress is told of in the callbacks of promises.
    await new Promise((resolve) => setImmediate(resolve));
    try {
      await this.#commit();
      this.#failures = 0;
    } catch (thrown) {
      // While the members of the group change nothing can be committed; what others get then comes again and is recognised.
      if (!saysRejoin(thrown) || ++this.#failures > FAILURES_MAX) throw thrown;
    }
  }

  /** How many records wait in the partitions that this member reads. */
  async lag(topics: readonly string[]): Promise<number> {
    const latest = await this.#consumer.listOffsets({ topics: [...topics], timestamp: LATEST });
    let events = 0n;
    for (const { topic, partition, committed, next } of this.#assigned()) {
      const end = latest.get(topic)?.[partition];
      const begin = next?.offset ?? committed;
      if (end !== undefined && begin !== null && end > begin) events += end - begin;
    }
    return Number(events);
  }

  async #commit(): Promise<void> {
    const some = this.#assigned().flatMap((entry) => (entry.next === null ? [] : [{ entry, position: entry.next }]));
    if (some.length === 0) return;
    const offsets = some.map(({ entry: { topic, partition }, position }) => ({ topic, partition, ...position }));
    await this.#consumer.commit({ offsets });
    for (const { entry, position } of some) {
      entry.committed = position.offset;
      if (entry.next === position) entry.next = null;
    }
  }

  /** Partitions that were given to others are theirs to commit. */
  #assigned(): readonly Partition[] {
    return (this.#consumer.assignments ?? []).flatMap(({ topic, partitions }) =>
      partitions.flatMap((partition) => this.#partitions.get(`${topic}:${partition}`) ?? []),
    );
  }

  #partition(topic: string, partition: number): Partition {
    const key = `${topic}:${partition}`;
    const existing = this.#partitions.get(key);
    if (existing !== undefined) return existing;
    const made: Partition = {
      topic,
      partition,
      inFlight: new Set(),
      progress: new Progress((position) => {
        made.next = position;
      }),
      committed: null,
      next: null,
    };
    this.#partitions.set(key, made);
    return made;
  }
}

function saysRejoin(thrown: unknown): boolean {
  if (!(thrown instanceof Error)) return false;
  if ("needsRejoin" in thrown && thrown.needsRejoin === true) return true;
  const inner = thrown instanceof AggregateError ? (thrown.errors as readonly unknown[]) : [];
  return [...inner, thrown.cause].some(saysRejoin);
}
