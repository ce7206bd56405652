import { KoineError } from "../core/errors.ts";
import { isName } from "../core/function.ts";
import type { Limits } from "../core/limits.ts";
import type { Store } from "../store/store.ts";

/** Seals text so that it can be stored; `context` must be the same when it is opened. */
export interface Sealer {
  seal(plaintext: string, context: string): string;
  open(sealed: string, context: string): string;
}

interface StoredSecret {
  readonly sealed: string;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
}

export interface SecretEntry {
  readonly name: string;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
}

const SECRETS = "secrets";
const VARIABLE_PATTERN = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** Named values of a namespace that functions see as environment variables; sealed at rest, never listed with their values. */
export class Secrets {
  readonly #store: Store;
  readonly #sealer: Sealer;
  readonly #limits: Limits;
  #changes = 0;
  /** Has everybody elsewhere who keeps an opened secret forget it, and retire what runs with it; a change is over when all have. */
  onChanged: ((namespace: string, name: string) => Promise<void>) | null = null;

  constructor(store: Store, sealer: Sealer, limits: Limits) {
    this.#store = store;
    this.#sealer = sealer;
    this.#limits = limits;
  }

  /** Answers whether it is new. @throws KoineError `invalid-name`, `payload-too-large` */
  async put(
    namespace: string,
    name: string,
    value: string,
    nowMs: number,
  ): Promise<{ readonly created: boolean; readonly entry: SecretEntry }> {
    if (!isName(name) || !VARIABLE_PATTERN.test(name)) throw new KoineError("invalid-name", { name });
    if (Buffer.byteLength(value) > this.#limits.secretBytesMax) {
      throw new KoineError("payload-too-large", { what: `secret '${name}'`, limit: this.#limits.secretBytesMax });
    }
    const key = `${namespace}/${name}`;
    const before = await this.#store.values.get(SECRETS, key);
    const createdAtMs = before === null ? nowMs : (before.value as StoredSecret).createdAtMs;
    const stored: StoredSecret = { sealed: this.#sealer.seal(value, key), createdAtMs, updatedAtMs: nowMs };
    await this.#change(namespace, name, stored);
    return { created: before === null, entry: { name, createdAtMs, updatedAtMs: nowMs } };
  }

  async list(
    namespace: string,
    query: { readonly after?: string; readonly limit: number },
  ): Promise<readonly SecretEntry[]> {
    const prefix = `${namespace}/`;
    const entries = await this.#store.values.list(SECRETS, {
      prefix,
      limit: query.limit,
      ...(query.after === undefined ? {} : { after: prefix + query.after }),
    });
    return entries.map(({ key, value }) => {
      const { createdAtMs, updatedAtMs } = value as StoredSecret;
      return { name: key.slice(prefix.length), createdAtMs, updatedAtMs };
    });
  }

  /** @throws KoineError `secret-not-found` */
  async delete(namespace: string, name: string): Promise<void> {
    const key = `${namespace}/${name}`;
    if ((await this.#store.values.get(SECRETS, key)) === null)
      throw new KoineError("secret-not-found", { name, namespace });
    await this.#change(namespace, name, null);
  }

  /** The values of named secrets, for an instance's environment. @throws KoineError `secret-not-found` */
  async open(namespace: string, names: readonly string[]): Promise<Record<string, string>> {
    const values: Record<string, string> = {};
    for (const name of names) {
      const key = `${namespace}/${name}`;
      const entry = await this.#store.values.get(SECRETS, key);
      if (entry === null) throw new KoineError("secret-not-found", { name, namespace });
      values[name] = this.#sealer.open((entry.value as StoredSecret).sealed, key);
    }
    return values;
  }

  /** Counts changes of any secret: what was opened at the same count holds the values of now. */
  get changes(): number {
    return this.#changes;
  }

  async #change(namespace: string, name: string, value: StoredSecret | null): Promise<void> {
    const key = `${namespace}/${name}`;
    // Before and after, since whoever opens it meanwhile may see the old value.
    this.#changes++;
    await this.#store.values.commit([{ collection: SECRETS, key, value, expect: "any" }]);
    this.#changes++;
    await this.onChanged?.(namespace, name);
  }
}
