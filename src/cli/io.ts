import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "../core/clock.ts";
import { systemClock } from "../core/clock.ts";

/** Everything the CLI touches outside its own memory, so that a test can stand in for a person at a terminal. */
export interface CliIo {
  readonly stdin: Readable;
  readonly stdout: Writable;
  readonly stderr: Writable;
  readonly isTerminal: { readonly stdin: boolean; readonly stdout: boolean; readonly stderr: boolean };
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Absolute. */
  readonly cwd: string;
  /** Koine's own version. */
  readonly version: string;
  /** Command and first arguments that start this CLI anew, for the platform that `koine dev` runs as a child. */
  readonly launch: readonly string[];
  readonly clock: Clock;
  /** Resolves after `delayMs`; rejects when the signal aborts. Keeps the process alive, unlike the clock's timers. */
  sleep(delayMs: number, signal: AbortSignal): Promise<void>;
  /** Calls back on Ctrl-C and on requests to end, until the returned function is called. */
  onInterrupt(callback: () => void): () => void;
}

/** The real process. A second Ctrl-C while the first is being handled ends it at once. */
export function processIo(given: Pick<CliIo, "environment" | "version" | "launch">): CliIo {
  return {
    ...given,
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    isTerminal: {
      stdin: process.stdin.isTTY === true,
      stdout: process.stdout.isTTY === true,
      stderr: process.stderr.isTTY === true,
    },
    cwd: process.cwd(),
    clock: systemClock,
    sleep: (delayMs, signal) => sleep(delayMs, undefined, { signal }),
    onInterrupt(callback) {
      let count = 0;
      const listener = (): void => {
        count++;
        if (count > 1) process.exit(130);
        callback();
      };
      const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
      for (const name of signals) process.on(name, listener);
      return () => {
        for (const name of signals) process.off(name, listener);
      };
    },
  };
}
