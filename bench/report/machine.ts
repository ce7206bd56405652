import { execFileSync } from "node:child_process";
import { availableParallelism, cpus, release, totalmem, type } from "node:os";
import { bytes } from "./format.ts";

/** Where the figures come from. */
export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memory: string;
  readonly kernel: string;
  readonly node: string;
  /** Of the source; null where there is no repository. */
  readonly commit: string | null;
}

export function thisMachine(root: string): Machine {
  return {
    processor: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memory: bytes(totalmem()),
    kernel: `${type()} ${release()}`,
    node: process.versions.node,
    commit: commit(root),
  };
}

function commit(root: string): string | null {
  try {
    const words = ["describe", "--always", "--dirty", "--abbrev=12"];
    return execFileSync("git", words, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  } catch {
    return null;
  }
}
