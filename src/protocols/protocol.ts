import type { Duplex, Readable, Writable } from "node:stream";
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
  /** The program that the version brings, where it brings its own. */
  readonly program?: Program;
}

/** A program of the user's, as it is launched. */
export interface Program {
  /** Absolute path inside or a name that is looked up there, then arguments. Empty: what the image says. */
  readonly command: readonly string[];
  /** On the loopback interface inside: where it listens, or where the platform listens for it. */
  readonly port: number;
  /** The path that it answers once it can be used; null: a connection says so. */
  readonly readyPath: string | null;
  /** Its code on this machine; null where an image holds it. */
  readonly codeFolder: string | null;
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
  /** Takes out of a process's output what belongs to the protocol. Absent: nothing does. */
  filterOutput?(stream: "stdout" | "stderr", chunk: Buffer): Buffer;
}

/** What a protocol may use of a sandbox. Sandboxes fit as they are; what is optional depends on their driver. */
export interface Reach {
  /** A byte channel to the process, which sees it as file descriptor 3. */
  readonly channel: Duplex;
  /** Resolves when the process tree is gone. */
  readonly ended: Promise<unknown>;
  /** Connects to what listens on the loopback interface inside. Rejects with the system's error. */
  connect?(port: number, signal: AbortSignal): Promise<Duplex>;
  /** Listens on the loopback interface inside. */
  listen?(
    port: number,
    onConnection: (connection: Duplex) => void,
  ): Promise<AsyncDisposable & { readonly port: number }>;
  /** Runs a further program inside. */
  execute?(request: ExecuteRequest, signal: AbortSignal): Promise<Execution>;
  /** Lets a program run that was to wait. */
  begin?(): void;
}

export interface ExecuteRequest {
  /** Absolute path inside, then arguments; empty: what the image says. */
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

export interface Execution {
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly ended: Promise<{ readonly exitCode: number | null; readonly signal: string | null }>;
  kill(): void;
}

/** What a protocol for programs of the user's asks of their launch. */
export interface ProgramNeeds {
  /** `connect`: the program listens. `listen`: the platform does, before the program runs. `execute`: there is a program per invocation. */
  readonly ability: "connect" | "listen" | "execute";
  /** The port inside when the spec names none. */
  readonly port: number;
  /** Longest time from launch to readiness, in milliseconds. */
  readonly readyMsMax: number;
  /** What the program finds in its environment beside the function's own. */
  environment(specialisation: Specialisation): Readonly<Record<string, string>>;
}

/**
 * Optional ability: the first invocation can be sent together with the specialisation, so that nobody waits for the engine between loading
 * and running. Where loading fails what was sent is `lost`.
 */
export interface InvokesEarly {
  /** Whether the process at the other end can, too; known once it is ready. */
  readonly invokesEarly: boolean;
  /** Like `specialise`; @throws KoineError with fault `function` when the handler cannot be loaded */
  specialiseEarly(specialisation: Specialisation, early: Early, signal: AbortSignal): Promise<Specialised>;
}

export interface Early {
  /** Called once, at once: what it invokes goes along. */
  invoke(): void;
  /** Called before anything of an answer arrives. */
  loaded(specialised: Specialised): void;
}

export function isInvokesEarly(link: Link): link is Link & InvokesEarly {
  return "invokesEarly" in link && link.invokesEarly === true;
}

/** How the engine talks to the process in a sandbox. */
export interface Protocol {
  readonly name: string;
  /** Absent: a bootstrap of ours speaks it, and code is attached to it later. */
  readonly program?: ProgramNeeds;
  connect(reach: Reach, events: LinkEvents): Link;
}
