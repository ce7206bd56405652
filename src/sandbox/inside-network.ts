import { closeSync, openSync } from "node:fs";
import { createServer, Socket, type SocketConstructorOpts } from "node:net";
import type { Duplex } from "node:stream";
import { getSystemErrorName } from "node:util";
import { KoineError } from "../core/errors.ts";
import { AnsweringThread } from "./network/asking.ts";
import type { ToMaker } from "./network/wire.ts";
import type { PortInside, Reachable } from "./sandbox.ts";

/**
 * Reaches the loopback interface of network namespaces other than this process's own. A socket belongs for ever to the namespace in
 * which it was made, whoever uses it: so it is made there, and everything else is as usual. Needs no process inside, and nothing inside
 * becomes reachable for anybody else.
 */
export interface InsideNetworks {
  /**
   * @param pidOf a process in the namespace; null: there is none any more
   * The result's calls reject with `not-supported` where this user may not enter that namespace.
   */
  of(pidOf: () => number | null): Reachable;
}

/** null where this Node has no `node:ffi`, or the system no network namespaces. */
export function openInsideNetworks(): InsideNetworks | null {
  const socketIn = openSocketMaker();
  return socketIn === null ? null : { of: (pidOf) => reachableBy((port) => socketIn(pidOf(), port)) };
}

/** The machine's own loopback interface, for sandboxes that share it. */
export const machineLoopback: Reachable = {
  connect(port, signal) {
    const socket = new Socket();
    return connected(socket, port, signal);
  },
  listen: (port, onConnection) => listening({ port, host: LOOPBACK }, onConnection),
};

const LOOPBACK = "127.0.0.1";
const LISTEN_BACKLOG = 128;

function reachableBy(socketWith: (bindPort: number | null) => number | Promise<number>): Reachable {
  return {
    async connect(port, signal) {
      // Reading begins when there is a connection; Node's types do not know the option.
      const options: SocketConstructorOpts & { readonly manualStart: boolean } = {
        fd: await socketWith(null),
        readable: true,
        writable: true,
        manualStart: true,
      };
      return await connected(new Socket(options), port, signal);
    },
    async listen(port, onConnection) {
      const fd = await socketWith(port);
      return await listening({ fd, backlog: LISTEN_BACKLOG }, onConnection);
    },
  };
}

function connected(socket: Socket, port: number, signal: AbortSignal): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const done = (): void => {
      signal.removeEventListener("abort", onAbort);
      socket.off("error", onError).off("connect", onConnect);
    };
    const onError = (error: Error): void => {
      done();
      reject(error);
    };
    const onConnect = (): void => {
      done();
      resolve(socket);
    };
    const onAbort = (): void => {
      socket.on("error", () => {}).destroy();
      done();
      reject(signal.reason);
    };
    if (signal.aborted) {
      onAbort();
      return;
    }
    signal.addEventListener("abort", onAbort, { once: true });
    socket.once("error", onError).once("connect", onConnect);
    socket.setNoDelay(true);
    socket.connect({ port, host: LOOPBACK });
  });
}

function listening(
  where: { readonly port: number; readonly host: string } | { readonly fd: number; readonly backlog: number },
  onConnection: (connection: Duplex) => void,
): Promise<PortInside> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.once("close", () => sockets.delete(socket));
    onConnection(socket);
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(where, () => {
      server.off("error", reject).on("error", () => {});
      const address = server.address();
      if (address === null || typeof address === "string") throw new Error("a TCP server has an address");
      resolve({
        port: address.port,
        async [Symbol.asyncDispose]() {
          const closed = new Promise<void>((done) => server.close(() => done()));
          for (const socket of sockets) socket.destroy();
          await closed;
        },
      });
    });
  });
}

const CLONE_NEWNET = 0x4000_0000;
const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2_000_000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const ADDRESS_BYTES = 16;

/**
 * Makes a socket in the namespace of a process and binds it, where a port is named. This thread is in that namespace for some 20 µs, in
 * which nothing else runs on it; Node's other threads stay where they are.
 */
