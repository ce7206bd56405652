import type { Socket } from "node:net";
import { Timed, type Timeouts } from "../../core/timeouts.ts";
import type { EdgeRequest } from "../edge-request.ts";
import type { HeadTail } from "./answer.ts";
import { type ExchangeOwner, Http1Exchange } from "./exchange.ts";
import type { HeadReader } from "./reader.ts";

/** What all connections of a front end share. */
export interface ConnectionHost {
  readonly reader: HeadReader;
  readonly tail: HeadTail;
  /** Connections on which nothing is under way. */
  readonly idle: Timeouts;
  /** Connections whose head has begun, or whose body is awaited. */
  readonly slow: Timeouts;
  /** Connections that have said their last word and wait for the client's. */
  readonly lingering: Timeouts;
  /** Bodies up to this size are collected before anybody hears of the request, in bytes. */
  readonly wholeBodyBytesMax: number;
  /** What is taken and thrown away after an early answer, in bytes; a client that sends more is cut off. */
  readonly unwantedBytesMax: number;
  /** Every answer is its connection's last. */
  readonly closing: boolean;
  nowMs(): number;
  handle(request: EdgeRequest): void;
  /** Gives a connection away with all that it has not answered. */
  handOver(socket: Socket, rest: Buffer): void;
  /** The answer for a client that took too long to say what it wants. */
  tooSlow(): string;
  gone(connection: Http1Connection): void;
}

/** Requests that may be answered at the same time on one connection, and only those that change nothing. */
const PIPELINED_MAX = 32;
/** What may wait here of a client that sends more than is read, in bytes. */
const REST_BYTES_MAX = 65_536;
const HELD_BYTES_MAX = 65_536;
const JOINED_LENGTH_MAX = 16_384;
/** A client that ends its side together with its request still wants the answer; one that ends it later has given up. */
const HALF_CLOSE_MS = 10;

const EMPTY = Buffer.alloc(0);

/**
 * One client's connection as long as it sends common requests. Requests that only read are begun as they come, others one after the other;
 * answers leave in the order of the requests. The first odd thing goes, with the connection, to the host.
 */
