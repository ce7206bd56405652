import type { Duplex, Readable, Writable } from "node:stream";
import type { NetworkMode } from "../core/function.ts";
import type { NetworkAccess, NetworkRule } from "../core/network.ts";

export type { NetworkMode } from "../core/function.ts";

export interface SandboxLimits {
  readonly memoryBytesMax: number;
  readonly pidsMax: number;
  /** Share of one processor, 1 = one core; null: no limit beyond fair sharing. */
  readonly cpuCores: number | null;
  readonly tmpBytesMax: number;
  readonly openFilesMax: number;
  readonly fileBytesMax: number;
}

/** A file or folder of the machine that is to be seen inside. */
export interface Mount {
  readonly source: string;
  /** Absolute path inside. */
  readonly target: string;
  readonly writable?: boolean;
}

export interface SandboxRequest {
  /** Unique on this machine. */
  readonly id: string;
  /** Absolute paths inside, then arguments. */
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly mounts: readonly Mount[];
  readonly limits: SandboxLimits;
  readonly network: NetworkMode;
  /** What it may reach beyond the internet, with `egress`. */
  readonly allowNetwork?: readonly NetworkRule[];
  /** The image whose file system it gets, pinned by digest; only for drivers of images. `command` may then be empty: the image's own. */
  readonly image?: string;
  /** Working directory inside. */
  readonly cwd?: string;
  /** Whether the command waits until `begin` is called, where the driver can: then what it connects to is there. */
  readonly held?: boolean;
  /** Whether nothing is to run by itself: the programs come by `execute`. Only for drivers with that ability. */
  readonly idle?: boolean;
  /** Whether code is attached after the start: then `Attachable.attach` must work on the result, where the driver has that ability. */
  readonly attachable?: boolean;
  /** Whether it is to take only processor time that no other sandbox wants, until `hurry` or `attach` is called, where the driver can. */
  readonly background?: boolean;
}

/** Why a sandbox is no more. */
export type SandboxEnd =
  | { readonly kind: "exited"; readonly exitCode: number }
  | { readonly kind: "killed"; readonly signal: string }
  | { readonly kind: "out-of-memory" }
  | { readonly kind: "too-many-processes" }
  | { readonly kind: "stopped" };

/** One isolated environment with one process tree in it; knows nothing of functions. */
export interface Sandbox {
  readonly id: string;
  /** A byte channel to the process, which sees it as file descriptor 3. */
  readonly channel: Duplex;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Resolves once, when the whole process tree is gone and its traces are cleaned up; never rejects. */
  readonly ended: Promise<SandboxEnd>;
  /** Resident memory now and at most so far; null where it cannot be measured. */
  memory(): { readonly currentBytes: number; readonly peakBytes: number } | null;
  /** Ends the process tree: politely at first when `graceMs` is above 0, then surely. */
  stop(graceMs: number): Promise<SandboxEnd>;
}

/** Optional ability: code and limits of a started sandbox can still be set. */
export interface Attachable {
  /**
   * @param network what it has of the network from now on; absent: what its request said. It can be less than that, or another list of what is allowed.
   */
  attach(mounts: readonly Mount[], limits: SandboxLimits, network?: NetworkAccess): Promise<void>;
}

/** Optional ability: a sandbox that began in the background takes its full share of the processor from now on. */
export interface Hurriable {
  hurry(): void;
}

/** Optional ability: a command that was `held` begins when it is told. */
export interface Holds {
  begin(): void;
}

/**
 * Optional ability: ports on the loopback interface inside can be used from outside, whatever the network mode, without anything being
 * reachable from anywhere else.
 */
export interface Reachable {
  /** Connects to what listens inside. Rejects with the system's error (`ECONNREFUSED` while nobody listens). */
  connect(port: number, signal: AbortSignal): Promise<Duplex>;
  /** Listens inside; what connects there comes to `onConnection`. 0 takes a free port. Ends with the sandbox. */
  listen(port: number, onConnection: (connection: Duplex) => void): Promise<PortInside>;
}

export interface PortInside extends AsyncDisposable {
  readonly port: number;
}

/** Optional ability: further programs can be run in a sandbox, under its limits and isolation. */
export interface Executes {
  execute(request: ExecuteRequest, signal: AbortSignal): Promise<Execution>;
}

export interface ExecuteRequest {
  /** Absolute path inside, then arguments. */
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

export interface Execution {
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Resolves once, when the program has ended. */
  readonly ended: Promise<{ readonly exitCode: number | null; readonly signal: string | null }>;
  kill(): void;
}

/** Optional ability: a sandbox can be kept from using any processor time. */
export interface Freezable {
  freeze(): Promise<void>;
  thaw(): Promise<void>;
}

export function isAttachable(sandbox: Sandbox): sandbox is Sandbox & Attachable {
  return "attach" in sandbox;
}

export function isHurriable(sandbox: Sandbox): sandbox is Sandbox & Hurriable {
  return "hurry" in sandbox;
}

/** Optional ability of drivers without a file system of their own: paths inside are other paths outside. */
export interface PathMapped {
  toOutside(insidePath: string): string;
}

export function isPathMapped(sandbox: Sandbox): sandbox is Sandbox & PathMapped {
  return "toOutside" in sandbox;
}

export function isReachable(sandbox: Sandbox): sandbox is Sandbox & Reachable {
  return "connect" in sandbox && "listen" in sandbox;
}

export function isExecutes(sandbox: Sandbox): sandbox is Sandbox & Executes {
  return "execute" in sandbox;
}

export function isFreezable(sandbox: Sandbox): sandbox is Sandbox & Freezable {
  return "freeze" in sandbox;
}

/** One line of what `koine doctor` shows. */
export interface IsolationFact {
  /** Such as `mount namespace`, `memory limit`. */
  readonly ability: string;
  readonly holds: boolean;
  /** How it is done here, or why it is not. */
  readonly detail: string;
  /** How to get it; empty when it holds. */
  readonly remedy: string;
}

/** Whether a network mode can be had. */
export type NetworkFinding =
  | { readonly had: true }
  | { readonly had: false; readonly detail: string; readonly remedy: string };

export interface SandboxDriver {
  readonly name: string;
  /** Set where all its sandboxes have the machine's network, whatever a request says: their ports must not collide. */
  readonly sharesNetwork?: boolean;
  /** Which network modes can be had on this machine, and why not the others; absent: every one, or the driver says so when it starts one. */
  readonly networks?: Readonly<Record<NetworkMode, NetworkFinding>>;
  /** What this driver isolates on this machine; the answer does not change while the process lives. */
  inspect(): Promise<readonly IsolationFact[]>;
  /** @throws KoineError `sandbox-failed` */
  create(request: SandboxRequest, signal: AbortSignal): Promise<Sandbox>;
  /** Ends what an earlier, killed platform on the same data directory left behind; answers how many things. */
  sweep(): Promise<number>;
  close(): Promise<void>;
}
