import type { Duplex, Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { KoineError, toKoineError } from "../../core/errors.ts";
import { demultiplex } from "./demultiplex.ts";
import { type EngineApi, EngineRefusal } from "./engine-api.ts";
import { holdGo, holdSays } from "./hold-program.ts";
import { type MachineView, viewFromMachine } from "./machine-view.ts";
import { type ContainerPlan, containerSettings } from "./settings.ts";
import type { SandboxRequest } from "../sandbox.ts";

/** How a container ended, in the engine's words. */
export interface ContainerExit {
  /** 128 and the signal's number where a signal ended it; null when the engine does not know. */
  readonly exitCode: number | null;
  readonly outOfMemory: boolean;
  /** Forks that its limit refused, as far as could be seen before the engine removed what counts them. */
  readonly refusedForks: number;
}

/** Looks again for what the engine says of a container while it cannot be asked. */
const LOOKS_MAX = 5;
const LOOK_AGAIN_MS = 1_000;
/** How long the rest of an ended container's output may take. */
const LAST_OUTPUT_MS_MAX = 1_000;
/** After output on standard error the counters of its cgroup are read, once for all of it. */
const SAMPLE_AFTER_MS = 4;
const GONE = new Set([404, 409]);
/** SIGKILL, as engines report it. */
const KILLED = 137;

/** One started container, as the engine shows it. */
export class Container {
  readonly id: string;
  readonly plan: ContainerPlan;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Its processes as seen from here; null where the engine is elsewhere. */
  readonly view: MachineView | null;
  /** Where the ports that it publishes are, by port inside. */
  readonly published: ReadonlyMap<number, number>;
  /** Resolves when it has ended and is removed; never rejects. */
  readonly ended: Promise<ContainerExit>;
  readonly #api: EngineApi;
  readonly #stream: Duplex;
  #began: boolean;

  private constructor(api: EngineApi, plan: ContainerPlan, parts: StartedParts) {
    this.#api = api;
    this.plan = plan;
    this.id = parts.id;
    this.stdout = parts.stdout;
    this.stderr = parts.stderr;
    this.view = parts.view;
    this.published = parts.published;
    this.#stream = parts.stream;
    this.#began = plan.holdFile === null || plan.request.idle === true;
    this.ended = this.#end(parts);
  }

  /**
   * Creates and starts a container; with a hold program its image's program waits for `begin`.
   * @throws KoineError `sandbox-failed`, `image-not-found`, `container-engine-unavailable`
   */
  static async start(
    { api, connectNetwork }: ContainerMaker,
    plan: ContainerPlan,
    signal: AbortSignal,
  ): Promise<Container> {
    const settings = containerSettings(plan);
    const id = await createContainer(api, plan, { settings, signal });
    try {
      const held = plan.holdFile !== null && plan.request.idle !== true;
      const stream = await api.hijack(`/containers/${id}/attach`, {
        query: { stream: 1, stdout: 1, stderr: 1, stdin: plan.holdFile === null ? 0 : 1 },
        signal,
      });
      const { stdout, stderr, firstByte, onComplaint } = demultiplex(stream, { withFirstByte: held });
      await api.json("POST", `/containers/${id}/start`, { signal });
      const [first, { view, published }] = await Promise.all([
        held ? aborting(firstByte, signal) : holdSays.ready,
        look(api, id, signal),
      ]);
      if (first !== holdSays.ready)
        throw new KoineError("sandbox-failed", { detail: await whyNot(plan, first, stderr) });
      const network = plan.request.network === "egress" ? await connectNetwork(view, plan.request) : null;
      return new Container(api, plan, { id, stream, stdout, stderr, onComplaint, view, published, network });
    } catch (thrown) {
      await removeContainer(api, id);
      if (signal.aborted) throw thrown;
      throw startError(plan, thrown);
    }
  }

  /** Lets the image's program run. */
  begin(): void {
    if (this.#began) return;
    this.#began = true;
    // What ends here is its standard input, which is empty.
    this.#stream.end(holdGo);
  }

  async pause(): Promise<void> {
    await this.#unlessGone("POST", `/containers/${this.id}/pause`);
  }

  async unpause(): Promise<void> {
    await this.#unlessGone("POST", `/containers/${this.id}/unpause`);
  }

  async signal(name: string): Promise<void> {
    await this.#unlessGone("POST", `/containers/${this.id}/kill?signal=${encodeURIComponent(name)}`);
  }

  /** Ends and removes it at once, paused or not. */
  async remove(): Promise<void> {
    await removeContainer(this.#api, this.id);
  }

  async #unlessGone(method: "POST", path: string): Promise<void> {
    try {
      await this.#api.json(method, path);
    } catch (thrown) {
      if (!(thrown instanceof EngineRefusal)) throw toKoineError(thrown);
      // 500 too: engines race with the end of a container, and say so in many ways.
      if (!GONE.has(thrown.status) && !/not running|is not paused|already paused/.test(thrown.message)) {
        throw new KoineError("sandbox-failed", { detail: thrown.message }, { cause: thrown });
      }
    }
  }

  async #end({ stream, onComplaint, network }: StartedParts): Promise<ContainerExit> {
    const closed = new Promise((resolve) => stream.once("close", resolve));
    let [kills, refusedForks] = [0, 0];
    const sample = (): void => {
      kills = Math.max(kills, this.view?.outOfMemoryKills() ?? 0);
      refusedForks = Math.max(refusedForks, this.view?.refusedForks() ?? 0);
    };
    // The engine removes the cgroup some 15 ms after the last process, with all that it counted; those whom it refused something mostly say so.
    let pending = false;
    onComplaint(() => {
      if (pending || this.view === null) return;
      pending = true;
      setTimeout(() => {
        pending = false;
        sample();
      }, SAMPLE_AFTER_MS).unref();
    });
    stream.once("end", sample);
    const { exitCode, outOfMemory } = await this.#waitForExit();
    await Promise.race([closed, delay(LAST_OUTPUT_MS_MAX, undefined, { ref: false })]);
    stream.destroy();
    network?.[Symbol.dispose]();
    await removeContainer(this.#api, this.id);
    return { exitCode, outOfMemory: outOfMemory || (exitCode === KILLED && kills > 0), refusedForks };
  }

  async #waitForExit(): Promise<Pick<ContainerExit, "exitCode" | "outOfMemory">> {
    for (let looks = 0; looks < LOOKS_MAX; looks++) {
      try {
        const answer = (await this.#api.json("POST", `/containers/${this.id}/wait`)) as { StatusCode?: number } | null;
        const exitCode = answer?.StatusCode ?? null;
        return { exitCode, outOfMemory: exitCode !== 0 && (await endedForMemory(this.#api, this.id)) };
      } catch (thrown) {
        if (thrown instanceof EngineRefusal && GONE.has(thrown.status)) break;
        await delay(LOOK_AGAIN_MS, undefined, { ref: false });
      }
    }
    return { exitCode: null, outOfMemory: false };
  }
}

interface StartedParts {
  readonly id: string;
  readonly stream: Duplex;
  readonly stdout: Readable;
  readonly stderr: Readable;
  onComplaint(listener: () => void): void;
  readonly view: MachineView | null;
  readonly published: ReadonlyMap<number, number>;
  readonly network: Disposable | null;
}

/** What containers are made with. */
export interface ContainerMaker {
  readonly api: EngineApi;
  /** Gives a container its ways out before its image's program runs. @throws KoineError `network-unavailable` */
  connectNetwork(view: MachineView | null, request: SandboxRequest): Promise<Disposable>;
}

/** Removes a container, running or not; what cannot be removed now is found by the next sweep. */
export async function removeContainer(api: EngineApi, id: string): Promise<void> {
  await api.json("DELETE", `/containers/${id}?force=1&v=1`).catch(() => {});
}

async function createContainer(
  api: EngineApi,
  plan: ContainerPlan,
  { settings, signal }: { readonly settings: unknown; readonly signal: AbortSignal },
): Promise<string> {
  try {
    const options = { query: { name: plan.name }, body: settings, signal };
    return ((await api.json("POST", "/containers/create", options)) as { readonly Id: string }).Id;
  } catch (thrown) {
    if (!(thrown instanceof EngineRefusal)) throw thrown;
    if (thrown.status === 404) {
      const values = { image: plan.request.image ?? "", detail: "the engine does not have it any more" };
      throw new KoineError("image-not-found", values, { cause: thrown });
    }
    throw new KoineError("sandbox-failed", { detail: thrown.message }, { cause: thrown });
  }
}

interface Inspection {
  readonly State?: { readonly Pid?: number; readonly OOMKilled?: boolean };
  readonly NetworkSettings?: {
    readonly Ports?: Readonly<Record<string, readonly { readonly HostPort?: string }[] | null>> | null;
  };
}

async function look(
  api: EngineApi,
  id: string,
  signal: AbortSignal,
): Promise<Pick<StartedParts, "view" | "published">> {
  const { State: state, NetworkSettings: network } = (await api.json("GET", `/containers/${id}/json`, {
    signal,
  })) as Inspection;
  const ports = Object.entries(network?.Ports ?? {}).flatMap(([inside, outside]) => {
    const outsidePort = outside?.[0]?.HostPort;
    return outsidePort === undefined ? [] : [[Number.parseInt(inside, 10), Number(outsidePort)] as const];
  });
  return { view: await viewFromMachine(state?.Pid ?? 0, id), published: new Map(ports) };
}

async function endedForMemory(api: EngineApi, id: string): Promise<boolean> {
  const inspection = await api.json("GET", `/containers/${id}/json`).catch(() => null);
  return (inspection as Inspection | null)?.State?.OOMKilled === true;
}

async function whyNot(plan: ContainerPlan, first: number | null, stderr: Readable): Promise<string> {
  if (first === holdSays.missing) {
    const [program = ""] = plan.request.command.length > 0 ? plan.request.command : plan.image.entrypoint;
    return `there is no program ${program || plan.image.arguments[0] || ""} in the image that may be executed`;
  }
  const said: Buffer[] = [];
  for await (const chunk of stderr as AsyncIterable<Buffer>) said.push(chunk);
  return Buffer.concat(said).toString("utf8").trim().slice(-500) || "it ended before its program ran";
}

function startError(plan: ContainerPlan, thrown: unknown): KoineError {
  if (!(thrown instanceof EngineRefusal)) return toKoineError(thrown);
  if (/exec format error/.test(thrown.message)) {
    const detail = `it is made for ${plan.image.architecture}, or its program has no interpreter`;
    return new KoineError("image-unusable", { image: plan.request.image ?? "", detail }, { cause: thrown });
  }
  return new KoineError("sandbox-failed", { detail: thrown.message }, { cause: thrown });
}

function aborting<Value>(promise: Promise<Value>, signal: AbortSignal): Promise<Value> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    void promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
