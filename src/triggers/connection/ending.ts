import type { Clock } from "../../core/clock.ts";
import { KoineError } from "../../core/errors.ts";

const GRACE_MS = 2_000;

/** The end of a source's run, for clients that tell by events that their connection is gone. */
export class Ending {
  readonly #broken = new AbortController();
  /** Aborts when the source is to end, or when its connection is gone. */
  readonly signal: AbortSignal;

  constructor(signal: AbortSignal) {
    this.signal = AbortSignal.any([signal, this.#broken.signal]);
  }

  /** The first reason counts. */
  fail(reason: unknown): void {
    this.#broken.abort(reason instanceof Error ? reason : new KoineError("source-failed", { detail: String(reason) }));
  }
}

/** Never resolves; rejects with the signal's reason once it aborts. */
export async function aborted(signal: AbortSignal): Promise<never> {
  signal.throwIfAborted();
  const { promise, reject } = Promise.withResolvers<never>();
  signal.addEventListener(
    "abort",
    () => reject(signal.reason instanceof Error ? signal.reason : new Error(String(signal.reason))),
    { once: true },
  );
  return await promise;
}

/** Resolves with `work`, or after a moment: a batch may have minutes to fill, and what it holds comes again. */
export async function forAMoment(clock: Clock, work: Promise<unknown>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const cancel = clock.after(GRACE_MS, resolve);
  await Promise.race([work.then(() => {}), promise]);
  cancel();
}
