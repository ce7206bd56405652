import type { Clock } from "../core/clock.ts";
import type { CodeCacheFile } from "../core/code-package.ts";
import type { Version } from "../core/function.ts";
import type { Activation, LogRecord, LogStream } from "../core/invocation.ts";
import type { Limits } from "../core/limits.ts";
import type { Logger, Supervise, Telemetry } from "../core/telemetry.ts";
import type { Link, Protocol, Specialisation } from "../protocols/protocol.ts";
import type { Runtime } from "../runtimes/runtime.ts";
import type { Mount, NetworkMode, Sandbox, SandboxDriver, SandboxLimits } from "../sandbox/sandbox.ts";
import { limits } from "../core/limits.ts";

/** What a version needs to run on this node, beside its spec. */
export interface PreparedVersion {
  /** The unpacked code with its dependencies, on this machine. */
  readonly codeFolder: string;
  /** Variables and secrets of the function. */
  readonly environment: Readonly<Record<string, string>>;
  /** Compiled code for this version, on this machine; null: there is none. */
  readonly codeCacheFolder: string | null;
}

/** Everything the engine is given; it chooses and creates nothing of this itself. */
export interface EngineParts {
  readonly clock: Clock;
  readonly limits: Limits;
  readonly driver: SandboxDriver;
  readonly protocol: Protocol;
  readonly runtimes: ReadonlyMap<string, Runtime>;
  /** Handler adapters for a runtime's language, in the order they are tried. */
  adaptersOf(language: string): Specialisation["adapters"];
  /** The folders that hold the adapters. */
  readonly adapterMounts: readonly Mount[];
  readonly network: NetworkMode;
  /** Answers without a promise what it has at hand: this is on the path of every cold start. */
  prepareVersion(version: Version, signal: AbortSignal): PreparedVersion | Promise<PreparedVersion>;
  /** Keeps what a check run compiled; none that is kept is not asked for. */
  keepCodeCache(version: Version, files: readonly CodeCacheFile[]): Promise<void>;
  onFinished(activation: Activation): void;
  onLog(record: LogRecord): void;
  readonly telemetry: Telemetry;
  readonly logger: Logger;
  readonly supervise: Supervise;
  readonly settings: EngineSettings;
}

export interface EngineSettings {
  /** Memory that all instances together may be expected to use, in bytes. */
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
  closedReason: string | null;
}

export function sandboxLimits(memoryBytesMax: number): SandboxLimits {
  return {
    memoryBytesMax,
    pidsMax: limits.sandboxPidsMax,
    cpuCores: null,
    tmpBytesMax: limits.sandboxTmpBytesMax,
    openFilesMax: limits.sandboxOpenFilesMax,
    fileBytesMax: limits.sandboxFileBytesMax,
  };
}
