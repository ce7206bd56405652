import { type ChildProcess, spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Duplex, Readable } from "node:stream";
import { type Clock, systemClock } from "../../core/clock.ts";
import { KoineError } from "../../core/errors.ts";
import type {
  Attachable,
  Freezable,
  Holds,
  IsolationFact,
  Mount,
  PathMapped,
  PortInside,
  Reachable,
  Sandbox,
  SandboxDriver,
  SandboxEnd,
  SandboxRequest,
} from "../sandbox.ts";
import { machineLoopback } from "../inside-network.ts";
import { streamsOf } from "../streams.ts";
import { descendantsOf, residentBytes, send, startTimeOf } from "../tree.ts";
import { PathMap } from "./path-map.ts";

export interface NoneDriverOptions {
  /** A folder for this driver alone; made when missing. */
  readonly directory: string;
  readonly clock?: Clock;
}

/**
 * Plain child processes, for machines without the means to isolate and for development: no limit holds, everything that the
 * platform's user may do the code may do too. What is inside and outside are the same files, hence sandboxes are `PathMapped`.
 */
export async function openNoneDriver(options: NoneDriverOptions): Promise<SandboxDriver> {
  await mkdir(options.directory, { recursive: true });
  return new NoneDriver(options.directory, options.clock ?? systemClock);
}

class NoneDriver implements SandboxDriver {
  readonly name = "none";
  readonly sharesNetwork = true;
  readonly #directory: string;
  readonly #clock: Clock;
  readonly #sandboxes = new Set<NoneSandbox>();

  constructor(directory: string, clock: Clock) {
    this.#directory = directory;
    this.#clock = clock;
  }

  async inspect(): Promise<readonly IsolationFact[]> {
    const remedy = "Use the driver 'process'; 'koine doctor' says what it needs.";
    return [
      "namespaces",
      "system call filter",
      "memory limit",
      "pids limit",
      "cpu limit",
      "private /tmp with a limit",
    ].map((ability) => ({ ability, holds: false, detail: "the driver 'none' isolates nothing", remedy }));
  }