export class Http1Connection extends Timed implements ExchangeOwner {
  readonly remoteAddress: string;
  readonly #host: ConnectionHost;
  readonly #socket: Socket;
  /** What came and was not read yet. */
  #rest: Buffer = EMPTY;
  #reading = false;
  #paused = false;
  /** Unanswered requests in order. */
  #first: Http1Exchange | null = null;
  #last: Http1Exchange | null = null;
  #count = 0;
  /** The request whose body is coming. */
  #receiving: Http1Exchange | null = null;
  #bodyMissing = 0;
  #unwanted = 0;
  /** Where a body gathers that is handed over whole. */
  #gathering: Buffer | null = null;
  #odd = false;
  #halfClosed = false;
  /** `lingering`: the last answer has left; what still comes is thrown away. */
  #phase: "open" | "lingering" | "over" = "open";
  /** Answers that leave together at the end of this turn. */
  #joined = "";
  readonly #flush = (): void => {
    const text = this.#joined;
    this.#joined = "";
    if (text !== "") this.#socket.write(text, "latin1");
  };

  constructor(host: ConnectionHost, socket: Socket) {
    super();
    this.#host = host;
    this.#socket = socket;
    this.remoteAddress = socket.remoteAddress ?? "";
    socket.on("data", this.#onData);
    socket.on("end", this.#onEnd);
    socket.on("drain", this.#onDrain);
    socket.on("error", ignore);
    socket.on("close", this.#onClose);
    host.idle.add(this);
  }

  get isIdle(): boolean {
    return this.#first === null && this.#receiving === null && this.#phase === "open";
  }

  /** Ends it without another word. */
  destroy(): void {
    this.#flush();
    this.#socket.destroy();
  }

  // Timed

  override timedOut(): void {
    const unheard = this.#gathering !== null || (this.#first === null && this.#rest.length > 0);
    if (unheard && this.#phase === "open") this.#finish(this.#host.tooSlow());
    else this.destroy();
  }

  // ExchangeOwner

  ending(exchange: Http1Exchange): boolean {
    // An early answer is the last one when too much of its body is still to come.
    return this.#host.closing || (exchange === this.#receiving && this.#bodyMissing > this.#host.unwantedBytesMax);
  }

  tail(closes: boolean, lengthBytes: number | null): string {
    const { tail } = this.#host;
    const nowMs = this.#host.nowMs();
    return lengthBytes === null ? tail.at(nowMs, closes) : tail.withLength(lengthBytes, nowMs, closes);
  }

  put(exchange: Http1Exchange, text: string, bytes: Buffer | null): boolean {
    if (this.#phase !== "open") return true;
    if (exchange !== this.#first) {
      hold(exchange, text, bytes);
      return exchange.heldLength < HELD_BYTES_MAX;
    }
    if (bytes === null && exchange.next !== null && this.#joined.length + text.length < JOINED_LENGTH_MAX) {
      // Others are under way, and what they answer may come within this turn.
      if (this.#joined === "") queueMicrotask(this.#flush);
      this.#joined += text;
      return true;
    }
    const joined = this.#joined + text;
    this.#joined = "";
    if (bytes === null) return this.#socket.write(joined, "latin1");
    if (joined === "") return this.#socket.write(bytes);
    this.#socket.cork();
    this.#socket.write(joined, "latin1");
    const flows = this.#socket.write(bytes);
    this.#socket.uncork();
    return flows;
  }

  answered(exchange: Http1Exchange): void {
    if (this.#phase !== "open") return;
    if (exchange === this.#first) this.#advance();
    if (!this.#reading && (this.#rest.length > 0 || this.#receiving !== null)) this.#read();
  }

  bodyWanted(exchange: Http1Exchange): void {
    // What came already goes first; whether more is wanted shows then.
    if (exchange === this.#receiving && !this.#reading) this.#read();
  }

  // Socket

  readonly #onData = (chunk: Buffer): void => {
    if (this.#phase !== "open") {
      this.#unwanted += chunk.length;
      this.#host.lingering.add(this);
      if (this.#unwanted > this.#host.unwantedBytesMax) this.destroy();
      return;
    }
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#read();
  };

  readonly #onEnd = (): void => {
    this.#halfClosed = true;
    if (this.#phase !== "open" || this.#receiving !== null) this.destroy();
    else if (this.#last === null) this.#finish("");
    else if (this.#host.nowMs() - this.#last.receivedAtMs > HALF_CLOSE_MS) this.destroy();
  };

  readonly #onDrain = (): void => {
    this.#first?.flowed();
  };

  readonly #onClose = (): void => {
    this.#phase = "over";
    this.timeouts?.remove(this);
    this.#host.gone(this);
    const receiving = this.#receiving;
    this.#receiving = null;
    let exchange = this.#first;
    this.#first = null;
    this.#last = null;
    // One that is answered already may still be sending.
    if (receiving !== null && receiving.complete) receiving.left();
    while (exchange !== null) {
      const { next } = exchange;
      exchange.left();
      exchange = next;
    }
  };

  // Reading

  /** Takes from what came as much as can be taken now. */
  #read(): void {
    this.#reading = true;
    let at = 0;
    const bytes = this.#rest;
    while (at < bytes.length && this.#phase === "open" && !this.#odd) {
      const taken = this.#receiving === null ? this.#readHead(bytes, at) : this.#readBody(bytes, at, this.#receiving);
      if (taken === 0) break;
      at += taken;
    }
    this.#reading = false;
    if (this.#phase !== "open") return;
    this.#rest = at === 0 ? bytes : at === bytes.length ? EMPTY : bytes.subarray(at);
    if (this.#odd && this.#first === null) this.#handOver();
    else if (this.#receiving !== null) this.#awaitBody(this.#receiving);
    else if (this.#rest.length > REST_BYTES_MAX) this.#pause();
    else this.#resume();
  }

  /** Nobody can blame the client for the time until its body is wanted. */
  #awaitBody(exchange: Http1Exchange): void {
    const { slow } = this.#host;
    if (this.#gathering !== null) {
      if (this.timeouts !== slow) slow.add(this);
    } else if (exchange.takesBody) {
      slow.add(this);
      this.#resume();
    } else {
      slow.remove(this);
      this.#pause();
    }
  }

  /** Answers how many bytes it took: 0 when nothing can be read of them now. */
  #readHead(bytes: Buffer, at: number): number {
    const host = this.#host;
    if (this.#last !== null && (this.#last.closes || this.#count >= PIPELINED_MAX || !isSafe(this.#last))) return 0;
    const reading = host.reader.read(bytes, at);
    if (reading !== "request") {
      if (reading === "odd") this.#odd = true;
      else if (this.#first !== null) return 0;
      else if (this.#halfClosed) this.#finish("");
      else if (this.timeouts !== host.slow) host.slow.add(this);
      return 0;
    }
    const { head } = host.reader;
    const exchange = new Http1Exchange(this, head, host.nowMs());
    if (this.#last !== null && !isSafe(exchange)) return 0;
    if (this.#last === null) this.#first = exchange;
    else this.#last.next = exchange;
    this.#last = exchange;
    this.#count++;
    this.timeouts?.remove(this);
    return head.length + this.#beginBody(exchange, bytes, at + head.length);
  }

  /** Answers how many bytes of the body it took. */
  #beginBody(exchange: Http1Exchange, bytes: Buffer, at: number): number {
    const length = exchange.lengthBytes;
    if (length === 0) {
      this.#host.handle(exchange);
      return 0;
    }
    if (bytes.length - at >= length && length <= this.#host.wholeBodyBytesMax) {
      exchange.whole = bytes.subarray(at, at + length);
      this.#host.handle(exchange);
      return length;
    }
    this.#receiving = exchange;
    this.#bodyMissing = length;
    if (length <= this.#host.wholeBodyBytesMax) this.#gathering = Buffer.allocUnsafeSlow(length);
    else {
      this.#host.handle(exchange);
    }
    return 0;
  }

  #readBody(bytes: Buffer, at: number, exchange: Http1Exchange): number {
    const length = Math.min(bytes.length - at, this.#bodyMissing);
    const piece = bytes.subarray(at, at + length);
    if (this.#gathering !== null) piece.copy(this.#gathering, this.#gathering.length - this.#bodyMissing);
    else if (!exchange.takesBody) return 0;
    else exchange.receive(piece);
    this.#bodyMissing -= length;
    if (this.#bodyMissing > 0) return length;
    this.#receiving = null;
    this.#host.slow.remove(this);
    const whole = this.#gathering;
    this.#gathering = null;
    if (whole !== null) {
      exchange.whole = whole;
      this.#host.handle(exchange);
    } else {
      exchange.received();
      if (this.#first === null) this.#settled(exchange);
    }
    return length;
  }

  // Answering

  /** The first request is answered: sends what waited behind it. */
  #advance(): void {
    let answered: Http1Exchange | null = null;
    for (let exchange = this.#first; exchange !== null && exchange.complete; exchange = this.#first) {
      answered = exchange;
      this.#count--;
      this.#first = exchange.next;
      if (this.#first === null) this.#last = null;
      else this.#putHeld(this.#first);
      if (exchange.closes) break;
    }
    if (answered !== null && (this.#first === null || answered.closes)) this.#settled(answered);
  }

  #putHeld(exchange: Http1Exchange): void {
    const { heldText, heldBytes } = exchange;
    exchange.heldText = "";
    exchange.heldBytes = null;
    if (heldBytes !== null) {
      for (const bytes of heldBytes) this.put(exchange, "", bytes);
    }
    if (heldText !== "") this.put(exchange, heldText, null);
    if (exchange.heldLength >= HELD_BYTES_MAX) exchange.flowed();
    exchange.heldLength = 0;
  }

  /** Everything is answered that was asked for. */
  #settled(last: Http1Exchange): void {
    if (last.closes || (this.#halfClosed && this.#rest.length === 0)) this.#finish("");
    else if (this.#receiving !== null) return;
    else if (this.#host.closing) this.#finish("");
    else this.#host.idle.add(this);
  }

  /** Says the last word and waits for the client's, so that what it has not read yet is not lost with the connection. */
  #finish(text: string): void {
    this.#flush();
    this.#phase = "lingering";
    this.#rest = EMPTY;
    this.#host.lingering.add(this);
    if (text !== "") this.#socket.write(text);
    if (this.#halfClosed) this.#socket.destroySoon();
    else this.#socket.end().resume();
  }

  #handOver(): void {
    this.#flush();
    if (this.#halfClosed) {
      // Nothing can be given back to a stream that has ended.
      this.#finish("");
      return;
    }
    this.#phase = "over";
    this.timeouts?.remove(this);
    const socket = this.#socket;
    socket.off("data", this.#onData);
    socket.off("end", this.#onEnd);
    socket.off("drain", this.#onDrain);
    socket.off("error", ignore);
    socket.off("close", this.#onClose);
    this.#host.gone(this);
    this.#host.handOver(socket, this.#rest);
    if (this.#paused) socket.resume();
  }

  #pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#socket.pause();
  }

  #resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#socket.resume();
  }
}

function ignore(): void {}

function isSafe({ method }: Http1Exchange): boolean {
  return method === "GET" || method === "HEAD" || method === "OPTIONS";
}

function hold(exchange: Http1Exchange, text: string, bytes: Buffer | null): void {
  exchange.heldLength += text.length + (bytes?.length ?? 0);
  if (bytes === null && exchange.heldBytes === null) {
    exchange.heldText += text;
    return;
  }
  exchange.heldBytes ??= [];
  if (exchange.heldText + text !== "") exchange.heldBytes.push(Buffer.from(exchange.heldText + text, "latin1"));
  exchange.heldText = "";
  if (bytes !== null) exchange.heldBytes.push(bytes);
}
