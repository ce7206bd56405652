import { KoineError } from "../core/errors.ts";

/** Lets a few in at a time; the others wait in the order in which they came. */
export class Gate {
  readonly #insideMax: number;
  readonly #waitingMax: number;
  readonly #waiting = new Set<() => void>();
  #inside = 0;

  constructor(insideMax: number, waitingMax: number) {
    this.#insideMax = insideMax;
    this.#waitingMax = waitingMax;
  }

  /**
   * Resolves when there is room; disposing of the result makes room again.
   * @throws KoineError `platform-overloaded` when too many wait; the reason of `signal`
   */
  async enter(signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted();
    if (this.#inside < this.#insideMax) this.#inside++;
    else await this.#wait(signal);
    let left = false;
    return {
      [Symbol.dispose]: () => {
        if (left) return;
        left = true;
        this.#leave();
      },
    };
  }

  async #wait(signal: AbortSignal): Promise<void> {
    if (this.#waiting.size >= this.#waitingMax) throw new KoineError("platform-overloaded");
    const turn = Promise.withResolvers<void>();
    const admit = (): void => turn.resolve();
    const giveUp = (): void => {
      // Whoever was admitted in the meantime has taken over a place and keeps it.
      if (this.#waiting.delete(admit)) turn.reject(signal.reason);
    };
    this.#waiting.add(admit);
    signal.addEventListener("abort", giveUp, { once: true });
    try {
      await turn.promise;
    } finally {
      signal.removeEventListener("abort", giveUp);
    }
  }

  /** Hands the place to the first that waits, so that `#inside` never falls below what is taken. */
  #leave(): void {
    const next = this.#waiting.values().next();
    if (next.done === true) {
      this.#inside--;
      return;
    }
    this.#waiting.delete(next.value);
    next.value();
  }
}
