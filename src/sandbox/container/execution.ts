import { constants } from "node:os";
import { KoineError, toKoineError } from "../../core/errors.ts";
import type { ExecuteRequest, Execution } from "../sandbox.ts";
import { descendantsOf, sendToTree } from "../tree.ts";
import type { Container } from "./container.ts";
import { demultiplex } from "./demultiplex.ts";
import { type EngineApi, EngineRefusal } from "./engine-api.ts";
import { viewFromMachine } from "./machine-view.ts";

/**
 * Runs a further program in a container, under its limits.
 * @throws KoineError `sandbox-failed`
 */
export async function executeIn(
  { api, container }: { readonly api: EngineApi; readonly container: Container },
  request: ExecuteRequest,
  signal: AbortSignal,
): Promise<Execution> {
  const { image } = container.plan;
  const command = request.command.length > 0 ? request.command : [...image.entrypoint, ...image.arguments];
  try {
    const { Id: id } = (await api.json("POST", `/containers/${container.id}/exec`, {
      body: {
        AttachStdin: true,
        AttachStdout: true,
        AttachStderr: true,
        Tty: false,
        Cmd: command,
        Env: Object.entries(request.environment).map(([name, value]) => `${name}=${value}`),
        ...(request.cwd === undefined ? {} : { WorkingDir: request.cwd }),
      },
      signal,
    })) as { readonly Id: string };
    const stream = await api.hijack(`/exec/${id}/start`, { body: { Detach: false, Tty: false }, signal });
    const { stdout, stderr } = demultiplex(stream, { withFirstByte: false });
    const closed = new Promise<void>((resolve) => stream.once("close", resolve).once("end", resolve));
    let killed = false;
    return {
      stdin: stream,
      stdout,
      stderr,
      ended: closed.then(async () => {
        const end = await endOf(api, id);
        return killed && end.exitCode !== 0 ? KILLED : end;
      }),
      kill: () => {
        killed = true;
        void killExecution(api, container, id);
      },
    };
  } catch (thrown) {
    if (!(thrown instanceof EngineRefusal)) throw toKoineError(thrown);
    throw new KoineError("sandbox-failed", { detail: thrown.message }, { cause: thrown });
  }
}

/** 128 and a signal's number, as shells and engines report a program that a signal ended. */
export function signalOf(exitCode: number): string | null {
  if (exitCode <= 128) return null;
  return Object.entries(constants.signals).find(([, number]) => number === exitCode - 128)?.[0] ?? null;
}

const KILLED = { exitCode: null, signal: "SIGKILL" } as const;

interface ExecInspection {
  readonly ExitCode?: number | null;
  readonly Pid?: number;
  readonly Running?: boolean;
}

async function inspectExecution(api: EngineApi, id: string): Promise<ExecInspection> {
  const inspection: ExecInspection | null = (await api
    .json("GET", `/exec/${id}/json`)
    .catch(() => null)) as ExecInspection | null;
  return inspection ?? {};
}

async function endOf(api: EngineApi, id: string): Promise<Awaited<Execution["ended"]>> {
  // Its output ends a moment before the engine knows of its end.
  for (let looks = 0; looks < 50; looks++) {
    const { ExitCode: exitCode, Running: running } = await inspectExecution(api, id);
    if (running === true) {
      await new Promise((resolve) => setTimeout(resolve, Math.min(2 ** looks, 100)));
      continue;
    }
    if (exitCode === undefined || exitCode === null) break;
    const signal = signalOf(exitCode);
    return signal === null ? { exitCode, signal: null } : { exitCode: null, signal };
  }
  return KILLED;
}

/** Engines cannot end a program that they were asked to execute: it is done from here, or else the whole container goes. */
async function killExecution(api: EngineApi, container: Container, id: string): Promise<void> {
  const pid = await pidOf(api, id);
  if (pid === null) return;
  if (container.view !== null && (await viewFromMachine(pid, container.id)) !== null) {
    sendToTree(() => [pid, ...descendantsOf(pid)], "SIGKILL");
  } else await container.remove();
}

/** The engine knows the process a moment after its first output; null: it has ended. */
async function pidOf(api: EngineApi, id: string): Promise<number | null> {
  for (let looks = 0; looks < 50; looks++) {
    const { Pid: pid = 0, Running: running, ExitCode: exitCode } = await inspectExecution(api, id);
    if (running === true && pid > 0) return pid;
    if (running !== true && exitCode !== undefined && exitCode !== null) return null;
    await new Promise((resolve) => setTimeout(resolve, Math.min(2 ** looks, 100)));
  }
  return null;
}
