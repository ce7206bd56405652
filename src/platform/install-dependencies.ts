import { chmod, copyFile, mkdir, realpath, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { StringDecoder } from "node:string_decoder";
import { newId } from "../core/ids.ts";
import type { Clock } from "../core/clock.ts";
import { KoineError } from "../core/errors.ts";
import { insidePaths, type BuildRecipe, type RuntimeLaunch } from "../runtimes/runtime.ts";
import type { Mount, SandboxDriver, SandboxEnd, SandboxLimits, SandboxRequest } from "../sandbox/sandbox.ts";
import type { InstallEnvironment } from "./install-environment.ts";
import { copyTree } from "./tree.ts";

export interface InstallLimits extends SandboxLimits {
  /** Longest installation. */
  readonly timeoutMs: number;
  readonly lineBytesMax: number;
}

export interface Installation {
  readonly driver: SandboxDriver;
  readonly clock: Clock;
  readonly limits: InstallLimits;
  readonly launch: RuntimeLaunch;
  readonly recipe: BuildRecipe;
  readonly lockFile: string;
  readonly environment: InstallEnvironment;
  /** The unpacked package. */
  readonly tree: string;
  /** What of it the installer sees, by name in its root; null: all. */
  readonly files: readonly string[] | null;
  /** An existing, empty folder to work in; the caller removes it. */
  readonly workspace: string;
  readonly onOutput: (line: string) => void;
  readonly signal: AbortSignal;
}

/** Where the registry settings of the machine are inside a build sandbox. */
export const installSettingsPath = "/koine/install";

const OUTPUT_TAIL_BYTES = 4 * 1024;
const STOP_GRACE_MS = 1_000;

/**
 * Installs a package's dependencies in a build sandbox and answers the folder of the machine, within the workspace, that now holds them.
 * @throws KoineError `build-failed` with the end of the output as value `output`
 */
export async function installDependencies(work: Installation): Promise<string> {
  const code = join(work.workspace, "code");
  const settings = join(work.workspace, "settings");
  await prepareCode(work, code);
  await prepareSettings(work.environment, settings);
  const output = new OutputTail(work);
  const end = await runInSandbox(work, { request: buildRequest(work, code, settings), output });
  if (end !== null) throw new KoineError("build-failed", { detail: end, output: output.text() });
  const installed = join(code, work.recipe.installed);
  const result = join(work.workspace, "installed");
  const found = await realpath(installed).catch(() => null);
  if (found === null) {
    // An installation without any dependency makes no folder.
    await mkdir(result);
  } else if (found === join(await realpath(code), work.recipe.installed) && (await stat(found)).isDirectory()) {
    await rename(found, result);
  } else {
    // What a link points to is not of the package: it is somewhere on this machine.
    const detail = `'${work.recipe.installed}' is not a folder after the installation`;
    throw new KoineError("build-failed", { detail, output: output.text() });
  }
  return result;
}

async function prepareCode(work: Installation, code: string): Promise<void> {
  if (work.files === null) {
    await copyTree(work.tree, code);
    return;
  }
  await mkdir(code);
  for (const name of work.files) await copyFile(join(work.tree, name), join(code, name));
}

async function prepareSettings(environment: InstallEnvironment, settings: string): Promise<void> {
  await mkdir(settings);
  await chmod(settings, 0o755);
  for (const [name, content] of environment.files) {
    await writeFile(join(settings, name), content);
    await chmod(join(settings, name), 0o644);
  }
}

function buildRequest(work: Installation, code: string, settings: string): SandboxRequest {
  const build = work.recipe.command(work.lockFile);
  const mounts = new Map<string, Mount>();
  const all = [
    ...work.launch.mounts,
    ...build.mounts,
    { source: settings, target: installSettingsPath },
    ...Array.from(work.environment.folders, ([target, source]) => ({ source, target })),
    { source: code, target: insidePaths.code, writable: true },
  ];
  for (const mount of all) mounts.set(mount.target, mount);
  const { timeoutMs: _timeoutMs, lineBytesMax: _lineBytesMax, ...limits } = work.limits;
  return {
    id: `build-${newId()}`,
    command: build.command,
    environment: { ...work.environment.variables, ...build.environment },
    mounts: [...mounts.values()],
    limits,
    network: "host",
    cwd: insidePaths.code,
  };
}

/** Answers null when the installer succeeded, else what went wrong. */
async function runInSandbox(
  work: Installation,
  run: { readonly request: SandboxRequest; readonly output: OutputTail },
): Promise<string | null> {
  const timeout = new AbortController();
  const cancelTimer = work.clock.after(work.limits.timeoutMs, () => timeout.abort());
  const signal = AbortSignal.any([work.signal, timeout.signal]);
  try {
    const sandbox = await work.driver.create(run.request, signal);
    const stop = (): void => void sandbox.stop(STOP_GRACE_MS);
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
    // An installer does not speak over the channel; it must only not fill or fail.
    sandbox.channel.on("error", () => {}).resume();
    const [end] = await Promise.all([
      sandbox.ended,
      run.output.follow(sandbox.stdout),
      run.output.follow(sandbox.stderr),
    ]);
    signal.removeEventListener("abort", stop);
    work.signal.throwIfAborted();
    if (timeout.signal.aborted) return `it took longer than ${work.limits.timeoutMs / 1000} s`;
    return describeEnd(end, work.limits);
  } catch (thrown) {
    work.signal.throwIfAborted();
    if (timeout.signal.aborted) return `it took longer than ${work.limits.timeoutMs / 1000} s`;
    throw thrown;
  } finally {
    cancelTimer();
  }
}

function describeEnd(end: SandboxEnd, limits: InstallLimits): string | null {
  switch (end.kind) {
    case "exited":
      return end.exitCode === 0 ? null : `the installer ended with exit code ${end.exitCode}`;
    case "killed":
      return `the installer was ended by ${end.signal}`;
    case "out-of-memory":
      return `the installer used more than ${Math.round(limits.memoryBytesMax / 1024 / 1024)} MB of memory`;
    case "too-many-processes":
      return `the installer ran more than ${limits.pidsMax} processes`;
    case "stopped":
      return "the installer was stopped";
    default:
      return end satisfies never;
  }
}

/** Passes an installer's output on line by line, and keeps the end of it. */
class OutputTail {
  readonly #onOutput: (line: string) => void;
  readonly #lineBytesMax: number;
  #tail = "";

  constructor(work: Installation) {
    this.#onOutput = work.onOutput;
    this.#lineBytesMax = work.limits.lineBytesMax;
  }

  /** Resolves when the stream is over; a broken stream is over, too. */
  async follow(stream: Readable): Promise<void> {
    const decoder = new StringDecoder("utf8");
    let rest = "";
    try {
      for await (const chunk of stream as AsyncIterable<Buffer>) {
        // Progress bars return to the line's beginning instead of ending it.
        const lines = (rest + decoder.write(chunk)).split(/[\r\n]+/);
        rest = lines.pop() ?? "";
        for (const line of lines) this.#line(line);
        if (rest.length > this.#lineBytesMax) {
          this.#line(rest);
          rest = "";
        }
      }
    } catch {
      // How the sandbox ended says more than how its pipe did.
    }
    this.#line(rest);
  }

  text(): string {
    return this.#tail;
  }

  #line(line: string): void {
    if (line === "") return;
    const shown = line.length > this.#lineBytesMax ? `${line.slice(0, this.#lineBytesMax)} …` : line;
    const tail = Buffer.from(`${this.#tail}${shown}\n`);
    this.#tail = tail
      .subarray(Math.max(0, tail.length - OUTPUT_TAIL_BYTES))
      .toString()
      .replace(/^\uFFFD+/, "");
    this.#onOutput(shown);
  }
}
