import { spawnSync } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, statfsSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Disk } from "./disk.ts";
import type { Random } from "./random.ts";
import type { Fate } from "./run.ts";

/** Environment of a platform that acknowledges before it syncs. */
export const BROKEN = { NODE_OPTIONS: `--import=${new URL("broken-store.mjs", import.meta.url).href}` };

/** Compiles the shim into a folder. @throws Error with what the compiler says */
export function compileShim(folder: string): string {
  mkdirSync(folder, { recursive: true });
  const output = join(folder, "shim.so");
  const source = fileURLToPath(new URL("shim.c", import.meta.url));
  const { status, stderr, error } = spawnSync("gcc", [
    "-O2",
    "-shared",
    "-fPIC",
    "-o",
    output,
    source,
    "-ldl",
    "-lpthread",
  ]);
  if (status !== 0) throw new Error(`the shim cannot be compiled: ${error?.message ?? String(stderr)}`);
  return output;
}

/** Each kill takes what was not synced along. */
export function powerCuts(folder: string, random: Random, onCut: (lost: number) => void = () => {}): Fate {
  const dataDirectory = join(folder, "koine");
  const log = join(folder, "changes");
  const disk = new Disk(dataDirectory, log);
  return {
    dataDirectory,
    env: { LD_PRELOAD: compileShim(folder), CRASH_ROOT: dataDirectory, CRASH_LOG: log, UV_USE_IO_URING: "0" },
    begins: () => disk.begins(),
    killed: () => {
      onCut(disk.cut(random));
      return "power-cut";
    },
  };
}

const JUMP_MS_MAX = 6 * 3_600_000;

/** The time of day jumps while clients send, up to six hours to and fro. */
export function clockJumps(folder: string, random: Random): Fate {
  const control = join(folder, "clock");
  const shim = compileShim(folder);
  const shift = Buffer.alloc(8);
  const set = (ms: number): void => {
    shift.writeBigInt64LE(BigInt(ms));
    // Written in place: the platform has mapped it.
    const file = openSync(control, "r+");
    writeSync(file, shift, 0, shift.length, 0);
    closeSync(file);
  };
  writeFileSync(control, shift);
  return {
    terms: { clockJumped: true },
    env: { LD_PRELOAD: shim, CRASH_CONTROL: control },
    during: async (signal) => {
      while (!signal.aborted) {
        await sleep(random.between(50, 400), undefined, { signal }).catch(() => {});
        set(random.chance(0.3) ? 0 : random.between(-JUMP_MS_MAX, JUMP_MS_MAX));
      }
    },
    // What was put off must not wait for hours.
    beforeLap: () => set(JUMP_MS_MAX + 3_600_000),
  };
}

const DISK_MIB = 48;
const BALLAST_STEP_BYTES = 1 << 16;

/** A disk of its own that is full most of the time. Needs the right to mount. @throws Error with what mount says */
export function fullDisk(folder: string, random: Random): Fate {
  mkdirSync(folder, { recursive: true });
  const mount = mkdtempSync(join(folder, "disk-"));
  const { status, stderr } = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${DISK_MIB}m`, "tmpfs", mount]);
  if (status !== 0) throw new Error(`a small disk cannot be mounted: ${String(stderr)}`);
  const unmount = (): void => {
    process.off("exit", unmount);
    spawnSync("umount", ["--lazy", mount]);
  };
  process.once("exit", unmount);
  const ballast = join(mount, "ballast");
  const fill = (): void => {
    const file = openSync(ballast, "a");
    try {
      // What is left is too little for what comes, or nothing at all.
      const leave = random.chance(0.5) ? 0 : random.between(0, 40) * 4_096;
      for (let free = freeBytes(mount) - leave; free > 0; free -= BALLAST_STEP_BYTES) {
        writeSync(file, Buffer.alloc(Math.min(free, BALLAST_STEP_BYTES)));
      }
    } catch {
      // The platform was faster: the disk is full.
    } finally {
      closeSync(file);
    }
  };
  const empty = (): void => rmSync(ballast, { force: true });
  return {
    dataDirectory: join(mount, "koine"),
    terms: { diskWasFull: true },
    begins: empty,
    during: async (signal) => {
      while (!signal.aborted) {
        await sleep(random.between(20, 300), undefined, { signal }).catch(() => {});
        if (random.chance(0.5)) empty();
        else fill();
      }
    },
    beforeLap: empty,
    end: unmount,
  };
}

function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}

/** Whether a disk of one's own can be made here. */
export function mayMount(): boolean {
  return (
    process.getuid?.() === 0 && spawnSync("unshare", ["--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).status === 0
  );
}
