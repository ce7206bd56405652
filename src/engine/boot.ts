import { KoineError, toKoineError } from "../core/errors.ts";
import { newId } from "../core/ids.ts";
import type { Mount, Sandbox } from "../sandbox/sandbox.ts";
import type { Runtime } from "../runtimes/runtime.ts";
import { type Booted, type EngineParts, sandboxLimits } from "./parts.ts";

export interface BootRequest {
  readonly runtime: Runtime;
  readonly memoryBytesMax: number;
  /** Code that is known already; empty for a spare. */
  readonly mounts: readonly Mount[];
  /** Whether it waits for code that is attached later, in the background. */
  readonly spare: boolean;
  onCreated?(sandbox: Sandbox): void;
}

/**
 * Starts a sandbox and waits until its language has booted.
 * @throws KoineError `sandbox-failed`, `runtime-unavailable`
 */
export async function boot(parts: EngineParts, request: BootRequest, signal: AbortSignal): Promise<Booted> {
  const launch = await request.runtime.prepare(signal);
  const sandbox = await parts.driver.create(
    {
      id: newId(),
      command: launch.command,
      environment: launch.environment,
      mounts: [...launch.mounts, ...parts.adapterMounts, ...request.mounts],
      limits: sandboxLimits(request.memoryBytesMax),
      network: parts.network,
      attachable: request.spare,
      background: request.spare,
    },
    signal,
  );
  request.onCreated?.(sandbox);
  const booted: Booted = {
    sandbox,
    runtime: request.runtime.name,
    owner: null,
    closedReason: null,
    link: parts.protocol.connect(sandbox.channel, {
      log: (id, stream, chunk, timeMs) => booted.owner?.log(id, stream, chunk, timeMs),
      closed: (reason) => {
        booted.closedReason = reason;
        booted.owner?.closed(reason);
      },
    }),
  };
  const early: Buffer[] = [];
  for (const [stream, readable] of [["stdout", sandbox.stdout] as const, ["stderr", sandbox.stderr] as const]) {
    readable.on("error", () => {});
    readable.on("data", (chunk: Buffer) => {
      if (booted.owner !== null) booted.owner.raw(stream, chunk);
      else if (early.length < 16) early.push(chunk);
    });
  }
  const bootSignal = AbortSignal.any([signal, AbortSignal.timeout(parts.limits.bootTimeoutMs)]);
  try {
    const ended = sandbox.ended.then((end) => {
      throw new KoineError("sandbox-failed", { detail: `it ended while booting (${end.kind}): ${tail(early)}` });
    });
    await Promise.race([booted.link.ready(bootSignal), ended]);
    ended.catch(() => {});
    return booted;
  } catch (thrown) {
    parts.supervise("stop a sandbox that did not boot", sandbox.stop(0));
    if (bootSignal.aborted && !signal.aborted) {
      throw new KoineError("sandbox-failed", {
        detail: `the runtime did not report within ${parts.limits.bootTimeoutMs} ms: ${tail(early)}`,
      });
    }
    throw toKoineError(thrown);
  }
}

function tail(chunks: readonly Buffer[]): string {
  return Buffer.concat(chunks).toString("utf8").trim().slice(-500) || "it wrote nothing";
}
