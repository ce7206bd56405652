interface Flight<Result> {
  readonly result: Promise<Result>;
  readonly abort: AbortController;
  waiting: number;
}

/**
 * Joins equal work: callers with one key that come while it runs share its result. A caller that gives up only leaves; the work itself is
 * aborted when nobody waits for it any more.
 */
export class SingleFlight<Result> {
  readonly #flights = new Map<string, Flight<Result>>();

  /** @throws what the work throws, or the reason of `signal` */
  async run(key: string, signal: AbortSignal, start: (signal: AbortSignal) => Promise<Result>): Promise<Result> {
    signal.throwIfAborted();
    const flight = this.#flights.get(key) ?? this.#begin(key, start);
    flight.waiting++;
    const left = Promise.withResolvers<never>();
    const leave = (): void => left.reject(signal.reason);
    signal.addEventListener("abort", leave, { once: true });
    try {
      return await Promise.race([flight.result, left.promise]);
    } finally {
      signal.removeEventListener("abort", leave);
      flight.waiting--;
      if (flight.waiting === 0) this.#forsake(key, flight);
    }
  }

  /** Keys of the work that runs now. */
  keys(): readonly string[] {
    return [...this.#flights.keys()];
  }

  /** Aborts all work and waits until it is over. */
  async close(reason: unknown): Promise<void> {
    const flights = [...this.#flights.values()];
    for (const flight of flights) flight.abort.abort(reason);
    await Promise.allSettled(flights.map((flight) => flight.result));
  }

  #begin(key: string, start: (signal: AbortSignal) => Promise<Result>): Flight<Result> {
    const abort = new AbortController();
    const flight: Flight<Result> = { result: start(abort.signal), abort, waiting: 0 };
    const over = (): void => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    };
    flight.result.then(over, over);
    this.#flights.set(key, flight);
    return flight;
  }

  /** Work that is being aborted must not be joined: the next caller begins anew. */
  #forsake(key: string, flight: Flight<Result>): void {
    if (this.#flights.get(key) === flight) this.#flights.delete(key);
    flight.abort.abort();
  }
}
