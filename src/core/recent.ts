/**
 * What was made of texts that came lately. Every text has one place by its hash, and a later one simply takes it: nothing grows, and texts that
 * never come again cost no more than the look.
 */
export class RecentTexts<Made> {
  readonly #texts: string[];
  readonly #made: (Made | undefined)[];
  readonly #mask: number;

  /** @param places a power of two */
  constructor(places: number) {
    this.#texts = Array.from({ length: places }, () => "");
    this.#made = Array.from({ length: places }, () => undefined);
    this.#mask = places - 1;
  }

  get(text: string): Made | undefined {
    const place = this.#place(text);
    return this.#texts[place] === text ? this.#made[place] : undefined;
  }

  /** `text` is kept: it should not be a part that was cut from a much larger one. */
  set(text: string, made: Made): void {
    const place = this.#place(text);
    this.#texts[place] = text;
    this.#made[place] = made;
  }

  /** Looks at a few characters only; those near the end differ most often. */
  #place(text: string): number {
    const { length } = text;
    const step = 1 + (length >> 3);
    let hash = length;
    for (let index = length - 3; index > 0; index -= step) hash = (Math.imul(hash, 31) + text.charCodeAt(index)) | 0;
    return hash & this.#mask;
  }
}
