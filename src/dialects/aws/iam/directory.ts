import { randomBytes, randomInt } from "node:crypto";
import type { Sealer } from "../../../platform/secrets.ts";
import type { Values } from "../../../store/store.ts";
import { AwsError } from "../wire/error.ts";

/** What users and roles have in common: policies of their own and attached ones. */
interface Bearer {
  readonly path: string;
  readonly name: string;
  /** `AIDA…` of users, `AROA…` of roles. */
  readonly id: string;
  readonly createdAtMs: number;
  readonly tags: Readonly<Record<string, string>>;
  /** Policy documents as they were given, by name. */
  readonly inline: Readonly<Record<string, string>>;
  /** ARNs of managed policies. */
  readonly attached: readonly string[];
}

export interface User extends Bearer {
  readonly kind: "user";
}

export interface Role extends Bearer {
  readonly kind: "role";
  /** The document that says who may assume it, as it was given. */
  readonly trust: string;
  readonly description: string;
  readonly maxSessionSeconds: number;
}

export interface AccessKey {
  readonly kind: "key";
  readonly name: string;
  readonly user: string;
  readonly sealedSecret: string;
  readonly status: "Active" | "Inactive";
  readonly createdAtMs: number;
}

export interface ManagedPolicy {
  readonly kind: "policy";
  readonly path: string;
  readonly name: string;
  readonly id: string;
  readonly description: string;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
  readonly tags: Readonly<Record<string, string>>;
  readonly defaultVersion: string;
  readonly versions: readonly { readonly id: string; readonly document: string; readonly createdAtMs: number }[];
}

export type Entity = User | Role | AccessKey | ManagedPolicy;
type Kind = Entity["kind"];
type OfKind<K extends Kind> = Extract<Entity, { readonly kind: K }>;

const COLLECTION = "aws.iam";
const PAGE = 1_000;
/** Entities of one kind in one namespace. */
const ENTITIES_MAX = 5_000;
const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** Users, roles, keys and policies of all namespaces: in memory, and durable before a change is answered. */
export class IamDirectory {
  readonly #values: Values;
  readonly #sealer: Sealer;
  /** By `namespace/kind/name`. */
  readonly #entities: Map<string, { readonly entity: Entity; readonly revision: number }>;
  /** Namespaces of access keys. */
  /** Secrets of keys that were used: every call needs one. */
  readonly #opened = new WeakMap<AccessKey, string>();
  readonly #keys = new Map<string, string>();

  private constructor(
    values: Values,
    sealer: Sealer,
    entities: ReadonlyMap<string, { entity: Entity; revision: number }>,
  ) {
    this.#values = values;
    this.#sealer = sealer;
    this.#entities = new Map(entities);
    for (const [key, { entity }] of entities)
      if (entity.kind === "key") this.#keys.set(entity.name, key.slice(0, key.indexOf("/")));
  }

  static async open(values: Values, sealer: Sealer): Promise<IamDirectory> {
    const entities = new Map<string, { entity: Entity; revision: number }>();
    for (let after: string | undefined; ;) {
      const page = await values.list(COLLECTION, { limit: PAGE, ...(after === undefined ? {} : { after }) });
      for (const { key, value, revision } of page) entities.set(key, { entity: value as Entity, revision });
      after = page.at(-1)?.key;
      if (page.length < PAGE) return new IamDirectory(values, sealer, entities);
    }
  }

  /** Whether anybody has an access key of their own. */
  get hasKeys(): boolean {
    return this.#keys.size > 0;
  }

