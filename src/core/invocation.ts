import type { ErrorReport, Fault } from "./errors.ts";
import type { FunctionRef, InvokeAccess } from "./function.ts";

/** Raw HTTP header names and values in turn, as they were received: `["Host", "x", "Accept", "y"]`. */
export type RawHeaders = readonly string[];

/** An HTTP request that is to be answered by a function. */
export interface HttpCall {
  readonly kind: "http";
  readonly method: string;
  /** Path and query below the function's own address, always beginning with `/`: `/a/b?c=d`. */
  readonly url: string;
  readonly headers: RawHeaders;
  /** `headers` as JSON text, where somebody has it already: it is most of what an instance is told of a request. */
  readonly headersJson?: string | undefined;
  /** The part of the path that addressed the function: `/fn/hello`; with `url` it makes the whole path. */
  readonly basePath: string;
  /** Scheme and authority that the client used: `http://127.0.0.1:4000`. */
  readonly origin: string;
  readonly remoteAddress: string;
  /** The protocol that the client wants to switch to, such as `websocket`: after an answer of 101 the bodies are its bytes, both ways. */
  readonly upgrade?: string | undefined;
  /** What a dialect wants its handlers to see beside the request; JSON-serialisable. */
  readonly context?: Readonly<Record<string, unknown>> | undefined;
}

/** A payload that is to be handed to a function's handler, such as a direct invocation or an event. */
export interface EventCall {
  readonly kind: "event";
  readonly contentType: string;
  /** What a dialect wants its handlers to see beside the payload; JSON-serialisable. */
  readonly context?: Readonly<Record<string, unknown>>;
}

export type Call = HttpCall | EventCall;

export type InvocationMode = "sync" | "async";

/** One request to run a function. */
export interface Invocation {
  /** Request id and activation id in one. */
  readonly id: string;
  readonly ref: FunctionRef;
  readonly call: Call;
  readonly mode: InvocationMode;
  /** 1 for the first. */
  readonly attempt: number;
  /** When the platform received it, milliseconds since the epoch. */
  readonly receivedAtMs: number;
  /** The body as far as it is here already. */
  readonly body: Buffer;
  /** Whether `body` is all of it; otherwise the rest follows through the exchange. */
  readonly bodyComplete: boolean;
  /** Rejected at once where its function holds all the Slots that it may, instead of waiting for one. */
  readonly impatient?: boolean;
}

/** Status and headers of an HTTP answer, or what is known of a result before its bytes. */
export interface ResponseHead {
  /** HTTP status; 200 for results of events. */
  readonly status: number;
  readonly headers: RawHeaders;
}

/** Whether an invocation waited for an Instance. */
export type StartKind = "cold" | "warm";

/** How an invocation ended. */
export type Outcome =
  | { readonly kind: "succeeded" }
  | { readonly kind: "failed"; readonly fault: Fault; readonly error: ErrorReport }
  | { readonly kind: "timedOut"; readonly error: ErrorReport }
  | { readonly kind: "rejected"; readonly error: ErrorReport; readonly retryAfterMs: number };

/** Figures of one invocation, all in milliseconds or bytes. */
export interface InvocationFigures {
  readonly cold: boolean;
  /** From arrival until a slot was had. */
  readonly queuedMs: number;
  /** Of `queuedMs`, what starting the instance took; 0 when warm. */
  readonly startMs: number;
  /** From slot to end. */
  readonly durationMs: number;
  /** Largest resident memory seen of the instance; 0 where not measured. */
  readonly memoryBytes: number;
  readonly instanceId: string;
}

/**
 * Receives an invocation's answer. Calls arrive in the order head, body…, ended; `ended` comes exactly once and may come without a head
 * (then there is no answer but the outcome), or after a part of the body (then the answer was cut).
 */
export interface Responder {
  head(head: ResponseHead, start: StartKind): void;
  /** Answers false when the receiver cannot take more now; it then calls `Exchange.resume`. With `last`, `bodyEnded` follows at once. */
  body(chunk: Buffer, last?: boolean): boolean;
  /** The answer's body is complete; the outcome follows when the handler has settled. Not called for answers that were cut. */
  bodyEnded(): void;
  ended(outcome: Outcome, figures: InvocationFigures): void;
  /** The instance can take more of a request body after `Exchange.write` answered false. */
  drained?(): void;
}

/** The caller's handle on a running invocation. */
export interface Exchange {
  /** Sends more of the request's body; false means: wait for `drained`. */
  write(chunk: Buffer): boolean;
  /** The request's body is complete. */
  end(): void;
  /** The answer can flow again. */
  resume(): void;
  /** The caller is gone or does not want the answer any more. */
  cancel(): void;
}

/** The stored record of a finished (or accepted, not yet finished) invocation. */
export interface Activation {
  readonly id: string;
  readonly namespace: string;
  readonly package: string;
  readonly name: string;
  readonly version: number;
  readonly mode: InvocationMode;
  readonly attempt: number;
  /** `queued` and `running` occur for asynchronous ones only. */
  readonly state: "queued" | "running" | "succeeded" | "failed" | "timedOut" | "rejected";
  readonly startedAtMs: number;
  readonly durationMs: number;
  readonly queuedMs: number;
  readonly startMs: number;
  readonly cold: boolean;
  readonly memoryBytes: number;
  /** Status of the HTTP answer, if there was one. */
  readonly status: number | null;
  readonly error: ErrorReport | null;
  readonly instanceId: string;
}

/** One attempt of an asynchronous invocation that was counted. */
export interface Attempt {
  /** Counts from 1, anew after a replay. */
  readonly number: number;
  readonly startedAtMs: number;
  readonly endedAtMs: number;
  readonly outcome: Outcome["kind"];
  readonly error: ErrorReport | null;
}

/** Is told of the invocations of one instance, on the path of each: it must hand on what it does. */
export interface InvocationWatch {
  /** Before anything of its output. */
  started(invocationId: string, timeMs: number): void;
  /** After all of its output, before its caller knows. */
  finished(activation: Activation): void;
  /** The instance is about to be asked to end. */
  stopping?(): void;
}

export type LogStream = "stdout" | "stderr" | "platform";

/** One line of output. */
export interface LogRecord {
  readonly namespace: string;
  readonly package: string;
  readonly name: string;
  readonly version: number;
  readonly instanceId: string;
  /** The invocation that wrote it; null for what is written while loading or between invocations. */
  readonly activationId: string | null;
  readonly timeMs: number;
  readonly stream: LogStream;
  readonly line: string;
}

/** Who is asking. */
export interface Caller {
  readonly subject: string;
  /** The one namespace it may act in; null: all of them. */
  readonly namespace: string | null;
  readonly rights: ReadonlySet<Right>;
  /** Whether it showed a token, which is for the platform's eyes only. */
  readonly byToken: boolean;
  /** The kinds of triggers it may change; absent: all. */
  readonly triggerKinds?: ReadonlySet<string>;
}

/** `invoke` calls functions, `read` looks, `write` changes. */
export type Right = "invoke" | "read" | "write";

/** Whether a caller may invoke a function that has this access. */
export function mayInvoke(caller: Caller | null, access: InvokeAccess, namespace: string): boolean {
  if (access === "public") return true;
  return (
    caller !== null && caller.rights.has("invoke") && (caller.namespace === null || caller.namespace === namespace)
  );
}
