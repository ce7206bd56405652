import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { Duplex } from "node:stream";
import { KoineError } from "../core/errors.ts";

/** How the process of a further engine is started. */
export interface EngineProgram {
  readonly file: string;
  readonly args: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** Descriptors of the pairs of sockets, in both processes. */
export const engineDescriptors = { control: 3, passing: 4 } as const;

/** The process of one further engine. */
export class EngineProcess {
  readonly pid: number;
  /** Messages in both directions. */
  readonly control: Duplex;
  /** Requests that it passes on. */
  readonly passing: Duplex;
  /** Resolves when it has ended: with its exit code, or the signal that ended it. */
  readonly ended: Promise<number | string>;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, pid: number, pipes: { readonly control: Duplex; readonly passing: Duplex }) {
    this.#child = child;
    this.pid = pid;
    this.control = pipes.control;
    this.passing = pipes.passing;
    this.ended = new Promise((resolve) => {
      child.once("exit", (code, signal) => resolve(code ?? signal ?? 0));
    });
  }

  /** @throws KoineError `engine-failed` */
  static async start({ file, args, environment }: EngineProgram, engine: number): Promise<EngineProcess> {
    // Its output is the platform's, and so is the terminal: what Ctrl-C means is told to it.
    const child = spawn(file, args, { env: environment, stdio: ["ignore", "inherit", "inherit", "pipe", "pipe"] });
    if (child.pid === undefined) {
      const [error] = (await once(child, "error")) as [Error];
      throw new KoineError("engine-failed", { engine, detail: error.message }, { cause: error });
    }
    const control = child.stdio[engineDescriptors.control] as unknown as Duplex;
    const passing = child.stdio[engineDescriptors.passing] as unknown as Duplex;
    return new EngineProcess(child, child.pid, { control, passing });
  }

  /** Ends it at once; its sandboxes end with it. */
  kill(): void {
    this.#child.kill("SIGKILL");
  }
}
