import { Worker } from "node:worker_threads";
import type { Answered, Asked } from "./wire.ts";

/** The other end of a thread that answers: it serves as long as the platform does, and does not keep it from ending. */
export class AnsweringThread<Request> {
  readonly #thread: Worker;
  readonly #pending = new Map<number, PromiseWithResolvers<unknown>>();
  #number = 0;
  #failure: Error | null = null;
  #closing = false;

  /** @param file without its extension, beside this one */
  constructor(file: string, workerData: unknown) {
    const extension = import.meta.url.slice(import.meta.url.lastIndexOf("."));
    const thread = new Worker(new URL(`./${file}${extension}`, import.meta.url), {
      workerData,
      name: file,
      // Descriptors are made on one thread and closed on another.
      trackUnmanagedFds: false,
    });
    this.#thread = thread;
    thread.on("message", ({ number, error, code, value }: Answered) => {
      const pending = this.#pending.get(number);
      this.#pending.delete(number);
      if (this.#pending.size === 0 && !this.#closing) thread.unref();
      if (error === null) pending?.resolve(value);
      else pending?.reject(Object.assign(new Error(error), code === undefined ? {} : { code }));
    });
    thread.on("error", (cause) => this.#fail(cause instanceof Error ? cause : new Error(String(cause))));
    thread.on("exit", () => this.#fail(new Error("a thread of the networks ended")));
    thread.unref();
  }

  get hasEnded(): boolean {
    return this.#failure !== null;
  }

  /** The answer's type is the caller's to know. */
  ask(request: Request): Promise<unknown> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    const number = ++this.#number;
    const pending = Promise.withResolvers<unknown>();
    this.#pending.set(number, pending);
    this.#thread.ref();
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- that is a window's; this is a thread
    this.#thread.postMessage({ number, request } satisfies Asked<Request>);
    return pending.promise;
  }

  async close(): Promise<void> {
    // Until it has ended it is waited for.
    this.#closing = true;
    this.#thread.ref();
    await this.#thread.terminate();
  }

  #fail(failure: Error): void {
    this.#failure ??= failure;
    for (const pending of this.#pending.values()) pending.reject(failure);
    this.#pending.clear();
  }
}
