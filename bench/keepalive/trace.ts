import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** One day of calls: for each function, which of its minutes had any. */
export interface Trace {
  readonly minutes: number;
  /** By function, then by minute: 1 where it was called. */
  readonly active: readonly Uint8Array[];
}

const IDENTITY_COLUMNS = 3;
const FOLDER = "../shared/data/azure-2019-400";
const FILE = "400_inv.csv";

/** Where the trace lies: `KOINE_BENCH_TRACE` when it is set, else beside the repository. */
export function traceFolder(): string {
  const root = fileURLToPath(new URL("../..", import.meta.url));
  return resolve(root, process.env["KOINE_BENCH_TRACE"] ?? FOLDER);
}

/**
 * Reads the sample of the Azure Functions Trace 2019 (Microsoft, CC-BY-4.0; Shahrad et al., "Serverless in the Wild", USENIX ATC
 * 2020) that the vHive InVitro project made. Null when it is not there.
 */
export async function readTrace(folder: string): Promise<Trace | null> {
  let text: string;
  try {
    text = await readFile(join(folder, FILE), "utf8");
  } catch (thrown) {
    if (thrown instanceof Error && "code" in thrown && thrown.code === "ENOENT") return null;
    throw thrown;
  }
  const [head = "", ...lines] = text.trimEnd().split("\n");
  const minutes = head.split(",").length - IDENTITY_COLUMNS;
  const active = lines.map((line, index) => {
    const counts = line.split(",").slice(IDENTITY_COLUMNS).map(Number);
    if (counts.length !== minutes || counts.some((count) => !(count >= 0)))
      throw new Error(`${FILE}: line ${index + 2} has not ${minutes} counts`);
    return Uint8Array.from(counts, (count) => (count > 0 ? 1 : 0));
  });
  return { minutes, active };
}

/** The functions of a trace that satisfy a condition, as a trace of their own. */
export function part(trace: Trace, chosen: (index: number) => boolean): Trace {
  return { minutes: trace.minutes, active: trace.active.filter((_, index) => chosen(index)) };
}
