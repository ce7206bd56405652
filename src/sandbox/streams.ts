import type { ChildProcess } from "node:child_process";
import { Duplex, PassThrough, type Readable } from "node:stream";

/** The pipe to a started process at a file descriptor of it; null where none was asked for. */
export function pipeOf(child: ChildProcess, descriptor: number): Duplex | null {
  const stream: unknown = child.stdio.at(descriptor);
  return stream instanceof Duplex ? stream : null;
}

export interface SandboxStreams {
  readonly channel: Duplex;
  readonly stdout: Readable;
  readonly stderr: Readable;
}

/**
 * What a process that was started with pipes at 1, 2 and 3 is talked to by.
 * @throws Error when it was not
 */
export function streamsOf(child: ChildProcess): SandboxStreams {
  const channel = pipeOf(child, 3);
  if (channel === null || child.stdout === null || child.stderr === null) {
    throw new Error("the process was started without its pipes");
  }
  for (const stream of [channel, child.stdout, child.stderr]) ignoreErrors(stream);
  return { channel, stdout: keep(child.stdout), stderr: keep(child.stderr) };
}

/** That the process is gone is told by `ended`; an error event that nobody hears would end the platform. */
function ignoreErrors(stream: Duplex | Readable): void {
  stream.on("error", () => {});
}

/** Node throws away at a process' end what nobody has begun to read; a process may end before anybody could. */
export function keep(stream: Readable): Duplex {
  const kept = new PassThrough();
  // An error ends the stream as its end would.
  stream.once("close", () => kept.end());
  return stream.pipe(kept);
}
