import { randomUUID } from "node:crypto";
import { KoineError } from "../../../core/errors.ts";
import type { Values } from "../../../store/store.ts";
import { AwsError } from "../wire/error.ts";
import type { UsedLayer } from "./layers.ts";

/** What the API was told of a function's configuration, in its own terms; what has no meaning here is kept and told again. */
export type Configuration = Readonly<Record<string, unknown>>;

/** The code of a version. */
export interface Code {
  readonly packageType: "Zip" | "Image";
  /** Base64 of the SHA-256 of the archive as it was uploaded. */
  readonly sha256: string;
  /** Of the archive, in bytes. */
  readonly size: number;
  /** The platform's own digest of the content. */
  readonly digest: string;
  readonly imageUri?: string;
}

/** `$LATEST` or a published version: which of the platform's versions it is, and how it was asked for. */
export interface Snapshot {
  /** `$LATEST`, `1`, `2`, … */
  readonly version: string;
  /** The platform's number. */
  readonly number: number;
  readonly configuration: Configuration;
  readonly code: Code;
  /** Absent: the configuration names none, or it was made by other means. */
  readonly layers?: readonly UsedLayer[];
  /** Of a published version, the platform's number of what `$LATEST` was then. */
  readonly publishedFrom?: number;
  readonly revisionId: string;
  readonly modifiedAtMs: number;
}

export interface LambdaAlias {
  readonly name: string;
  readonly version: string;
  readonly description: string;
  /** Share of the calls, 0 to 1, by version; at most one. */
  readonly weights: Readonly<Record<string, number>>;
  readonly revisionId: string;
}

/** A statement of a resource policy, as it was added. */
export interface PolicyStatement {
  readonly Sid: string;
  readonly [member: string]: unknown;
}

export interface FunctionUrl {
  readonly urlId: string;
  readonly authType: "NONE" | "AWS_IAM";
  readonly invokeMode: "BUFFERED" | "RESPONSE_STREAM";
  readonly cors: Readonly<Record<string, unknown>> | null;
  readonly createdAtMs: number;
  readonly modifiedAtMs: number;
}

/** Everything that the API knows of a function beside what the platform knows. Keys of the maps are qualifiers, `$LATEST` where none was given. */
export interface LambdaRecord {
  readonly latest: Snapshot;
  /** Oldest first. */
  readonly published: readonly Snapshot[];
  /** Number of the next version that is published; never used twice. */
  readonly nextVersion: number;
  readonly aliases: readonly LambdaAlias[];
  readonly tags: Readonly<Record<string, string>>;
  readonly reservedConcurrency: number | null;
  readonly provisioned: Readonly<Record<string, { readonly count: number; readonly modifiedAtMs: number }>>;
  readonly eventInvoke: Readonly<Record<string, { readonly settings: Configuration; readonly modifiedAtMs: number }>>;
  readonly urls: Readonly<Record<string, FunctionUrl>>;
  readonly policies: Readonly<
    Record<string, { readonly statements: readonly PolicyStatement[]; readonly revisionId: string }>
  >;
  /** Settings that are kept and told again and change nothing, by the name of their operation. */
  readonly stored: Readonly<Record<string, Configuration>>;
}

export const LATEST = "$LATEST";
const COLLECTION = "aws.lambda.functions";
const PAGE = 1_000;

interface Kept {
  readonly record: LambdaRecord;
  readonly revision: number;
}

/** The API's records of functions, one value each, changed by compare-and-swap and held in memory: every call of a function looks here. */
export class LambdaRecords {
  readonly #values: Values;
  readonly #kept: Map<string, Kept>;
  /** Told of every change, after it is on disk; null: the record is gone. */
  onChanged: (namespace: string, name: string, record: LambdaRecord | null) => void = () => {};

  private constructor(values: Values, kept: Map<string, Kept>) {
    this.#values = values;
    this.#kept = kept;
  }

