import type { Version } from "../core/function.ts";
import type { Caller, InvocationWatch, RawHeaders } from "../core/invocation.ts";
import type { RequestHeaders } from "./request-headers.ts";

/** A request at the edge, after identity and limits. */
export interface GatewayRequest {
  /** Request id; activation id of the invocation it becomes. */
  readonly id: string;
  readonly receivedAtMs: number;
  readonly method: string;
  readonly path: string;
  /** With `?` when there is one, else empty. */
  readonly query: string;
  readonly headers: RequestHeaders;
  readonly remoteAddress: string;
  /** The protocol that the client wants to switch to. After an answer of 101 that is begun, the bodies are its bytes. */
  readonly upgrade?: string;
  readonly body: RequestBody;
  readonly response: GatewayResponse;
  /** Null: nobody in particular (authentication is configured and the request carries none). */
  readonly caller: Caller | null;
}

/** A request's body. What nobody reads is taken from the connection, within limits, once the request was answered. */
export interface RequestBody {
  /** As the client announced it; null when only its end will tell. */
  readonly lengthBytes: number | null;
  /** All of it, where it is here already; it is not read then. */
  readonly whole: Buffer | null;
  /** Has its pieces handed over as they come; once, and only when it is not whole. */
  read(reader: BodyReader): void;
  /** No more pieces until `resume`. */
  pause(): void;
  resume(): void;
}

/** Receives a body in pieces; after `completed` or `cut` nothing more comes. */
export interface BodyReader {
  piece(chunk: Buffer): void;
  completed(): void;
  /** The client left, or took too long, before the end. */
  cut(): void;
}

/** Status and headers of an answer. An object that is used for many answers is rendered once. */
export class AnswerHead {
  readonly status: number;
  /** Without those that belong to the connection or describe the length. */
  readonly headers: RawHeaders;
  /** Length of the body that a HEAD request would have got, or of a body that comes in pieces, where it is known; in bytes. */
  readonly lengthBytes: number | null;
  /** The connection cannot be used after this answer. */
  readonly closes: boolean;
  /** What a front end made of it. */
  rendered: string | null = null;

  constructor(
    status: number,
    headers: RawHeaders,
    options: { readonly lengthBytes?: number | null; readonly closes?: boolean } = {},
  ) {
    this.status = status;
    this.headers = headers;
    this.lengthBytes = options.lengthBytes ?? null;
    this.closes = options.closes ?? false;
  }
}

/** What happens to a response from outside. */
export interface ResponseListener {
  /** More can be written after `write` answered false. */
  flowed(): void;
  /** The client left before the answer was complete: nothing that is still written reaches it. */
  left(): void;
}

/**
 * The answer to a request: either `send`, or `begin`, any number of `write`, `end`. The request's id, the framing and whatever HEAD, 204 and
 * 304 leave out are its own business. After `abort`, or once the client has left, calls do nothing.
 */
export interface GatewayResponse {
  /** Whether a part of an answer is on its way. */
  readonly begun: boolean;
  listener: ResponseListener | null;
  /** A whole answer at once. */
  send(head: AnswerHead, body: Buffer | string | null): void;
  /** An answer whose body follows in pieces. */
  begin(head: AnswerHead): void;
  /** Answers false when the client cannot take more now. */
  write(chunk: Buffer | string): boolean;
  end(): void;
  /** Breaks the connection, so that nobody takes what was sent for the whole. */
  abort(): void;
}

/** A handler model's adapters: files that run inside the sandbox. */
export interface HandlerAdapters {
  /** The folder that holds `<language>/<model>.*`, seen inside as `/koine/handlers/<dialect>`. */
  readonly folder: string;
  /** Models by language, in the order in which they are tried on a module: `{ nodejs: ["web"], python: ["wsgi"] }`. */
  readonly models: Readonly<Record<string, readonly string[]>>;
}

/** The part of a dialect that runs functions and answers with what they answer: it needs no store and works in every engine of a platform. */
export interface CallDialect {
  /** Whether it takes the request. On the path of every request where there are several engines. */
  covers(request: GatewayRequest): boolean;
  handle(request: GatewayRequest): boolean;
}

/** What a dialect gives to instances of the functions that were deployed with it. */
export interface Surroundings {
  /** For all instances of a version, beside what its spec says; variables of the function's own come before these. Kept while the version lives. */
  prepare(version: Version, signal: AbortSignal): Promise<VersionSurroundings>;
  /** For one instance; asked at its start, and answered at once. */
  open(version: Version, instanceId: string): InstanceSurroundings;
}

export interface VersionSurroundings {
  readonly environment: Readonly<Record<string, string>>;
  /** Folders of this machine that are seen inside, read-only. */
  readonly mounts: readonly { readonly source: string; readonly target: string }[];
}

export interface InstanceSurroundings {
  /** @param url where the dialect's API is reached from inside; null: it is not */
  environment(url: string | null): Readonly<Record<string, string>>;
  /** Requests from inside, whose senders prove who they are in the dialect's own way; answers false for those that are not the dialect's. */
  handle(request: GatewayRequest): boolean;
  readonly watch: InvocationWatch | null;
}

/** Another platform's way of speaking: its API, events, project files and handler models. */
export interface Dialect {
  readonly name: string;
  /** Answers true when it has taken the request; it then answers it itself. Must be cheap: it is on the path of every request. */
  handle(request: GatewayRequest): boolean;
  /**
   * As `handle`, for requests whose senders prove who they are in a way of their own: asked before the platform looks who its caller is, and
   * `caller` is null. Must be as cheap. `identify` asks the platform after all; it throws where the request comes from a host or page that may not.
   */
  handleForeign?(request: GatewayRequest, identify: () => Caller | null): boolean;
  readonly adapters: HandlerAdapters | null;
  /** The port of this machine at which people's tools look for it, where they expect one. */
  readonly usualPort?: number;
  /** Absent: its functions get nothing beside what their specs say. */
  readonly surroundings?: Surroundings;
  /** Begins what the dialect does by itself, such as handing on what waits in its queues; called once, when the platform can run functions. */
  start?(): void;
  /** Ends that; resolves when nothing of it runs any more. */
  close?(): Promise<void>;
  /** Paths and schemas for `/openapi.json`, where the dialect has an API described by schemas. */
  openapi?(): Readonly<Record<string, unknown>>;
}
