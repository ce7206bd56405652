import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { type Address, openWhenReady, requestBytes } from "../load/connection.ts";

/** A server under test: where it listens, and the process whose tree is charged for it. */
export interface Server extends AsyncDisposable {
  readonly name: string;
  readonly address: Address;
  /** Null where somebody else started it. */
  readonly pid: number | null;
}

export interface ServerPlan {
  readonly name: string;
  readonly command: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Answers 200 when it is ready. */
  readonly path: string;
  readonly port: number;
}

const READY_MS_MAX = 60_000;
const STOP_MS_MAX = 5_000;
const OUTPUT_LENGTH_MAX = 20_000;

/** Starts a server on loopback and waits until it answers. @throws Error with its output when it does not */
export async function startServer(plan: ServerPlan): Promise<Server> {
  const [program = "", ...programArguments] = plan.command;
  const child = spawn(program, programArguments, {
    cwd: plan.cwd,
    env: { ...process.env, ...plan.environment },
    stdio: ["ignore", "pipe", "pipe"],
    // A process group of its own, so that what it starts ends with it.
    detached: true,
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text: string) => (output = (output + text).slice(-OUTPUT_LENGTH_MAX)));
  child.on("error", (error) => (output += error.message));
  const killNow = (): void => endGroup(child, "SIGKILL");
  process.once("exit", killNow);
  const stop = async (): Promise<void> => {
    process.off("exit", killNow);
    await stopGroup(child);
  };
  const address = { host: "127.0.0.1", port: plan.port };
  try {
    await untilAnswering(plan, address, child);
  } catch (thrown) {
    await stop();
    throw new Error(`${plan.name} did not start: ${String(thrown)}\n${output.trim()}`, { cause: thrown });
  }
  return { name: plan.name, address, pid: child.pid ?? null, [Symbol.asyncDispose]: stop };
}

export async function startBareServer(): Promise<Server> {
  const port = await freePort();
  return await startServer({
    name: "bare node:http",
    command: [process.execPath, fileURLToPath(new URL("bare-server.mjs", import.meta.url))],
    environment: { PORT: String(port) },
    path: "/",
    port,
  });
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no port is free");
  return address.port;
}

async function untilAnswering(plan: ServerPlan, address: Address, child: ChildProcess): Promise<void> {
  const deadlineMs = performance.now() + READY_MS_MAX;
  let last = "it never listened";
  while (performance.now() < deadlineMs) {
    if (child.exitCode !== null || child.signalCode !== null) throw new Error(`it ended with ${child.exitCode}`);
    try {
      const connection = await openWhenReady(address, 1_000);
      const { status } = await connection.call(requestBytes(address, { path: plan.path }));
      connection.close();
      if (status === 200) return;
      last = `${plan.path} answers ${status}`;
    } catch (thrown) {
      last = String(thrown);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(last);
}

async function stopGroup(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  endGroup(child, "SIGTERM");
  const timer = setTimeout(() => endGroup(child, "SIGKILL"), STOP_MS_MAX);
  await ended;
  clearTimeout(timer);
}

function endGroup(child: ChildProcess, signal: "SIGTERM" | "SIGKILL"): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {}
}
