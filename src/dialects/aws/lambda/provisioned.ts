import type { Version } from "../../../core/function.ts";
import { KoineError } from "../../../core/errors.ts";
import type { Platform } from "../../../platform/platform.ts";
import { refOf } from "./functions.ts";
import type { LambdaRecord, LambdaRecords } from "./records.ts";

export interface ProvisionedState {
  readonly available: number;
  readonly allocated: number;
  readonly status: "READY" | "IN_PROGRESS" | "FAILED";
  readonly reason: string | null;
}

/** Keeps as many instances of versions as their functions' records ask for, from the platform's start on and whenever a record changes. */
export class ProvisionedConcurrency {
  readonly #platform: Platform;
  /** What was asked of the engine, by function. */
  readonly #kept = new Map<string, ReadonlyMap<Version, number>>();

  constructor(platform: Platform, records: LambdaRecords) {
    this.#platform = platform;
    records.onChanged = (namespace, name, record) => this.#apply({ namespace, name }, record);
  }

  start(records: LambdaRecords): void {
    for (const { namespace, name, record } of records.all()) this.#apply({ namespace, name }, record);
  }

  /** How far the platform is with what a qualifier was given. */
  state(ref: { readonly namespace: string; readonly name: string }, of: StateOf): ProvisionedState {
    const version = this.#versionOf(ref, of.record, of.qualifier);
    const { wanted, ready, starting, error } =
      version === null
        ? { wanted: 0, ready: 0, starting: 0, error: null }
        : this.#platform.parts.engine.provisioned(version);
    const slots = version?.spec.instanceConcurrency ?? 1;
    const available = Math.min(of.count, ready * slots);
    const allocated = Math.min(of.count, (ready + starting) * slots);
    if (available >= of.count) return { available, allocated, status: "READY", reason: null };
    if (error !== null && starting === 0) return { available, allocated, status: "FAILED", reason: error.message };
    if (wanted > 0 && starting === 0)
      return { available, allocated, status: "FAILED", reason: "This machine has no memory for more instances." };
    return { available, allocated, status: "IN_PROGRESS", reason: null };
  }

  #apply(ref: { readonly namespace: string; readonly name: string }, record: LambdaRecord | null): void {
    const key = `${ref.namespace}/${ref.name}`;
    const before = this.#kept.get(key);
    const entries = record === null ? [] : Object.entries(record.provisioned);
    if (before === undefined && entries.length === 0) return;
    const wanted = new Map<Version, number>();
    for (const [qualifier, { count }] of entries) {
      const version = record === null ? null : this.#versionOf(ref, record, qualifier);
      if (version === null) continue;
      const instances = Math.ceil(count / version.spec.instanceConcurrency);
      wanted.set(version, Math.max(instances, wanted.get(version) ?? 0));
    }
    const { engine } = this.#platform.parts;
    for (const version of before?.keys() ?? []) if (!wanted.has(version)) engine.provision(version, 0);
    for (const [version, count] of wanted) if (before?.get(version) !== count) engine.provision(version, count);
    if (wanted.size === 0) this.#kept.delete(key);
    else this.#kept.set(key, wanted);
  }

  #versionOf(
    ref: { readonly namespace: string; readonly name: string },
    record: LambdaRecord,
    qualifier: string,
  ): Version | null {
    const number = record.aliases.find(({ name }) => name === qualifier)?.version ?? qualifier;
    const snapshot = record.published.find(({ version }) => version === number);
    if (snapshot === undefined) return null;
    try {
      return this.#platform.resolve({ ...refOf({ ...ref }), qualifier: String(snapshot.number) });
    } catch (thrown) {
      if (thrown instanceof KoineError && thrown.fault === "caller") return null;
      throw thrown;
    }
  }
}

interface StateOf {
  readonly record: LambdaRecord;
  readonly qualifier: string;
  readonly count: number;
}
