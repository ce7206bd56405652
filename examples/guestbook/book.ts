export interface Entry {
  readonly id: number;
  readonly name: string;
  readonly message: string;
  /** RFC 3339. */
  readonly at: string;
}

export type Change =
  | { readonly kind: "added"; readonly entry: Entry }
  | { readonly kind: "removed"; readonly id: number };

const ENTRIES_MAX = 1_000;

/** The entries, oldest first; beyond the most that are kept, the oldest goes. */
export class Book {
  readonly #entries = new Map<number, Entry>();
  readonly #followers = new Set<(change: Change) => void>();
  #lastId = 0;

  get entries(): readonly Entry[] {
    return [...this.#entries.values()];
  }

  get followers(): number {
    return this.#followers.size;
  }

  add(name: string, message: string): Entry {
    const entry = { id: ++this.#lastId, name, message, at: new Date().toISOString() };
    this.#entries.set(entry.id, entry);
    this.#tell({ kind: "added", entry });
    const oldest = this.#entries.keys().next().value;
    if (this.#entries.size > ENTRIES_MAX && oldest !== undefined) this.remove(oldest);
    return entry;
  }

  /** Whether there was such an entry. */
  remove(id: number): boolean {
    const found = this.#entries.delete(id);
    if (found) this.#tell({ kind: "removed", id });
    return found;
  }

  /** Calls back with every change until the returned function is called. */
  follow(follower: (change: Change) => void): () => void {
    this.#followers.add(follower);
    return () => this.#followers.delete(follower);
  }

  #tell(change: Change): void {
    for (const follower of this.#followers) follower(change);
  }
}
