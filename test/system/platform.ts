import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { NODE_MAJOR, nodePackageName } from "../../scripts/node-version.mjs";

export interface PlatformOptions {
  /** Further arguments of `koine up`. */
  readonly args?: readonly string[];
  /** Further environment of the platform, not of commands. */
  readonly env?: Readonly<Record<string, string>>;
  readonly sandbox?: "auto" | "process" | "none";
  /** A command that becomes the platform, such as `setpriv --reuid 65534`. */
  readonly prefix?: readonly string[];
  /** An existing data directory, which is then left in place; else one is made, and removed at the end. */
  readonly dataDirectory?: string;
  /** How long the platform may take to its ready line, in milliseconds. */
  readonly readyMsMax?: number;
}

export interface CommandOptions {
  readonly stdin?: string | Buffer;
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** After which the command is killed and the call fails, in milliseconds. */
  readonly timeoutMs?: number;
  /** A command that becomes koine, such as `setpriv --reuid 65534`. */
  readonly prefix?: readonly string[];
}

export interface CommandResult {
  /** The exit code; 128 where a signal ended the command. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A platform of its own, reached only over HTTP and by the command line: as a person would. */
export interface RunningPlatform extends AsyncDisposable {
  /** Without a slash at the end; changes with `restart`. */
  readonly url: string;
  readonly dataDirectory: string;
  readonly pid: number;
  /** Whatever the platform has written so far, of all its starts. */
  readonly output: string;
  /** Runs a command against this platform; a code other than 0 is no error here. */
  koine(args: readonly string[], options?: CommandOptions): Promise<CommandResult>;
  /** Stops it as Ctrl-C does and answers its exit code, or `SIGKILL` where it had to be killed; then removes the data directory. */
  stop(): Promise<number | string>;
  /** Resolves when this start has ended: with its exit code, or the signal that ended it. */
  readonly ended: Promise<number | string>;
  /** Ends the process at once, without any clean-up; `restart` or `stop` must follow. */
  kill9(): Promise<void>;
  /** Stops it, unless it has ended already, and starts it anew on the same data directory. */
  restart(options?: Pick<PlatformOptions, "args" | "env">): Promise<void>;
}

const READY_MS_MAX = 60_000;
/** Longer than `drainMsMax`: a platform that takes longer than that to stop is broken. */
const STOP_MS_MAX = 45_000;
const COMMAND_MS_MAX = 120_000;
const OUTPUT_LENGTH_MAX = 200_000;

const root = fileURLToPath(new URL("../..", import.meta.url));
const launcher = join(root, "bin", "koine.mjs");

/** Starts `koine up` on a free port with an empty data directory and waits for its ready line. @throws Error with the platform's output */
export async function startPlatform(options: PlatformOptions = {}): Promise<RunningPlatform> {
  const scratch = await mkdtemp(join(tmpdir(), "koine-system-"));
  const platform = new Platform(options, scratch);
  try {
    await platform.start(options);
  } catch (thrown) {
    await platform.stop();
    throw thrown;
  }
  return platform;
}

class Platform implements RunningPlatform {
  readonly dataDirectory: string;
  readonly #options: PlatformOptions;
  readonly #scratch: string;
  #process: PlatformProcess | null = null;
  #output = "";

  constructor(options: PlatformOptions, scratch: string) {
    this.#options = options;
    this.#scratch = scratch;
    this.dataDirectory = options.dataDirectory ?? join(scratch, "data");
  }

  get url(): string {
    return this.#running.url;
  }

  get pid(): number {
    return this.#running.pid;
  }

  get ended(): Promise<number | string> {
    return this.#running.ended;
  }

  get output(): string {
    return this.#output + (this.#process?.output ?? "");
  }

  async start({ args = [], env = {} }: Pick<PlatformOptions, "args" | "env">): Promise<void> {
    const { sandbox, prefix = [], readyMsMax = READY_MS_MAX } = this.#options;
    const chosen = sandbox === undefined ? [] : ["--sandbox", sandbox];
    const up = ["up", "--port", "0", "--data", this.dataDirectory, ...chosen, ...args];
    const command = [...prefix, nodePath(), launcher, ...up];
    this.#process = new PlatformProcess(command, { ...cleanEnvironment(), NO_COLOR: "1", ...env });
    await this.#process.ready(readyMsMax);
  }

