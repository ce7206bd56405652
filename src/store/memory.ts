import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { KoineError } from "../core/errors.ts";
import type { Activation, LogRecord } from "../core/invocation.ts";
import { MemoryQueue } from "./memory/queue.ts";
import type {
  ActivationLog,
  ActivationQuery,
  Blobs,
  LogQuery,
  Store,
  StoredLogRecord,
  ValueChange,
  ValueEntry,
  Values,
} from "./store.ts";

/** A Store that forgets everything when it closes: the specification of the others, and what tests of other parts run on. */
export function openMemoryStore(): Store {
  return {
    values: new MemoryValues(),
    log: new MemoryLog(),
    queue: new MemoryQueue(),
    blobs: new MemoryBlobs(),
    close: async () => {},
  };
}

class MemoryValues implements Values {
  readonly #collections = new Map<string, Map<string, { readonly text: string; readonly revision: number }>>();
  #revision = 0;

  async get(collection: string, key: string): Promise<ValueEntry | null> {
    const stored = this.#collections.get(collection)?.get(key);
    return stored === undefined ? null : { key, value: JSON.parse(stored.text), revision: stored.revision };
  }

  async list(
    collection: string,
    query: { readonly prefix?: string; readonly after?: string; readonly limit: number },
  ): Promise<readonly ValueEntry[]> {
    const { prefix = "", after, limit } = query;
    return [...(this.#collections.get(collection) ?? [])]
      .filter(([key]) => key.startsWith(prefix) && (after === undefined || compareBytes(key, after) > 0))
      .toSorted(([a], [b]) => compareBytes(a, b))
      .slice(0, limit)
      .map(([key, stored]) => ({ key, value: JSON.parse(stored.text), revision: stored.revision }));
  }

  async commit(changes: readonly ValueChange[]): Promise<readonly number[]> {
    for (const { collection, key, expect } of changes) {
      const revision = this.#collections.get(collection)?.get(key)?.revision ?? "absent";
      if (expect !== "any" && expect !== revision) throw new KoineError("conflict", { name: key });
    }
    return changes.map(({ collection, key, value }) => {
      const entries = this.#collections.get(collection) ?? new Map();
      this.#collections.set(collection, entries);
      if (value === null) {
        entries.delete(key);
        return 0;
      }
      const revision = ++this.#revision;
      entries.set(key, { text: JSON.stringify(value), revision });
      return revision;
    });
  }
}

type Result = { readonly status: number; readonly headers: readonly string[]; readonly body: Uint8Array };

class MemoryLog implements ActivationLog {
  /** In the order of their first append. */
  readonly #activations = new Map<string, Activation>();
  readonly #results = new Map<string, Result>();
  #lines: StoredLogRecord[] = [];
  #sequence = 0;

  append(activations: readonly Activation[], logs: readonly LogRecord[]): void {
    for (const activation of activations) this.#activations.set(activation.id, activation);
    for (const record of logs) this.#lines.push({ ...record, sequence: ++this.#sequence });
  }

  async putResult(activationId: string, result: Result): Promise<void> {
    this.#results.set(activationId, { ...result, body: Uint8Array.from(result.body) });
  }

  async getResult(activationId: string): Promise<Result | null> {
    return this.#results.get(activationId) ?? null;
  }

  async get(activationId: string): Promise<Activation | null> {
    return this.#activations.get(activationId) ?? null;
  }

  async list(query: ActivationQuery): Promise<readonly Activation[]> {
    const ordered = [...this.#activations.values()].toReversed().toSorted((a, b) => b.startedAtMs - a.startedAtMs);
    const from = query.after === undefined ? 0 : ordered.findIndex(({ id }) => id === query.after) + 1;
    if (query.after !== undefined && from === 0) return [];
    return ordered
      .slice(from)
      .filter(
        (activation) =>
          isOfFunction(activation, query) &&
          (query.state === undefined || activation.state === query.state) &&
          isWithin(activation.startedAtMs, query),
      )
      .slice(0, query.limit);
  }

  async logs(query: LogQuery): Promise<readonly StoredLogRecord[]> {
    const matching = this.#lines.filter(
      (line) =>
        isOfFunction(line, query) &&
        (query.version === undefined || line.version === query.version) &&
        (query.activationId === undefined || line.activationId === query.activationId) &&
        line.sequence > (query.afterSequence ?? 0) &&
        isWithin(line.timeMs, query),
    );
    return matching.slice(Math.max(0, matching.length - query.limit));
  }

  async flush(): Promise<void> {}

  async retain(bounds: { readonly olderThanMs: number; readonly bytesMax: number }): Promise<{
    readonly activations: number;
    readonly lines: number;
  }> {
    const before = { activations: this.#activations.size, lines: this.#lines.length };
    for (const { id, startedAtMs } of this.#activations.values()) {
      if (startedAtMs < bounds.olderThanMs) this.#remove(id);
    }
    this.#lines = this.#lines.filter(({ timeMs }) => timeMs >= bounds.olderThanMs);
    let bytes =
      [...this.#activations.keys()].reduce((sum, id) => sum + this.#bytesOf(id), 0) +
      this.#lines.reduce((sum, line) => sum + LINE_BYTES + line.line.length, 0);
    while (bytes > bounds.bytesMax && this.#lines.length + this.#activations.size > 0) {
      const [line] = this.#lines;
      const [activation] = this.#activations.values();
      if (activation === undefined || (line !== undefined && line.timeMs <= activation.startedAtMs)) {
        this.#lines.shift();
        bytes -= LINE_BYTES + (line?.line.length ?? 0);
      } else {
        bytes -= this.#bytesOf(activation.id);
        this.#remove(activation.id);
      }
    }
    return {
      activations: before.activations - this.#activations.size,
      lines: before.lines - this.#lines.length,
    };
  }

  dropped(): number {
    return 0;
  }

  #remove(id: string): void {
    this.#activations.delete(id);
    this.#results.delete(id);
  }

  #bytesOf(id: string): number {
    return ACTIVATION_BYTES + (this.#results.get(id)?.body.byteLength ?? 0);
  }
}

const LINE_BYTES = 200;
const ACTIVATION_BYTES = 400;

class MemoryBlobs implements Blobs {
  readonly #blobs = new Map<string, Buffer>();

  async put(key: string, source: Readable): Promise<{ readonly bytes: number }> {
    const bytes = await buffer(source);
    const kept = this.#blobs.get(key) ?? bytes;
    this.#blobs.set(key, kept);
    return { bytes: kept.byteLength };
  }

  async open(key: string): Promise<Readable | null> {
    const bytes = this.#blobs.get(key);
    return bytes === undefined ? null : Readable.from([bytes], { objectMode: false });
  }

  async has(key: string): Promise<boolean> {
    return this.#blobs.has(key);
  }

  async delete(key: string): Promise<void> {
    this.#blobs.delete(key);
  }

  async list(): Promise<readonly string[]> {
    return [...this.#blobs.keys()].toSorted(compareBytes);
  }
}

function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

function isOfFunction(
  record: Pick<LogRecord, "namespace" | "package" | "name">,
  query: { readonly namespace: string; readonly package?: string; readonly name?: string },
): boolean {
  return (
    record.namespace === query.namespace &&
    (query.package === undefined || record.package === query.package) &&
    (query.name === undefined || record.name === query.name)
  );
}

function isWithin(timeMs: number, query: { readonly sinceMs?: number; readonly beforeMs?: number }): boolean {
  return timeMs >= (query.sinceMs ?? -Infinity) && timeMs < (query.beforeMs ?? Infinity);
}
