import type { Duplex } from "node:stream";
import type { CodeCacheFile } from "../core/code-package.ts";
import type { ErrorReport } from "../core/errors.ts";
import type { Exchange, HttpCall, EventCall, LogStream, ResponseHead } from "../core/invocation.ts";

/** What turns a booted sandbox into an instance of one version. */
export interface Specialisation {
  /** Path of the code inside the sandbox. */
  readonly codePath: string;
  readonly handler: string;
  /** A handler model's name, or `auto`. */
  readonly handlerModel: string;
  /** Everything the function's environment is to hold, secrets included. */
  readonly environment: Readonly<Record<string, string>>;
  readonly function: {
    readonly namespace: string;
    readonly package: string;
    readonly name: string;
    readonly version: number;
  };
  readonly memoryBytesMax: number;
  readonly timeoutMs: number;
  readonly instanceConcurrency: number;
  /** Handler adapters of the runtime's language, in the order in which `auto` tries them; `path` is inside the sandbox. */
  readonly adapters: readonly { readonly dialect: string; readonly model: string; readonly path: string }[];
  /** Where compiled code is, inside the sandbox; null: there is none, and what is compiled may be told with `Specialised`. */
  readonly codeCache?: { readonly path: string | null };
}

export interface Specialised {
  /** The model that was chosen. */
  readonly handlerModel: string;
  /** What the loading took inside, in milliseconds. */
  readonly loadMs: number;
  /** What was compiled, when it was asked for and worth keeping. */
  readonly codeCache?: readonly CodeCacheFile[];
}

export interface LinkInvocation {
  readonly id: string;
  readonly call: HttpCall | EventCall;
  readonly attempt: number;
  /** Milliseconds since the epoch. */
  readonly deadlineMs: number;
  readonly body: Buffer;
  readonly bodyComplete: boolean;
}

/** Receives one invocation's answer from the instance; exactly one of `succeeded`, `failed`, `lost` comes last. */
export interface LinkResponder {
  head(head: ResponseHead): void;
  /** With `last`, `bodyEnded` follows at once. */
  body(chunk: Buffer, last?: boolean): boolean;
  drained(): void;
  /** The answer's body is complete; `succeeded` may come later, when the handler left work that it waits for. */
  bodyEnded(): void;
  /** The answer is complete and the handler has settled. */
  succeeded(): void;
  /** The handler failed, or what it answered cannot be used. May follow a part of the answer. */
  failed(error: ErrorReport): void;
  /** The link broke before the end. */
  lost(): void;
}

export interface LinkEvents {
  /** Output that the bootstrap could attribute (null: written outside any invocation). A chunk is not necessarily a line. */
  log(invocationId: string | null, stream: LogStream, chunk: Buffer, timeMs: number): void;
  /** The instance broke the protocol or its channel ended, after `close` too; the link is unusable. Comes once, after all `lost`. */
  closed(reason: string): void;
}

/** One open connection to the process in a sandbox. */
export interface Link {
  /** Resolves when the process has booted and waits for its specialisation. */
  ready(signal: AbortSignal): Promise<void>;
  /** @throws KoineError with fault `function` when the handler cannot be loaded */
  specialise(specialisation: Specialisation, signal: AbortSignal): Promise<Specialised>;
  /** Starts an invocation; any number may be under way. The exchange's `cancel` tells the instance and ends with `failed` or `succeeded`. */
  invoke(invocation: LinkInvocation, responder: LinkResponder): Exchange;
  /** Whether the process still answers: false after `withinMs` of silence. */
  ping(withinMs: number): Promise<boolean>;
  /** Asks the process to run its exit hooks and exit; what is under way is lost. Its last output is still reported. */
  close(): void;
}

/** How the engine talks to the process in a sandbox. */
export interface Protocol {
  readonly name: string;
  connect(channel: Duplex, events: LinkEvents): Link;
}
