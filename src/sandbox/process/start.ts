import { spawn } from "node:child_process";
import { closeSync } from "node:fs";
import { Socket } from "node:net";
import { constants } from "node:os";
import type { Duplex } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { getSystemErrorName } from "node:util";
import { keep, pipeOf } from "../streams.ts";

/** A program that was started with channels at the descriptors from 1 on, and nothing else open. */
export interface Started {
  readonly pid: number;
  /** The channel to a descriptor of the program. */
  pipe(descriptor: number): Duplex;
  /** Resolves when the program has ended. */
  readonly ended: Promise<{ readonly exitCode: number | null; readonly signal: string | null }>;
}

/** Starts a program with an empty environment, `channels` sockets from descriptor 1 on, and the working directory of this process. */
export interface Starter {
  /** How it is done, for `koine doctor`. */
  readonly how: "posix_spawn" | "fork";
  /**
   * The last channel stays open as long as the program runs and no longer: it tells of its end. Those whom the program starts must
   * not inherit it, as bubblewrap's do not.
   * @throws Error when the system refuses
   */
  start(file: string, args: readonly string[], channels: number): Started;
}

/**
 * By posix_spawn where this Node has `node:ffi`: some 0.3 ms. Node's own way copies the platform's page tables, for which its one
 * thread stands still for 3 ms at 50 MB and 15 ms at 250 MB.
 */
export function openStarter(): Starter {
  return byPosixSpawn() ?? byFork();
}

export function byFork(): Starter {
  return {
    how: "fork",
    start(file, args, channels) {
      const stdio: ("ignore" | "pipe")[] = ["ignore", ...Array.from({ length: channels }, () => "pipe" as const)];
      const child = spawn(file, args, { cwd: "/", env: {}, stdio });
      const ended = new Promise<Awaited<Started["ended"]>>((resolve) => {
        child.once("exit", (exitCode, signal) => resolve({ exitCode, signal }));
        // A launch that never came to be has no exit.
        child.once("error", () => resolve({ exitCode: 125, signal: null }));
      });
      const pipes = stdio.slice(1).map((_, index) => {
        const pipe = pipeOf(child, index + 1);
        pipe?.on("error", () => {});
        return pipe !== null && index < 2 ? keep(pipe) : pipe;
      });
      if (child.pid === undefined) throw new Error(`${file} could not be started`);
      return {
        pid: child.pid,
        ended,
        pipe(descriptor) {
          const pipe = pipes[descriptor - 1] ?? null;
          if (pipe === null) throw new Error(`the program was started without descriptor ${descriptor}`);
          return pipe;
        },
      };
    },
  };
}

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2_000_000;
const F_DUPFD_CLOEXEC = 1030;
const POSIX_SPAWN_SETSIGDEF = 4;
const POSIX_SPAWN_SETSIGMASK = 8;
const WNOHANG = 1;
/** Above what any C library takes for its structures. */
const STRUCTURE_BYTES = 1_024;
/** Node's descriptors are numbered higher as soon as it has started; a channel is never handed over under a number that is a target too. */
const OWN_DESCRIPTOR_MIN = 64;

