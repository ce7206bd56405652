import { Duplex, type Readable } from "node:stream";
import type { Clock } from "../../core/clock.ts";
import { KoineError } from "../../core/errors.ts";
import { type InsideNetworks, machineLoopback } from "../inside-network.ts";
import type {
  ExecuteRequest,
  Executes,
  Execution,
  Freezable,
  Holds,
  PortInside,
  Reachable,
  Sandbox,
  SandboxEnd,
} from "../sandbox.ts";
import type { Container, ContainerExit } from "./container.ts";
import type { EngineApi } from "./engine-api.ts";
import { executeIn, signalOf } from "./execution.ts";

export interface ContainerSandboxParts {
  readonly api: EngineApi;
  readonly clock: Clock;
  /** null where this process cannot enter the networks of containers. */
  readonly networks: InsideNetworks | null;
}

/** A container that belongs to one request. Its process is the image's own, hence nothing is at its file descriptor 3. */
export class ContainerSandbox implements Sandbox, Freezable, Reachable, Executes, Holds {
  readonly id: string;
  readonly channel: Duplex = closedChannel();
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly ended: Promise<SandboxEnd>;
  readonly #parts: ContainerSandboxParts;
  readonly #container: Container;
  readonly #reach: Reachable;
  readonly #ports: PortInside[] = [];
  #state: "running" | "stopping" | "ended" = "running";
  #frozen = false;
  #memory: { readonly currentBytes: number; readonly peakBytes: number } | null = null;

  constructor(id: string, container: Container, parts: ContainerSandboxParts) {
    this.id = id;
    this.#parts = parts;
    this.#container = container;
    this.stdout = container.stdout;
    this.stderr = container.stderr;
    this.#reach = reachOf(container, parts.networks, () => this.#state === "ended");
    this.ended = container.ended.then(async (exit) => {
      const end = this.#reason(exit);
      this.#state = "ended";
      await Promise.all(this.#ports.splice(0).map((port) => port[Symbol.asyncDispose]()));
      return end;
    });
  }

  begin(): void {
    this.#container.begin();
  }

  memory(): { readonly currentBytes: number; readonly peakBytes: number } | null {
    if (this.#state !== "ended") this.#memory = this.#container.view?.memory() ?? this.#memory;
    return this.#memory;
  }

  async stop(graceMs: number): Promise<SandboxEnd> {
    if (this.#state === "ended") return await this.ended;
    this.#state = "stopping";
    this.memory();
    if (graceMs <= 0 || this.#container.plan.request.idle === true) {
      await this.#container.remove();
      return await this.ended;
    }
    const cancel = this.#parts.clock.after(graceMs, () => void this.#container.remove());
    try {
      await this.thaw();
      await this.#container.signal(this.#container.plan.image.stopSignal);
    } catch {
      await this.#container.remove();
    }
    return await this.ended.finally(cancel);
  }

  async freeze(): Promise<void> {
    if (this.#state === "ended" || this.#frozen) return;
    this.#frozen = true;
    await this.#container.pause();
  }

  async thaw(): Promise<void> {
    if (this.#state === "ended" || !this.#frozen) return;
    this.#frozen = false;
    await this.#container.unpause();
  }

  async connect(port: number, signal: AbortSignal): Promise<Duplex> {
    return await this.#reach.connect(port, signal);
  }

  async listen(port: number, onConnection: (connection: Duplex) => void): Promise<PortInside> {
    const listening = await this.#reach.listen(port, onConnection);
    // Read again: it may have ended while that took place.
    const state = this.#state as string;
    if (state === "ended") await listening[Symbol.asyncDispose]();
    else this.#ports.push(listening);
    return listening;
  }

  async execute(request: ExecuteRequest, signal: AbortSignal): Promise<Execution> {
    return await executeIn({ api: this.#parts.api, container: this.#container }, request, signal);
  }

  #reason({ exitCode, outOfMemory, refusedForks }: ContainerExit): SandboxEnd {
    if (outOfMemory) return { kind: "out-of-memory" };
    if (this.#state === "stopping") return { kind: "stopped" };
    if (exitCode === null) return { kind: "killed", signal: "SIGKILL" };
    if (exitCode !== 0 && refusedForks > 0) return { kind: "too-many-processes" };
    const signal = signalOf(exitCode);
    return signal === null ? { kind: "exited", exitCode } : { kind: "killed", signal };
  }
}

function reachOf(container: Container, networks: InsideNetworks | null, hasEnded: () => boolean): Reachable {
  const { plan, view, published } = container;
  if (plan.publish) return publishedPorts(published);
  if (plan.request.network === "host") return machineLoopback;
  if (view !== null && networks !== null) return networks.of(() => (hasEnded() ? null : view.pid));
  return publishedPorts(published);
}

/** Only what the image declares can be reached, and nothing inside can reach the platform. */
function publishedPorts(published: ReadonlyMap<number, number>): Reachable {
  return {
    async connect(port, signal) {
      const outside = published.get(port);
      if (outside !== undefined) return await machineLoopback.connect(outside, signal);
      throw new KoineError("not-supported", {
        what: `Reaching port ${port} of this image`,
        remedy: `The engine is not on this machine, or the platform is not root: add 'EXPOSE ${port}' to the image.`,
      });
    },
    async listen() {
      throw new KoineError("not-supported", {
        what: "Listening inside a container",
        remedy: "Run the platform as root beside its engine.",
      });
    },
  };
}

/** Ended from the start: an image's program has no channel to the platform. */
function closedChannel(): Duplex {
  return new Duplex({
    read() {
      this.push(null);
    },
    write: (_chunk, _encoding, done) => done(),
  });
}
