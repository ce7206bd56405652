import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { CliFailure } from "./failure.ts";
import type { CliIo } from "./io.ts";

/** Whether somebody is there to be asked. */
export function canAsk(io: CliIo): boolean {
  return io.isTerminal.stdin && io.isTerminal.stderr;
}

/** Asks a yes-or-no question on the terminal; anything but yes is no. */
export async function confirm(io: CliIo, question: string, signal: AbortSignal): Promise<boolean> {
  const answer = await ask(io, `${question} [y/N] `, { hidden: false, signal });
  return /^y(?:es)?$/i.test(answer.trim());
}

/** Asks for a value that does not appear while it is typed. */
export async function askHidden(io: CliIo, question: string, signal: AbortSignal): Promise<string> {
  return await ask(io, `${question} (input is hidden): `, { hidden: true, signal });
}

async function ask(
  io: CliIo,
  question: string,
  options: { readonly hidden: boolean; readonly signal: AbortSignal },
): Promise<string> {
  const sink = new Writable({
    write(chunk: Buffer, _, done) {
      if (!options.hidden) io.stderr.write(chunk);
      done();
    },
  });
  const lines = createInterface({ input: io.stdin, output: sink, terminal: io.isTerminal.stdin });
  // Only now is the terminal's own echo off.
  io.stderr.write(question);
  try {
    return await new Promise<string>((resolve, reject) => {
      const interrupted = (): void => reject(new CliFailure("interrupted", "Interrupted", ""));
      lines.once("line", resolve);
      lines.once("SIGINT", interrupted);
      lines.once("close", interrupted);
      options.signal.addEventListener("abort", interrupted, { once: true });
    });
  } finally {
    lines.close();
    if (options.hidden) io.stderr.write("\n");
  }
}
