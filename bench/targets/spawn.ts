import { execFile, spawn } from "node:child_process";
import { promisify } from "node:util";

/** Programs that do nothing but write one byte: the least a process per request can cost. */
const NODE_CODE = 'process.stdout.write("x")';
const PYTHON_CODE = 'import os; os.write(1, b"x")';

export interface Bare {
  readonly command: readonly [string, ...string[]];
}

export const bareNode: Bare = { command: [process.execPath, "-e", NODE_CODE] };

/**
 * The machine's Python behind whatever shims there are, without the machine's settings and packages, which can make it take four times
 * as long; null where there is none.
 */
export async function barePython(): Promise<Bare | null> {
  try {
    const { stdout } = await promisify(execFile)("python3", [
      "-c",
      "import os, sys; print(os.path.realpath(sys.executable))",
    ]);
    return { command: [stdout.trim(), "-I", "-S", "-c", PYTHON_CODE] };
  } catch {
    return null;
  }
}

/** Milliseconds from the call to the process's first byte; the process has ended when this answers. */
export async function spawnToFirstByte({ command: [program, ...programArguments] }: Bare): Promise<number> {
  const begunMs = performance.now();
  const child = spawn(program, programArguments, { stdio: ["ignore", "pipe", "inherit"] });
  return await new Promise((resolve, reject) => {
    let firstByteMs: number | null = null;
    child.stdout.on("data", () => (firstByteMs ??= performance.now() - begunMs));
    child.on("error", reject);
    child.on("close", () => {
      if (firstByteMs === null) reject(new Error(`${program} wrote nothing`));
      else resolve(firstByteMs);
    });
  });
}

/** Bare processes per second when `atATime` are under way. */
export async function rawSpawnRate(
  bare: Bare,
  { count, atATime }: { count: number; atATime: number },
): Promise<number> {
  let left = count;
  const begunMs = performance.now();
  const spawnNext = async (): Promise<void> => {
    while (left-- > 0) await spawnToFirstByte(bare);
  };
  await Promise.all(Array.from({ length: atATime }, spawnNext));
  return (count / (performance.now() - begunMs)) * 1000;
}
