import type { Duplex } from "node:stream";
import type { Clock } from "../core/clock.ts";
import type { CodeCacheFile } from "../core/code-package.ts";
import type { FunctionSpec, Version } from "../core/function.ts";
import type { Activation, InvocationWatch, LogRecord, LogStream } from "../core/invocation.ts";
import type { Limits } from "../core/limits.ts";
import type { NetworkAccess } from "../core/network.ts";
import type { Logger, Supervise, Telemetry } from "../core/telemetry.ts";
import type { Link, Protocol, Specialisation } from "../protocols/protocol.ts";
import type { Runtime } from "../runtimes/runtime.ts";
import type { Mount, Sandbox, SandboxDriver, SandboxLimits } from "../sandbox/sandbox.ts";
import { limits } from "../core/limits.ts";
import type { Allowances } from "./allowance.ts";

/** What a version needs to run on this node, beside its spec. */
export interface PreparedVersion {
  /** The unpacked code with its dependencies, on this machine. */
  readonly codeFolder: string;
  /** Variables and secrets of the function. */
  readonly environment: Readonly<Record<string, string>>;
  /** Compiled code for this version, on this machine; null: there is none. */
  readonly codeCacheFolder: string | null;
  /** What else is seen inside, beside the code; images have their own file system and get none of it. Absent: nothing. */
  readonly mounts?: readonly Mount[];
}

/** What one instance has of the platform while it lives. */
export interface InsideOpening {
  /** Answers what connects to a port that is opened for it on the loopback interface inside; null: it needs none. */
  readonly serve: ((connection: Duplex) => void) | null;
  /**
   * Variables beside the function's own. The port is null where nothing can be listened for in this kind of sandbox.
   * @throws KoineError `not-supported` when the function cannot do without
   */
  environment(port: number | null): Readonly<Record<string, string>>;
  /** Null: nobody wants to know. */
  readonly watch: InvocationWatch | null;
  /** The instance has ended, or never became one. */
  close(): void;
}

/** Everything the engine is given; it chooses and creates nothing of this itself. */
export interface EngineParts {
  readonly clock: Clock;
  readonly limits: Limits;
  readonly driver: SandboxDriver;
  /** For versions whose code is an image; null: there is none on this machine. */
  readonly imageDriver: SandboxDriver | null;
  /** By name; `frames` is the one of our bootstraps. */
  readonly protocols: ReadonlyMap<string, Protocol>;
  /** The bootstrap that runs a program per invocation in sandboxes whose driver cannot; null: there is none. */
  readonly agent: Agent | null;
  readonly runtimes: ReadonlyMap<string, Runtime>;
  /** Handler adapters for a runtime's language, in the order they are tried. */
  adaptersOf(language: string): Specialisation["adapters"];
  /** The folders that hold the adapters. */
  readonly adapterMounts: readonly Mount[];
  /** What functions have of the network, unless they ask for less; and the most they can have. */
  readonly network: NetworkAccess;
  /** Answers without a promise what it has at hand: this is on the path of every cold start. */
  prepareVersion(version: Version, signal: AbortSignal): PreparedVersion | Promise<PreparedVersion>;
  /** Keeps what a check run compiled; none that is kept is not asked for. */
  keepCodeCache(version: Version, files: readonly CodeCacheFile[]): Promise<void>;
  /**
   * What an instance of a version has of the platform beside its code and variables; null: nothing. Absent: no instance of this engine has. Asked at
   * each start of an instance: it answers at once.
   */
  openInside?(version: Version, instanceId: string): InsideOpening | null;
  onFinished(activation: Activation): void;
  onLog(record: LogRecord): void;
  /** What this engine shares with others of its platform; null when it has none beside it. */
  readonly sharing: Sharing | null;
  readonly telemetry: Telemetry;
  readonly logger: Logger;
  readonly supervise: Supervise;
  readonly settings: EngineSettings;
}

export interface Agent {
  /** Name of the runtime that is used unless the function's own has the language. */
  readonly runtime: string;
  readonly language: string;
  readonly adapter: Specialisation["adapters"][number];
}

export interface Sharing {
  readonly allowances: Allowances;
  /** Of all engines together, in bytes. */
  readonly memoryBudgetBytes: number;
}

export interface EngineSettings {
  /** Memory that all instances together may be expected to use, in bytes; where engines share it, this one's part at first. */
  readonly memoryBudgetBytes: number;
  readonly instancesMax: number;
  readonly idleTimeoutMs: number;
  readonly sparesMin: number;
  readonly sparesMax: number;
  /** Spare sandboxes of one runtime that boot at the same time. */
  readonly sparesBootingMax: number;
}

/** Receives what comes from a booted sandbox outside of invocations' answers. */
export interface BootedOwner {
  log(invocationId: string | null, stream: LogStream, chunk: Buffer, timeMs: number): void;
  /** Output that did not come through the bootstrap: child processes, native code, crashes. */
  raw(stream: LogStream, chunk: Buffer): void;
  closed(reason: string): void;
}

/** A sandbox whose language has booted and waits for its specialisation. */
export interface Booted {
  readonly sandbox: Sandbox;
  readonly link: Link;
  readonly runtime: string;
  /** Whom the sandbox belongs to; until set, its output is dropped. */
  owner: BootedOwner | null;
  /** Output from before it had an owner, a bounded part of it. */
  readonly early: { readonly stream: LogStream; readonly chunk: Buffer }[];
  closedReason: string | null;
}

/** What a version may use of the machine. */
export type SandboxShare = Pick<FunctionSpec, "memoryBytesMax" | "cpuCores">;

export function sandboxLimits({ memoryBytesMax, cpuCores }: SandboxShare): SandboxLimits {
  return {
    memoryBytesMax,
    pidsMax: limits.sandboxPidsMax,
    cpuCores: cpuCores ?? null,
    tmpBytesMax: limits.sandboxTmpBytesMax,
    openFilesMax: limits.sandboxOpenFilesMax,
    fileBytesMax: limits.sandboxFileBytesMax,
  };
}
