import type { Values } from "../../../store/store.ts";
import { AwsError } from "../wire/error.ts";

/** What is kept of a log group beside its lines. */
export interface LogGroup {
  readonly name: string;
  readonly createdAtMs: number;
  /** Lines older than this are not shown; null: the platform's own retention decides. */
  readonly retentionDays: number | null;
  readonly tags: Readonly<Record<string, string>>;
  /** Lines before this time belong to a group of the same name that was deleted. */
  readonly sinceMs: number;
  /** Streams that were made by hand, with the time at which they were. */
  readonly streams: Readonly<Record<string, number>>;
}

const COLLECTION = "aws.logs.groups";
const PAGE = 1_000;
const STREAMS_MAX = 10_000;

/** Groups that somebody made or changed; those of functions are there without. */
export class LogGroups {
  readonly #values: Values;

  constructor(values: Values) {
    this.#values = values;
  }

  async find(namespace: string, name: string): Promise<LogGroup | null> {
    return ((await this.#values.get(COLLECTION, `${namespace}:${name}`))?.value as LogGroup | undefined) ?? null;
  }

  async list(namespace: string): Promise<readonly LogGroup[]> {
    const groups: LogGroup[] = [];
    for (let after: string | undefined; ;) {
      const page = await this.#values.list(COLLECTION, {
        prefix: `${namespace}:`,
        limit: PAGE,
        ...(after === undefined ? {} : { after }),
      });
      groups.push(...page.map(({ value }) => value as LogGroup));
      after = page.at(-1)?.key;
      if (page.length < PAGE) return groups;
    }
  }

  /** @throws AwsError `OperationAbortedException` when another change came in between, `LimitExceededException` */
  async change(namespace: string, name: string, by: (group: LogGroup | null) => LogGroup): Promise<LogGroup> {
    const key = `${namespace}:${name}`;
    const entry = await this.#values.get(COLLECTION, key);
    const value = by((entry?.value as LogGroup | undefined) ?? null);
    if (Object.keys(value.streams).length > STREAMS_MAX)
      throw new AwsError(
        "LimitExceededException",
        `A group can have at most ${STREAMS_MAX} streams that were made by hand.`,
      );
    await this.#values.commit([{ collection: COLLECTION, key, value, expect: entry?.revision ?? "absent" }]);
    return value;
  }

  async remove(namespace: string, name: string): Promise<void> {
    await this.#values.commit([{ collection: COLLECTION, key: `${namespace}:${name}`, value: null, expect: "any" }]);
  }
}

export function newGroup(name: string, nowMs: number, sinceMs: number = nowMs): LogGroup {
  return { name, createdAtMs: nowMs, retentionDays: null, tags: {}, sinceMs, streams: {} };
}
