import { randomUUID } from "node:crypto";
import type { Values } from "../../../store/store.ts";
import { AwsError } from "../wire/error.ts";

/** What a mapping was asked to be; members in the terms of the API. */
export interface MappingSettings {
  readonly batchSize: number;
  readonly windowSeconds: number;
  readonly enabled: boolean;
  readonly patterns: readonly string[];
  readonly reportBatchItemFailures: boolean;
  readonly maximumConcurrency: number | null;
  /** Members that are kept and told again and change nothing. */
  readonly stored: Readonly<Record<string, unknown>>;
}

/** An event source mapping: what comes from a queue is handed to a function. */
export interface Mapping {
  readonly uuid: string;
  readonly namespace: string;
  readonly eventSourceArn: string;
  /** The function's name, with a version or alias where one was given. */
  readonly functionName: string;
  readonly qualifier: string | null;
  readonly settings: MappingSettings;
  readonly tags: Readonly<Record<string, string>>;
  readonly modifiedAtMs: number;
  readonly lastResult: string;
}

const COLLECTION = "aws.lambda.mappings";
const PAGE = 1_000;

/** All mappings: in memory, and on disk before a change is answered. */
export class Mappings {
  readonly #values: Values;
  readonly #mappings: Map<string, Mapping>;
  /** Told of every mapping that is new, changed or gone (null). */
  onChanged: (uuid: string, mapping: Mapping | null) => void = () => {};

  private constructor(values: Values, mappings: ReadonlyMap<string, Mapping>) {
    this.#values = values;
    this.#mappings = new Map(mappings);
  }

  static async open(values: Values): Promise<Mappings> {
    const mappings = new Map<string, Mapping>();
    for (let after: string | undefined; ;) {
      const page = await values.list(COLLECTION, { limit: PAGE, ...(after === undefined ? {} : { after }) });
      for (const { key, value } of page) mappings.set(key, value as Mapping);
      after = page.at(-1)?.key;
      if (page.length < PAGE) return new Mappings(values, mappings);
    }
  }

  all(): Iterable<Mapping> {
    return this.#mappings.values();
  }

  /** Those of a namespace, in a lasting order. */
  list(namespace: string): readonly Mapping[] {
    return [...this.#mappings.values()]
      .filter((mapping) => mapping.namespace === namespace)
      .sort((a, b) => (a.uuid < b.uuid ? -1 : 1));
  }

  /** @throws AwsError `ResourceNotFoundException` */
  get(namespace: string, uuid: string): Mapping {
    const mapping = this.#mappings.get(uuid);
    if (mapping !== undefined && mapping.namespace === namespace) return mapping;
    throw new AwsError("ResourceNotFoundException", "The resource you requested does not exist.", { status: 404 });
  }

  async create(given: Omit<Mapping, "uuid" | "lastResult">): Promise<Mapping> {
    const mapping: Mapping = { ...given, uuid: randomUUID(), lastResult: "No records processed" };
    await this.put(mapping);
    return mapping;
  }

  async put(mapping: Mapping): Promise<void> {
    await this.#values.commit([{ collection: COLLECTION, key: mapping.uuid, value: mapping, expect: "any" }]);
    this.#mappings.set(mapping.uuid, mapping);
    this.onChanged(mapping.uuid, mapping);
  }

  async remove(mapping: Mapping): Promise<void> {
    await this.#values.commit([{ collection: COLLECTION, key: mapping.uuid, value: null, expect: "any" }]);
    this.#mappings.delete(mapping.uuid);
    this.onChanged(mapping.uuid, null);
  }

  /** Remembers how the last batch went; not on disk: it says nothing after a restart. */
  note(uuid: string, lastResult: string): void {
    const mapping = this.#mappings.get(uuid);
    if (mapping !== undefined && mapping.lastResult !== lastResult)
      this.#mappings.set(uuid, { ...mapping, lastResult });
  }
}
