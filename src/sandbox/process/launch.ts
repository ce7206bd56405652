import { KoineError } from "../../core/errors.ts";
import type { Mount, SandboxRequest } from "../sandbox.ts";
import { INSIDE_HOSTNAME, INSIDE_ID } from "./etc.ts";
import type { Machine } from "./machine.ts";

/** What is known of a sandbox before it is known what for. */
export interface LaunchPlan {
  readonly machine: Machine;
  /** The kernel's user id to become; null: stay who we are. */
  readonly userId: number | null;
  /** Files of cgroups to join. */
  readonly joinFiles: readonly string[];
  /** The system call filter; null where there is none for this architecture. */
  readonly filterFile: string | null;
  /** The network namespace to enter; null: stay in the machine's. */
  readonly networkPath: string | null;
}

export interface Masked {
  readonly files: readonly string[];
  readonly folders: readonly string[];
}

export interface SandboxPlan {
  readonly machine: Machine;
  readonly request: SandboxRequest;
  /** The folder that becomes `/` and holds all mount points; null: bubblewrap makes one in memory. */
  readonly rootFolder: string | null;
  readonly etcFolder: string;
  /** The machine's own list of resolvers, for sandboxes that share its network; null: it has none. */
  readonly resolversFile: string | null;
  /** Whether it was started in a network namespace of its own. */
  readonly hasOwnNetwork: boolean;
  /** Those of the request, with sources that the sandbox's user can reach. */
  readonly mounts: readonly Mount[];
  readonly filterFile: string | null;
  /** Files below /proc that this user could write to although it has no capabilities; they become read-only. */
  readonly covered: readonly string[];
  /** What of /proc and /usr tells of the machine and is of no use to a function. */
  readonly masked: Masked;
  /** Limits the processes by RLIMIT_NPROC, which counts within the sandbox's user namespace; for where no cgroup does. */
  readonly limitPidsByUser: boolean;
}

/** File descriptors of the launched process. */
export const launchDescriptors = {
  channel: 3,
  /** Says `ready`, or what is wrong, when the sandbox stands and the command is about to be executed. */
  status: 4,
  /** Takes bubblewrap's arguments, which therefore no `ps` shows. */
  arguments: 5,
  /** Open as long as bubblewrap runs; nothing inside has it. */
  lifeline: 6,
  filter: 7,
} as const;

const { channel, status, arguments: argumentsFd, lifeline, filter } = launchDescriptors;

/** Runs outside: nothing of the sandbox exists before it is a member of its cgroups. */
const OUTER = `cd /; while [ "$1" != -- ]; do echo 0 >"$1" || exit 125; shift; done; shift; exec "$@"`;
const OUTER_WITH_FILTER = `filter=$1; shift; exec ${filter}<"$filter"; ${OUTER}`;
/** What the shell inside executes comes by this variable: a command line would have to be known from the start. */
const SCRIPT_VARIABLE = "KOINE_START";
const INNER = `eval "unset ${SCRIPT_VARIABLE}; $${SCRIPT_VARIABLE}"`;

/**
 * The chain of programs, each replacing the one before: shell (join cgroups) → nsenter (its network, an unprivileged user) or, where it has the
 * machine's network, setpriv → bubblewrap (namespaces, root, filter) → shell (resource limits, report) → the command. Bubblewrap waits for its arguments, so the chain may
 * begin before it is known what for.
 */
export function planLaunch(plan: LaunchPlan): { readonly file: string; readonly args: readonly string[] } {
  const { machine } = plan;
  const args = [
    "-c",
    plan.filterFile === null ? OUTER : OUTER_WITH_FILTER,
    "koine",
    ...(plan.filterFile === null ? [] : [plan.filterFile]),
    ...plan.joinFiles,
    "--",
    ...enterAndBecome(plan),
    machine.bubblewrap,
    "--args",
    String(argumentsFd),
    "--",
    "/bin/sh",
    "-c",
    INNER,
  ];
  return { file: machine.shell, args };
}

/** nsenter becomes another user as well, with no groups but that user's own: one program less. */
function enterAndBecome({ machine, networkPath, userId }: LaunchPlan): string[] {
  if (networkPath !== null && machine.nsenter !== null) {
    const become = userId === null ? [] : [`--setgid=${userId}`, `--setuid=${userId}`];
    return [machine.nsenter, `--net=${networkPath}`, ...become, "--"];
  }
  if (userId === null || machine.setpriv === null) return [];
  return [machine.setpriv, `--reuid=${userId}`, `--regid=${userId}`, "--clear-groups", "--"];
}

/**
 * What is written to the descriptor `arguments`: from then on the sandbox is made.
 * @throws KoineError `sandbox-failed` for what no argument can hold
 */
