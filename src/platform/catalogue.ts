import { KoineError } from "../core/errors.ts";
import {
  type FunctionRecord,
  type FunctionRef,
  type FunctionSpec,
  functionKey,
  formatFunctionRef,
  type Version,
} from "../core/function.ts";
import type { Store, ValueChange } from "../store/store.ts";
import { nearest } from "../core/nearest.ts";

interface Entry {
  record: FunctionRecord;
  revision: number;
  /** The function was deleted. */
  gone: boolean;
  readonly versions: Map<number, Version>;
}

/** What another process must do to its copy. */
export interface CatalogueChange {
  readonly key: string;
  /** Null: the function was deleted. */
  readonly record: FunctionRecord | null;
  readonly add: readonly Version[];
  readonly remove: readonly number[];
}

const FUNCTIONS = "functions";
const VERSIONS = "versions";
const PAGE = 1_000;

/**
 * What is deployed, held in memory for routing and written through to the store. Reads never wait; writes are compare-and-swap, so that
 * another node's change is noticed.
 */
export class Catalogue {
  /** Null: this is a copy. */
  readonly #store: Store | null;
  readonly #entries = new Map<string, Entry>();
  /** Entries by the addresses of callers that keep theirs; may hold some of functions that are gone. */
  readonly #known = new WeakMap<FunctionRef, Entry>();
  readonly #locks = new Map<string, Promise<unknown>>();
  /** Brings a change to copies elsewhere; what made the change is over when all have it. */
  onChanged: ((change: CatalogueChange) => Promise<void>) | null = null;

  private constructor(store: Store | null) {
    this.#store = store;
  }

  /** A copy, for processes without a store: `apply` is all that changes it. */
  static copy(): Catalogue {
    return new Catalogue(null);
  }

