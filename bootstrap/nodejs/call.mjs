import { LAST, WINDOW_BYTES, frameType } from "./connection.mjs";
import { describeThrown, invalidResponse } from "./thrown.mjs";

/** Credit is given in steps of this size: a small body needs none at all. */
const CREDIT_BYTES = WINDOW_BYTES / 2;
const EMPTY = Buffer.alloc(0);

/**
 * @typedef {import("./connection.mjs").Outbox} Outbox
 *
 * @typedef {object} HttpHead
 * @property {string} id
 * @property {number} attempt
 * @property {number} deadlineMs milliseconds since the epoch
 * @property {"http"} kind
 * @property {string} method
 * @property {string} url path and query below the function's own address
 * @property {string[]} headers names and values in turn
 * @property {string} basePath
 * @property {string} origin
 * @property {string} remoteAddress
 * @property {Readonly<Record<string, unknown>> | undefined} [context] what the dialect of the caller adds
 *
 * @typedef {object} EventHead
 * @property {string} id
 * @property {number} attempt
 * @property {number} deadlineMs milliseconds since the epoch
 * @property {"event"} kind
 * @property {string} contentType
 * @property {Record<string, unknown>} [context] what the dialect of the caller adds
 *
 * @typedef {HttpHead | EventHead} Head
 */

/** One invocation as a handler adapter sees it (docs/adapters.md). */
export class Call {
  /** @readonly @type {Head} */
  head;
  #outbox;
  #stream;
  #answerHead;
  #onSettled;
  /** @type {AbortController | null} */
  #controller = null;
  #cancelled = false;
  #settled = false;

  /** @type {Buffer[]} */
  #received = [];
  #receivedAll;
  #bodyTaken = false;
  #uncredited = 0;
  /** @type {(() => void) | null} */
  #wakeReader = null;

  #responded = false;
  #answerEnded = false;
  #sendWindow = WINDOW_BYTES;
  /** @type {Buffer[]} */
  #waiting = [];
  /** @type {(() => void)[]} */
  #wakeWriters = [];

  /**
   * @param {Outbox} outbox
   * @param {number} stream
   * @param {Head} head
   * @param {{ body: Buffer, complete: boolean, answerHead: AnswerHead, onSettled: (stream: number) => void }} options
   */
  constructor(outbox, stream, head, options) {
    this.head = head;
    this.#outbox = outbox;
    this.#stream = stream;
    this.#answerHead = options.answerHead;
    this.#onSettled = options.onSettled;
    this.#receivedAll = options.complete;
    if (options.body.length > 0) this.#received.push(options.body);
  }

