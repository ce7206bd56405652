import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";

export interface LifeOptions {
  readonly dataDirectory: string;
  readonly sandbox: Sandbox;
  readonly env: Readonly<Record<string, string>>;
}

/** `none` starts in half the time. */
export type Sandbox = "none" | "process";

const launcher = join(fileURLToPath(new URL("../..", import.meta.url)), "bin", "koine.mjs");
const READY_MS_MAX = 60_000;
const STOP_MS_MAX = 45_000;
/** Instances of a platform that was killed notice it by their connection. */
const ORPHAN_MS_MAX = 15_000;

/** One start of `koine up`, until it ends in whatever way. */
export class Life {
  output = "";
  readonly ended: Promise<number | string>;
  /** The address, once it is ready; null when it ended before. */
  readonly ready: Promise<string | null>;
  readonly #child: ChildProcess;

  constructor({ dataDirectory, sandbox, env }: LifeOptions) {
    const isolation = ["--sandbox", sandbox, "--network", "host"];
    const command = [launcher, "up", "--port", "0", "--data", dataDirectory, ...isolation, "--log-format", "json"];
    const kept = Object.entries(process.env).filter(
      ([name]) => !/^(?:KOINE_|NODE_OPTIONS$|NODE_TEST_CONTEXT$)/.test(name),
    );
    this.#child = spawn(process.execPath, command, {
      cwd: "/",
      env: { ...Object.fromEntries(kept), NO_COLOR: "1", ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const killNow = (): void => void this.#child.kill("SIGKILL");
    process.once("exit", killNow);
    const ended = Promise.withResolvers<number | string>();
    const ready = Promise.withResolvers<string | null>();
    this.ended = ended.promise;
    this.ready = ready.promise;
    this.#child.once("exit", (code, signal) => {
      process.off("exit", killNow);
      ended.resolve(code ?? signal ?? "");
      ready.resolve(null);
    });
    const keep = (text: string): void => {
      this.output = (this.output + text).slice(-40_000);
      const found = /API (https?:\/\/\S+)\s/.exec(this.output)?.[1];
      if (found !== undefined) ready.resolve(found);
    };
    this.#child.stdout?.setEncoding("utf8").on("data", keep);
    this.#child.stderr?.setEncoding("utf8").on("data", keep);
  }

  /** @throws Error with the platform's output when it does not get ready */
  async url(): Promise<string> {
    const late = new AbortController();
    const url = await Promise.race([this.ready, sleep(READY_MS_MAX, null, { signal: late.signal }).catch(() => null)]);
    late.abort();
    if (url === null) throw new Error(`the platform did not start:\n${this.output}`);
    return url;
  }

  /**
   * Ends it at once. It is halted first, so that all processes it has started are known; answers those that were still there long afterwards, which
   * are ended then.
   */
  async kill(): Promise<readonly number[]> {
    const { pid = 0 } = this.#child;
    if (this.#child.exitCode !== null || this.#child.signalCode !== null || pid === 0) return [];
    this.#child.kill("SIGSTOP");
    const started = descendantsOf(pid);
    this.#child.kill("SIGKILL");
    await this.ended;
    const deadlineMs = Date.now() + ORPHAN_MS_MAX;
    let left = started.filter(isAlive);
    while (left.length > 0 && Date.now() < deadlineMs) {
      await sleep(5);
      left = left.filter(isAlive);
    }
    for (const orphan of left) process.kill(orphan, "SIGKILL");
    return left;
  }

  /** Stops it as Ctrl-C does. @throws Error when it does not end so */
  async stop(): Promise<void> {
    this.#child.kill("SIGTERM");
    const code = await Promise.race([this.ended, sleep(STOP_MS_MAX, "too late", { ref: false })]);
    if (code === 0) return;
    await this.kill();
    throw new Error(`the platform ended with ${code} instead of 0 when it was told to stop:\n${this.output}`);
  }

  /** Tells it to stop without waiting for it. */
  beginStop(): void {
    this.#child.kill("SIGTERM");
  }
}

function isAlive(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) [ZX]/s.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch {
    return false;
  }
}

function descendantsOf(pid: number): readonly number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    try {
      const parent = Number(/^\d+ \(.*\) \S (\d+)/s.exec(readFileSync(`/proc/${name}/stat`, "latin1"))?.[1]);
      children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
    } catch {
      // It has just ended.
    }
  }
  const found: number[] = [];
  for (let next = children.get(pid) ?? []; next.length > 0; next = next.flatMap((one) => children.get(one) ?? []))
    found.push(...next);
  return found;
}
