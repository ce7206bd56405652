import type { Duplex } from "node:stream";
import { type Clock, systemClock } from "../core/clock.ts";
import type { CodeCacheFile } from "../core/code-package.ts";
import { KoineError } from "../core/errors.ts";
import type { Exchange } from "../core/invocation.ts";
import { limits } from "../core/limits.ts";
import { LAST, type FrameHeader, FrameReader, type FrameSink, Outbox, frameType } from "./frame-codec.ts";
import { FrameStream, type StreamSender } from "./frame-stream.ts";
import { StreamTable } from "./stream-table.ts";
import { parseCodeCache, HeadEncoder, HeadParser, parseError, parseReady, parseSpecialised } from "./frame-json.ts";
import type {
  Early,
  InvokesEarly,
  Link,
  LinkEvents,
  LinkInvocation,
  LinkResponder,
  Protocol,
  Specialisation,
  Specialised,
} from "./protocol.ts";

/** Koine's own protocol: docs/frames.md over one byte stream, any number of invocations at a time. */
export function createFramesProtocol(options: { readonly clock?: Clock } = {}): Protocol {
  const clock = options.clock ?? systemClock;
  return { name: "frames", connect: ({ channel }, events) => new FramesLink(channel, events, clock) };
}

type LinkState = "booting" | "ready" | "specialising" | "specialised" | "failed" | "closing" | "closed";

/** Largest JSON payload that is accepted from an instance, in bytes. */
const JSON_BYTES_MAX = 1024 * 1024;
const LOG_HEAD_BYTES = 9;
/** Frames that are written together at most. */
const GATHERED_MAX = 8;
const STREAM_NUMBER_MAX = 0xffff_ffff;

interface Waiter<T> {
  resolve(value: T): void;
  reject(reason: unknown): void;
}