  /** Fires when nobody waits for the answer any more. */
  get signal() {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#cancelled) this.#controller.abort(cancelReason());
    }
    return this.#controller.signal;
  }

  /** Where output of this call belongs: its stream, or the instance as a whole once it has settled. */
  get logStream() {
    return this.#settled ? 0 : this.#stream;
  }

  get cancelled() {
    return this.#cancelled;
  }

  get settled() {
    return this.#settled;
  }

  get responded() {
    return this.#responded;
  }

  /** Milliseconds until the platform gives up on this call; never negative. */
  remainingMs() {
    return Math.max(0, this.head.deadlineMs - Date.now());
  }

  // The request's body: taken once, by one of these.

  /** The whole body if it is here already, else null. Does not count as taking when it answers null. */
  takeBody() {
    if (!this.#receivedAll) return null;
    this.#take();
    const parts = this.#received;
    this.#received = [];
    return parts.length === 0 ? EMPTY : parts.length === 1 ? /** @type {Buffer} */ (parts[0]) : Buffer.concat(parts);
  }

  /** @returns {Promise<Buffer>} */
  async readAll() {
    const whole = this.takeBody();
    if (whole !== null) return whole;
    const parts = [];
    for await (const part of this) parts.push(part);
    return Buffer.concat(parts);
  }

  async *[Symbol.asyncIterator]() {
    this.#take();
    for (;;) {
      const part = this.#received.shift();
      if (part !== undefined) {
        this.#consumed(part.length);
        yield part;
      } else if (this.#receivedAll) {
        return;
      } else if (this.#cancelled || this.#settled) {
        throw cancelReason();
      } else {
        await /** @type {Promise<void>} */ (new Promise((resolve) => (this.#wakeReader = resolve)));
      }
    }
  }

  // The answer

  /**
   * @param {number} status
   * @param {readonly string[]} headers names and values in turn
   */
  respond(status, headers) {
    if (this.#settled) return;
    if (this.#responded) throw new Error("the answer's head has been sent already");
    this.#responded = true;
    this.#outbox.frame(frameType.head, this.#stream, 0, this.#answerHead.bytes(status, headers));
  }

  /**
   * Sends a part of the answer. A promise means: wait for it before sending more.
   * @param {Uint8Array | string} chunk
   * @returns {Promise<void> | undefined}
   */
  write(chunk) {
    if (this.#settled || this.#answerEnded) return undefined;
    const bytes = toBuffer(chunk);
    if (bytes.length === 0) return undefined;
    this.#waiting.push(bytes);
    this.#send();
    if (this.#waiting.length === 0 || this.#cancelled) return undefined;
    return new Promise((resolve) => this.#wakeWriters.push(resolve));
  }

  /**
   * Completes the answer.
   * @param {Uint8Array | string} [chunk] its last part
   */
  end(chunk) {
    if (this.#settled || this.#answerEnded) return;
    if (chunk !== undefined) {
      const bytes = toBuffer(chunk);
      if (bytes.length > 0) this.#waiting.push(bytes);
    }
    this.#answerEnded = true;
    if (this.#waiting.length === 0) this.#outbox.frame(frameType.data, this.#stream, LAST, null);
    else this.#send();
  }

  // What the engine does

  /**
   * @param {Buffer} part
   * @param {boolean} last
   */
  receive(part, last) {
    if (part.length > 0) this.#received.push(part);
    if (last) this.#receivedAll = true;
    this.#wake();
  }

  /** @param {number} bytes */
  credit(bytes) {
    this.#sendWindow += bytes;
    this.#send();
  }

  cancel() {
    this.#cancelled = true;
    this.#controller?.abort(cancelReason());
    this.#waiting = [];
    this.#wake();
    this.#wakeAllWriters();
  }

  // How it ends

  /**
   * The handler has settled without a fault: completes the answer where the adapter has not. A promise means that the answer has still to leave.
   * @returns {Promise<void> | undefined}
   */
  finish() {
    if (this.#settled) return undefined;
    if (!this.#responded) {
      if (!this.#cancelled) {
        this.fail(invalidResponse("the handler ended without an answer"));
        return undefined;
      }
      this.respond(499, []);
    }
    this.end();
    if (this.#waiting.length > 0) return this.#finishLater();
    this.#ended();
    return undefined;
  }

  async #finishLater() {
    await /** @type {Promise<void>} */ (new Promise((resolve) => this.#wakeWriters.push(resolve)));
    if (!this.#settled) this.#ended();
  }

  #ended() {
    this.#settle();
    this.#outbox.frame(frameType.end, this.#stream, 0, null);
  }

  /** @param {unknown} thrown */
  fail(thrown) {
    if (this.#settled) return;
    this.#settle();
    this.#outbox.json(frameType.failed, this.#stream, describeThrown(thrown, "handler-failed"));
  }

  #settle() {
    this.#settled = true;
    this.#waiting = [];
    this.#received = [];
    this.#onSettled(this.#stream);
    this.#wake();
    this.#wakeAllWriters();
  }

  #take() {
    if (this.#bodyTaken) throw new TypeError("the request's body has been read already");
    this.#bodyTaken = true;
  }

  /** @param {number} bytes */
  #consumed(bytes) {
    this.#uncredited += bytes;
    if (this.#uncredited < CREDIT_BYTES || this.#receivedAll || this.#settled) return;
    this.#outbox.credit(this.#stream, this.#uncredited);
    this.#uncredited = 0;
  }

  #wake() {
    const wake = this.#wakeReader;
    this.#wakeReader = null;
    wake?.();
  }

  #wakeAllWriters() {
    for (const wake of this.#wakeWriters.splice(0)) wake();
  }

  #send() {
    if (this.#cancelled) this.#waiting = [];
    while (this.#sendWindow > 0 && this.#waiting.length > 0) {
      const chunk = /** @type {Buffer} */ (this.#waiting[0]);
      const fits = chunk.length <= this.#sendWindow;
      const part = fits ? chunk : chunk.subarray(0, this.#sendWindow);
      if (fits) this.#waiting.shift();
      else this.#waiting[0] = chunk.subarray(part.length);
      this.#sendWindow -= part.length;
      const last = this.#answerEnded && this.#waiting.length === 0;
      this.#outbox.frame(frameType.data, this.#stream, last ? LAST : 0, part);
    }
    if (this.#waiting.length === 0) this.#wakeAllWriters();
  }
}

/** The bytes of HEAD. A function mostly answers with the same head as the last time. */
export class AnswerHead {
  #status = 0;
  /** @type {readonly string[]} */
  #headers = [];
  #bytes = EMPTY;

  /**
   * @param {number} status
   * @param {readonly string[]} headers
   */
  bytes(status, headers) {
    if (this.#status === status && isSame(this.#headers, headers)) return this.#bytes;
    this.#bytes = Buffer.from(JSON.stringify({ status, headers }));
    this.#status = status;
    this.#headers = [...headers];
    return this.#bytes;
  }
}

/** @param {readonly unknown[]} a @param {readonly unknown[]} b */
function isSame(a, b) {
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index++) if (a[index] !== b[index]) return false;
  return true;
}

const RESTS = 32;

/**
 * Reads the heads of invocations. What the requests of one client have in common is most of a head, and stands at its end: it is parsed once, and
 * its headers are the same array for all of them, which nobody may change.
 */
export class HeadReader {
  /** @type {({ text: string, values: Pick<HttpHead, "headers" | "basePath" | "origin" | "remoteAddress" | "context"> } | undefined)[]} */
  #rests = Array.from({ length: RESTS }, () => undefined);

  /** @param {string} text @returns {Head} */
  read(text) {
    const kindAt = text.indexOf(',"kind":"');
    const restAt = text.startsWith('http"', kindAt + 9) ? text.indexOf(',"headers":', kindAt) : -1;
    if (restAt < 0) return JSON.parse(text);
    const { id, attempt, deadlineMs, method, url } = JSON.parse(`${text.slice(0, restAt)}}`);
    const { headers, basePath, origin, remoteAddress, context } = this.#rest(text.slice(restAt));
    return { id, attempt, deadlineMs, kind: "http", method, url, headers, basePath, origin, remoteAddress, context };
  }

  /** @param {string} text */
  #rest(text) {
    const { length } = text;
    let hash = length;
    for (let index = length - 3; index > 0; index -= 1 + (length >> 3)) hash = (hash * 31 + text.charCodeAt(index)) | 0;
    const place = hash & (RESTS - 1);
    const known = this.#rests[place];
    if (known?.text === text) return known.values;
    const values = JSON.parse(`{${text.slice(1)}`);
    Object.freeze(values.headers);
    // A copy: a slice would keep the whole head alive.
    this.#rests[place] = { text: Buffer.from(text).toString(), values };
    return values;
  }
}

/** As many as the calls that an instance may have at a time, rounded up to a power of two. */
const SLOTS = 1_024;

/**
 * Calls by the number of their stream. Numbers count up, so a call's place is its number within a ring, and only one that is overtaken by the others
 * goes into a Map. A Map alone would leave behind tables that point at each other, and with them the garbage collector keeps every call of the
 * last seconds.
 */
export class CallTable {
  /** @type {(Call | undefined)[]} */
  #slots = Array.from({ length: SLOTS }, () => undefined);
  /** @type {number[]} */
  #numbers = Array.from({ length: SLOTS }, () => 0);
  /** @type {Map<number, Call>} */
  #overtaken = new Map();
  #size = 0;

  get size() {
    return this.#size;
  }

  /** @param {number} number */
  get(number) {
    const slot = number & (SLOTS - 1);
    if (this.#numbers[slot] === number) return this.#slots[slot];
    return this.#overtaken.size === 0 ? undefined : this.#overtaken.get(number);
  }

  /**
   * @param {number} number not in use
   * @param {Call} call
   */
  set(number, call) {
    const slot = number & (SLOTS - 1);
    const before = this.#slots[slot];
    if (before !== undefined) this.#overtaken.set(this.#numbers[slot] ?? 0, before);
    this.#slots[slot] = call;
    this.#numbers[slot] = number;
    this.#size++;
  }

  /** @param {number} number */
  delete(number) {
    const slot = number & (SLOTS - 1);
    if (this.#numbers[slot] === number && this.#slots[slot] !== undefined) {
      this.#slots[slot] = undefined;
      this.#size--;
    } else if (this.#overtaken.delete(number)) this.#size--;
  }
}

/** @param {Uint8Array | string} chunk */
function toBuffer(chunk) {
  if (typeof chunk === "string") return Buffer.from(chunk);
  if (chunk instanceof Uint8Array) return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  throw invalidResponse(`a body consists of text or bytes, not of ${typeof chunk}`);
}

function cancelReason() {
  return new DOMException("The caller is gone", "AbortError");
}