  static async open(store: Store): Promise<Catalogue> {
    const catalogue = new Catalogue(store);
    for await (const { value, key, revision } of allValues(store, FUNCTIONS)) {
      catalogue.#entries.set(key, { record: value as FunctionRecord, revision, gone: false, versions: new Map() });
    }
    for await (const { value } of allValues(store, VERSIONS)) {
      const version = value as Version;
      catalogue.#entries.get(functionKey(version))?.versions.set(version.number, version);
    }
    return catalogue;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** @throws KoineError `function-not-found` */
  record(ref: FunctionRef): FunctionRecord {
    return this.#entry(ref).record;
  }

  /** The live version of a function by its key; null when there is none. */
  liveVersion(key: string): Version | null {
    const entry = this.#entries.get(key);
    return entry?.versions.get(entry.record.liveVersion) ?? null;
  }

  /** Most slots that a function's calls may hold; null: any number, or there is no such function. */
  slotsMax(key: string): number | null {
    const record = this.#entries.get(key)?.record;
    if (record?.reservedConcurrency !== undefined) return record.reservedConcurrency;
    return this.liveVersion(key)?.spec.reservedConcurrency ?? null;
  }

  has(ref: FunctionRef): boolean {
    return this.#entries.has(functionKey(ref));
  }

  /** Newest first. @throws KoineError `function-not-found` */
  versions(ref: FunctionRef): readonly Version[] {
    return [...this.#entry(ref).versions.values()].sort((a, b) => b.number - a.number);
  }

  /**
   * The version that a call of `ref` reaches; `random` (0 to 1) chooses where an alias splits.
   * @throws KoineError `function-not-found`, `version-not-found`
   */
  resolve(ref: FunctionRef, random: () => number = Math.random): Version {
    const entry = this.#entry(ref);
    const number =
      ref.qualifier === undefined ? entry.record.liveVersion : chooseVersion(entry.record, ref.qualifier, random);
    const version = number === null ? undefined : entry.versions.get(number);
    if (version === undefined) {
      throw new KoineError("version-not-found", { name: ref.name, qualifier: ref.qualifier ?? String(number) });
    }
    return version;
  }

  /** Records of a namespace in order of package and name, after a key. */
  list(namespace: string, query: { readonly after?: string; readonly limit: number }): readonly FunctionRecord[] {
    const keys = [...this.#entries.keys()].filter((key) => key.startsWith(`${namespace}/`)).sort();
    const from = query.after === undefined ? 0 : keys.findIndex((key) => key > `${namespace}/${query.after}`);
    if (from < 0) return [];
    return keys.slice(from, from + query.limit).flatMap((key) => this.#entries.get(key)?.record ?? []);
  }

  *all(): Iterable<{ readonly record: FunctionRecord; readonly versions: ReadonlyMap<number, Version> }> {
    yield* this.#entries.values();
  }

  /** @param of name of the runtime that is wanted for a version's instances; null: none */
  runtimesInUse(of: (spec: FunctionSpec) => string | null): ReadonlySet<string> {
    const names = new Set<string>();
    for (const { record, versions } of this.#entries.values()) {
      const spec = versions.get(record.liveVersion)?.spec;
      const runtime = spec === undefined ? null : of(spec);
      if (runtime !== null) names.add(runtime);
    }
    return names;
  }

  /** Everything as changes of an empty copy. */
  *snapshot(): Iterable<CatalogueChange> {
    for (const [key, { record, versions }] of this.#entries)
      yield { key, record, add: [...versions.values()], remove: [] };
  }

  apply({ key, record, add, remove }: CatalogueChange): void {
    const entry = this.#entries.get(key);
    if (record === null) {
      this.#entries.delete(key);
      if (entry !== undefined) entry.gone = true;
      return;
    }
    const changed = entry ?? { record, revision: 0, gone: false, versions: new Map<number, Version>() };
    changed.record = record;
    // Whoever holds a version goes on holding the same one.
    for (const version of add) if (!changed.versions.has(version.number)) changed.versions.set(version.number, version);
    for (const number of remove) changed.versions.delete(number);
    this.#entries.set(key, changed);
  }

  /** Runs changes of one function one after the other; different functions do not wait for each other. */
  async exclusively<Result>(ref: FunctionRef, change: () => Promise<Result>): Promise<Result> {
    const key = functionKey(ref);
    const before = this.#locks.get(key) ?? Promise.resolve();
    const mine = before.then(change, change);
    const settled = mine.catch(() => {});
    this.#locks.set(key, settled);
    try {
      return await mine;
    } finally {
      if (this.#locks.get(key) === settled) this.#locks.delete(key);
    }
  }

  /** Writes a record, with versions that come and go; durable when it resolves. @throws KoineError `conflict` */
  async put(
    record: FunctionRecord,
    changes: { readonly add?: Version; readonly remove?: readonly number[] } = {},
  ): Promise<void> {
    const key = functionKey(record);
    const entry = this.#entries.get(key);
    const writes: ValueChange[] = [{ collection: FUNCTIONS, key, value: record, expect: entry?.revision ?? "absent" }];
    if (changes.add !== undefined) {
      writes.push({
        collection: VERSIONS,
        key: storedVersionKey(key, changes.add.number),
        value: changes.add,
        expect: "any",
      });
    }
    for (const number of changes.remove ?? []) {
      writes.push({ collection: VERSIONS, key: storedVersionKey(key, number), value: null, expect: "any" });
    }
    const [revision = 0] = await this.#values.commit(writes);
    const written = entry ?? { record, revision, gone: false, versions: new Map<number, Version>() };
    written.record = record;
    written.revision = revision;
    if (changes.add !== undefined) written.versions.set(changes.add.number, changes.add);
    for (const number of changes.remove ?? []) written.versions.delete(number);
    this.#entries.set(key, written);
    const add = changes.add === undefined ? [] : [changes.add];
    await this.onChanged?.({ key, record, add, remove: changes.remove ?? [] });
  }

  /** Removes a function with all its versions; answers them. @throws KoineError `function-not-found`, `conflict` */
  async delete(ref: FunctionRef): Promise<readonly Version[]> {
    const entry = this.#entry(ref);
    const key = functionKey(ref);
    const versions = [...entry.versions.values()];
    await this.#values.commit([
      { collection: FUNCTIONS, key, value: null, expect: entry.revision },
      ...versions.map((version): ValueChange => ({
        collection: VERSIONS,
        key: storedVersionKey(key, version.number),
        value: null,
        expect: "any",
      })),
    ]);
    this.#entries.delete(key);
    entry.gone = true;
    await this.onChanged?.({ key, record: null, add: [], remove: [] });
    return versions;
  }

  get #values(): Store["values"] {
    if (this.#store === null) throw new KoineError("internal", { detail: "a copy of the catalogue cannot be written" });
    return this.#store.values;
  }

  #entry(ref: FunctionRef): Entry {
    const known = this.#known.get(ref);
    if (known !== undefined && !known.gone) return known;
    const entry = this.#entries.get(functionKey(ref));
    if (entry !== undefined) {
      this.#known.set(ref, entry);
      return entry;
    }
    const names = this.list(ref.namespace, { limit: Number.MAX_SAFE_INTEGER }).map(formatFunctionRef);
    const wanted = formatFunctionRef({ namespace: ref.namespace, package: ref.package, name: ref.name });
    const similar = nearest(wanted, names);
    throw new KoineError("function-not-found", {
      name: wanted,
      suggestion: similar === null ? "" : `; did you mean '${similar}'?`,
    });
  }
}

/** Version number that a qualifier means: a number itself, or an alias' target; null when neither. */
function chooseVersion(record: FunctionRecord, qualifier: string, random: () => number): number | null {
  if (/^[1-9][0-9]*$/.test(qualifier)) return Number(qualifier);
  const alias = record.aliases.find((other) => other.name === qualifier);
  if (alias === undefined) return null;
  if (alias.additional !== undefined && random() < alias.additional.weight) return alias.additional.version;
  return alias.version;
}

function storedVersionKey(key: string, number: number): string {
  return `${key}/${String(number).padStart(10, "0")}`;
}

async function* allValues(
  store: Store,
  collection: string,
): AsyncIterable<{ key: string; value: unknown; revision: number }> {
  for (let after = ""; ;) {
    const page = await store.values.list(collection, { after, limit: PAGE });
    yield* page;
    const last = page.at(-1);
    if (last === undefined || page.length < PAGE) return;
    after = last.key;
  }
}
