import {
  type ClientHttp2Session,
  connect,
  constants,
  performServerHandshake,
  type ServerHttp2Stream,
  type Http2Stream,
} from "node:http2";
import type { Duplex } from "node:stream";
import { KoineError } from "../core/errors.ts";
import type { Caller, RawHeaders } from "../core/invocation.ts";
import {
  AnswerHead,
  type BodyReader,
  type GatewayResponse,
  type RequestBody,
  type ResponseListener,
} from "../dialects/dialect.ts";
import { RequestHeaders } from "../dialects/request-headers.ts";
import { respondError } from "../dialects/respond.ts";
import type { EdgeRequest } from "../gateway/edge-request.ts";

/**
 * Requests that only the first engine can answer travel to it and their answers back, piece by piece, with back-pressure in both directions. HTTP/2
 * on a pair of sockets serves as a multiplexer and for nothing else: heads are JSON in front of the bodies, so that they stay as they were.
 */
interface PassedHead {
  readonly id: string;
  readonly receivedAtMs: number;
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly headers: RawHeaders;
  readonly remoteAddress: string;
  readonly lengthBytes: number | null;
  readonly upgrade?: string | undefined;
}

interface PassedAnswer {
  readonly status: number;
  readonly headers: RawHeaders;
  readonly lengthBytes: number | null;
  readonly closes: boolean;
}

const EMPTY = Buffer.alloc(0);
/** Limits against hostile peers are lifted: the peer is ours, and clients that leave are no attack of its. */
const SESSION = {
  maxSessionMemory: 256,
  settings: { initialWindowSize: 256 * 1024 },
  streamResetBurst: Number.MAX_SAFE_INTEGER,
  streamResetRate: Number.MAX_SAFE_INTEGER,
} as const;

/** The side that passes requests on. */
export class Passing {
  readonly #session: ClientHttp2Session;

  /** @param closed called when nothing can be passed on any more */
  constructor(socket: Duplex, closed: () => void = () => {}) {
    this.#session = connect("http://engine", { ...SESSION, createConnection: () => socket });
    this.#session.on("error", () => {});
    this.#session.on("close", closed);
  }

  pass(request: EdgeRequest): void {
    if (this.#session.closed || this.#session.destroyed) {
      respondError(request, new KoineError("shutting-down"));
      return;
    }
    const stream = this.#session.request({ ":method": "POST", ":path": "/" }, { endStream: false });
    stream.on("error", () => {});
    stream.write(framed(headOf(request)));
    const { body } = request;
    if (request.upgrade !== undefined) passAnswer(request, stream, () => passBody(request, stream));
    else {
      if (body.whole === null) passBody(request, stream);
      else stream.end(body.whole);
      passAnswer(request, stream, () => {});
    }
  }
}

function headOf(request: EdgeRequest): PassedHead {
  const { id, receivedAtMs, method, path, query, headers, remoteAddress, body, upgrade } = request;
  const { lengthBytes } = body;
  return { id, receivedAtMs, method, path, query, headers: headers.raw, remoteAddress, lengthBytes, upgrade };
}

function passBody({ body }: EdgeRequest, stream: Http2Stream): void {
  stream.on("drain", () => body.resume());
  body.read({
    piece: (chunk) => {
      if (!stream.destroyed && !stream.write(chunk)) body.pause();
    },
    completed: () => stream.end(),
    cut: () => stream.close(constants.NGHTTP2_CANCEL),
  });
}

/** @param onSwitched called when the answer is to switch protocols: the bodies are the other one's from then on */
function passAnswer(request: EdgeRequest, stream: Http2Stream, onSwitched: () => void): void {
  const { response } = request;
  let over = false;
  response.listener = {
    flowed: () => stream.resume(),
    left: () => {
      over = true;
      stream.close(constants.NGHTTP2_CANCEL);
    },
  };
  const reader = new HeadFirst<PassedAnswer>(
    ({ status, headers, lengthBytes, closes }) => {
      response.begin(new AnswerHead(status, headers, { lengthBytes, closes }));
      if (status === 101) onSwitched();
    },
    (piece) => {
      if (!response.write(piece)) stream.pause();
    },
  );
  stream.on("data", (chunk: Buffer) => reader.take(chunk));
  stream.on("end", () => {
    if (over || !reader.seen || stream.rstCode !== constants.NGHTTP2_NO_ERROR) return;
    over = true;
    response.end();
  });
  stream.on("close", () => {
    if (over) return;
    over = true;
    // Broken off after it had begun, or never answered because the first engine is gone.
    if (reader.seen) response.abort();
    else respondError(request, new KoineError("shutting-down"));
  });
}

/** The side that answers them. */
export function answerPassed(socket: Duplex, handle: (request: EdgeRequest) => void): void {
  const session = performServerHandshake(socket, SESSION);
  session.on("error", () => {});
  session.on("stream", (stream: ServerHttp2Stream) => {
    stream.on("error", () => {});
    stream.respond({ ":status": 200 });
    let request: PassedRequest | null = null;
    const reader = new HeadFirst<PassedHead>(
      (head) => {
        request = new PassedRequest(stream, head);
        handle(request);
      },
      (piece) => request?.receive(piece),
    );
    stream.on("data", (chunk: Buffer) => reader.take(chunk));
    stream.on("end", () => request?.received());
    stream.on("close", () => request?.left());
  });
}

