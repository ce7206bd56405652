import { constants } from "node:os";

/** Architectures that a filter can be made for; on others sandboxes run without one. */
export type FilterArchitecture = "x64" | "arm64";

/**
 * The first-level system call filter as a classic BPF program, in the form that `bwrap --seccomp FD` reads. It refuses what a
 * function never needs and what has opened ways out of sandboxes before; everything else passes.
 *
 * Known caveats: a list of what is refused ages, hence calls newer than the newest known one answer ENOSYS. Arguments behind
 * pointers cannot be seen by a filter, hence clone3 answers ENOSYS, which makes C libraries fall back to clone.
 */
export function seccompFilter(architecture: FilterArchitecture): Buffer {
  const column = architecture === "x64" ? 0 : 1;
  const refused = Object.values(refusedCalls)
    .map((numbers) => numbers[column])
    .filter((number) => number !== NONE);
  return assemble([
    load(OFFSET_ARCHITECTURE),
    { jump: "equal", value: AUDIT_ARCHITECTURE[architecture], no: "kill" },
    load(OFFSET_NUMBER),
    // The x32 calls of x86_64 have numbers of their own above this bit and would pass by the list below.
    ...(architecture === "x64" ? [{ jump: "at-least", value: X32_BIT, yes: "kill" } as const] : []),
    { jump: "at-least", value: NEWEST_CALL + 1, yes: "unknown" },
    { jump: "equal", value: CLONE3, yes: "unknown" },
    { jump: "equal", value: architecture === "x64" ? 56 : 220, yes: "clone" },
    { jump: "equal", value: architecture === "x64" ? 16 : 29, yes: "ioctl" },
    { jump: "equal", value: architecture === "x64" ? 41 : 198, yes: "socket" },
    { jump: "equal", value: architecture === "x64" ? 135 : 92, yes: "personality" },
    ...refused.map((number) => ({ jump: "equal", value: number, yes: "refuse" }) as const),
    { answer: ALLOW },
    { label: "clone" },
    load(OFFSET_ARGUMENT_0),
    { jump: "any-bit", value: CLONE_NEW_ANY, yes: "refuse", no: "allow" },
    { label: "ioctl" },
    load(OFFSET_ARGUMENT_1),
    // Both put characters into a terminal's input as if they had been typed.
    { jump: "equal", value: TIOCSTI, yes: "refuse" },
    { jump: "equal", value: TIOCLINUX, yes: "refuse", no: "allow" },
    { label: "socket" },
    load(OFFSET_ARGUMENT_0),
    { jump: "equal", value: AF_UNIX, yes: "allow" },
    { jump: "equal", value: AF_NETLINK, yes: "netlink" },
    { jump: "equal", value: AF_INET, yes: "inet" },
    // Packets, the machine's hypervisor, the kernel's ciphers and the like: a function needs none of them.
    { jump: "equal", value: AF_INET6, yes: "inet", no: "no-family" },
    { label: "inet" },
    load(OFFSET_ARGUMENT_1),
    { and: SOCKET_TYPE_MASK },
    { jump: "at-least", value: SOCK_RAW, yes: "refuse", no: "allow" },
    { label: "netlink" },
    load(OFFSET_ARGUMENT_2),
    // Interfaces and routes can be read, which C libraries do; nothing else is there.
    { jump: "equal", value: NETLINK_ROUTE, yes: "allow", no: "no-family" },
    { label: "personality" },
    load(OFFSET_ARGUMENT_0),
    { jump: "equal", value: PERSONALITY_LINUX, yes: "allow" },
    { jump: "equal", value: PERSONALITY_ASK, yes: "allow", no: "refuse" },
    { label: "no-family" },
    { answer: ERRNO | constants.errno.EAFNOSUPPORT },
    { label: "allow" },
    { answer: ALLOW },
    { label: "refuse" },
    { answer: ERRNO | constants.errno.EPERM },
    { label: "unknown" },
    { answer: ERRNO | constants.errno.ENOSYS },
    { label: "kill" },
    { answer: KILL_PROCESS },
  ]);
}

export function filterArchitecture(architecture: string): FilterArchitecture | null {
  return architecture === "x64" || architecture === "arm64" ? architecture : null;
}

const OFFSET_NUMBER = 0;
const OFFSET_ARCHITECTURE = 4;
const OFFSET_ARGUMENT_0 = 16;
const OFFSET_ARGUMENT_1 = 24;
const OFFSET_ARGUMENT_2 = 32;
const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const AF_NETLINK = 16;
const NETLINK_ROUTE = 0;
/** The type without its flags. */
const SOCKET_TYPE_MASK = 0xf;
/** It and all types above: raw, reliable datagrams, sequenced and whole packets. */
const SOCK_RAW = 3;
const PERSONALITY_LINUX = 0;
const PERSONALITY_ASK = 0xffff_ffff;
const AUDIT_ARCHITECTURE = { x64: 0xc000003e, arm64: 0xc00000b7 } as const;
const X32_BIT = 0x40000000;
const ALLOW = 0x7fff0000;
const ERRNO = 0x00050000;
const KILL_PROCESS = 0x80000000;
/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET together. */
const CLONE_NEW_ANY = 0x7e020000;
const CLONE3 = 435;
const TIOCSTI = 0x5412;
const TIOCLINUX = 0x541c;
/** file_setattr of Linux 6.17. */
const NEWEST_CALL = 469;
const NONE = -1;