/** null where `node:ffi` is missing or the C library lacks a function. */
export function byPosixSpawn(): Starter | null {
  const libc = openLibc();
  if (libc === null) return null;
  const { ffi, functions } = libc;
  const addressOf = (bytes: Buffer): bigint => ffi.getRawPointer(bytes);
  const check = (what: string, error: number): void => {
    if (error !== 0) throw new Error(`${what}: ${getSystemErrorName(-error)}`);
  };
  const lastError = (): number => ffi.getInt32(functions.__errno_location(), 0);

  /** Signals are handled in the program as if nobody had been before it. */
  const attributes = Buffer.alloc(STRUCTURE_BYTES);
  const none = Buffer.alloc(STRUCTURE_BYTES);
  const all = Buffer.alloc(STRUCTURE_BYTES, 0xff);
  check("prepare to start programs", functions.posix_spawnattr_init(addressOf(attributes)));
  functions.posix_spawnattr_setsigmask(addressOf(attributes), addressOf(none));
  functions.posix_spawnattr_setsigdefault(addressOf(attributes), addressOf(all));
  functions.posix_spawnattr_setflags(addressOf(attributes), POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);

  const pairs = Buffer.alloc(8);
  const makePair = (): { readonly own: number; readonly its: number } => {
    if (functions.socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, addressOf(pairs)) !== 0)
      check("make a channel", lastError());
    const [own, its] = [pairs.readInt32LE(0), pairs.readInt32LE(4)];
    if (its >= OWN_DESCRIPTOR_MIN) return { own, its };
    const moved = functions.fcntl(its, F_DUPFD_CLOEXEC, OWN_DESCRIPTOR_MIN);
    const error = moved < 0 ? lastError() : 0;
    closeSync(its);
    if (moved >= 0) return { own, its: moved };
    closeSync(own);
    throw new Error(`make a channel: ${getSystemErrorName(-error)}`);
  };

  const spawnWith = (file: string, args: readonly string[], its: readonly number[]): number => {
    const actions = Buffer.alloc(STRUCTURE_BYTES);
    check("prepare to start a program", functions.posix_spawn_file_actions_init(addressOf(actions)));
    const devNull = Buffer.from("/dev/null\0");
    const words = [file, ...args].map((word) => Buffer.from(`${word}\0`));
    const argv = Buffer.alloc(8 * (words.length + 1));
    words.forEach((word, index) => argv.writeBigUInt64LE(addressOf(word), 8 * index));
    const environment = Buffer.alloc(8);
    const pid = Buffer.alloc(4);
    try {
      check(
        "open /dev/null",
        functions.posix_spawn_file_actions_addopen(addressOf(actions), 0, addressOf(devNull), 0, 0),
      );
      its.forEach((descriptor, index) =>
        check("hand over", functions.posix_spawn_file_actions_adddup2(addressOf(actions), descriptor, index + 1)),
      );
      const error = functions.posix_spawn(
        addressOf(pid),
        addressOf(words[0] ?? devNull),
        addressOf(actions),
        addressOf(attributes),
        addressOf(argv),
        addressOf(environment),
      );
      check(`start ${file}`, error);
      return pid.readInt32LE(0);
    } finally {
      functions.posix_spawn_file_actions_destroy(addressOf(actions));
    }
  };

  const status = Buffer.alloc(4);
  const reap = async (pid: number): Promise<Awaited<Started["ended"]>> => {
    // Its channel closes a moment before the kernel lets go of it.
    for (let delayMs = 0.5; ; delayMs = Math.min(delayMs * 2, 100)) {
      const reaped = functions.waitpid(pid, addressOf(status), WNOHANG);
      if (reaped === pid) return meaningOf(status.readInt32LE(0));
      if (reaped < 0) return { exitCode: null, signal: "SIGKILL" };
      await delay(delayMs);
    }
  };

  return {
    how: "posix_spawn",
    start(file, args, channels) {
      if ([file, ...args].some((word) => word.includes("\0"))) throw new Error("an argument contains a zero byte");
      const made: { readonly own: number; readonly its: number }[] = [];
      let pid: number;
      try {
        for (let count = 0; count < channels; count++) made.push(makePair());
        pid = spawnWith(
          file,
          args,
          made.map(({ its }) => its),
        );
      } catch (thrown) {
        for (const { own } of made) closeSync(own);
        throw thrown;
      } finally {
        for (const { its } of made) closeSync(its);
      }
      const sockets = made.map(({ own }) => new Socket({ fd: own, readable: true, writable: true }));
      const lifeline = sockets.at(-1);
      for (const socket of sockets) socket.on("error", () => {});
      const closed = new Promise<void>((resolve) => lifeline?.once("close", () => resolve()).resume());
      return {
        pid,
        ended: closed.then(() => reap(pid)),
        pipe(descriptor) {
          const socket = sockets[descriptor - 1];
          if (socket === undefined) throw new Error(`the program was started without descriptor ${descriptor}`);
          return socket;
        },
      };
    },
  };
}

/** How a program ended, from the number that waitpid gives. */
function meaningOf(status: number): Awaited<Started["ended"]> {
  const signal = status & 0x7f;
  if (signal === 0) return { exitCode: (status >> 8) & 0xff, signal: null };
  const name = Object.entries(constants.signals).find(([, number]) => number === signal)?.[0];
  return { exitCode: null, signal: name ?? `signal ${signal}` };
}

function openLibc() {
  const ffi = process.getBuiltinModule("node:ffi");
  if (ffi === undefined) return null;
  const define = () =>
    ffi.dlopen(null, {
      __errno_location: { return: "pointer", arguments: [] },
      fcntl: { return: "i32", arguments: ["i32", "i32", "i32"] },
      posix_spawn: { return: "i32", arguments: ["pointer", "pointer", "pointer", "pointer", "pointer", "pointer"] },
      posix_spawn_file_actions_adddup2: { return: "i32", arguments: ["pointer", "i32", "i32"] },
      posix_spawn_file_actions_addopen: { return: "i32", arguments: ["pointer", "i32", "pointer", "i32", "i32"] },
      posix_spawn_file_actions_destroy: { return: "i32", arguments: ["pointer"] },
      posix_spawn_file_actions_init: { return: "i32", arguments: ["pointer"] },
      posix_spawnattr_init: { return: "i32", arguments: ["pointer"] },
      posix_spawnattr_setflags: { return: "i32", arguments: ["pointer", "i16"] },
      posix_spawnattr_setsigdefault: { return: "i32", arguments: ["pointer", "pointer"] },
      posix_spawnattr_setsigmask: { return: "i32", arguments: ["pointer", "pointer"] },
      socketpair: { return: "i32", arguments: ["i32", "i32", "i32", "pointer"] },
      waitpid: { return: "i32", arguments: ["i32", "pointer", "i32"] },
    }).functions;
  try {
    return { ffi, functions: define() };
  } catch {
    return null;
  }
}
