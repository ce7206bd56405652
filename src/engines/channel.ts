import type { Duplex } from "node:stream";
import { KoineError, toKoineError, type ErrorCode, type ErrorValues } from "../core/errors.ts";

interface WireError {
  readonly code: ErrorCode;
  readonly values: ErrorValues;
}

type Frame<Message> =
  | { readonly kind: "told"; readonly message: Message }
  | { readonly kind: "called"; readonly call: number; readonly message: Message }
  | { readonly kind: "answered"; readonly call: number; readonly value: unknown }
  | { readonly kind: "failed"; readonly call: number; readonly error: WireError };

export interface ChannelEvents<Received> {
  told(message: Received, bytes: Buffer): void;
  /** What is thrown goes to the caller. */
  called(message: Received, bytes: Buffer): Promise<Answer>;
  closed(): void;
}

export interface Answer {
  readonly value: unknown;
  readonly bytes?: Buffer;
}

const EMPTY = Buffer.alloc(0);
/** Length of the message, length of its head. */
const PREFIX_BYTES = 8;

interface Pending {
  resolve(answer: { readonly value: unknown; readonly bytes: Buffer }): void;
  reject(error: KoineError): void;
}

/**
 * Messages between two processes of one platform, in order; those of one turn of the loop leave together. The two trust each other: what is
 * read is not checked.
 */
export class EngineChannel<Sent, Received> {
  readonly #stream: Duplex;
  readonly #events: ChannelEvents<Received>;
  readonly #pending = new Map<number, Pending>();
  #call = 0;
  #rest: Buffer = EMPTY;
  #corked = false;
  #closed = false;

  constructor(stream: Duplex, events: ChannelEvents<Received>) {
    this.#stream = stream;
    this.#events = events;
    stream.on("data", (chunk: Buffer) => this.#read(chunk));
    stream.on("error", () => {});
    stream.on("close", () => this.#end());
    stream.on("end", () => this.#end());
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Bytes that the other side has not taken yet. */
  get backlogBytes(): number {
    return this.#stream.writableLength;
  }

  tell(message: Sent, bytes: Buffer = EMPTY): void {
    this.#write({ kind: "told", message }, bytes);
  }

  /** @throws KoineError what the other side threw; `shutting-down` when it is gone */
  async call(message: Sent, bytes: Buffer = EMPTY): Promise<{ readonly value: unknown; readonly bytes: Buffer }> {
    if (this.#closed) throw new KoineError("shutting-down");
    const { promise, resolve, reject } = Promise.withResolvers<{ readonly value: unknown; readonly bytes: Buffer }>();
    const call = ++this.#call;
    this.#pending.set(call, { resolve, reject });
    this.#write({ kind: "called", call, message }, bytes);
    return await promise;
  }

  close(): void {
    this.#stream.destroy();
  }

  #write(frame: Frame<Sent>, bytes: Buffer): void {
    if (this.#closed) return;
    const head = Buffer.from(JSON.stringify(frame));
    const prefix = Buffer.allocUnsafe(PREFIX_BYTES);
    prefix.writeUInt32LE(head.length + bytes.length, 0);
    prefix.writeUInt32LE(head.length, 4);
    if (!this.#corked) {
      this.#corked = true;
      this.#stream.cork();
      process.nextTick(() => {
        this.#corked = false;
        this.#stream.uncork();
      });
    }
    this.#stream.write(bytes.length === 0 ? Buffer.concat([prefix, head]) : Buffer.concat([prefix, head, bytes]));
  }

  #read(chunk: Buffer): void {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    for (;;) {
      const rest = this.#rest;
      if (rest.length < PREFIX_BYTES) return;
      const end = PREFIX_BYTES + rest.readUInt32LE(0);
      if (rest.length < end) return;
      const headEnd = PREFIX_BYTES + rest.readUInt32LE(4);
      this.#rest = rest.subarray(end);
      const frame = JSON.parse(rest.toString("utf8", PREFIX_BYTES, headEnd)) as Frame<Received>;
      this.#take(frame, rest.subarray(headEnd, end));
    }
  }

  #take(frame: Frame<Received>, bytes: Buffer): void {
    switch (frame.kind) {
      case "told":
        this.#events.told(frame.message, bytes);
        return;
      case "called":
        void this.#answer(frame.call, frame.message, bytes);
        return;
      case "answered":
      case "failed": {
        const pending = this.#pending.get(frame.call);
        this.#pending.delete(frame.call);
        if (frame.kind === "answered") pending?.resolve({ value: frame.value, bytes });
        else pending?.reject(new KoineError(frame.error.code, frame.error.values));
        return;
      }
      default:
        return frame satisfies never;
    }
  }

  /** Never rejects. */
  async #answer(call: number, message: Received, bytes: Buffer): Promise<void> {
    try {
      const answer = await this.#events.called(message, bytes);
      this.#write({ kind: "answered", call, value: answer.value ?? null }, answer.bytes ?? EMPTY);
    } catch (thrown) {
      const { code, values, cause } = toKoineError(thrown);
      // The cause stays behind; for what nobody expected it is all that is known.
      const detail = code === "internal" && cause instanceof Error ? { detail: cause.message } : {};
      this.#write({ kind: "failed", call, error: { code, values: { ...values, ...detail } } }, EMPTY);
    }
  }

  #end(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stream.destroy();
    for (const { reject } of this.#pending.values()) reject(new KoineError("shutting-down"));
    this.#pending.clear();
    this.#events.closed();
  }
}
