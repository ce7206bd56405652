import { KoineError, toKoineError } from "../../core/errors.ts";
import type { Store } from "../../store/store.ts";

const CHECKPOINTS = "trigger-checkpoints";
const PAGE = 1_000;
const CHANGES_PER_COMMIT = 500;

interface Known {
  position: string | null;
  /** 0: not stored. */
  revision: number;
}

interface Waiting {
  position: string | null;
  readonly done: PromiseWithResolvers<void>;
}

/**
 * Positions of sources, by trigger. Writes of many triggers share commits. A write says which revision it replaces, and whoever takes a trigger over writes
 * first: then the write of a node that has lost it fails.
 */
export class Checkpoints {
  readonly #values: Store["values"];
  readonly #known = new Map<string, Known>();
  readonly #waiting = new Map<string, Waiting>();
  #isWriting = false;

  constructor(values: Store["values"]) {
    this.#values = values;
  }

  /** Reads all of them at once, which is quicker than one by one. */
  async load(): Promise<void> {
    let after: string | undefined;
    for (;;) {
      const page = await this.#values.list(CHECKPOINTS, { limit: PAGE, ...(after === undefined ? {} : { after }) });
      for (const { key, value, revision } of page) this.#known.set(key, { position: positionOf(value), revision });
      after = page.at(-1)?.key;
      if (page.length < PAGE) return;
    }
  }

  async read(id: string): Promise<string | null> {
    return (await this.#find(id)).position;
  }

  /** Makes what other nodes write from now on fail. */
  async seize(id: string): Promise<void> {
    this.#known.delete(id);
    const { position } = await this.#find(id);
    await this.#put(id, position);
  }

  /** @throws KoineError `conflict` when another node has taken over */
  async write(id: string, position: string): Promise<void> {
    await this.#put(id, position);
  }

  async delete(id: string): Promise<void> {
    this.#known.delete(id);
    await this.#values.commit([{ collection: CHECKPOINTS, key: id, value: null, expect: "any" }]);
  }

  /** Forgets what was read: the trigger may move to another node. */
  forget(id: string): void {
    this.#known.delete(id);
  }

  async #find(id: string): Promise<Known> {
    const known = this.#known.get(id);
    if (known !== undefined) return known;
    const entry = await this.#values.get(CHECKPOINTS, id);
    const found = { position: positionOf(entry?.value), revision: entry?.revision ?? 0 };
    this.#known.set(id, found);
    return found;
  }

  async #put(id: string, position: string | null): Promise<void> {
    let waiting = this.#waiting.get(id);
    if (waiting === undefined) {
      waiting = { position, done: Promise.withResolvers<void>() };
      this.#waiting.set(id, waiting);
    } else waiting.position = position;
    if (!this.#isWriting) {
      this.#isWriting = true;
      this.#writeAll().catch((reason: unknown) => waiting.done.reject(reason));
    }
    await waiting.done.promise;
  }

  async #writeAll(): Promise<void> {
    // Whoever else writes in this turn comes along.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#waiting.size > 0) {
      const batch = [...this.#waiting].slice(0, CHANGES_PER_COMMIT);
      for (const [id] of batch) this.#waiting.delete(id);
      await this.#commit(new Map(batch));
    }
    this.#isWriting = false;
  }

  async #commit(batch: Map<string, Waiting>): Promise<void> {
    const ids = [...batch.keys()];
    try {
      for (const id of ids) await this.#find(id);
      const changes = [...batch].map(([key, { position }]) => {
        const revision = this.#known.get(key)?.revision ?? 0;
        // Nothing yet is a value of its own, or it could not be told from a deletion.
        return {
          collection: CHECKPOINTS,
          key,
          value: position ?? "",
          expect: revision === 0 ? ("absent" as const) : revision,
        };
      });
      const revisions = await this.#values.commit(changes);
      for (const [index, [id, { position, done }]] of [...batch].entries()) {
        this.#known.set(id, { position, revision: revisions[index] ?? 0 });
        done.resolve();
      }
    } catch (thrown) {
      const error = toKoineError(thrown);
      const loser = error.code === "conflict" ? ids.find((id) => String(error.values["name"]).endsWith(id)) : undefined;
      if (loser === undefined) {
        for (const { done } of batch.values()) done.reject(error);
        return;
      }
      batch.get(loser)?.done.reject(new KoineError("conflict", { name: `the checkpoint of trigger ${loser}` }));
      batch.delete(loser);
      if (batch.size > 0) await this.#commit(batch);
    }
  }
}

function positionOf(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}
