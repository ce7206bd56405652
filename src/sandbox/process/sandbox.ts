import { execFile } from "node:child_process";
import { constants } from "node:os";
import type { Duplex, Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import type { Clock } from "../../core/clock.ts";
import type { NetworkAccess } from "../../core/network.ts";
import type {
  Attachable,
  Freezable,
  Hurriable,
  Holds,
  Mount,
  PortInside,
  Reachable,
  Sandbox,
  SandboxEnd,
  SandboxLimits,
  SandboxRequest,
} from "../sandbox.ts";
import { childrenOf, descendantsOf, residentBytes, send, sendToTree } from "../tree.ts";
import type { Cgroup } from "./cgroup.ts";
import type { MemoryWatch } from "./memory-watch.ts";
import type { Started } from "./start.ts";

/** A started launch and everything that ends with it. */
export interface Running {
  readonly id: string;
  readonly started: Started;
  readonly channel: Duplex;
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly cgroup: Cgroup;
  /** Whether the cgroup measures and limits memory, and freezes; else it is done from here, less exactly. */
  readonly cgroupHas: { readonly memory: boolean; readonly freezer: boolean };
  readonly watch: MemoryWatch;
  readonly clock: Clock;
  /** What its network is reached by; `pidInside` is asked each time. */
  reach(pidInside: () => number | null): Reachable;
  /** Takes back cgroup, mounts, folders and ids once the processes are gone; never rejects. */
  cleanUp(): Promise<void>;
}

/**
 * The process tree: bubblewrap outside → bubblewrap as process 1 inside → the command. Process 1 takes all others with it, by the
 * kernel's rule for pid namespaces.
 */
export class ProcessSandbox implements Sandbox, Freezable, Reachable, Holds {
  readonly id: string;
  readonly channel: Duplex;
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly ended: Promise<SandboxEnd>;
  protected readonly running: Running;
  readonly #reach: Reachable;
  #ports: PortInside[] = [];
  #state: "running" | "stopping" | "ended" = "running";
  #outOfMemory = false;
  #commandPid: number | null = null;
  #lastMemory: { readonly currentBytes: number; readonly peakBytes: number } | null = null;

  constructor(running: Running, limits: SandboxLimits) {
    this.running = running;
    this.id = running.id;
    this.channel = running.channel;
    this.stdout = running.stdout;
    this.stderr = running.stderr;
    this.#reach = running.reach(() => (this.#state === "ended" ? null : (childrenOf(running.started.pid)[0] ?? null)));
    this.ended = running.started.ended.then(({ exitCode, signal }) => this.#finish(exitCode, signal));
    if (!running.cgroupHas.memory) {
      running.watch.add(this, limits.memoryBytesMax, () => {
        this.#outOfMemory = true;
        this.#kill();
      });
    }
  }

  memory(): { readonly currentBytes: number; readonly peakBytes: number } | null {
    if (this.#state !== "ended") this.#lastMemory = this.#readMemory() ?? this.#lastMemory;
    return this.#lastMemory;
  }

  async stop(graceMs: number): Promise<SandboxEnd> {
    if (this.#state === "running") this.#state = "stopping";
    const command = graceMs > 0 ? this.#command() : null;
    if (command === null || this.#state === "ended") {
      this.#kill();
      return await this.ended;
    }
    await this.thaw();
    send(command, "SIGTERM");
    const cancel = this.running.clock.after(graceMs, () => this.#kill());
    return await this.ended.finally(cancel);
  }

  async connect(port: number, signal: AbortSignal): Promise<Duplex> {
    return await this.#reach.connect(port, signal);
  }

  async listen(port: number, onConnection: (connection: Duplex) => void): Promise<PortInside> {
    const listening = await this.#reach.listen(port, onConnection);
    if (this.#state === "ended") await listening[Symbol.asyncDispose]();
    else this.#ports.push(listening);
    return listening;
  }

  begin(): void {
    this.channel.write("\n");
  }

  async freeze(): Promise<void> {
    if (this.#state === "ended") return;
    if (this.running.cgroupHas.freezer) await this.running.cgroup.freeze();
    else sendToTree(() => this.inside(), "SIGSTOP");
  }

  async thaw(): Promise<void> {
    if (this.#state === "ended") return;
    if (this.running.cgroupHas.freezer) this.running.cgroup.thaw();
    else for (const pid of this.inside().toReversed()) send(pid, "SIGCONT");
  }

  /** Everything in the pid namespace, its process 1 first. */
  protected inside(): number[] {
    return descendantsOf(this.running.started.pid);
  }

  /** The first child of process 1; kept, because orphans become its children too. */
  #command(): number | null {
    if (this.#commandPid === null) {
      const [first] = childrenOf(this.running.started.pid);
      this.#commandPid = (first === undefined ? undefined : childrenOf(first)[0]) ?? null;
    }
    return this.#commandPid;
  }

  #readMemory(): { readonly currentBytes: number; readonly peakBytes: number } | null {
    if (this.running.cgroupHas.memory) return this.running.cgroup.memory();
    const pids = this.inside();
    if (pids.length === 0) return null;
    const currentBytes = residentBytes(pids);
    return { currentBytes, peakBytes: Math.max(currentBytes, this.#lastMemory?.peakBytes ?? 0) };
  }

  #kill(): void {
    if (this.#state === "ended") return;
    const { started, cgroup } = this.running;
    const inside = this.inside();
    // Process 1 first: then bubblewrap outside sees it end and reports. Where there is none yet, bubblewrap itself.
    for (const pid of inside) send(pid, "SIGKILL");
    if (inside.length === 0) send(started.pid, "SIGKILL");
    cgroup.kill();
  }

  async #finish(exitCode: number | null, signal: string | null): Promise<SandboxEnd> {
    const { running } = this;
    this.memory();
    const end = this.#reason(exitCode, signal);
    this.#state = "ended";
    running.watch.remove(this);
    await Promise.all(this.#ports.splice(0).map((port) => port[Symbol.asyncDispose]()));
    if (this.#commandPid !== null) await gone(this.#commandPid);
    await running.cleanUp();
    return end;
  }

  #reason(exitCode: number | null, signal: string | null): SandboxEnd {
    const { cgroup } = this.running;
    // bubblewrap reports a signal as a shell does.
    const name = signal ?? (exitCode !== null && exitCode > 128 ? signalName(exitCode - 128) : null);
    if (this.#outOfMemory) return { kind: "out-of-memory" };
    if (this.#state === "stopping") return { kind: "stopped" };
    if (name === "SIGKILL" && cgroup.outOfMemoryKills() > 0) return { kind: "out-of-memory" };
    if (exitCode !== 0 && cgroup.refusedForks() > 0) return { kind: "too-many-processes" };
    return name === null ? { kind: "exited", exitCode: exitCode ?? 0 } : { kind: "killed", signal: name };
  }
}

/** A sandbox that code can be mounted into while it runs. */
export class AttachableProcessSandbox extends ProcessSandbox implements Attachable, Hurriable {
  readonly #attach: Attachable["attach"];
  #limits: SandboxLimits;

  #hurries: boolean;

  constructor(running: Running, request: SandboxRequest, attach: Attachable["attach"]) {
    super(running, request.limits);
    this.#attach = attach;
    this.#limits = request.limits;
    this.#hurries = request.background !== true;
  }

  hurry(): void {
    if (this.#hurries) return;
    this.#hurries = true;
    this.running.cgroup.setShare("full");
  }

  async attach(mounts: readonly Mount[], limits: SandboxLimits, network?: NetworkAccess): Promise<void> {
    await this.#attach(mounts, limits, network);
    // Later in this turn: while the process wakes up, not before.
    setImmediate(() => this.hurry());
    if (limits.memoryBytesMax !== this.#limits.memoryBytesMax) this.running.watch.setLimit(this, limits.memoryBytesMax);
    await changeResourceLimits(() => this.inside(), this.#limits, limits);
    this.#limits = limits;
  }
}

/** The kernel's limits for each process, where they change. Those of open files and file size mostly stay, so this is rarely on the way. */
async function changeResourceLimits(
  pidsOf: () => readonly number[],
  from: SandboxLimits,
  to: SandboxLimits,
): Promise<void> {
  const changes = [
    ...(from.openFilesMax === to.openFilesMax ? [] : [`--nofile=${to.openFilesMax}`]),
    ...(from.fileBytesMax === to.fileBytesMax ? [] : [`--fsize=${to.fileBytesMax}`]),
  ];
  if (changes.length === 0) return;
  // One that has ended meanwhile needs no limit any more.
  const change = (pid: number): Promise<unknown> =>
    promisify(execFile)("prlimit", ["--pid", String(pid), ...changes], { env: { PATH: "/usr/bin:/bin" } }).catch(
      () => {},
    );
  await Promise.all(pidsOf().map(change));
}

/** Only when bubblewrap was killed from outside can a process outlive it, for a moment. */
async function gone(pid: number): Promise<void> {
  for (let delayMs = 1, waitedMs = 0; send(pid, 0) && waitedMs < 1_000; waitedMs += delayMs) {
    delayMs = Math.min(delayMs * 2, 50);
    await delay(delayMs);
  }
}

function signalName(number: number): string | null {
  return Object.entries(constants.signals).find(([, value]) => value === number)?.[0] ?? null;
}
