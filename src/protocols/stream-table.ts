/** Slots for streams in flight; as many as the invocations that an instance may have at a time, rounded up to a power of two. */
const SLOTS = 1_024;

/**
 * Streams by their number. Numbers count up and few are in use, so a stream's place is its number within a ring, and only one that is overtaken by
 * the others goes into a Map. A Map alone would do, but one whose entries come and go leaves behind tables that point at each other, and the
 * garbage collector keeps alive what they point to, which is every invocation of the last seconds.
 */
export class StreamTable<Stream extends { readonly number: number }> {
  readonly #slots: (Stream | null)[] = Array.from({ length: SLOTS }, () => null);
  readonly #overtaken = new Map<number, Stream>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(number: number): Stream | undefined {
    const stream = this.#slots[number & (SLOTS - 1)];
    if (stream?.number === number) return stream;
    return this.#overtaken.size === 0 ? undefined : this.#overtaken.get(number);
  }

  /** The number must not be in use. */
  add(stream: Stream): void {
    const slot = stream.number & (SLOTS - 1);
    const before = this.#slots[slot];
    if (before !== undefined && before !== null) this.#overtaken.set(before.number, before);
    this.#slots[slot] = stream;
    this.#size++;
  }

  delete(number: number): void {
    const slot = number & (SLOTS - 1);
    if (this.#slots[slot]?.number === number) {
      this.#slots[slot] = null;
      this.#size--;
    } else if (this.#overtaken.delete(number)) this.#size--;
  }

  /** Removes all and answers them. */
  clear(): readonly Stream[] {
    const streams = [...this.#overtaken.values(), ...this.#slots.filter((stream) => stream !== null)];
    this.#overtaken.clear();
    this.#slots.fill(null);
    this.#size = 0;
    return streams;
  }
}
