import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** One answer, as far as a benchmark wants to know it. */
export interface Answer {
  readonly status: number;
  readonly headers: string;
  readonly body: string;
  /** From handing the request to the kernel until the first byte, and until the last one. */
  readonly firstByteMs: number;
  readonly totalMs: number;
}

const RECEIVE_BYTES = 64 * 1024;
const HEAD_END = Buffer.from("\r\n\r\n");
/** `\r\n\r\n` as one number: a head that ends where the last one did is compared in one step. */
const HEAD_END_WORD = HEAD_END.readUInt32BE(0);
const STATUS_AT = 9;
const ANSWER_MS_MAX = 120_000;

/** A keep-alive HTTP/1.1 connection that sends ready-made bytes and knows just enough of answers to see where they end. */
export class Connection {
  readonly #socket: Socket;
  #done: ((status: number, answer: Buffer) => void) | null = null;
  #failed: ((error: Error) => void) | null = null;
  /** What has come of an answer that is not complete. */
  #pending: Buffer | null = null;
  /** Where head and body of the last answer ended: the next one mostly looks the same. */
  #headEnd = 0;
  #total = 0;
  #firstByteMs = 0;
  #headHere: ((headers: string) => void) | null = null;
  #closed = false;

  private constructor(address: Address, opened: () => void, failed: (error: Error) => void) {
    const buffer = Buffer.allocUnsafe(RECEIVE_BYTES);
    const received = (length: number): boolean => {
      this.#received(buffer.subarray(0, length));
      return true;
    };
    this.#socket = connect({ ...address, noDelay: true, onread: { buffer, callback: received } }, opened);
    this.#failed = failed;
    this.#socket.on("error", (error) => this.#lost(error));
    this.#socket.on("close", () => this.#lost(new Error("the connection was closed")));
  }