  static async open(values: Values): Promise<LambdaRecords> {
    const kept = new Map<string, Kept>();
    for (let after: string | undefined; ;) {
      const page = await values.list(COLLECTION, { limit: PAGE, ...(after === undefined ? {} : { after }) });
      for (const { key, value, revision } of page) kept.set(key, { record: value as LambdaRecord, revision });
      after = page.at(-1)?.key;
      if (page.length < PAGE) return new LambdaRecords(values, kept);
    }
  }

  find(namespace: string, name: string): LambdaRecord | null {
    return this.#kept.get(`${namespace}/${name}`)?.record ?? null;
  }

  *all(): Iterable<{ readonly namespace: string; readonly name: string; readonly record: LambdaRecord }> {
    for (const [key, { record }] of this.#kept) {
      const slash = key.indexOf("/");
      yield { namespace: key.slice(0, slash), name: key.slice(slash + 1), record };
    }
  }

  /** @throws AwsError `ResourceConflictException` when there is one already */
  async create(namespace: string, name: string, record: LambdaRecord): Promise<void> {
    await this.#commit(namespace, name, { value: record, expect: "absent" });
  }

  /**
   * Replaces what is there by what is made of it; tried again when another change came in between.
   * @throws AwsError `ResourceNotFoundException`
   */
  async change(namespace: string, name: string, by: (record: LambdaRecord) => LambdaRecord): Promise<LambdaRecord> {
    for (let attempt = 1; ; attempt++) {
      const kept = this.#kept.get(`${namespace}/${name}`);
      if (kept === undefined)
        throw new AwsError("ResourceNotFoundException", `Function not found: ${name}`, { status: 404 });
      const value = by(kept.record);
      try {
        await this.#commit(namespace, name, { value, expect: kept.revision });
        return value;
      } catch (thrown) {
        if (attempt >= CHANGE_ATTEMPTS_MAX || !(thrown instanceof AwsError)) throw thrown;
        await this.#refresh(`${namespace}/${name}`);
      }
    }
  }

  async remove(namespace: string, name: string): Promise<void> {
    await this.#commit(namespace, name, { value: null, expect: "any" });
  }

  /** What another change has made of it. */
  async #refresh(key: string): Promise<void> {
    const entry = await this.#values.get(COLLECTION, key);
    const known = this.#kept.get(key);
    if (entry === null) this.#kept.delete(key);
    else if (known === undefined || known.revision < entry.revision)
      this.#kept.set(key, { record: entry.value as LambdaRecord, revision: entry.revision });
  }

  async #commit(
    namespace: string,
    name: string,
    change: { readonly value: LambdaRecord | null; readonly expect: number | "absent" | "any" },
  ): Promise<void> {
    const key = `${namespace}/${name}`;
    try {
      const [revision = 0] = await this.#values.commit([{ collection: COLLECTION, key, ...change }]);
      const known = this.#kept.get(key)?.revision ?? 0;
      if (change.value === null) this.#kept.delete(key);
      else if (revision > known) this.#kept.set(key, { record: change.value, revision });
      this.onChanged(namespace, name, change.value);
    } catch (thrown) {
      if (!(thrown instanceof KoineError) || thrown.code !== "conflict") throw thrown;
      throw new AwsError(
        "ResourceConflictException",
        `The operation cannot be performed at this time. An update is in progress for resource: ${name}`,
        { status: 409, cause: thrown },
      );
    }
  }
}

const CHANGE_ATTEMPTS_MAX = 5;

export function newRevisionId(): string {
  return randomUUID();
}

/** A record of a function that has nothing yet but its first code. */
export function newRecord(latest: Snapshot, tags: Readonly<Record<string, string>>): LambdaRecord {
  return {
    latest,
    published: [],
    nextVersion: 1,
    aliases: [],
    tags,
    reservedConcurrency: null,
    provisioned: {},
    eventInvoke: {},
    urls: {},
    policies: {},
    stored: {},
  };
}
