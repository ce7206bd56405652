import { closeSync, openSync } from "node:fs";
import { getSystemErrorName } from "node:util";
import { decode, encode, type Message } from "./netlink.ts";

/**
 * Network namespaces and sockets in them, by system calls. A namespace belongs to a thread, a socket for ever to the namespace in which
 * it was made, whoever uses it.
 */
export interface NetworkKernel {
  /** Makes an empty namespace, in which the calling thread is from then on; it lives as long as the descriptor, or a process in it. */
  makeNamespace(): number;
  /** Takes the calling thread there. Into the machine's own only root of the machine can go back. */
  enter(namespace: number): void;
  /** A socket of IPv4 for connections, bound where an address is given. */
  stream(bound: { readonly address: Buffer; readonly port: number } | null): number;
  /** A socket that listens, or takes datagrams. */
  listen(options: ListenOptions): number;
  openNetlink(family: "route" | "netfilter"): Netlink;
  /** One that was opened elsewhere. */
  netlinkOn(descriptor: number): Netlink;
}

export interface ListenOptions {
  readonly type: "stream" | "datagram";
  readonly family: 4 | 6;
  readonly address: Buffer;
  readonly port: number;
}

export interface Netlink extends Disposable {
  readonly descriptor: number;
  /** Sends messages together and waits for what acknowledges each; the kernel answers before it returns. @throws Error with `code` */
  change(messages: readonly Message[]): void;
  /** Asks for one thing; null when there is none. */
  get(message: Message): Buffer | null;
}

const CLONE_NEWNET = 0x4000_0000;
const AF_INET = 2;
const AF_INET6 = 10;
const AF_NETLINK = 16;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2_000_000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_RCVTIMEO = 20;
const NETLINK_ROUTE = 0;
const NETLINK_NETFILTER = 12;
const NEEDS_ACK = 4;
const LISTEN_BACKLOG = 1_024;
const RECEIVE_BYTES = 32 * 1024;
const ENOENT = 2;