  static open(address: Address): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const connection = new Connection(
        address,
        () => {
          connection.#failed = null;
          resolve(connection);
        },
        reject,
      );
    });
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Sends one request; exactly one of both is called. The bytes of the answer are only valid during the call. */
  send(request: Buffer, done: (status: number, answer: Buffer) => void, failed: (error: Error) => void): void {
    if (this.#closed) {
      failed(new Error("the connection was closed"));
      return;
    }
    this.#done = done;
    this.#failed = failed;
    this.#firstByteMs = 0;
    this.#socket.write(request);
  }

  /** Sends one request and answers all of its answer. */
  async call(request: Buffer): Promise<Answer> {
    const begunMs = performance.now();
    const late = AbortSignal.timeout(ANSWER_MS_MAX);
    return await new Promise((resolve, reject) => {
      late.addEventListener("abort", () => reject(new Error("no answer came")), { once: true });
      const done = (status: number, answer: Buffer): void => {
        const totalMs = performance.now() - begunMs;
        const headers = answer.toString("latin1", 0, this.#headEnd);
        const raw = answer.subarray(this.#headEnd);
        const body = isChunked(headers) ? joinChunks(raw) : raw.toString();
        resolve({ status, headers, body, firstByteMs: this.#firstByteMs - begunMs, totalMs });
      };
      this.send(request, done, reject);
    });
  }

  /** Sends one request and answers as soon as its answer's head is here; the connection is of no more use then. */
  async head(request: Buffer): Promise<Pick<Answer, "status" | "headers" | "firstByteMs">> {
    const begunMs = performance.now();
    const late = AbortSignal.timeout(ANSWER_MS_MAX);
    return await new Promise((resolve, reject) => {
      late.addEventListener("abort", () => reject(new Error("no answer came")), { once: true });
      this.#headHere = (headers) => {
        const status = Number(headers.slice(STATUS_AT, STATUS_AT + 3));
        resolve({ status, headers, firstByteMs: this.#firstByteMs - begunMs });
      };
      this.send(request, () => {}, reject);
    });
  }

  close(): void {
    this.#done = null;
    this.#failed = null;
    this.#socket.destroy();
  }

  #received(chunk: Buffer): void {
    if (this.#firstByteMs === 0) this.#firstByteMs = performance.now();
    if (this.#pending === null && this.#looksLikeTheLast(chunk)) {
      this.#answered(chunk);
      return;
    }
    this.#pending = this.#pending === null ? Buffer.from(chunk) : Buffer.concat([this.#pending, chunk]);
    const whole = this.#pending;
    const headEnd = whole.indexOf(HEAD_END);
    if (headEnd < 0) return;
    this.#headHere?.(whole.toString("latin1", 0, headEnd));
    this.#headHere = null;
    const bodyAt = headEnd + HEAD_END.length;
    const end = bodyEnd(whole, bodyAt);
    if (end === null || whole.length < end) return;
    this.#headEnd = bodyAt;
    this.#total = isChunked(whole.toString("latin1", 0, bodyAt)) ? 0 : end;
    this.#pending = null;
    this.#answered(whole);
  }

  #looksLikeTheLast(chunk: Buffer): boolean {
    return (
      this.#total > 0 &&
      chunk.length === this.#total &&
      // "2": an answer of another kind is read with care.
      chunk[STATUS_AT] === 50 &&
      chunk.readUInt32BE(this.#headEnd - HEAD_END.length) === HEAD_END_WORD
    );
  }

  #answered(answer: Buffer): void {
    const done = this.#done;
    this.#done = null;
    this.#failed = null;
    done?.(Number(answer.toString("latin1", STATUS_AT, STATUS_AT + 3)), answer);
  }

  #lost(error: Error): void {
    this.#closed = true;
    const failed = this.#failed;
    this.#done = null;
    this.#failed = null;
    failed?.(error);
  }
}

/** Opens a connection to what may still be starting. @throws Error of the last attempt */
export async function openWhenReady(address: Address, withinMs: number): Promise<Connection> {
  const deadlineMs = performance.now() + withinMs;
  for (;;) {
    try {
      return await Connection.open(address);
    } catch (thrown) {
      if (performance.now() > deadlineMs) throw thrown;
      await sleep(20);
    }
  }
}

export interface RequestOptions {
  readonly method?: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** The bytes of a request. */
export function requestBytes(address: Address, { method = "GET", path, headers = {}, body }: RequestOptions): Buffer {
  const length = body === undefined ? {} : { "Content-Length": String(Buffer.byteLength(body)) };
  const all = { Host: `${address.host}:${address.port}`, ...headers, ...length };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.from(`${method} ${path} HTTP/1.1\r\n${lines.join("")}\r\n${body ?? ""}`);
}

/** Where the answer ends; null while that cannot be said. */
function bodyEnd(whole: Buffer, bodyAt: number): number | null {
  const head = whole.toString("latin1", 0, bodyAt);
  const length = /\r\ncontent-length:\s*(\d+)/i.exec(head)?.[1];
  if (length !== undefined) return bodyAt + Number(length);
  if (!isChunked(head)) return bodyAt;
  let at = bodyAt;
  for (;;) {
    const lineEnd = whole.indexOf("\r\n", at);
    if (lineEnd < 0) return null;
    const size = Number.parseInt(whole.toString("latin1", at, lineEnd), 16);
    const next = lineEnd + 2 + size + 2;
    if (Number.isNaN(size) || next > whole.length) return null;
    if (size === 0) return next;
    at = next;
  }
}

function isChunked(head: string): boolean {
  return /\r\ntransfer-encoding:\s*chunked/i.test(head);
}

function joinChunks(raw: Buffer): string {
  let text = "";
  let at = 0;
  for (;;) {
    const lineEnd = raw.indexOf("\r\n", at);
    const size = lineEnd < 0 ? 0 : Number.parseInt(raw.toString("latin1", at, lineEnd), 16);
    if (!(size > 0)) return text;
    text += raw.toString("utf8", lineEnd + 2, lineEnd + 2 + size);
    at = lineEnd + 2 + size + 2;
  }
}