function openSocketMaker(): ((pid: number | null, bindPort: number | null) => number | Promise<number>) | null {
  const ffi = process.getBuiltinModule("node:ffi");
  if (ffi === undefined || process.platform !== "linux") return null;
  const define = () =>
    ffi.dlopen(null, {
      __errno_location: { return: "pointer", arguments: [] },
      bind: { return: "i32", arguments: ["i32", "pointer", "u32"] },
      setns: { return: "i32", arguments: ["i32", "i32"] },
      setsockopt: { return: "i32", arguments: ["i32", "i32", "i32", "pointer", "u32"] },
      socket: { return: "i32", arguments: ["i32", "i32", "i32"] },
    }).functions;
  let libc: ReturnType<typeof define>;
  let home: number;
  try {
    libc = define();
    home = openSync("/proc/thread-self/ns/net", "r");
  } catch {
    return null;
  }
  // An ordinary user's platform can enter the networks of its sandboxes, but not come back into the machine's.
  if (libc.setns(home, CLONE_NEWNET) !== 0) return socketsByThread();
  const check = (what: string, result: number): number => {
    if (result >= 0) return result;
    const code = getSystemErrorName(-ffi.getInt32(libc.__errno_location(), 0));
    throw Object.assign(new Error(`${what}: ${code}`), { code });
  };
  const makeIn = (pid: number): number => {
    const there = openSync(`/proc/${pid}/ns/net`, "r");
    try {
      check("enter the network of a sandbox", libc.setns(there, CLONE_NEWNET));
      try {
        return check("make a socket", libc.socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      } finally {
        // Should this ever fail, this thread serves the wrong network: nothing may go on.
        if (libc.setns(home, CLONE_NEWNET) !== 0) process.abort();
      }
    } finally {
      closeSync(there);
    }
  };
  return (pid, bindPort) => {
    if (pid === null) throw Object.assign(new Error("the sandbox has ended"), { code: "ECONNREFUSED" });
    let socket: number;
    try {
      socket = makeIn(pid);
    } catch (thrown) {
      throw isDenied(thrown) ? denied(thrown) : thrown;
    }
    if (bindPort === null) return socket;
    try {
      const one = Buffer.alloc(4);
      one.writeInt32LE(1);
      const address = Buffer.alloc(ADDRESS_BYTES);
      address.writeUInt16LE(AF_INET, 0);
      address.writeUInt16BE(bindPort, 2);
      address.set([127, 0, 0, 1], 4);
      check("reuse a port", libc.setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, ffi.getRawPointer(one), one.length));
      check(`bind port ${bindPort}`, libc.bind(socket, ffi.getRawPointer(address), ADDRESS_BYTES));
      return socket;
    } catch (thrown) {
      closeSync(socket);
      throw thrown;
    }
  };
}

/** Made by a thread that never comes back, and so serves nothing else. */
function socketsByThread(): (pid: number | null, bindPort: number | null) => Promise<number> {
  let thread: AnsweringThread<ToMaker> | null = null;
  return async (pid, bindPort) => {
    if (pid === null) throw Object.assign(new Error("the sandbox has ended"), { code: "ECONNREFUSED" });
    if (thread === null || thread.hasEnded) thread = new AnsweringThread("maker-thread", null);
    try {
      return (await thread.ask({ kind: "socket", pid, bindPort })) as number;
    } catch (thrown) {
      throw isDenied(thrown) ? denied(thrown) : thrown;
    }
  };
}

function isDenied(thrown: unknown): boolean {
  return thrown instanceof Error && "code" in thrown && (thrown.code === "EPERM" || thrown.code === "EACCES");
}

function denied(cause: unknown): KoineError {
  const remedy =
    "Start the platform with 'koine up', which gives it the right where the machine allows user namespaces; or run it as root; " +
    "or use --network host.";
  return new KoineError("not-supported", { what: "Reaching a program in its own network", remedy }, { cause });
}
