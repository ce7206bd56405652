import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import type { NetworkMode } from "../../core/function.ts";
import { limits } from "../../core/limits.ts";
import type { Session } from "../command.ts";
import { CliFailure } from "../failure.ts";
import { lines } from "../stream.ts";

/** What the function asks of the network: the platform that is started for it gives just that. */
export interface DevNetwork {
  readonly network?: NetworkMode | undefined;
  readonly allowNetwork?: readonly string[] | undefined;
}

/** A platform that `koine dev` started and ends. */
export interface LocalPlatform {
  /** Aborts when it has ended by itself. */
  readonly ended: AbortSignal;
  stop(): Promise<void>;
}

const PROBE_MS_MAX = 2_000;
const READY_MS_MAX = 60_000;
const POLL_MS = 50;
const TAIL_LINES = 20;

/**
 * Makes sure that a platform answers at the session's address: starts one there if none does and the address is this machine's.
 * Answers null when one was there already.
 * @throws CliFailure `platform-unreachable`
 */
export async function ensurePlatform(session: Session, network: DevNetwork = {}): Promise<LocalPlatform | null> {
  try {
    const response = await session.client.send({ method: "GET", path: "/healthz", timeoutMs: PROBE_MS_MAX });
    response.resume();
    return null;
  } catch (thrown) {
    const isAway = thrown instanceof CliFailure && thrown.code === "platform-unreachable";
    if (!isAway || !isLoopback(session.settings.url)) throw thrown;
  }
  return await startPlatform(session, network);
}

export function isLoopback(url: URL): boolean {
  return url.protocol === "http:" && /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(url.hostname);
}

async function startPlatform(session: Session, network: DevNetwork): Promise<LocalPlatform> {
  const { io, output, settings } = session;
  const host = settings.url.hostname.replace(/^\[|\]$/g, "");
  const port = settings.url.port === "" ? "80" : settings.url.port;
  const [command = "", ...first] = io.launch;
  output.note(`no platform at ${settings.url.origin}: starting one for as long as this runs, data in .koine`);
  // A process group of its own, so that Ctrl-C reaches it only through `stop`, once.
  const reach = [
    ...(network.network === "host" ? ["--network", "host"] : []),
    ...(network.allowNetwork ?? []).flatMap((rule) => ["--allow-network", rule]),
  ];
  const child = spawn(command, [...first, "up", "--host", host, "--port", port, "--data", ".koine", ...reach], {
    cwd: io.cwd,
    env: io.environment,
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  const tail: string[] = [];
  const ended = new AbortController();
  child.once("error", (error) => tail.push(error.message));
  child.once("close", () => ended.abort());
  for (const stream of [child.stdout, child.stderr]) void keepTail(stream, tail);
  try {
    await untilReady(session, ended.signal, tail);
  } catch (thrown) {
    await stop(child, ended.signal);
    throw thrown;
  }
  return { ended: ended.signal, stop: () => stop(child, ended.signal) };
}

async function untilReady(session: Session, ended: AbortSignal, tail: readonly string[]): Promise<void> {
  const signal = AbortSignal.any([session.signal, AbortSignal.timeout(READY_MS_MAX)]);
  for (;;) {
    if (ended.aborted || (signal.aborted && !session.signal.aborted)) {
      const message = `The platform ${ended.aborted ? "ended while it started" : "did not get ready"}: ${tail.join("\n  ")}`;
      throw new CliFailure("platform-unreachable", message, "Run 'koine up' to see all of what it says.");
    }
    const status = await session.client.send({ method: "GET", path: "/readyz", timeoutMs: PROBE_MS_MAX }).then(
      (response) => {
        response.resume();
        return response.statusCode;
      },
      () => undefined,
    );
    session.signal.throwIfAborted();
    if (status === 200) return;
    await session.io.sleep(POLL_MS, session.signal);
  }
}

async function stop(child: ChildProcess, ended: AbortSignal): Promise<void> {
  if (ended.aborted || child.pid === undefined) return;
  const kill = setTimeout(() => child.kill("SIGKILL"), limits.drainMsMax + 5_000);
  const closed = once(child, "close");
  child.kill("SIGINT");
  await closed;
  clearTimeout(kill);
}

async function keepTail(stream: AsyncIterable<Buffer>, tail: string[]): Promise<void> {
  try {
    for await (const line of lines(stream)) {
      tail.push(line);
      if (tail.length > TAIL_LINES) tail.shift();
    }
  } catch {
    // The process is gone; its end is noticed elsewhere.
  }
}