class FramesLink implements Link, InvokesEarly, FrameSink, StreamSender {
  invokesEarly = false;
  readonly #channel: Duplex;
  readonly #events: LinkEvents;
  readonly #clock: Clock;
  readonly #reader = new FrameReader(this);
  readonly #outbox = new Outbox();
  readonly #streams = new StreamTable<FrameStream>();
  readonly #heads = new HeadParser();
  readonly #encoder = new HeadEncoder();
  readonly #pings = new Map<number, (answered: boolean) => void>();
  readonly #flush = (): void => {
    this.#flushScheduled = false;
    this.#write();
  };
  readonly #written = (): void => {
    if (--this.#writes === 0) this.#outbox.rewind();
  };
  #flushScheduled = false;
  /** Frames since the last write. */
  #gathered = 0;
  /** Writes that the channel has not finished. */
  #writes = 0;
  #state: LinkState = "booting";
  #closedReason = "";
  #numberLast = 0;
  /** After 2³² − 1 invocations the numbers begin anew; from then on every number counts as used. */
  #numbersWrapped = false;
  #pingLast = 0;
  #ready: Waiter<void>[] = [];
  #specialised: Waiter<Specialised> | null = null;
  #loaded: Early["loaded"] | null = null;
  #specialisation: Specialisation | null = null;
  readonly #codeCache: CodeCacheFile[] = [];
  #codeCacheBytes = 0;

  constructor(channel: Duplex, events: LinkEvents, clock: Clock) {
    this.#channel = channel;
    this.#events = events;
    this.#clock = clock;
    channel.on("data", (chunk: Buffer) => {
      const broken = this.#reader.push(chunk);
      if (broken !== null) this.#close(`the instance broke the protocol: ${broken}`);
    });
    channel.on("end", () => this.#close("the instance closed its channel"));
    channel.on("close", () => this.#close("the channel was closed"));
    channel.on("error", (error) => this.#close(`the channel failed: ${error.message}`));
  }

  ready(signal: AbortSignal): Promise<void> {
    if (this.#over()) return Promise.reject(this.#notReady());
    if (this.#state !== "booting") return Promise.resolve();
    return abortable<void>(signal, (waiter) => this.#ready.push(waiter));
  }

  specialise(specialisation: Specialisation, signal: AbortSignal): Promise<Specialised> {
    return this.#specialise(specialisation, null, signal);
  }

  specialiseEarly(specialisation: Specialisation, early: Early, signal: AbortSignal): Promise<Specialised> {
    return this.#specialise(specialisation, early, signal);
  }

  #specialise(specialisation: Specialisation, early: Early | null, signal: AbortSignal): Promise<Specialised> {
    if (this.#over()) return Promise.reject(this.#notLoaded(specialisation.handler));
    if (this.#state !== "ready") {
      return Promise.reject(new KoineError("internal", { detail: `a link that is ${this.#state} was specialised` }));
    }
    this.#state = "specialising";
    this.#specialisation = specialisation;
    this.#outbox.frame(frameType.specialise, 0, 0, Buffer.from(JSON.stringify(specialisation)));
    this.#loaded = early?.loaded ?? null;
    early?.invoke();
    this.#write();
    return abortable<Specialised>(signal, (waiter) => {
      this.#specialised = waiter;
    });
  }

  invoke(invocation: LinkInvocation, responder: LinkResponder): Exchange {
    const stream = new FrameStream(this.#nextNumber(), invocation.id, responder, this, this.#outbox);
    if (this.#state !== "specialised" && !(this.#state === "specialising" && this.invokesEarly)) {
      // Answered after this call returned, so that the caller holds its exchange first.
      queueMicrotask(() => stream.lost());
      return stream;
    }
    this.#streams.add(stream);
    stream.start(invocation, this.#encoder.encode(invocation));
    return stream;
  }

  ping(withinMs: number): Promise<boolean> {
    if (this.#over()) return Promise.resolve(false);
    const number = (this.#pingLast = (this.#pingLast + 1) >>> 0);
    return new Promise((resolve) => {
      const cancelTimer = this.#clock.after(withinMs, () => this.#pings.get(number)?.(false));
      this.#pings.set(number, (answered) => {
        this.#pings.delete(number);
        cancelTimer();
        resolve(answered);
      });
      this.#outbox.numbers(frameType.ping, 0, 8, number, 0);
      this.schedule();
    });
  }

  close(): void {
    if (this.#over()) return;
    this.#outbox.numbers(frameType.shutdown, 0, 0);
    this.#write();
    this.#abandon("closing", "the engine closed it");
    this.#channel.end();
  }

  // StreamSender

  /**
   * Writes what gathers in a turn of the event loop together: one system call for many frames. But not all of it, or the instance would
   * idle while this thread works and the other way round; and one invocation alone waits for no others.
   */
  schedule(): void {
    if (++this.#gathered >= GATHERED_MAX) this.#write();
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    if (this.#streams.size > 1) setImmediate(this.#flush);
    else process.nextTick(this.#flush);
  }

  ended(number: number): void {
    this.#streams.delete(number);
  }

  // FrameSink

  header(header: FrameHeader): string | null {
    const { type, stream, length } = header;
    switch (type) {
      case frameType.ready:
      case frameType.specialised:
      case frameType.loadFailed:
        if (stream !== 0) return `a frame of type ${type} on stream ${stream}`;
        return length <= JSON_BYTES_MAX ? null : `${length} bytes of JSON`;
      case frameType.codeCache:
        return this.#codeCacheHeader(stream, length);
      case frameType.pong:
        return stream === 0 && length === 8 ? null : "a malformed PONG";
      case frameType.log:
        if (length < LOG_HEAD_BYTES) return "a LOG without its head";
        return stream === 0 ? null : this.#unusedNumber(stream);
      case frameType.data:
        return this.#tooEarly() ?? this.#unusedNumber(stream) ?? this.#streams.get(stream)?.dataHeader(length) ?? null;
      case frameType.head:
      case frameType.failed:
        if (length > JSON_BYTES_MAX) return `${length} bytes of JSON`;
        return this.#tooEarly() ?? this.#unusedNumber(stream);
      case frameType.credit:
        return length === 4 ? this.#unusedNumber(stream) : "a malformed CREDIT";
      case frameType.end:
        return length === 0 ? (this.#tooEarly() ?? this.#unusedNumber(stream)) : "an END with a payload";
      default:
        return `a frame of type ${type}`;
    }
  }

  data(header: FrameHeader, piece: Buffer, complete: boolean): string | null {
    this.#streams.get(header.stream)?.data(piece, complete && (header.flags & LAST) !== 0);
    return null;
  }

  frame(header: FrameHeader, payload: Buffer): string | null {
    if (this.#state === "closing" && header.type !== frameType.log) return null;
    switch (header.type) {
      case frameType.ready:
        return this.#onReady(payload);
      case frameType.specialised:
        return this.#onSpecialised(payload);
      case frameType.loadFailed:
        return this.#onLoadFailed(payload);
      case frameType.codeCache:
        return this.#onCodeCache(payload);
      case frameType.pong:
        this.#pings.get(payload.readUInt32LE(0))?.(true);
        return null;
      case frameType.log:
        return this.#onLog(header.stream, payload);
      default:
        break;
    }
    // Frames of streams that ended may cross with what ended them.
    const stream = this.#streams.get(header.stream);
    if (stream === undefined) return null;
    switch (header.type) {
      case frameType.head: {
        const parsed = this.#heads.parse(payload);
        return parsed === null ? "a malformed HEAD" : stream.head(parsed);
      }
      case frameType.credit:
        return stream.credit(payload.readUInt32LE(0));
      case frameType.end:
        return stream.settled();
      case frameType.failed: {
        const error = parseError(payload, "invocation");
        if (error === null) return "a malformed FAILED";
        stream.failed(error.report());
        return null;
      }
      default:
        return `a frame of type ${header.type}`;
    }
  }

  #onReady(payload: Buffer): string | null {
    if (this.#state !== "booting") return "a second READY";
    const ready = parseReady(payload);
    if (typeof ready === "string") return ready;
    this.invokesEarly = ready.invokesEarly;
    this.#state = "ready";
    for (const waiter of this.#ready.splice(0)) waiter.resolve();
    return null;
  }

  #onSpecialised(payload: Buffer): string | null {
    if (this.#state !== "specialising") return "an unexpected SPECIALISED";
    const specialised = parseSpecialised(payload);
    if (specialised === null) return "a malformed SPECIALISED";
    this.#state = "specialised";
    const codeCache = this.#codeCache.splice(0);
    const waiter = this.#specialised;
    const loaded = this.#loaded;
    this.#specialised = null;
    this.#loaded = null;
    // One that nobody waits for any more is not used.
    if (waiter === null) return null;
    const told = codeCache.length === 0 ? specialised : { ...specialised, codeCache };
    loaded?.(told);
    waiter.resolve(told);
    return null;
  }

  #codeCacheHeader(stream: number, length: number): string | null {
    const wanted = this.#state === "specialising" && this.#specialisation?.codeCache?.path === null;
    if (stream !== 0 || !wanted) return "an unexpected CODE_CACHE";
    this.#codeCacheBytes += length;
    if (this.#codeCacheBytes > limits.codeCacheBytesMax) return "more CODE_CACHE than is allowed";
    return this.#codeCache.length < limits.codeCacheFilesMax ? null : "too many CODE_CACHE";
  }

  #onCodeCache(payload: Buffer): string | null {
    const file = parseCodeCache(payload);
    if (file === null) return "a malformed CODE_CACHE";
    this.#codeCache.push(file);
    return null;
  }

  #onLoadFailed(payload: Buffer): string | null {
    if (this.#state !== "specialising" || this.#specialisation === null) return "an unexpected LOAD_FAILED";
    const error = parseError(payload, this.#specialisation);
    if (error === null) return "a malformed LOAD_FAILED";
    this.#state = "failed";
    this.#specialised?.reject(error);
    this.#specialised = null;
    return null;
  }

  #onLog(number: number, payload: Buffer): string | null {
    const timeMs = payload.readDoubleLE(0);
    const source = payload[8];
    if (source !== 1 && source !== 2) return "a LOG of an unknown output";
    if (!Number.isFinite(timeMs)) return "a LOG without a time";
    const id = this.#streams.get(number)?.id ?? null;
    this.#events.log(id, source === 1 ? "stdout" : "stderr", payload.subarray(LOG_HEAD_BYTES), timeMs);
    return null;
  }

  #tooEarly(): string | null {
    return this.#state === "specialising" ? "an answer before SPECIALISED" : null;
  }

  #unusedNumber(number: number): string | null {
    if (number !== 0 && (number <= this.#numberLast || this.#numbersWrapped)) return null;
    return `a frame for stream ${number}, which was never begun`;
  }

  #nextNumber(): number {
    do {
      if (this.#numberLast === STREAM_NUMBER_MAX) {
        this.#numberLast = 0;
        this.#numbersWrapped = true;
      }
      this.#numberLast++;
    } while (this.#numbersWrapped && this.#streams.get(this.#numberLast) !== undefined);
    return this.#numberLast;
  }

  #write(): void {
    this.#gathered = 0;
    if (this.#over() || this.#outbox.empty) return;
    const pieces = this.#outbox.take();
    this.#writes += pieces.length;
    if (pieces.length > 1) this.#channel.cork();
    for (const piece of pieces) this.#channel.write(piece, this.#written);
    if (pieces.length > 1) this.#channel.uncork();
  }

  #close(reason: string): void {
    if (this.#state === "closed") return;
    this.#reader.stop();
    this.#abandon("closed", reason);
    this.#channel.destroy();
    this.#events.closed(this.#closedReason);
  }

  #abandon(state: "closing" | "closed", reason: string): void {
    if (!this.#over()) this.#closedReason = reason;
    this.#state = state;
    for (const waiter of this.#ready.splice(0)) waiter.reject(this.#notReady());
    this.#specialised?.reject(this.#notLoaded(this.#specialisation?.handler ?? ""));
    this.#specialised = null;
    for (const answer of this.#pings.values()) answer(false);
    for (const stream of this.#streams.clear()) stream.lost();
  }

  #over(): boolean {
    return this.#state === "closing" || this.#state === "closed";
  }

  #notReady(): KoineError {
    return new KoineError("sandbox-failed", { detail: this.#closedReason });
  }

  #notLoaded(handler: string): KoineError {
    const detail = `the process ended while loading it (${this.#closedReason})`;
    return new KoineError("handler-load-failed", { handler, detail });
  }
}

/** A promise that rejects with the signal's reason when it fires first. */
function abortable<T>(signal: AbortSignal, begin: (waiter: Waiter<T>) => void): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  if (signal.aborted) {
    reject(signal.reason);
    return promise;
  }
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  const settled = (): void => signal.removeEventListener("abort", onAbort);
  begin({
    resolve: (value) => {
      settled();
      resolve(value);
    },
    reject: (reason) => {
      settled();
      reject(reason);
    },
  });
  return promise;
}
