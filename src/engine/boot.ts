import { KoineError, toKoineError } from "../core/errors.ts";
import { newId } from "../core/ids.ts";
import type { NetworkAccess } from "../core/network.ts";
import type { Protocol } from "../protocols/protocol.ts";
import type { Mount, Sandbox, SandboxDriver, SandboxRequest } from "../sandbox/sandbox.ts";
import type { Runtime } from "../runtimes/runtime.ts";
import { type Booted, type EngineParts, sandboxLimits, type SandboxShare } from "./parts.ts";
import { OWN_PROTOCOL } from "./recipe.ts";

/** How much output is kept of a sandbox that nobody owns yet. */
const EARLY_CHUNKS_MAX = 16;

export interface BootRequest {
  /** Absent: a new one. */
  readonly id?: string;
  readonly runtime: Runtime;
  readonly share: SandboxShare;
  /** Absent: what the platform gives. */
  readonly network?: NetworkAccess;
  /** Code that is known already; empty for a spare. */
  readonly mounts: readonly Mount[];
  /** Whether it waits for code that is attached later, in the background. */
  readonly spare: boolean;
  /** Launched instead of the runtime's bootstrap. */
  readonly program?: ProgramLaunch;
  onCreated?(sandbox: Sandbox): void;
}

/** A program of the user's, and where it runs. */
export interface ProgramLaunch {
  readonly driver: SandboxDriver;
  readonly protocol: Protocol;
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly network: NetworkAccess;
  readonly cwd?: string;
  readonly image?: string;
  readonly held: boolean;
  readonly idle: boolean;
}

/**
 * Starts a sandbox and waits until its language has booted.
 * @throws KoineError `sandbox-failed`, `runtime-unavailable`
 */
export async function boot(parts: EngineParts, request: BootRequest, signal: AbortSignal): Promise<Booted> {
  const { program } = request;
  const driver = program?.driver ?? parts.driver;
  const protocol = program?.protocol ?? parts.protocols.get(OWN_PROTOCOL);
  if (protocol === undefined) throw new KoineError("internal", { detail: "the engine was given no protocol" });
  const sandboxRequest = await (program === undefined
    ? bootstrapRequest(parts, request, signal)
    : programRequest(request, program, signal));
  const sandbox = await driver.create(sandboxRequest, signal);
  request.onCreated?.(sandbox);
  const booted: Booted = {
    sandbox,
    runtime: request.runtime.name,
    owner: null,
    early: [],
    closedReason: null,
    link: protocol.connect(sandbox, {
      log: (id, stream, chunk, timeMs) => booted.owner?.log(id, stream, chunk, timeMs),
      closed: (reason) => {
        booted.closedReason = reason;
        booted.owner?.closed(reason);
      },
    }),
  };
  for (const [stream, readable] of [["stdout", sandbox.stdout] as const, ["stderr", sandbox.stderr] as const]) {
    readable.on("error", () => {});
    readable.on("data", (chunk: Buffer) => {
      const own = booted.link.filterOutput?.(stream, chunk) ?? chunk;
      if (own.length === 0) return;
      if (booted.owner !== null) booted.owner.raw(stream, own);
      else if (booted.early.length < EARLY_CHUNKS_MAX) booted.early.push({ stream, chunk: own });
    });
  }
  const bootSignal = AbortSignal.any([signal, AbortSignal.timeout(parts.limits.bootTimeoutMs)]);
  try {
    const ended = sandbox.ended.then((end) => {
      throw new KoineError("sandbox-failed", { detail: `it ended while booting (${end.kind}): ${tail(booted)}` });
    });
    await Promise.race([booted.link.ready(bootSignal), ended]);
    ended.catch(() => {});
    return booted;
  } catch (thrown) {
    parts.supervise("stop a sandbox that did not boot", sandbox.stop(0));
    if (bootSignal.aborted && !signal.aborted) {
      throw new KoineError("sandbox-failed", {
        detail: `the runtime did not report within ${parts.limits.bootTimeoutMs} ms: ${tail(booted)}`,
      });
    }
    throw toKoineError(thrown);
  }
}

async function bootstrapRequest(
  parts: EngineParts,
  request: BootRequest,
  signal: AbortSignal,
): Promise<SandboxRequest> {
  const launch = await request.runtime.prepare(signal);
  return {
    id: request.id ?? newId(),
    command: launch.command,
    environment: launch.environment,
    mounts: [...launch.mounts, ...parts.adapterMounts, ...request.mounts],
    limits: sandboxLimits(request.share),
    ...networkRequest(request.network ?? parts.network),
    attachable: request.spare,
    background: request.spare,
  };
}

async function programRequest(
  request: BootRequest,
  program: ProgramLaunch,
  signal: AbortSignal,
): Promise<SandboxRequest> {
  const { command, environment, network, held, idle, cwd, image } = program;
  const mounts = image === undefined ? (await request.runtime.prepare(signal)).mounts : [];
  return {
    id: request.id ?? newId(),
    command,
    environment,
    mounts: [...mounts, ...request.mounts],
    limits: sandboxLimits(request.share),
    ...networkRequest(network),
    held,
    idle,
    ...(cwd === undefined ? {} : { cwd }),
    ...(image === undefined ? {} : { image }),
  };
}

function networkRequest({ mode, allow }: NetworkAccess): Pick<SandboxRequest, "network" | "allowNetwork"> {
  return { network: mode, allowNetwork: allow };
}

function tail({ early }: Booted): string {
  return (
    Buffer.concat(early.map(({ chunk }) => chunk))
      .toString("utf8")
      .trim()
      .slice(-500) || "it wrote nothing"
  );
}
