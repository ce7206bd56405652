import { execFile } from "node:child_process";
import { getSystemErrorName, promisify } from "node:util";

/** The few things that need mount(2), which Node has no function for. All reject with an Error that names the path. */
export interface Mounting {
  /** How it is done, for `koine doctor`. */
  readonly how: "system call" | "mount command";
  /** An empty file system in memory on `target`. */
  tmpfs(target: string, options: string): Promise<void>;
  /** Later mounts below `target` appear wherever it was bound to. */
  share(target: string): Promise<void>;
  bind(source: string, target: string): Promise<void>;
  /** Takes rights from the bound `target`: never set-user-id programs or devices; no writing, where `readOnly`. */
  restrict(target: string, options: { readonly readOnly: boolean }): Promise<void>;
  /** Unmounts `target` at once for new users of it; programs that have files open there keep them. */
  detach(target: string): Promise<void>;
}

/** By system call where this Node has `node:ffi` (some 10 µs), else by the commands of util-linux (some milliseconds). */
export function openMounting(): Mounting {
  return bySystemCall() ?? byCommand();
}

/**
 * Has all file descriptors that this process has now closed in programs it starts, except those handed over on purpose. Node's own
 * are so already; what its parent left open to it are not, and would be open in every sandbox.
 * @returns whether it could be done
 */
export function keepDescriptors(): boolean {
  const ffi = process.getBuiltinModule("node:ffi");
  if (ffi === undefined) return false;
  try {
    const { syscall } = ffi.dlopen(null, {
      syscall: { return: "i64", arguments: ["i64", "i64", "i64", "i64"] },
    }).functions;
    return syscall(CLOSE_RANGE, 3n, 0xffff_ffffn, CLOSE_RANGE_CLOEXEC) === 0n;
  } catch {
    return false;
  }
}

/** The same number on all architectures; some C libraries have no function of that name. */
const CLOSE_RANGE = 436n;
const CLOSE_RANGE_CLOEXEC = 4n;

const MS_RDONLY = 1n;
const MS_NOSUID = 2n;
const MS_NODEV = 4n;
const MS_NOEXEC = 8n;
const MS_REMOUNT = 32n;
const MS_BIND = 4096n;
const MS_REC = 16_384n;
const MS_SHARED = 1_048_576n;
const MNT_DETACH = 2;
const EPERM = 1;
const EINVAL = 22;

/** null where `node:ffi` is missing or does not find what it needs in the C library. */
export function bySystemCall(): Mounting | null {
  const ffi = process.getBuiltinModule("node:ffi");
  if (ffi === undefined) return null;
  const define = () =>
    ffi.dlopen(null, {
      mount: { return: "i32", arguments: ["string", "string", "string", "u64", "string"] },
      umount2: { return: "i32", arguments: ["string", "i32"] },
      __errno_location: { return: "pointer", arguments: [] },
    }).functions;
  let libc: ReturnType<typeof define>;
  try {
    libc = define();
  } catch {
    return null;
  }
  /** 0 or the error's number. */
  const attempt = (result: number): number => (result === 0 ? 0 : ffi.getInt32(libc.__errno_location(), 0));
  const check = (what: string, error: number): void => {
    if (error !== 0) throw new Error(`${what}: ${getSystemErrorName(-error)}`);
  };
  const mount = (source: string, target: string, type: string, flags: bigint, options = ""): number =>
    attempt(libc.mount(source, target, type, flags, options));
  return {
    how: "system call",
    async tmpfs(target, options) {
      check(`mount a tmpfs on ${target}`, mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, options));
    },
    async share(target) {
      check(`share the mount ${target}`, mount("none", target, "", MS_SHARED));
    },
    async bind(source, target) {
      let error = mount(source, target, "", MS_BIND);
      // In a user namespace a folder with mounts below it can only be bound together with them.
      if (error === EINVAL) error = mount(source, target, "", MS_BIND | MS_REC);
      check(`bind ${source} to ${target}`, error);
    },
    async restrict(target, { readOnly }) {
      const flags = MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | (readOnly ? MS_RDONLY : 0n);
      let error = mount("none", target, "", flags);
      // A user namespace may not take `noexec` off what it was given.
      if (error === EPERM) error = mount("none", target, "", flags | MS_NOEXEC);
      check(`restrict the mount ${target}`, error);
    },
    async detach(target) {
      check(`unmount ${target}`, attempt(libc.umount2(target, MNT_DETACH)));
    },
  };
}

/** The same by `mount` and `umount`, found in the usual folders. */
export function byCommand(): Mounting {
  const execute = promisify(execFile);
  const run = async (command: string, ...args: string[]): Promise<void> => {
    await execute(command, args, { env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" } });
  };
  return {
    how: "mount command",
    tmpfs: (target, options) => run("mount", "-t", "tmpfs", "-o", `nosuid,nodev,${options}`, "tmpfs", target),
    share: (target) => run("mount", "--make-shared", target),
    bind: (source, target) => run("mount", "--bind", source, target),
    restrict: (target, { readOnly }) =>
      run("mount", "-o", `remount,bind,nosuid,nodev${readOnly ? ",ro" : ""}`, "none", target),
    detach: (target) => run("umount", "--lazy", target),
  };
}