/** A request that another engine has received. */
class PassedRequest implements EdgeRequest, RequestBody, GatewayResponse {
  readonly id: string;
  readonly receivedAtMs: number;
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly headers: RequestHeaders;
  readonly remoteAddress: string;
  readonly lengthBytes: number | null;
  readonly whole: Buffer | null;
  readonly upgrade?: string;
  caller: Caller | null = null;
  listener: ResponseListener | null = null;
  readonly #stream: ServerHttp2Stream;
  #reader: BodyReader | null = null;
  /** What came before anybody wanted it. */
  #early: Buffer[] = [];
  #body: "coming" | "complete" | "cut" = "coming";
  #paused = false;
  #answer: "none" | "begun" | "complete" | "gone" = "none";

  constructor(stream: ServerHttp2Stream, head: PassedHead) {
    this.#stream = stream;
    this.id = head.id;
    this.receivedAtMs = head.receivedAtMs;
    this.method = head.method;
    this.path = head.path;
    this.query = head.query;
    this.headers = new RequestHeaders(head.headers);
    this.remoteAddress = head.remoteAddress;
    this.lengthBytes = head.lengthBytes;
    this.whole = head.lengthBytes === 0 ? EMPTY : null;
    if (head.upgrade !== undefined) this.upgrade = head.upgrade;
    stream.on("drain", () => {
      if (this.#answer === "begun") this.listener?.flowed();
    });
  }

  get body(): RequestBody {
    return this;
  }

  get response(): GatewayResponse {
    return this;
  }

  // RequestBody

  read(reader: BodyReader): void {
    this.#reader = reader;
    this.#handOver();
  }

  pause(): void {
    this.#paused = true;
    this.#stream.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#handOver();
  }

  // GatewayResponse

  get begun(): boolean {
    return this.#answer !== "none";
  }

  send(head: AnswerHead, body: Buffer | string | null): void {
    if (this.#answer !== "none") return;
    const bytes = typeof body === "string" ? Buffer.from(body) : (body ?? EMPTY);
    const isBodiless = head.status === 204 || head.status === 304;
    const lengthBytes = isBodiless ? head.lengthBytes : (head.lengthBytes ?? bytes.length);
    const { status, headers, closes } = head;
    this.begin(new AnswerHead(status, headers, { lengthBytes, closes }));
    if (!isBodiless && this.method !== "HEAD" && bytes.length > 0) this.#stream.write(bytes);
    this.end();
  }

  begin({ status, headers, lengthBytes, closes }: AnswerHead): void {
    if (this.#answer !== "none") return;
    this.#answer = "begun";
    this.#stream.write(framed({ status, headers, lengthBytes, closes } satisfies PassedAnswer));
  }

  write(chunk: Buffer | string): boolean {
    if (this.#answer !== "begun" || this.method === "HEAD") return true;
    return this.#stream.write(typeof chunk === "string" ? Buffer.from(chunk) : chunk);
  }

  end(): void {
    if (this.#answer !== "begun") return;
    this.#answer = "complete";
    // The engine that has the client takes what nobody wanted of its body.
    this.#stream.end(() => {
      if (this.#body === "coming") this.#stream.close(constants.NGHTTP2_NO_ERROR);
    });
  }

  abort(): void {
    if (this.#answer === "complete" || this.#answer === "gone") return;
    this.#answer = "gone";
    this.#stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  }

  // What the stream does

  receive(piece: Buffer): void {
    this.#early.push(piece);
    if (this.#reader === null) this.#stream.pause();
    else this.#handOver();
  }

  received(): void {
    if (this.#body === "coming") this.#body = "complete";
    this.#handOver();
  }

  left(): void {
    if (this.#body === "coming") this.#body = "cut";
    this.#handOver();
    if (this.#answer === "complete" || this.#answer === "gone") return;
    this.#answer = "gone";
    this.listener?.left();
  }

  #handOver(): void {
    const reader = this.#reader;
    if (reader === null) return;
    while (!this.#paused) {
      const piece = this.#early.shift();
      if (piece === undefined) break;
      reader.piece(piece);
    }
    if (this.#early.length > 0 || this.#paused) return;
    if (this.#body === "coming") {
      this.#stream.resume();
      return;
    }
    this.#reader = null;
    if (this.#body === "complete") reader.completed();
    else reader.cut();
  }
}

const LENGTH_BYTES = 4;

function framed(head: PassedHead | PassedAnswer): Buffer {
  const json = Buffer.from(JSON.stringify(head));
  const length = Buffer.allocUnsafe(LENGTH_BYTES);
  length.writeUInt32LE(json.length);
  return Buffer.concat([length, json]);
}

/** Takes a stream apart into the head in front of it and the pieces that follow. */
class HeadFirst<Head> {
  seen = false;
  #rest = EMPTY;
  readonly #head: (head: Head) => void;
  readonly #piece: (piece: Buffer) => void;

  constructor(head: (head: Head) => void, piece: (piece: Buffer) => void) {
    this.#head = head;
    this.#piece = piece;
  }

  take(chunk: Buffer): void {
    if (this.seen) {
      this.#piece(chunk);
      return;
    }
    this.#rest = Buffer.concat([this.#rest, chunk]);
    if (this.#rest.length < LENGTH_BYTES) return;
    const end = LENGTH_BYTES + this.#rest.readUInt32LE();
    if (this.#rest.length < end) return;
    this.seen = true;
    this.#head(JSON.parse(this.#rest.toString("utf8", LENGTH_BYTES, end)) as Head);
    const piece = this.#rest.subarray(end);
    this.#rest = EMPTY;
    if (piece.length > 0) this.#piece(piece);
  }
}