/** Numbers on x86_64 and arm64. */
const refusedCalls: Readonly<Record<string, readonly [number, number]>> = {
  // Looking into or steering other processes
  ptrace: [101, 117],
  process_vm_readv: [310, 270],
  process_vm_writev: [311, 271],
  process_madvise: [440, 440],
  kcmp: [312, 272],
  pidfd_getfd: [438, 438],
  // Mounts, roots and namespaces
  mount: [165, 40],
  umount2: [166, 39],
  pivot_root: [155, 41],
  chroot: [161, 51],
  open_tree: [428, 428],
  open_tree_attr: [467, 467],
  move_mount: [429, 429],
  fsopen: [430, 430],
  fsconfig: [431, 431],
  fsmount: [432, 432],
  fspick: [433, 433],
  mount_setattr: [442, 442],
  unshare: [272, 97],
  setns: [308, 268],
  name_to_handle_at: [303, 264],
  open_by_handle_at: [304, 265],
  // Large parts of the kernel that functions do not need
  bpf: [321, 280],
  perf_event_open: [298, 241],
  userfaultfd: [323, 282],
  io_uring_setup: [425, 425],
  io_uring_enter: [426, 426],
  io_uring_register: [427, 427],
  fanotify_init: [300, 262],
  keyctl: [250, 219],
  add_key: [248, 217],
  request_key: [249, 218],
  lookup_dcookie: [212, 18],
  modify_ldt: [154, NONE],
  uselib: [134, NONE],
  ustat: [136, NONE],
  sysfs: [139, NONE],
  _sysctl: [156, NONE],
  nfsservctl: [180, 42],
  vserver: [236, NONE],
  statmount: [457, 457],
  listmount: [458, 458],
  // The machine as a whole
  reboot: [169, 142],
  kexec_load: [246, 104],
  kexec_file_load: [320, 294],
  init_module: [175, 105],
  finit_module: [313, 273],
  delete_module: [176, 106],
  create_module: [174, NONE],
  query_module: [178, NONE],
  get_kernel_syms: [177, NONE],
  swapon: [167, 224],
  swapoff: [168, 225],
  acct: [163, 89],
  quotactl: [179, 60],
  quotactl_fd: [443, 443],
  syslog: [103, 116],
  vhangup: [153, 58],
  iopl: [172, NONE],
  ioperm: [173, NONE],
  sethostname: [170, 161],
  setdomainname: [171, 162],
  settimeofday: [164, 170],
  clock_settime: [227, 112],
  clock_adjtime: [305, 266],
  adjtimex: [159, 171],
  move_pages: [279, 239],
  migrate_pages: [256, 238],
  mbind: [237, 235],
  set_mempolicy: [238, 237],
  get_mempolicy: [239, 236],
  set_mempolicy_home_node: [450, 450],
};

type Jump = "equal" | "at-least" | "any-bit";
type Line =
  | { readonly load: number }
  | { readonly jump: Jump; readonly value: number; readonly yes?: string; readonly no?: string }
  | { readonly and: number }
  | { readonly answer: number }
  | { readonly label: string };

const load = (offset: number): Line => ({ load: offset });
const jumpCode = { equal: 0x15, "at-least": 0x35, "any-bit": 0x45 } as const satisfies Record<Jump, number>;
const LOAD_WORD = 0x20;
const AND = 0x54;
const RETURN = 0x06;

/** Labels become forward jumps, counted in instructions; a jump side without a label goes on with the next line. */
function assemble(lines: readonly Line[]): Buffer {
  const positions = new Map<string, number>();
  let count = 0;
  for (const line of lines) {
    if ("label" in line) positions.set(line.label, count);
    else count++;
  }
  const program = Buffer.alloc(count * 8);
  let at = 0;
  const distance = (label: string | undefined): number => {
    if (label === undefined) return 0;
    const forward = (positions.get(label) ?? -1) - at - 1;
    if (forward >= 0 && forward <= 255) return forward;
    // Backward or too far: classic BPF knows neither.
    throw new RangeError(`a filter cannot jump ${forward} instructions to '${label}'`);
  };
  for (const line of lines) {
    if ("label" in line) continue;
    const jump = "jump" in line ? line : null;
    const other = "load" in line ? LOAD_WORD : "and" in line ? AND : RETURN;
    const code = jump !== null ? jumpCode[jump.jump] : other;
    const operand = operandOf(line);
    program.writeUInt16LE(code, at * 8);
    program.writeUInt8(distance(jump?.yes), at * 8 + 2);
    program.writeUInt8(distance(jump?.no), at * 8 + 3);
    program.writeUInt32LE(operand >>> 0, at * 8 + 4);
    at++;
  }
  return program;
}

function operandOf(line: Exclude<Line, { readonly label: string }>): number {
  if ("load" in line) return line.load;
  if ("and" in line) return line.and;
  return "answer" in line ? line.answer : line.value;
}