  async koine(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    // The contexts of the user who runs the tests must not lead a command to another platform.
    const own = { XDG_CONFIG_HOME: join(this.#scratch, "config"), NO_COLOR: "1", KOINE_URL: this.url };
    return await runKoine(args, { ...options, env: { ...own, ...options.env } });
  }

  async stop(): Promise<number | string> {
    const ending = (await this.#process?.stop()) ?? 0;
    this.#keepOutput();
    // Mounts of a platform that was killed may take a moment to vanish.
    await rm(this.#scratch, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
    return ending;
  }

  async kill9(): Promise<void> {
    await this.#running.kill();
  }

  async restart(options: Pick<PlatformOptions, "args" | "env"> = this.#options): Promise<void> {
    await this.#process?.stop();
    this.#keepOutput();
    await this.start(options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  get #running(): PlatformProcess {
    if (this.#process === null) throw new Error("the platform is not running");
    return this.#process;
  }

  #keepOutput(): void {
    this.#output = this.output;
    this.#process = null;
  }
}

/** One run of `koine up`. */
class PlatformProcess {
  readonly #child: ChildProcess;
  readonly ended: Promise<number | string>;
  #hasEnded = false;
  #stdout = "";
  #url: string | null = null;
  output = "";

  constructor([file = "", ...args]: readonly string[], env: Readonly<Record<string, string>>) {
    this.#child = spawn(file, args, { cwd: tmpdir(), env, stdio: ["ignore", "pipe", "pipe"] });
    // A test run that is itself ended leaves no platform behind.
    const killNow = (): void => void this.#child.kill("SIGKILL");
    process.once("exit", killNow);
    const { promise, resolve } = Promise.withResolvers<number | string>();
    this.ended = promise;
    const end = (how: number | string): void => {
      this.#hasEnded = true;
      process.off("exit", killNow);
      resolve(how);
    };
    this.#child.once("error", (error) => end(error.message));
    this.#child.once("exit", (code, signal) => end(code ?? signal ?? ""));
    this.#child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.#stdout = (this.#stdout + text).slice(-OUTPUT_LENGTH_MAX);
      this.#keep(text);
    });
    this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => this.#keep(text));
  }

  get pid(): number {
    const { pid } = this.#child;
    if (pid === undefined) throw new Error("the platform could not be started");
    return pid;
  }

  get url(): string {
    if (this.#url === null) throw new Error(`the platform has no address yet\n${this.output}`);
    return this.#url;
  }

  /** Resolves when the platform has printed its address and says that it is ready. */
  async ready(withinMs: number): Promise<void> {
    const signal = AbortSignal.timeout(withinMs);
    while (this.#url === null) {
      const found = /API (https?:\/\/\S+)\s/.exec(this.#stdout);
      if (found?.[1] !== undefined) this.#url = found[1];
      else if (this.#hasEnded) throw this.#failure(`ended with ${await this.ended} before it was ready`);
      else if (signal.aborted) throw this.#failure(`did not print its address within ${withinMs} ms`);
      else await this.#somethingNew(signal);
    }
    const answer = await fetch(`${this.#url}/readyz`, { signal });
    if (!answer.ok) throw this.#failure(`printed its address, but /readyz answers ${answer.status}`);
  }

  async stop(): Promise<number | string> {
    if (!this.#hasEnded) this.#child.kill("SIGTERM");
    return await this.#endsWithin(STOP_MS_MAX);
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#endsWithin(STOP_MS_MAX);
  }

  async #endsWithin(withinMs: number): Promise<number | string> {
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), withinMs);
    const ending = await this.ended;
    clearTimeout(timer);
    return ending;
  }

  async #somethingNew(signal: AbortSignal): Promise<void> {
    const { stdout } = this.#child;
    const arrived = stdout === null ? Promise.resolve() : once(stdout, "data", { signal });
    await Promise.race([arrived.catch(() => {}), this.ended]);
  }

  #keep(text: string): void {
    this.output = (this.output + text).slice(-OUTPUT_LENGTH_MAX);
  }

  #failure(what: string): Error {
    return new Error(`the platform ${what}; its output:\n${this.output}`);
  }
}

/** Runs `koine ARGS`, against whatever platform its environment says. @throws Error when it takes too long */
export async function runKoine(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const { stdin, cwd = tmpdir(), env = {}, timeoutMs = COMMAND_MS_MAX, prefix = [] } = options;
  const [file = "", ...rest] = [...prefix, nodePath(), launcher, ...args];
  const child = spawn(file, rest, { cwd, env: { ...cleanEnvironment(), ...env }, stdio: ["pipe", "pipe", "pipe"] });
  const killNow = (): void => void child.kill("SIGKILL");
  process.once("exit", killNow);
  let stdout = "";
  let stderr = "";
  let tooLong = false;
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  // A command need not read what it is given.
  child.stdin.on("error", () => {});
  child.stdin.end(stdin ?? "");
  const timer = setTimeout(() => {
    tooLong = true;
    killNow();
  }, timeoutMs);
  try {
    const [code] = (await once(child, "close")) as [number | null];
    if (!tooLong) return { code: code ?? 128, stdout, stderr };
  } finally {
    clearTimeout(timer);
    process.off("exit", killNow);
  }
  throw new Error(`'koine ${args.join(" ")}' took longer than ${timeoutMs} ms; its output:\n${stdout}${stderr}`);
}

/** This process's environment without what says how koine runs; what says how npm and pip reach their registries stays. */
function cleanEnvironment(): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env)) {
    if (value !== undefined && !/^(?:KOINE_|NODE_OPTIONS$|NODE_TEST_CONTEXT$|FORCE_COLOR$)/.test(name))
      kept[name] = value;
  }
  return kept;
}

function nodePath(): string {
  if (Number(process.versions.node.split(".")[0]) === NODE_MAJOR) return process.execPath;
  const manifest = createRequire(import.meta.url).resolve(`${nodePackageName()}/package.json`);
  const path = join(dirname(manifest), "bin", "node");
  if (!existsSync(path)) throw new Error(`there is no Node ${NODE_MAJOR} at ${path}`);
  return path;
}