export function sandboxArguments(plan: SandboxPlan): Buffer {
  const { request } = plan;
  const words = [
    ...namespaces(plan),
    ...root(plan),
    ...devices(plan),
    ...plan.mounts.flatMap(({ source, target, writable }) => [writable ? "--bind" : "--ro-bind", source, target]),
    // Only now: mount points had to be made in it.
    ...(plan.rootFolder === null ? ["--remount-ro", "/"] : []),
    ...environment(request),
    "--setenv",
    SCRIPT_VARIABLE,
    innerScript(plan),
    "--chdir",
    request.cwd ?? "/",
    ...(plan.filterFile === null ? [] : ["--seccomp", String(filter)]),
    "--json-status-fd",
    String(lifeline),
  ];
  // A zero byte would begin another argument, of the sender's choice.
  if (words.some((word) => word.includes("\0"))) {
    throw new KoineError("sandbox-failed", { detail: "a path or variable of it contains a zero byte" });
  }
  return Buffer.from(words.map((word) => `${word}\0`).join(""));
}

function namespaces({ request, hasOwnNetwork }: SandboxPlan): string[] {
  return [
    ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup"],
    request.network === "none" && !hasOwnNetwork ? ["--unshare-net"] : [],
    ["--uid", String(INSIDE_ID), "--gid", String(INSIDE_ID)],
    ["--hostname", INSIDE_HOSTNAME],
    ["--new-session", "--die-with-parent"],
    ["--cap-drop", "ALL"],
  ].flat();
}

function root({ machine, rootFolder, etcFolder, resolversFile, request }: SandboxPlan): string[] {
  const own = machine.systemFolders.map((folder) => {
    if (folder.kind === "folder") return ["--ro-bind", folder.path, folder.path];
    return rootFolder === null ? ["--symlink", folder.to, folder.path] : [];
  });
  return [
    rootFolder === null ? [] : ["--ro-bind", rootFolder, "/"],
    ["--ro-bind", "/usr", "/usr"],
    ...own,
    ["--ro-bind", etcFolder, "/etc"],
    request.network === "host" && resolversFile !== null ? ["--ro-bind", resolversFile, "/etc/resolv.conf"] : [],
  ].flat();
}

const SMALLEST_BYTES = 4_096;
const SHARED_MEMORY_BYTES_MAX = 64 * 1024 * 1024;

function devices({ machine, request, covered, masked }: SandboxPlan): string[] {
  const { tmpBytesMax } = request.limits;
  const size = (bytes: number): string[] => (machine.limitsTmp ? ["--size", String(bytes)] : []);
  return [
    ["--proc", "/proc", ...covered.flatMap((path) => ["--ro-bind", path, path])],
    masked.files.flatMap((path) => ["--ro-bind", "/dev/null", path]),
    masked.folders.flatMap((path) => [
      "--perms",
      "0555",
      ...size(SMALLEST_BYTES),
      "--tmpfs",
      path,
      "--remount-ro",
      path,
    ]),
    ["--dev", "/dev"],
    // /dev itself is a file system in memory without a limit: only what programs must write to stays writable.
    [...size(Math.min(tmpBytesMax, SHARED_MEMORY_BYTES_MAX)), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"],
    ["--perms", "1777", ...size(tmpBytesMax), "--tmpfs", "/tmp"],
  ].flat();
}

function environment(request: SandboxRequest): string[] {
  const variables = { PATH: "/usr/local/bin:/usr/bin:/bin", HOME: "/tmp", TMPDIR: "/tmp", ...request.environment };
  return ["--clearenv", ...Object.entries(variables).flatMap(([name, value]) => ["--setenv", name, value])];
}

/** Bytes of the unit in which `ulimit -f` counts. */
const FILE_BLOCK_BYTES = 512;

function innerScript({ request, limitPidsByUser }: SandboxPlan): string {
  const { openFilesMax, fileBytesMax, pidsMax } = request.limits;
  return [
    "ulimit -c 0",
    // A machine may allow less than what is asked for, never more.
    `ulimit -n ${openFilesMax} 2>/dev/null`,
    `ulimit -f ${Math.ceil(fileBytesMax / FILE_BLOCK_BYTES)} 2>/dev/null`,
    // bash says -u, dash says -p; two more for bubblewrap and this shell's place.
    ...(limitPidsByUser ? [`ulimit -u ${pidsMax + 1} 2>/dev/null || ulimit -p ${pidsMax + 1} 2>/dev/null`] : []),
    // When the whole machine is short of memory, functions go before the platform.
    "echo 500 >/proc/self/oom_score_adj 2>/dev/null",
    `set -- ${request.command.map(quoted).join(" ")}`,
    `if [ ! -x "$1" ]; then echo "there is no program $1 inside" >&${status}; exit 127; fi`,
    `echo ready >&${status}`,
    ...(request.held === true ? [`read -r KOINE_BEGIN <&${channel}`, "unset KOINE_BEGIN", `exec ${channel}<&-`] : []),
    `exec "$@" ${status}>&-`,
  ].join("; ");
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