/** null where `node:ffi` is missing, or the C library lacks a function. */
export function openNetworkKernel(): NetworkKernel | null {
  const libc = process.platform === "linux" ? openLibc() : null;
  if (libc === null) return null;
  const { ffi, functions } = libc;
  const addressOf = (bytes: Buffer): bigint => ffi.getRawPointer(bytes);
  const lastError = (): number => ffi.getInt32(functions.__errno_location(), 0);
  const check = (what: string, result: number): number => (result >= 0 ? result : fail(what, lastError()));
  const socket = (domain: number, type: number, protocol: number): number =>
    check("make a socket", functions.socket(domain, type | SOCK_CLOEXEC, protocol));
  const setOption = (descriptor: number, option: number, value: Buffer): void => {
    check(
      "set a socket's option",
      functions.setsockopt(descriptor, SOL_SOCKET, option, addressOf(value), value.length),
    );
  };
  const received = Buffer.alloc(RECEIVE_BYTES);
  const transfer: Transfer = {
    send(descriptor, bytes) {
      check("ask the kernel", functions.send(descriptor, addressOf(bytes), BigInt(bytes.length), 0));
    },
    receive(descriptor) {
      const length = functions.recv(descriptor, addressOf(received), BigInt(received.length), 0);
      return Buffer.from(received.subarray(0, check("hear from the kernel", length)));
    },
  };

  return {
    makeNamespace() {
      check("make a network namespace", functions.unshare(CLONE_NEWNET));
      return openSync("/proc/thread-self/ns/net", "r");
    },
    enter(namespace) {
      check("enter a network namespace", functions.setns(namespace, CLONE_NEWNET));
    },
    stream(bound) {
      const made = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
      try {
        setOption(made, SO_REUSEADDR, numberBytes(1));
        if (bound === null) return made;
        const name = socketAddress(AF_INET, bound.address, bound.port);
        check(`take port ${bound.port}`, functions.bind(made, addressOf(name), name.length));
        return made;
      } catch (thrown) {
        closeSync(made);
        throw thrown;
      }
    },
    listen({ type, family, address, port }) {
      const domain = family === 4 ? AF_INET : AF_INET6;
      const made = socket(domain, (type === "stream" ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK, 0);
      try {
        if (type === "stream") setOption(made, SO_REUSEADDR, numberBytes(1));
        const name = socketAddress(domain, address, port);
        check(`take port ${port}`, functions.bind(made, addressOf(name), name.length));
        if (type === "stream") check("listen", functions.listen(made, LISTEN_BACKLOG));
        return made;
      } catch (thrown) {
        closeSync(made);
        throw thrown;
      }
    },
    openNetlink(family) {
      const descriptor = socket(AF_NETLINK, SOCK_RAW, family === "route" ? NETLINK_ROUTE : NETLINK_NETFILTER);
      // Answers are there when the sending returns; the bound is for a kernel that forgets one.
      setOption(descriptor, SO_RCVTIMEO, Buffer.concat([wideBytes(1n), wideBytes(0n)]));
      return new OpenNetlink(descriptor, transfer);
    },
    netlinkOn: (descriptor) => new OpenNetlink(descriptor, transfer),
  };
}

interface Transfer {
  send(descriptor: number, bytes: Buffer): void;
  receive(descriptor: number): Buffer;
}

class OpenNetlink implements Netlink {
  readonly descriptor: number;
  readonly #transfer: Transfer;
  #number = 0;

  constructor(descriptor: number, transfer: Transfer) {
    this.descriptor = descriptor;
    this.#transfer = transfer;
  }

  change(messages: readonly Message[]): void {
    const first = this.#send(messages);
    const open = new Set(messages.flatMap(({ flags }, index) => ((flags & NEEDS_ACK) === 0 ? [] : [first + index])));
    let worst = 0;
    let failed = 0;
    while (open.size > 0) {
      for (const { number, error } of this.#receive()) {
        if (error !== null && error !== 0 && worst === 0) [worst, failed] = [error, number - first];
        open.delete(number);
        // What fails outside of a numbered message has failed as a whole.
        if (error !== null && error !== 0 && number < first) open.clear();
      }
    }
    if (worst !== 0) fail(`change the network of a sandbox, step ${failed}`, worst);
  }

  get(message: Message): Buffer | null {
    const asked = this.#send([message]);
    const answer = this.#receive().find(({ number }) => number === asked);
    if (answer === undefined || answer.error === ENOENT) return null;
    if (answer.error === null) return answer.body;
    return answer.error === 0 ? null : fail("ask about a connection", answer.error);
  }

  [Symbol.dispose](): void {
    closeSync(this.descriptor);
  }

  #send(messages: readonly Message[]): number {
    const first = this.#number + 1;
    this.#number += messages.length;
    this.#transfer.send(this.descriptor, encode(messages, first));
    return first;
  }

  #receive(): ReturnType<typeof decode> {
    return decode(this.#transfer.receive(this.descriptor));
  }
}

function fail(what: string, error: number): never {
  const code = getSystemErrorName(-error);
  throw Object.assign(new Error(`${what}: ${code}`), { code });
}

function numberBytes(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
}

function wideBytes(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(value);
  return bytes;
}

/** As bind takes it: the address of IPv4 stands before, that of IPv6 behind four bytes of flow. */
function socketAddress(domain: number, address: Buffer, port: number): Buffer {
  const bytes = Buffer.alloc(domain === AF_INET ? 16 : 28);
  bytes.writeUInt16LE(domain, 0);
  bytes.writeUInt16BE(port, 2);
  address.copy(bytes, domain === AF_INET ? 4 : 8);
  return bytes;
}

function openLibc() {
  const ffi = process.getBuiltinModule("node:ffi");
  if (ffi === undefined) return null;
  const define = () =>
    ffi.dlopen(null, {
      __errno_location: { return: "pointer", arguments: [] },
      bind: { return: "i32", arguments: ["i32", "pointer", "u32"] },
      listen: { return: "i32", arguments: ["i32", "i32"] },
      recv: { return: "i32", arguments: ["i32", "pointer", "u64", "i32"] },
      send: { return: "i32", arguments: ["i32", "pointer", "u64", "i32"] },
      setns: { return: "i32", arguments: ["i32", "i32"] },
      setsockopt: { return: "i32", arguments: ["i32", "i32", "i32", "pointer", "u32"] },
      socket: { return: "i32", arguments: ["i32", "i32", "i32"] },
      unshare: { return: "i32", arguments: ["i32"] },
    }).functions;
  try {
    return { ffi, functions: define() };
  } catch {
    return null;
  }
}
