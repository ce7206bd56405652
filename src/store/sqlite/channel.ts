import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { KoineError } from "../../core/errors.ts";
import type { Operations } from "./formats.ts";
import { answersBytes, Luggage, mapAnswer, mapArguments, unpacking } from "./luggage.ts";
import {
  CLOSE,
  fromWire,
  type Message,
  type Request,
  type Response,
  type Started,
  type ThreadOpening,
} from "./wire.ts";

interface Pending {
  readonly operation: string;
  resolve(value: unknown): void;
  reject(error: KoineError): void;
}

/** Starts the thread of a database file and resolves once the file is open. @throws KoineError as `openDatabase` */
export async function openChannel<Called extends Operations>(
  opening: ThreadOpening,
  onFailed?: (error: KoineError) => void,
): Promise<Channel<Called>> {
  // The extension is ours: `.ts` from source, `.js` when built.
  const extension = import.meta.url.slice(import.meta.url.lastIndexOf("."));
  const thread = new Worker(new URL(`./thread${extension}`, import.meta.url), {
    workerData: opening,
    name: `store ${opening.format}`,
  });
  try {
    const [started]: Started[] = await once(thread, "message");
    if (started?.started === false) throw fromWire(started.error);
    return new Channel<Called>(thread, onFailed);
  } catch (thrown) {
    await thread.terminate();
    if (thrown instanceof KoineError) throw thrown;
    throw new KoineError("storage-failed", { detail: "the store's thread did not start" }, { cause: thrown });
  }
}

/** Calls to the thread of one database file. Calls of one turn of the loop travel in one message, for each message costs the loop. */
export class Channel<Called extends Operations> {
  readonly #thread: Worker;
  readonly #pending = new Map<number, Pending>();
  readonly #ended: Promise<void>;
  #outbox: Request[] = [];
  readonly #luggage = new Luggage();
  #number = 0;
  #failure: KoineError | null = null;
  #closing = false;
  readonly #onFailed: ((error: KoineError) => void) | undefined;

  /** @param onFailed told when the thread ends that nobody asked to end: nothing can be done with the file any more */
  constructor(thread: Worker, onFailed?: (error: KoineError) => void) {
    this.#onFailed = onFailed;
    this.#thread = thread;
    thread.on("message", (message: Message<Response>) => this.#settle(message));
    thread.on("error", (cause) => this.#fail(cause));
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#ended = promise;
    thread.on("exit", () => {
      this.#fail(new Error("the thread ended"));
      resolve();
    });
  }

  /** Resolves once the transaction that holds the call is committed. */
  call<Name extends keyof Called & string>(
    operation: Name,
    ...args: Parameters<Called[Name]>
  ): Promise<ReturnType<Called[Name]>> {
    return this.#send(operation, args) as Promise<ReturnType<Called[Name]>>;
  }

  /** Finishes what was called, closes the file and ends the thread. */
  async close(): Promise<void> {
    this.#closing = true;
    if (this.#failure === null) await this.#send(CLOSE, []);
    await this.#ended;
  }

  /** Ends the thread at once, as a crash would. */
  async kill(): Promise<void> {
    await this.#thread.terminate();
  }

  #send(operation: string, args: readonly unknown[]): Promise<unknown> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    const { promise, resolve, reject } = Promise.withResolvers();
    const number = this.#number++;
    this.#pending.set(number, { operation, resolve, reject });
    if (this.#outbox.length === 0) setImmediate(() => this.#flush());
    this.#outbox.push([number, operation, mapArguments(operation, args, this.#luggage.pack)]);
    return promise;
  }

  #flush(): void {
    const requests = this.#outbox;
    this.#outbox = [];
    const luggage = this.#luggage.take();
    if (this.#failure !== null) return;
    try {
      const message: Message<Request> = [requests, luggage];
      this.#thread.postMessage(message, luggage === null ? [] : [luggage.buffer]);
    } catch (cause) {
      // Something in it cannot be copied: a wrong call, which must not leave the others waiting for ever.
      const error = new KoineError("internal", { detail: "a call to the store cannot be sent" }, { cause });
      this.#rejectAll(error, requests);
    }
  }

  #settle([responses, luggage]: Message<Response>): void {
    for (const [number, ok, value] of responses) {
      const pending = this.#pending.get(number);
      this.#pending.delete(number);
      if (pending === undefined) continue;
      if (!ok) pending.reject(fromWire(value));
      else if (answersBytes(pending.operation)) pending.resolve(mapAnswer(value, unpacking(luggage)));
      else pending.resolve(value);
    }
  }

  #fail(cause: unknown): void {
    const isFirst = this.#failure === null;
    this.#failure ??= new KoineError("storage-failed", { detail: "the store's thread has ended" }, { cause });
    if (isFirst && !this.#closing) this.#onFailed?.(this.#failure);
    for (const { reject } of this.#pending.values()) reject(this.#failure);
    this.#pending.clear();
  }

  #rejectAll(error: KoineError, requests: readonly Request[]): void {
    for (const [number] of requests) {
      this.#pending.get(number)?.reject(error);
      this.#pending.delete(number);
    }
  }
}
