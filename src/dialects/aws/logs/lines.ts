import type { Platform } from "../../../platform/platform.ts";
import type { StoredLogRecord } from "../../../store/store.ts";
import type { LogGroup } from "./groups.ts";
import { streamNameOf } from "./stream-name.ts";

/** One line of a group, as the service tells it. */
export interface LogEvent {
  readonly sequence: number;
  readonly streamName: string;
  readonly timeMs: number;
  readonly message: string;
}

/** Lines that were put here by clients have this package, which no function can be in. */
const PUT_PACKAGE = "aws.logs";
const FUNCTION_GROUP = "/aws/lambda/";
const DAY_MS = 24 * 3_600_000;
const FETCH_MAX = 10_000;

/** Lines of log groups: of functions, out of the platform's own log, and those that clients put. */
export class LogLines {
  readonly #platform: Platform;
  /** How the API numbers a version of the platform. */
  readonly #versionOf: (namespace: string, name: string, number: number) => Promise<string>;

  constructor(platform: Platform, versionOf: (namespace: string, name: string, number: number) => Promise<string>) {
    this.#platform = platform;
    this.#versionOf = versionOf;
  }

  /** The function whose group it is; null: a group of somebody's own. */
  functionOf(namespace: string, group: string): string | null {
    if (!group.startsWith(FUNCTION_GROUP)) return null;
    const name = group.slice(FUNCTION_GROUP.length);
    return this.#platform.parts.catalogue.has({ namespace, package: "", name }) ? name : null;
  }

  /** Names of the functions of a namespace, whose groups are there without having been made. */
  functionGroups(namespace: string): readonly string[] {
    return [...this.#platform.parts.catalogue.all()]
      .filter(({ record }) => record.namespace === namespace && record.package === "")
      .map(({ record }) => FUNCTION_GROUP + record.name);
  }

  /** Puts lines into a stream; readable when it resolves. */
  async put(
    namespace: string,
    of: { readonly group: string; readonly stream: string },
    events: readonly { readonly timestamp: number; readonly message: string }[],
  ): Promise<void> {
    const { log } = this.#platform.parts.store;
    log.append(
      [],
      events.map(({ timestamp, message }) => ({
        namespace,
        package: PUT_PACKAGE,
        name: of.group,
        version: 0,
        instanceId: of.stream,
        activationId: null,
        timeMs: timestamp,
        stream: "stdout",
        line: message,
      })),
    );
    await log.flush();
  }

  /**
   * Up to `limit` lines of a group from `sinceMs` on, the oldest first, or the newest of them; `complete` says that there are no more in that direction.
   * Only those with a greater sequence than `afterSequence`.
   */
  async read(
    namespace: string,
    group: LogGroup,
    query: {
      readonly sinceMs: number;
      readonly beforeMs: number;
      readonly afterSequence: number;
      readonly newest: boolean;
      readonly nowMs: number;
    },
  ): Promise<{ readonly events: readonly LogEvent[]; readonly complete: boolean }> {
    const oldestMs = group.retentionDays === null ? 0 : query.nowMs - group.retentionDays * DAY_MS;
    const sinceMs = Math.max(query.sinceMs, group.sinceMs, oldestMs);
    if (sinceMs >= query.beforeMs) return { events: [], complete: true };
    const sources = [{ package: PUT_PACKAGE, name: group.name }];
    const functionName = this.functionOf(namespace, group.name);
    if (functionName !== null) sources.push({ package: "", name: functionName });
    const read = await Promise.all(
      sources.map(async (source) => await this.#window(namespace, source, { ...query, sinceMs })),
    );
    const records = read.flatMap((each) => each.records);
    const versions = await this.#versionsOf(namespace, functionName, records);
    const events = records.map((record) => eventOf(record, versions));
    return {
      events: events.sort((a, b) => a.timeMs - b.timeMs || a.sequence - b.sequence),
      complete: read.every(({ complete }) => complete),
    };
  }

  /** The log gives the newest of what matches: for the oldest the window is halved until all of it fits. */
  async #window(
    namespace: string,
    source: { readonly package: string; readonly name: string },
    query: {
      readonly sinceMs: number;
      readonly beforeMs: number;
      readonly afterSequence: number;
      readonly newest: boolean;
    },
  ): Promise<{ readonly records: readonly StoredLogRecord[]; readonly complete: boolean }> {
    const { sinceMs, afterSequence, newest } = query;
    let { beforeMs } = query;
    for (;;) {
      const records = await this.#platform.logs({
        namespace,
        ...source,
        sinceMs,
        beforeMs,
        afterSequence,
        limit: FETCH_MAX,
      });
      if (newest || records.length < FETCH_MAX || beforeMs - sinceMs <= 1)
        return { records, complete: newest ? records.length < FETCH_MAX : beforeMs === query.beforeMs };
      beforeMs = sinceMs + Math.ceil((beforeMs - sinceMs) / 2);
    }
  }

  /** Names of the versions that lines are of, by the platform's number. */
  async #versionsOf(
    namespace: string,
    name: string | null,
    records: readonly StoredLogRecord[],
  ): Promise<ReadonlyMap<number, string>> {
    const numbers = name === null ? [] : [...new Set(records.map(({ version }) => version))];
    const names = numbers.map(
      async (number) => [number, await this.#versionOf(namespace, name ?? "", number)] as const,
    );
    return new Map(await Promise.all(names));
  }
}

function eventOf(record: StoredLogRecord, versions: ReadonlyMap<number, string>): LogEvent {
  const { sequence, timeMs, line, instanceId } = record;
  if (record.package === PUT_PACKAGE) return { sequence, timeMs, message: line, streamName: instanceId };
  const version = versions.get(record.version) ?? String(record.version);
  return { sequence, timeMs, message: `${line}\n`, streamName: streamNameOf(instanceId, version) };
}
