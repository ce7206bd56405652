import { type Clock, systemClock } from "../../core/clock.ts";
import { KoineError, toKoineError } from "../../core/errors.ts";
import { newId } from "../../core/ids.ts";
import { limits } from "../../core/limits.ts";
import type { Images } from "../images.ts";
import type { IsolationFact, Sandbox, SandboxDriver, SandboxRequest } from "../sandbox.ts";
import { ContainersAhead } from "./ahead.ts";
import { EngineConnection } from "./connection.ts";
import { Container, removeContainer } from "./container.ts";
import { engineSocket } from "./engine-address.ts";
import { EngineRefusal } from "./engine-api.ts";
import { EngineImages } from "./image-store.ts";
import { inspectEngine, noEngine } from "./inspect.ts";
import { ContainerSandbox } from "./sandbox.ts";

export interface ContainerOptions {
  /** `unix:///path`, or a path; null: the first usual place where there is a socket. */
  readonly address: string | null;
  /** Names this platform: what a killed one left behind is found by it. Small letters and digits. */
  readonly tag: string;
  /** Tells the containers of several drivers of one platform apart; their images are the platform's. */
  readonly part?: string;
  /** A folder for this driver alone; made when something is asked of the engine for the first time. */
  readonly directory: string;
  /** XDG_RUNTIME_DIR, where engines of ordinary users listen. */
  readonly runtimeFolder?: string | undefined;
  /** Docker's client configuration; null: logins of the platform's user are not used. */
  readonly clientConfigFile?: string | null;
  /** PATH, for credential helpers. */
  readonly searchPath?: string;
  /** Most containers that wait for a request like one before; 0: each is made when it is needed. */
  readonly aheadMax?: number;
  readonly aheadMs?: number;
  readonly clock?: Clock;
}

/** A driver of images and the images themselves, in one engine. */
export interface Containers {
  readonly driver: SandboxDriver;
  readonly images: Images;
}

/** Nothing is connected to before an image is asked for. */
export function openContainers(options: ContainerOptions): Containers {
  const connection = new EngineConnection({
    socketPath: () => engineSocket(options.address, options.runtimeFolder),
    tag: options.tag,
    directory: options.directory,
  });
  const clock = options.clock ?? systemClock;
  const images = new EngineImages({
    connect: () => connection.get(),
    connected: () => connection.opened,
    clock,
    clientConfigFile: options.clientConfigFile ?? null,
    searchPath: options.searchPath ?? "/usr/local/bin:/usr/bin:/bin",
  });
  return { driver: new ContainerDriver(options, connection, clock), images };
}

/**
 * Sandboxes as containers of an engine that speaks the Docker Engine API, for functions whose code is an image.
 * @throws KoineError `container-engine-unavailable`
 */
export async function openContainerDriver(options: ContainerOptions): Promise<SandboxDriver> {
  const { driver } = openContainers(options);
  await driver.sweep();
  return driver;
}

export const TAG_LABEL = "koine.platform";

class ContainerDriver implements SandboxDriver {
  readonly name = "container";
  readonly #tag: string;
  readonly #connection: EngineConnection;
  readonly #clock: Clock;
  readonly #ahead: ContainersAhead;
  readonly #sandboxes = new Set<Sandbox>();
  /** The engine's names of all containers that this process has made. */
  readonly #names = new Set<string>();
  #swept = false;

  constructor(options: ContainerOptions, connection: EngineConnection, clock: Clock) {
    this.#tag = options.part === undefined ? options.tag : `${options.tag}-${options.part}`;
    this.#connection = connection;
    this.#clock = clock;
    this.#ahead = new ContainersAhead({
      clock,
      max: options.aheadMax ?? limits.containersAheadMax,
      waitMs: options.aheadMs ?? limits.containerAheadMs,
      make: (request) => this.#start(request, AbortSignal.timeout(limits.bootTimeoutMs)),
    });
  }

  async inspect(): Promise<readonly IsolationFact[]> {
    try {
      const { facts, networks } = await this.#connection.get();
      return inspectEngine(facts, networks !== null);
    } catch (thrown) {
      return noEngine(toKoineError(thrown));
    }
  }

  async create(request: SandboxRequest, signal: AbortSignal): Promise<Sandbox> {
    if (!/^\w[\w.-]{0,63}$/.test(request.id)) {
      throw new KoineError("sandbox-failed", { detail: `'${request.id}' cannot name a sandbox` });
    }
    if (signal.aborted) throw aborted(signal);
    try {
      const { api, networks, holdFile } = await this.#connection.get();
      if (!this.#swept) await this.sweep();
      const waiting = holdFile === null ? null : this.#ahead.take(request);
      const container = waiting ?? (await this.#start(request, signal));
      const sandbox = new ContainerSandbox(request.id, container, { api, networks, clock: this.#clock });
      this.#sandboxes.add(sandbox);
      void sandbox.ended.then(() => this.#sandboxes.delete(sandbox));
      if (request.held !== true) sandbox.begin();
      return sandbox;
    } catch (thrown) {
      if (signal.aborted) throw aborted(signal);
      throw toKoineError(thrown);
    }
  }

  async sweep(): Promise<number> {
    const { api } = await this.#connection.get();
    this.#swept = true;
    const filters = JSON.stringify({ label: [`${TAG_LABEL}=${this.#tag}`] });
    const listed = (await api.json("GET", "/containers/json", { query: { all: 1, filters } })) as readonly Listed[];
    const left = listed.filter(({ Names: names }) => !names.some((name) => this.#names.has(name.replace(/^\//, ""))));
    await Promise.all(left.map(({ Id: id }) => removeContainer(api, id)));
    return left.length;
  }

  async close(): Promise<void> {
    await Promise.all([this.#ahead.close(), ...[...this.#sandboxes].map((sandbox) => sandbox.stop(0))]);
    await this.#connection.close();
  }

  async #start(request: SandboxRequest, signal: AbortSignal): Promise<Container> {
    const { image } = request;
    if (image === undefined) {
      throw new KoineError("sandbox-failed", { detail: "the driver 'container' runs images only" });
    }
    const { api, images, holdFile, resolversFile, networks, facts, egress } = await this.#connection.get();
    if (request.idle === true && holdFile === null) throw cannotHold();
    const name = `koine-${this.#tag}-${newId()}`;
    this.#names.add(name);
    try {
      const plan = {
        request,
        image: await images.facts(image, signal),
        name,
        labels: { [TAG_LABEL]: this.#tag },
        holdFile,
        resolversFile,
        hasIPv6: facts.hasIPv6,
        withInit: facts.hasInit,
        publish: networks === null,
      };
      const container = await Container.start(
        { api, connectNetwork: (view, { allowNetwork }) => egress.connect(view, allowNetwork ?? []) },
        plan,
        signal,
      );
      void container.ended.then(() => this.#names.delete(name));
      return container;
    } catch (thrown) {
      this.#names.delete(name);
      if (thrown instanceof KoineError && thrown.code === "image-not-found") images.forget(image);
      throw thrown instanceof EngineRefusal
        ? new KoineError("sandbox-failed", { detail: thrown.message }, { cause: thrown })
        : thrown;
    }
  }
}

interface Listed {
  readonly Id: string;
  readonly Names: readonly string[];
}

function cannotHold(): KoineError {
  return new KoineError("not-supported", {
    what: "A program per call in a container",
    remedy: "It takes an engine on this machine, with a processor of x86-64 or arm64.",
  });
}

function aborted(signal: AbortSignal): KoineError {
  return new KoineError("sandbox-failed", { detail: "its start was cancelled" }, { cause: signal.reason });
}
