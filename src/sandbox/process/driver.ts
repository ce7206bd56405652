import type { Duplex } from "node:stream";
import { text } from "node:stream/consumers";
import { KoineError, toKoineError } from "../../core/errors.ts";
import type { IsolationFact, Reachable, Sandbox, SandboxDriver, SandboxRequest } from "../sandbox.ts";
import { machineLoopback } from "../inside-network.ts";
import { closeEquipment, type Equipment, openEquipment, type ProcessDriverOptions } from "./equipment.ts";
import { inspectDriver } from "./inspect.ts";
import { launchDescriptors, sandboxArguments } from "./launch.ts";
import { accessOf, acquireParts, type Parts } from "./parts.ts";
import { AttachableProcessSandbox, ProcessSandbox, type Running } from "./sandbox.ts";

export type { ProcessDriverOptions } from "./equipment.ts";

/**
 * Sandboxes as processes in namespaces, put together by bubblewrap.
 * @throws KoineError `sandbox-failed` when bubblewrap is missing or the machine does not let it work
 */
export async function openProcessDriver(options: ProcessDriverOptions): Promise<SandboxDriver> {
  const driver = new ProcessDriver(await openEquipment(options));
  try {
    await driver.rehearse();
    return driver;
  } catch (thrown) {
    await driver.close();
    throw toKoineError(thrown);
  }
}

class ProcessDriver implements SandboxDriver {
  readonly name = "process";
  readonly #equipment: Equipment;
  readonly #sandboxes = new Set<Sandbox>();
  #facts: Promise<readonly IsolationFact[]> | null = null;
  #rehearsals = 0;

  constructor(equipment: Equipment) {
    this.#equipment = equipment;
  }

  get networks(): NonNullable<SandboxDriver["networks"]> {
    const { own, egress } = this.#equipment.ownNetworks;
    // Without a namespace of the platform's, bubblewrap makes one.
    return { none: { had: true }, egress: own.had ? egress : own, host: { had: true } };
  }

  inspect(): Promise<readonly IsolationFact[]> {
    this.#facts ??= inspectDriver(this, this.#equipment);
    return this.#facts;
  }

  async create(request: SandboxRequest, signal: AbortSignal): Promise<Sandbox> {
    if (!/^\w[\w.-]{0,63}$/.test(request.id)) {
      throw new KoineError("sandbox-failed", { detail: `'${request.id}' cannot name a sandbox` });
    }
    if (signal.aborted) throw aborted(signal);
    const parts = await acquireParts(this.#equipment, request);
    let sandbox: ProcessSandbox;
    let stood: Promise<string>;
    try {
      // Its command finds the network as it is to be from its first moment on.
      await parts.launch.network?.set(accessOf(request));
      if (signal.aborted) throw aborted(signal);
      ({ sandbox, stood } = this.#launch(request, parts));
    } catch (thrown) {
      await parts.release();
      throw toKoineError(thrown);
    }
    this.#sandboxes.add(sandbox);
    void sandbox.ended.then(() => this.#sandboxes.delete(sandbox));
    const stop = (): void => void sandbox.stop(0);
    signal.addEventListener("abort", stop, { once: true });
    const status = await stood;
    signal.removeEventListener("abort", stop);
    if (status === "ready" && !signal.aborted) return sandbox;
    const said = text(sandbox.stderr).catch(() => "");
    await sandbox.stop(0);
    if (signal.aborted) throw aborted(signal);
    throw new KoineError("sandbox-failed", { detail: status || (await said).trim().slice(-500) || "it did not start" });
  }

  async sweep(): Promise<number> {
    return await this.#equipment.cgroups.sweep(this.#equipment.launches.ids);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#sandboxes].map((sandbox) => sandbox.stop(0)));
    await closeEquipment(this.#equipment);
  }

  /**
   * Starts a sandbox that does nothing, so that a machine on which none can start is found out at once.
   * @throws KoineError `sandbox-failed`
   */
  async rehearse(): Promise<void> {
    const sandbox = await this.create(
      {
        id: `rehearsal-${process.pid}-${++this.#rehearsals}`,
        command: ["/bin/sh", "-c", "exit 0"],
        environment: {},
        mounts: [],
        limits: rehearsalLimits,
        network: "host",
      },
      AbortSignal.timeout(REHEARSAL_MS_MAX),
    );
    await sandbox.ended;
  }

  #launch(request: SandboxRequest, parts: Parts): { sandbox: ProcessSandbox; stood: Promise<string> } {
    const { cgroups, machine, etcFolder, resolversFile, filterFile, watch, clock, coveredFiles, masked } =
      this.#equipment;
    const { launch, root, mounts } = parts;
    const hidden = sandboxArguments({
      machine,
      request,
      rootFolder: root?.path ?? null,
      etcFolder,
      resolversFile,
      hasOwnNetwork: launch.network !== null,
      mounts,
      filterFile,
      covered: launch.userId === null ? coveredFiles : [],
      masked,
      limitPidsByUser: !cgroups.has("pids"),
    });
    const { started, cgroup } = launch;
    const running: Running = {
      id: request.id,
      started,
      channel: started.pipe(launchDescriptors.channel),
      stdout: started.pipe(1),
      stderr: started.pipe(2),
      cgroup,
      cgroupHas: { memory: cgroups.has("memory"), freezer: cgroups.has("freezer") },
      watch,
      clock,
      reach: (pidInside) =>
        request.network === "host" ? machineLoopback : (this.#equipment.networks?.of(pidInside) ?? unreachable),
      cleanUp: () => parts.release(),
    };
    started.pipe(launchDescriptors.arguments).end(hidden);
    const sandbox =
      parts.attach === null
        ? new ProcessSandbox(running, request.limits)
        : new AttachableProcessSandbox(running, request, parts.attach);
    return { sandbox, stood: statusOf(started.pipe(launchDescriptors.status)) };
  }
}

/** For a Node without what entering a network takes. */
const unreachable: Reachable = {
  connect: () => Promise.reject(notReachable()),
  listen: () => Promise.reject(notReachable()),
};

function notReachable(): KoineError {
  const remedy = "Run the platform on a Node with node:ffi, or use --network host.";
  return new KoineError("not-supported", { what: "Reaching a program in its own network", remedy });
}

const REHEARSAL_MS_MAX = 10_000;
const MIB = 1024 * 1024;
const rehearsalLimits = {
  memoryBytesMax: 64 * MIB,
  pidsMax: 16,
  cpuCores: null,
  tmpBytesMax: MIB,
  openFilesMax: 64,
  fileBytesMax: MIB,
} as const;

/** What the inner shell reports: `ready`, what is wrong, or nothing when bubblewrap failed before. */
function statusOf(stream: Duplex): Promise<string> {
  return new Promise((resolve) => {
    let said = "";
    const done = (): void => {
      resolve(said.trim());
      stream.destroy();
    };
    stream.on("error", done).on("close", done);
    stream.setEncoding("utf8").on("data", (chunk: string) => {
      said += chunk;
      if (said.includes("\n")) done();
    });
  });
}

function aborted(signal: AbortSignal): KoineError {
  return new KoineError("sandbox-failed", { detail: "its start was cancelled" }, { cause: signal.reason });
}
