interface Step<Position> {
  readonly position: Position;
  done: boolean;
}

/**
 * Up to where everything is accepted, for sources that have several events on their way at a time. Positions begin in the order of the source and end in
 * any order; what may be acknowledged or checkpointed is the last before the first that has not ended.
 */
export class Progress<Position> {
  readonly #steps: Step<Position>[] = [];
  readonly #advance: (position: Position) => void;
  #failed = false;

  /** @param advance called whenever the position has moved on; after a failure never again */
  constructor(advance: (position: Position) => void) {
    this.#advance = advance;
  }

  /** Positions that have begun and are not behind yet. */
  get pending(): number {
    return this.#steps.length;
  }

  /** Follows one event; answers the same promise. */
  track<Answer>(position: Position, accepted: Promise<Answer>): Promise<Answer> {
    const step: Step<Position> = { position, done: false };
    this.#steps.push(step);
    accepted.then(
      () => {
        step.done = true;
        this.#move();
      },
      () => {
        this.#failed = true;
      },
    );
    return accepted;
  }

  #move(): void {
    if (this.#failed) return;
    let moved: Step<Position> | undefined;
    while (this.#steps[0]?.done === true) moved = this.#steps.shift();
    if (moved !== undefined) this.#advance(moved.position);
  }
}

/** Lets at most so many be on their way at a time. */
export class Room {
  readonly #most: number;
  #taken = 0;
  #wake: (() => void) | null = null;

  constructor(most: number) {
    this.#most = most;
  }

  /** Resolves when there is room for one more, which is then taken; for one caller at a time. Rejects when the signal aborts. */
  async take(signal: AbortSignal): Promise<void> {
    while (this.#taken >= this.#most) {
      signal.throwIfAborted();
      const { promise, resolve } = Promise.withResolvers<void>();
      const wake = (): void => resolve();
      this.#wake = wake;
      signal.addEventListener("abort", wake);
      await promise;
      signal.removeEventListener("abort", wake);
    }
    signal.throwIfAborted();
    this.#taken++;
  }

  give(): void {
    this.#taken--;
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }
}
