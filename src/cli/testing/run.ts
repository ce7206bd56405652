import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable, Writable } from "node:stream";
import type { Clock } from "../../core/clock.ts";
import { VirtualClock } from "../../core/clock.ts";
import type { CliCommands } from "../command.ts";
import type { CliIo } from "../io.ts";
import { runCli } from "../main.ts";

export const NOW = "2030-01-31T12:00:00.000Z";

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Stage {
  readonly environment?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly stdin?: string | Readable;
  /** Whether a person is there; default false. */
  readonly isTerminal?: boolean;
  readonly commands?: CliCommands;
  readonly launch?: readonly string[];
  readonly clock?: Clock;
  /** Is told what is written to stdout and stderr as it comes. */
  readonly onOutput?: (written: string, interrupt: () => void) => void;
}

/** Runs a command line as if typed, in a world of its own: no environment, a virtual clock, sleeps that take no time. */
export async function run(url: string | null, argv: readonly string[], stage: Stage = {}): Promise<Ran> {
  await using home = await temporaryFolder();
  let stdout = "";
  let stderr = "";
  const interrupts = new Set<() => void>();
  const interrupt = (): void => {
    for (const callback of interrupts) callback();
  };
  const sink = (take: (text: string) => void): Writable =>
    new Writable({
      write(chunk: Buffer, _, done) {
        take(chunk.toString("utf8"));
        stage.onOutput?.(stdout + stderr, interrupt);
        done();
      },
    });
  const terminal = stage.isTerminal ?? false;
  const io: CliIo = {
    stdin:
      typeof stage.stdin === "object"
        ? stage.stdin
        : Readable.from(stage.stdin === undefined ? [] : [Buffer.from(stage.stdin)]),
    stdout: sink((text) => (stdout += text)),
    stderr: sink((text) => (stderr += text)),
    isTerminal: { stdin: terminal, stdout: terminal, stderr: terminal },
    environment: { XDG_CONFIG_HOME: home.path, ...(url === null ? {} : { KOINE_URL: url }), ...stage.environment },
    cwd: stage.cwd ?? home.path,
    version: "1.2.3",
    launch: stage.launch ?? [],
    clock: stage.clock ?? new VirtualClock(Date.parse(NOW)),
    async sleep(_, signal) {
      signal.throwIfAborted();
      await new Promise((resolve) => setImmediate(resolve));
    },
    onInterrupt(callback) {
      interrupts.add(callback);
      return () => interrupts.delete(callback);
    },
  };
  const code = await runCli(argv, io, stage.commands);
  return { code, stdout, stderr };
}

export async function temporaryFolder(): Promise<{ readonly path: string; [Symbol.asyncDispose](): Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), "koine-cli-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
