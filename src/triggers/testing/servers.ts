import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { chown, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

/** Where tests keep what they install for themselves: servers that Debian does not have. */
export const CACHE = fileURLToPath(new URL("../../../node_modules/.cache/koine-test", import.meta.url));

const READY_MS_MAX = 60_000;
const STOP_MS_MAX = 15_000;
const LOOK_MS = 25;
const INSTALL_MS_MAX = 5 * 60_000;
const OUTPUT_LENGTH_MAX = 20_000;
/** `nobody`: some servers refuse to run as root. */
const UNPRIVILEGED = 65_534;

export interface ServerPlan {
  readonly name: string;
  /** Program and arguments. */
  readonly command: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Runs it as `nobody` where the tests are run by root. */
  readonly unprivileged?: boolean;
  /** What ends it as its makers mean it; `SIGTERM` when absent. */
  readonly stopSignal?: NodeJS.Signals;
  /** Whether it can be used; may reject while it cannot. */
  ready(): Promise<boolean>;
}

/** A real server on a port and in a directory of the test's own; started and ended by the test, by its process. */
export interface TestServer extends AsyncDisposable {
  readonly pid: number;
  readonly output: string;
  stop(): Promise<void>;
  /** Ends it at once, as a crash does. */
  kill(): Promise<void>;
  /** Starts it again after `stop` or `kill`, on the same port and directory. */
  start(): Promise<void>;
  restart(): Promise<void>;
}

/** Starts a server and waits until it can be used. @throws Error with its output */
export async function startServer(plan: ServerPlan): Promise<TestServer> {
  const server = new OwnServer(plan);
  try {
    await server.start();
  } catch (thrown) {
    await server.kill();
    throw thrown;
  }
  return server;
}

class OwnServer implements TestServer {
  readonly #plan: ServerPlan;
  #child: ChildProcess | null = null;
  #ended: Promise<void> = Promise.resolve();
  #hasEnded = true;
  output = "";

  constructor(plan: ServerPlan) {
    this.#plan = plan;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  async start(): Promise<void> {
    const { name, command, environment, cwd, unprivileged = false, ready } = this.#plan;
    const prefix = unprivileged ? unprivilegedPrefix() : [];
    const [program = "", ...words] = [...prefix, ...command];
    const child = spawn(program, words, {
      cwd,
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    this.#hasEnded = false;
    const killNow = (): void => void child.kill("SIGKILL");
    process.once("exit", killNow);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#ended = promise;
    const end = (): void => {
      this.#hasEnded = true;
      process.off("exit", killNow);
      resolve();
    };
    child.once("exit", end);
    child.once("error", (error) => {
      this.#keep(error.message);
      end();
    });
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (text: string) => this.#keep(text));
    const deadlineMs = performance.now() + READY_MS_MAX;
    let why = "";
    while (!(await ready().catch((thrown: unknown) => ((why = String(thrown)), false)))) {
      if (this.#hasEnded) throw new Error(`${name} ended before it was ready\n${this.output}`);
      if (performance.now() > deadlineMs) throw new Error(`${name} was not ready in time: ${why}\n${this.output}`);
      await sleep(LOOK_MS);
    }
  }

  async stop(): Promise<void> {
    await this.#end(this.#plan.stopSignal ?? "SIGTERM");
  }

  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    if (this.#hasEnded) return;
    this.#child?.kill(signal);
    const timer = setTimeout(() => this.#child?.kill("SIGKILL"), STOP_MS_MAX);
    await this.#ended;
    clearTimeout(timer);
  }

  #keep(text: string): void {
    this.output = (this.output + text).slice(-OUTPUT_LENGTH_MAX);
  }
}

/** A port that nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

export interface ScratchFolder extends AsyncDisposable {
  readonly path: string;
}

/** An empty directory; with `unprivileged` it belongs to whom such servers run as. */
export async function scratchFolder(
  name: string,
  { unprivileged = false }: { readonly unprivileged?: boolean } = {},
): Promise<ScratchFolder> {
  const path = await mkdtemp(join(tmpdir(), `koine-${name}-`));
  if (unprivileged && process.getuid?.() === 0) await chown(path, UNPRIVILEGED, UNPRIVILEGED);
  return {
    path,
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 }),
  };
}

/** What goes before a command so that root runs it as `nobody`; for everybody else nothing. */
export function unprivilegedPrefix(): readonly string[] {
  if (process.getuid?.() !== 0) return [];
  return ["setpriv", `--reuid=${UNPRIVILEGED}`, `--regid=${UNPRIVILEGED}`, "--clear-groups"];
}

/**
 * Installs something into a folder of the cache, once; test files that run at the same time wait for each other.
 * @param name holds the version, so that what is there stays as it is
 */
export async function installedOnce(name: string, install: (folder: string) => Promise<void>): Promise<string> {
  const folder = join(CACHE, name);
  const done = join(folder, ".installed");
  const lock = `${folder}.lock`;
  await mkdir(CACHE, { recursive: true });
  const deadlineMs = performance.now() + INSTALL_MS_MAX;
  while (!existsSync(done)) {
    const mine = await mkdir(lock).then(
      () => true,
      () => false,
    );
    if (!mine) {
      if (performance.now() > deadlineMs) throw new Error(`${lock} is there since long: delete it`);
      await sleep(200);
      continue;
    }
    try {
      if (existsSync(done)) break;
      await rm(folder, { recursive: true, force: true });
      await mkdir(folder, { recursive: true });
      await install(folder);
      await writeFile(done, "");
    } finally {
      await rm(lock, { recursive: true, force: true });
    }
  }
  return folder;
}

/** Runs a program to its end. @throws Error with its output when it fails */
export async function runProgram([program = "", ...words]: readonly string[], cwd?: string): Promise<string> {
  try {
    return (await promisify(execFile)(program, words, { cwd, timeout: INSTALL_MS_MAX, maxBuffer: 16 * 1024 * 1024 }))
      .stdout;
  } catch (thrown) {
    const { stderr = "", message } = thrown as Error & { readonly stderr?: string };
    throw new Error(`${program} failed: ${stderr.trim().slice(-2_000) || message}`, { cause: thrown });
  }
}

/** A certificate for 127.0.0.1 that vouches for itself, and its key, as files in a folder. */
export async function makeCertificate(folder: string): Promise<{ readonly certificate: string; readonly key: string }> {
  const [certificate, key] = [join(folder, "certificate.pem"), join(folder, "key.pem")];
  const subject = ["-subj", "/CN=koine-test", "-addext", "subjectAltName=IP:127.0.0.1"];
  const kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
  await runProgram(["openssl", "req", "-x509", ...kind, ...subject, "-keyout", key, "-out", certificate]);
  return { certificate, key };
}