  async create(request: SandboxRequest, signal: AbortSignal): Promise<Sandbox> {
    if (signal.aborted) throw cancelled(signal);
    const home = await mkdtemp(join(this.#directory, "home-"));
    if (signal.aborted) {
      await rm(home, { recursive: true, force: true });
      throw cancelled(signal);
    }
    const map = new PathMap(request.mounts);
    const command = request.held === true ? ["/bin/sh", "-c", HELD, "sh", ...request.command] : request.command;
    const [file = "", ...args] = command.map((part) => map.translate(part));
    const environment = Object.entries(request.environment).map(([name, value]) => [name, map.translate(value)]);
    const child = attemptSpawn(() =>
      spawn(file, args, {
        cwd: request.cwd === undefined ? home : map.toOutside(request.cwd),
        env: { PATH: "/usr/local/bin:/usr/bin:/bin", HOME: home, TMPDIR: home, ...Object.fromEntries(environment) },
        stdio: ["ignore", "pipe", "pipe", "pipe"],
        // A process group of its own, so that its children can be ended with it.
        detached: true,
      }),
    );
    if (child instanceof Error || child.pid === undefined) {
      const cause = child instanceof Error ? child : await new Promise((resolve) => child.once("error", resolve));
      await rm(home, { recursive: true, force: true });
      throw new KoineError("sandbox-failed", { detail: `${file} could not be started` }, { cause });
    }
    // From here to the end nothing is awaited: the caller must be able to listen before the process can have ended.
    const record = join(this.#directory, `${child.pid}.pid`);
    const sandbox = new NoneSandbox(request.id, { child, pid: child.pid, map, clock: this.#clock }, async () => {
      await rm(home, { recursive: true, force: true });
      await rm(record, { force: true });
      this.#sandboxes.delete(sandbox);
    });
    this.#sandboxes.add(sandbox);
    writeFileSync(record, JSON.stringify({ home, startTime: startTimeOf(child.pid) }));
    return sandbox;
  }

  async sweep(): Promise<number> {
    let count = 0;
    for (const name of await readdir(this.#directory)) {
      const [, digits] = /^(\d+)\.pid$/.exec(name) ?? [];
      const pid = Number(digits);
      if (digits === undefined || [...this.#sandboxes].some((sandbox) => sandbox.pid === pid)) continue;
      const path = join(this.#directory, name);
      const { home, startTime } = parseRecord(await readFile(path, "utf8"));
      // The number may belong to another process by now.
      if (startTime !== null && startTimeOf(pid) === startTime) {
        send(-pid, "SIGKILL");
        count++;
      }
      if (home?.startsWith(join(this.#directory, "home-")) === true) await rm(home, { recursive: true, force: true });
      await rm(path, { force: true });
    }
    return count;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#sandboxes].map((sandbox) => sandbox.stop(0)));
  }
}

/** Waits for a line on its channel, then becomes the command. */
const HELD = 'read -r begin <&3; exec 3<&-; exec "$@"';

interface Process {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly map: PathMap;
  readonly clock: Clock;
}

class NoneSandbox implements Sandbox, Attachable, Freezable, Holds, PathMapped, Reachable {
  readonly id: string;
  readonly pid: number;
  readonly channel: Duplex;
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly ended: Promise<SandboxEnd>;
  readonly #map: PathMap;
  readonly #ports: PortInside[] = [];
  readonly #clock: Clock;
  #state: "running" | "stopping" | "ended" = "running";
  #memory: { readonly currentBytes: number; readonly peakBytes: number } | null = null;

  constructor(id: string, { child, pid, map, clock }: Process, cleanUp: () => Promise<void>) {
    const { channel, stdout, stderr } = streamsOf(child);
    this.id = id;
    this.pid = pid;
    this.channel = channel;
    this.stdout = stdout;
    this.stderr = stderr;
    this.#map = map;
    this.#clock = clock;
    this.ended = new Promise((resolve) => {
      child.once("exit", (exitCode, signal) => {
        const end: SandboxEnd =
          this.#state === "stopping"
            ? { kind: "stopped" }
            : signal === null
              ? { kind: "exited", exitCode: exitCode ?? 0 }
              : { kind: "killed", signal };
        this.#state = "ended";
        // Children that it left behind.
        send(-pid, "SIGKILL");
        for (const port of this.#ports) void port[Symbol.asyncDispose]();
        void cleanUp()
          .catch(() => {})
          .then(() => resolve(end));
      });
    });
  }

  connect(port: number, signal: AbortSignal): Promise<Duplex> {
    return machineLoopback.connect(port, signal);
  }

  async listen(port: number, onConnection: (connection: Duplex) => void): Promise<PortInside> {
    const listening = await machineLoopback.listen(port, onConnection);
    if (this.#state === "ended") await listening[Symbol.asyncDispose]();
    else this.#ports.push(listening);
    return listening;
  }

  begin(): void {
    this.channel.write("\n");
  }

  toOutside(insidePath: string): string {
    return this.#map.toOutside(insidePath);
  }

  /** Limits do not hold here, hence setting them does nothing. */
  async attach(mounts: readonly Mount[]): Promise<void> {
    if (this.#state === "ended")
      throw new KoineError("sandbox-failed", { detail: "it ended before code was attached" });
    for (const mount of mounts) this.#map.add(mount);
  }

  memory(): { readonly currentBytes: number; readonly peakBytes: number } | null {
    if (this.#state === "ended") return this.#memory;
    const currentBytes = residentBytes([this.pid, ...descendantsOf(this.pid)]);
    if (currentBytes > 0)
      this.#memory = { currentBytes, peakBytes: Math.max(currentBytes, this.#memory?.peakBytes ?? 0) };
    return this.#memory;
  }

  async stop(graceMs: number): Promise<SandboxEnd> {
    if (this.#state === "running") this.#state = "stopping";
    if (this.#state === "ended") return await this.ended;
    const kill = (): void => void (this.#state !== "ended" && send(-this.pid, "SIGKILL"));
    if (graceMs <= 0) {
      kill();
      return await this.ended;
    }
    await this.thaw();
    send(this.pid, "SIGTERM");
    const cancel = this.#clock.after(graceMs, kill);
    return await this.ended.finally(cancel);
  }

  async freeze(): Promise<void> {
    if (this.#state !== "ended") send(-this.pid, "SIGSTOP");
  }

  async thaw(): Promise<void> {
    if (this.#state !== "ended") send(-this.pid, "SIGCONT");
  }
}

/** Node throws for what it sees at once, such as a zero byte in a variable. */
function attemptSpawn(start: () => ChildProcess): ChildProcess | Error {
  try {
    return start();
  } catch (thrown) {
    return thrown instanceof Error ? thrown : new Error(String(thrown));
  }
}

function parseRecord(content: string): { readonly home: string | null; readonly startTime: string | null } {
  try {
    const record: unknown = JSON.parse(content);
    if (typeof record !== "object" || record === null) return { home: null, startTime: null };
    const home = "home" in record && typeof record.home === "string" ? record.home : null;
    return { home, startTime: "startTime" in record && typeof record.startTime === "string" ? record.startTime : null };
  } catch {
    return { home: null, startTime: null };
  }
}

function cancelled(signal: AbortSignal): KoineError {
  return new KoineError("sandbox-failed", { detail: "its start was cancelled" }, { cause: signal.reason });
}
