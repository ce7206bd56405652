import { type ChildProcess, spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import { KoineError, toKoineError } from "../../core/errors.ts";
import type { IsolationFact, Sandbox, SandboxDriver, SandboxRequest } from "../sandbox.ts";
import { closeEquipment, type Equipment, openEquipment, type ProcessDriverOptions } from "./equipment.ts";
import { inspectDriver } from "./inspect.ts";
import { pipeOf, streamsOf } from "../streams.ts";
import { launchDescriptors, planLaunch } from "./launch.ts";
import { acquireParts, type Parts } from "./parts.ts";
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
      if (signal.aborted) throw aborted(signal);
      ({ sandbox, stood } = this.#launch(request, parts));
    } catch (thrown) {
      await parts.release();
      if (thrown instanceof KoineError) throw thrown;
      throw new KoineError("sandbox-failed", { detail: "its process could not be started" }, { cause: thrown });
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
    return await this.#equipment.cgroups.sweep(new Set([...this.#sandboxes].map((sandbox) => sandbox.id)));
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
    const equipment = this.#equipment;
    const { cgroups, machine, etcFolder, filterFile } = equipment;
    const launch = planLaunch({
      machine,
      request,
      rootFolder: parts.root?.path ?? null,
      etcFolder,
      mounts: parts.mounts,
      userId: parts.userId,
      joinFiles: parts.cgroup.joinFiles,
      filterFile,
      covered: parts.userId === null ? equipment.coveredFiles : [],
      limitPidsByUser: !cgroups.has("pids"),
    });
    const child = spawn(launch.file, launch.args, {
      cwd: "/",
      env: {},
      stdio: ["ignore", "pipe", "pipe", "pipe", "pipe", "pipe"],
    });
    const running: Running = {
      id: request.id,
      child,
      ...streamsOf(child),
      cgroup: parts.cgroup,
      cgroupHas: { memory: cgroups.has("memory"), freezer: cgroups.has("freezer") },
      watch: equipment.watch,
      clock: equipment.clock,
      cleanUp: () => parts.release(),
    };
    const hidden = pipeOf(child, launchDescriptors.arguments);
    if (hidden !== null) {
      hidden.on("error", () => {});
      hidden.end(launch.hiddenArguments);
    }
    const sandbox =
      parts.attach === null
        ? new ProcessSandbox(running, request.limits)
        : new AttachableProcessSandbox(running, request.limits, parts.attach);
    return { sandbox, stood: statusOf(child) };
  }
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
function statusOf(child: ChildProcess): Promise<string> {
  const stream = pipeOf(child, launchDescriptors.status);
  return new Promise((resolve) => {
    if (stream === null) return resolve("");
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