  find<K extends Kind>(kind: K, namespace: string, name: string): OfKind<K> | null {
    return (this.#entities.get(keyOf(namespace, kind, name))?.entity as OfKind<K> | undefined) ?? null;
  }

  /** @throws AwsError `NoSuchEntity` */
  get<K extends Kind>(kind: K, namespace: string, name: string): OfKind<K> {
    const found = this.find(kind, namespace, name);
    if (found !== null) return found;
    const what = {
      user: "The user with name",
      role: "The role with name",
      key: "The Access Key with id",
      policy: "Policy",
    }[kind];
    throw new AwsError("NoSuchEntity", `${what} ${name} cannot be found.`, { status: 404 });
  }

  /** In the order of their names. */
  list<K extends Kind>(kind: K, namespace: string): readonly OfKind<K>[] {
    const prefix = `${namespace}/${kind}/`;
    const found = [...this.#entities].filter(([key]) => key.startsWith(prefix));
    return found.map(([, { entity }]) => entity as OfKind<K>).sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** @throws AwsError `EntityAlreadyExists`, `LimitExceeded` */
  async create(namespace: string, entity: Entity): Promise<void> {
    const key = keyOf(namespace, entity.kind, entity.name);
    if (this.#entities.has(key))
      throw new AwsError("EntityAlreadyExists", `${entity.kind} with name ${entity.name} already exists.`, {
        status: 409,
      });
    if (this.list(entity.kind, namespace).length >= ENTITIES_MAX)
      throw new AwsError("LimitExceeded", `Cannot exceed quota of ${ENTITIES_MAX} for ${entity.kind}.`, {
        status: 409,
      });
    await this.#commit(key, entity, "absent");
  }

  async replace(namespace: string, entity: Entity): Promise<void> {
    const key = keyOf(namespace, entity.kind, entity.name);
    await this.#commit(key, entity, this.#entities.get(key)?.revision ?? "absent");
  }

  async remove(namespace: string, entity: Entity): Promise<void> {
    await this.#commit(keyOf(namespace, entity.kind, entity.name), null, "any");
  }

  /** An access key with its namespace, whatever that is; null: there is none. */
  holderOf(
    accessKeyId: string,
  ): { readonly namespace: string; readonly key: AccessKey; readonly secretAccessKey: string } | null {
    const namespace = this.#keys.get(accessKeyId);
    const key = namespace === undefined ? null : this.find("key", namespace, accessKeyId);
    if (namespace === undefined || key === null) return null;
    let secretAccessKey = this.#opened.get(key);
    if (secretAccessKey === undefined) {
      secretAccessKey = this.#sealer.open(key.sealedSecret, sealContext(accessKeyId));
      this.#opened.set(key, secretAccessKey);
    }
    return { namespace, key, secretAccessKey };
  }

  /** A new key for a user; the secret is told here, once. */
  async createKey(
    namespace: string,
    user: string,
    nowMs: number,
  ): Promise<{ readonly key: AccessKey; readonly secretAccessKey: string }> {
    const name = newIdentifier("AKIA");
    const secretAccessKey = randomBytes(30).toString("base64");
    const sealedSecret = this.#sealer.seal(secretAccessKey, sealContext(name));
    const key: AccessKey = { kind: "key", name, user, sealedSecret, status: "Active", createdAtMs: nowMs };
    await this.create(namespace, key);
    return { key, secretAccessKey };
  }

  async #commit(key: string, entity: Entity | null, expect: number | "absent" | "any"): Promise<void> {
    const [revision = 0] = await this.#values.commit([{ collection: COLLECTION, key, value: entity, expect }]);
    const before = this.#entities.get(key)?.entity;
    if (entity === null) this.#entities.delete(key);
    else this.#entities.set(key, { entity, revision });
    if (entity?.kind === "key") this.#keys.set(entity.name, key.slice(0, key.indexOf("/")));
    else if (before?.kind === "key") this.#keys.delete(before.name);
  }
}

/** `AIDA` and sixteen more characters, as ids of this kind are. */
export function newIdentifier(prefix: string): string {
  return prefix + Array.from({ length: 16 }, () => ALPHABET[randomInt(ALPHABET.length)]).join("");
}

function keyOf(namespace: string, kind: Kind, name: string): string {
  return `${namespace}/${kind}/${name}`;
}

function sealContext(accessKeyId: string): string {
  return `aws access key ${accessKeyId}`;
}
