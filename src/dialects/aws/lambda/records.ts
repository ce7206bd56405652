import { randomUUID } from "node:crypto";
import { KoineError } from "../../../core/errors.ts";
import type { Values } from "../../../store/store.ts";
import { AwsError } from "../wire/error.ts";

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

/** The API's records of functions, one value each, changed by compare-and-swap. */
export class LambdaRecords {
  readonly #values: Values;

  constructor(values: Values) {
    this.#values = values;
  }

  async find(namespace: string, name: string): Promise<LambdaRecord | null> {
    const entry = await this.#values.get(COLLECTION, `${namespace}/${name}`);
    return entry === null ? null : (entry.value as LambdaRecord);
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
      const entry = await this.#values.get(COLLECTION, `${namespace}/${name}`);
      if (entry === null)
        throw new AwsError("ResourceNotFoundException", `Function not found: ${name}`, { status: 404 });
      const value = by(entry.value as LambdaRecord);
      try {
        await this.#commit(namespace, name, { value, expect: entry.revision });
        return value;
      } catch (thrown) {
        if (attempt >= CHANGE_ATTEMPTS_MAX || !(thrown instanceof AwsError)) throw thrown;
      }
    }
  }

  async remove(namespace: string, name: string): Promise<void> {
    await this.#commit(namespace, name, { value: null, expect: "any" });
  }

  async #commit(
    namespace: string,
    name: string,
    change: { readonly value: LambdaRecord | null; readonly expect: number | "absent" | "any" },
  ): Promise<void> {
    try {
      await this.#values.commit([{ collection: COLLECTION, key: `${namespace}/${name}`, ...change }]);
    } catch (thrown) {
      if (!(thrown instanceof KoineError) || thrown.code !== "conflict") throw thrown;
      throw new AwsError(
        "ResourceConflictException",
        `The operation cannot be performed at this time. An update is in progress for resource: ${name}`,
        {
          status: 409,
          cause: thrown,
        },
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
