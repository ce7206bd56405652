import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Histogram } from "../measure/histogram.ts";
import type { LoadJob, LoadResult } from "./job.ts";

/** A load process of its own. One for a whole run, so that its code is equally warm for everybody. */
export class LoadGenerator implements Disposable {
  readonly #process: ChildProcess;

  constructor() {
    this.#process = fork(fileURLToPath(new URL("main.ts", import.meta.url)), {
      execArgv: ["--disable-warning=ExperimentalWarning", "--max-semi-space-size=32"],
      serialization: "advanced",
    });
  }

  /** One job at a time. @throws Error when connections cannot be opened */
  async run(job: LoadJob): Promise<LoadFigures> {
    const answer = await new Promise<{ result?: LoadResult; error?: string }>((resolve, reject) => {
      const gone = (): void => reject(new Error("the load process has ended"));
      this.#process.once("exit", gone);
      this.#process.once("message", (message) => {
        this.#process.off("exit", gone);
        resolve(message as { result?: LoadResult; error?: string });
      });
      this.#process.send(job);
    });
    if (answer.result === undefined) throw new Error(`the load process failed: ${answer.error}`);
    return figures(answer.result);
  }

  [Symbol.dispose](): void {
    this.#process.kill();
  }
}

export interface LoadFigures extends Omit<LoadResult, "latency"> {
  /** Successful answers per second. */
  readonly perSecond: number;
  readonly latency: Histogram;
}

function figures(result: LoadResult): LoadFigures {
  return { ...result, latency: Histogram.from(result.latency), perSecond: result.succeeded / result.seconds };
}
