/** What an attack is given to aim at: things that the test made, all of them the machine's and none the attacker's. */
export interface Aims {
  /** A folder for what an attack makes. */
  readonly scratch: string;
  /** A file of the machine with a secret, readable for everybody. */
  readonly file: string;
  readonly folder: string;
  readonly dataDirectory: string;
  readonly platformPid: number;
  readonly platformPort: number;
  /** A server of the machine, on loopback. */
  readonly port: number;
  /** An instance of another function, by its number on the machine. */
  readonly neighbourPid: number;
  /** A process of the machine with a secret in its memory and in an open file, listening on a socket in a folder and on an abstract one. */
  readonly bystander: { readonly pid: number; readonly address: string; readonly descriptor: number };
  readonly socketPath: string;
  readonly abstractName: string;
  /** A program of the machine that runs as root, whoever starts it. */
  readonly setUserIdProgram: string;
  /** A file of a cgroup that only the machine's root may write to. */
  readonly cgroupFiles: readonly string[];
}

export interface Attempt {
  readonly language: "javascript" | "python";
  readonly attack: string;
  readonly args: readonly unknown[];
}

/** Who succeeds where nothing is isolated; `some kernels`: root, where the kernel has what is attacked. */
export type Succeeds = "everybody" | "root" | "some kernels";

export interface Attack {
  /** In the table of docs/security.md. */
  readonly what: string;
  readonly attempt: (aims: Aims) => Attempt;
  readonly without: Succeeds;
  /** What it must have got hold of to have succeeded. */
  readonly loot?: RegExp;
  /** A right that even root may lack, as its bit. */
  readonly capability?: number;
  readonly onlyOn?: NodeJS.Architecture;
  /** What comes of it in a container, where it need not fail there: it reaches nothing of others. */
  readonly inContainer?: string;
}

export interface AttackGroup {
  readonly title: string;
  readonly attacks: readonly Attack[];
}

/** What secrets of the tests look like; an attacker knows the form and looks for them. */
export const SECRET = "secret-of-the-[a-z]+-[0-9a-f]{16}";
const loot = new RegExp(SECRET);

const js = (attack: string, ...args: readonly unknown[]): Attempt => ({ language: "javascript", attack, args });
const python = (attack: string, ...args: readonly unknown[]): Attempt => ({ language: "python", attack, args });
/** By attack.c. */
const call = (...args: readonly unknown[]): Attempt => js("program", ...args.map(String));

const ENGINE = "the engine's profile decides";
const CLONE_NEWNS = 0x20000;
const CLONE_NEWUSER = 0x10000000;
const CAP_SYS_RESOURCE = 24;

const files: AttackGroup = {
  title: "Files of the machine and of other functions",
  attacks: [
    {
      what: "read a file of the machine that everybody may read",
      attempt: ({ file }) => js("read", file),
      without: "everybody",
      loot,
    },
    {
      what: "read it by a symbolic link of one's own",
      attempt: ({ file }) => js("symbolicLink", file),
      without: "everybody",
      loot,
    },
    {
      what: "hold on to it by a hard link",
      attempt: ({ file, folder }) => js("hardLink", file, `${folder}/hard-link`),
      without: "root",
    },
    {
      what: "read it through `/proc/PID/root` of the platform",
      attempt: ({ platformPid, file }) => js("read", `/proc/${platformPid}/root${file}`),
      without: "everybody",
      loot,
    },
    {
      what: "read it through `/proc/1/root`",
      attempt: ({ file }) => js("read", `/proc/1/root${file}`),
      without: "some kernels",
      loot,
    },
    {
      what: "read it by its handle instead of its path",
      attempt: ({ file, folder }) => call("file-handle", file, folder),
      without: "root",
    },
    {
      what: "write to the folder in which it is",
      attempt: ({ folder }) => js("create", `${folder}/new`),
      without: "everybody",
    },
    { what: "read the passwords' file", attempt: () => js("read", "/etc/shadow"), without: "root" },
    { what: "look into `/var`", attempt: () => js("list", "/var/lib"), without: "everybody" },
    { what: "look into `/home`", attempt: () => js("list", "/home"), without: "everybody" },
    { what: "look into root's home", attempt: () => js("list", "/root"), without: "root" },
    {
      what: "look into `/sys`",
      attempt: () => js("list", "/sys/kernel"),
      without: "everybody",
      inContainer: "succeeds; `/sys` is read-only",
    },
    {
      what: "look into debugfs or tracefs",
      attempt: () => js("read", "/sys/kernel/tracing/available_tracers"),
      without: "some kernels",
    },
    {
      what: "read the key of the secrets",
      attempt: ({ dataDirectory }) => js("read", `${dataDirectory}/secrets.key`),
      without: "everybody",
    },
    {
      what: "read other functions' code and variables in the data directory",
      attempt: ({ dataDirectory }) => js("search", dataDirectory, SECRET),
      without: "everybody",
      loot: /secret-of-the-code-/,
    },
    { what: "change its own code", attempt: () => js("changeOwnCode"), without: "everybody" },
    { what: "put a file beside its code", attempt: () => js("createBeside"), without: "everybody" },
    { what: "change the machine's programs", attempt: () => js("create", "/usr/bin/koine-attack"), without: "root" },
    { what: "change the machine's settings", attempt: () => js("create", "/etc/koine-attack"), without: "root" },
    { what: "open a disk or another device", attempt: () => js("devices"), without: "root" },
    { what: "make a device", attempt: ({ scratch }) => call("device", `${scratch}/device`), without: "root" },
  ],
};

const processes: AttackGroup = {
  title: "Other processes",
  attacks: [
    {
      what: "find a secret in the environments of processes",
      attempt: () => js("environments", SECRET),
      without: "everybody",
      loot: /secret-of-the-platform-/,
    },
    {
      what: "find a secret in what processes were started with",
      attempt: () => js("commands", SECRET),
      without: "everybody",
      loot,
    },
    {
      what: "find another function's secret in its memory",
      attempt: ({ neighbourPid }) => python("memory", [neighbourPid], SECRET),
      without: "everybody",
      loot: /secret-of-the-neighbour-/,
    },
    {
      what: "write to a process's memory by `/proc/PID/mem`",
      attempt: ({ bystander }) => call("memory", bystander.pid, bystander.address),
      without: "everybody",
      loot,
    },
    {
      what: "read a process's memory by `process_vm_readv`",
      attempt: ({ bystander }) => call("vm-read", bystander.pid, bystander.address),
      without: "everybody",
      loot,
    },
    {
      what: "take a process's open file by `pidfd_getfd`",
      attempt: ({ bystander }) => call("pidfd-getfd", bystander.pid, bystander.descriptor),
      without: "everybody",
      loot,
    },
    {
      what: "use `pidfd_getfd` at all",
      attempt: () => call("pidfd-getfd-own"),
      without: "everybody",
      inContainer: ENGINE,
    },
    { what: "trace a process", attempt: ({ bystander }) => call("ptrace", bystander.pid), without: "everybody" },
    { what: "use `ptrace` at all", attempt: () => call("ptrace-own"), without: "everybody", inContainer: ENGINE },
    {
      what: "look at the platform's open files",
      attempt: ({ platformPid }) => js("list", `/proc/${platformPid}/fd`),
      without: "everybody",
    },
    {
      what: "send a process a signal",
      attempt: ({ bystander }) => call("signal", bystander.pid),
      without: "everybody",
    },
    {
      what: "change a process's limits",
      attempt: ({ bystander }) => call("limits", bystander.pid),
      without: "everybody",
    },
    {
      what: "enter another's namespaces",
      attempt: ({ platformPid }) => call("setns", `/proc/${platformPid}/ns/mnt`),
      without: "root",
    },
    {
      what: "connect to a socket in a folder",
      attempt: ({ socketPath }) => python("connect", socketPath, false),
      without: "everybody",
    },
    {
      what: "connect to an abstract socket",
      attempt: ({ abstractName }) => python("connect", abstractName, true),
      without: "everybody",
    },
  ],
};

const rights: AttackGroup = {
  title: "Rights",
  attacks: [
    {
      what: "become root",
      attempt: () => call("become-root"),
      without: "root",
      inContainer: "succeeds where the image's user is root, without capabilities",
    },
    { what: "take a capability", attempt: () => call("capabilities"), without: "root" },
    {
      what: "become root by a set-user-id program of the machine",
      attempt: ({ setUserIdProgram }) => call("setuid-system", setUserIdProgram),
      without: "everybody",
    },
    {
      what: "become another by a set-user-id program of its own",
      attempt: ({ scratch }) => call("setuid-own", `${scratch}/set-user-id`),
      without: "root",
    },
    {
      what: "raise its own limits",
      attempt: () => call("raise-limit"),
      without: "root",
      capability: CAP_SYS_RESOURCE,
    },
    { what: "go before others at the processor", attempt: () => call("priority"), without: "root" },
    { what: "run in real time", attempt: () => call("real-time"), without: "root" },
    {
      what: "be spared when memory is short",
      attempt: () => call("oom-score"),
      without: "root",
      capability: CAP_SYS_RESOURCE,
    },
    {
      what: "use addresses that can be foreseen",
      attempt: () => call("personality"),
      without: "everybody",
      inContainer: ENGINE,
    },
  ],
};

const walls: AttackGroup = {
  title: "Mounts, roots and namespaces",
  attacks: [
    { what: "mount a file system", attempt: ({ scratch }) => call("mount", `${scratch}/mount`), without: "root" },
    { what: "mount one by the newer calls", attempt: () => call("fsopen"), without: "root" },
    { what: "copy the tree of mounts", attempt: () => call("open-tree"), without: "root" },
    {
      what: "change the root by `pivot_root`",
      attempt: ({ scratch }) => call("pivot-root", `${scratch}/pivot`),
      without: "root",
    },
    { what: "change the root by `chroot`", attempt: () => call("chroot", "/tmp"), without: "root" },
    {
      what: "make a user namespace by `unshare`",
      attempt: () => call("unshare", CLONE_NEWUSER),
      without: "everybody",
    },
    { what: "make a user namespace by `clone`", attempt: () => call("clone"), without: "everybody" },
    { what: "make a user namespace by `clone3`", attempt: () => call("clone3"), without: "everybody" },
    { what: "make a mount namespace", attempt: () => call("unshare", CLONE_NEWNS), without: "root" },
    { what: "use `setns` at all", attempt: () => call("setns-own"), without: "root" },
    {
      what: "mount the machine's cgroups",
      attempt: ({ scratch }) => call("mount-cgroup", `${scratch}/cgroup`),
      without: "root",
    },
    {
      what: "write to the machine's cgroups (`release_agent`, `cgroup.procs`)",
      attempt: ({ cgroupFiles }) => js("openOneOf", ...cgroupFiles),
      without: "root",
    },
    {
      what: "say what the kernel starts at a crash (`core_pattern`)",
      attempt: () => js("open", "/proc/sys/kernel/core_pattern", "w"),
      without: "root",
    },
    {
      what: "say what the kernel starts for a device (`uevent_helper`, `modprobe`)",
      attempt: () => js("openOneOf", "/sys/kernel/uevent_helper", "/proc/sys/kernel/modprobe"),
      without: "some kernels",
    },
    {
      what: "give the kernel orders by `/proc/sysrq-trigger`",
      attempt: () => js("open", "/proc/sysrq-trigger", "w"),
      without: "some kernels",
    },
    {
      what: "change the kernel's settings",
      attempt: () => js("open", "/proc/sys/vm/swappiness", "w"),
      without: "root",
    },
  ],
};

const kernel: AttackGroup = {
  title: "The kernel",
  attacks: [
    {
      what: "keep keys in the kernel (`add_key`)",
      attempt: () => call("keyring"),
      without: "some kernels",
      inContainer: ENGINE,
    },
    { what: "`bpf`", attempt: () => call("bpf"), without: "some kernels" },
    { what: "`perf_event_open`", attempt: () => call("perf"), without: "some kernels", inContainer: ENGINE },
    { what: "`io_uring`", attempt: () => call("io-uring"), without: "some kernels", inContainer: ENGINE },
    { what: "`userfaultfd`", attempt: () => call("userfaultfd"), without: "some kernels", inContainer: ENGINE },
    { what: "load a module", attempt: () => call("module"), without: "some kernels" },
    { what: "read the kernel's log", attempt: () => call("kernel-log"), without: "root" },
    {
      what: "type into a terminal (`TIOCSTI`)",
      attempt: () => call("typing"),
      without: "some kernels",
      inContainer: ENGINE,
    },
    { what: "set the machine's clock", attempt: () => call("time"), without: "root" },
    { what: "rename the machine", attempt: () => call("host-name"), without: "root" },
    { what: "reboot", attempt: () => call("reboot"), without: "root" },
    { what: "use the processor's ports", attempt: () => call("ports"), without: "some kernels" },
    {
      what: "call the kernel by the numbers of 32 bits",
      attempt: () => call("other-numbers"),
      without: "some kernels",
      inContainer: ENGINE,
      onlyOn: "x64",
    },
    { what: "raw sockets", attempt: () => call("socket", 2, 3, 255), without: "root" },
    { what: "sockets of packets", attempt: () => call("socket", 17, 3, 0), without: "some kernels" },
    {
      what: "sockets of the hypervisor (`vsock`)",
      attempt: () => call("socket", 40, 1, 0),
      without: "some kernels",
      inContainer: ENGINE,
    },
    {
      what: "sockets of the kernel's ciphers",
      attempt: () => call("socket", 38, 5, 0),
      without: "some kernels",
      inContainer: ENGINE,
    },
    {
      what: "netlink: the firewall",
      attempt: () => call("socket", 16, 3, 12),
      without: "some kernels",
      inContainer: ENGINE,
    },
    {
      what: "netlink: devices that come and go",
      attempt: () => call("socket", 16, 3, 15),
      without: "everybody",
      inContainer: ENGINE,
    },
    {
      what: "netlink: the audit",
      attempt: () => call("socket", 16, 3, 9),
      without: "some kernels",
      inContainer: ENGINE,
    },
  ],
};

const network: AttackGroup = {
  title: "The machine's network",
  attacks: [
    {
      what: "call a server on the machine's loopback",
      attempt: ({ port }) => js("connect", { host: "127.0.0.1", port }),
      without: "everybody",
      loot,
    },
    {
      what: "call it by another name of loopback",
      attempt: ({ port }) => js("connect", { host: "127.9.9.9", port }),
      without: "everybody",
      loot,
    },
    {
      what: "call it by its mapped IPv6 address",
      attempt: ({ port }) => js("connect", { host: "::ffff:127.0.0.1", port }),
      without: "everybody",
      loot,
    },
    {
      what: "call it by no address at all (`0.0.0.0`)",
      attempt: ({ port }) => js("connect", { host: "0.0.0.0", port }),
      without: "everybody",
      loot,
    },
    {
      what: "call the platform's own API with its rights",
      attempt: ({ platformPort }) => js("connect", { host: "127.0.0.1", port: platformPort }),
      without: "everybody",
      loot: /"neighbour"/,
    },
  ],
};

export const attackGroups: readonly AttackGroup[] = [files, processes, rights, walls, kernel, network];

/** The same attack as arguments of attack.c, for where there is no language; null where it takes one. */
export function asProgram({ attack, args }: Attempt): readonly string[] | null {
  const words = args.map(String);
  switch (attack) {
    case "program":
      return words;
    case "read":
    case "list":
    case "create":
    case "connect":
      return typeof args[0] === "object" ? null : [attack, ...words];
    case "open":
    case "openOneOf":
      return ["open-one-of", ...words.filter((word) => word.startsWith("/"))];
    default:
      return null;
  }
}

const WITHOUT: Readonly<Record<Succeeds, string>> = {
  everybody: "succeeds",
  root: "succeeds as root",
  "some kernels": "succeeds where the kernel has it and lets this user",
};

/** Any aims: the table tells only which attacks there are. */
const anyAims: Aims = {
  scratch: "/scratch",
  file: "/file",
  folder: "/folder",
  dataDirectory: "/data",
  platformPid: 1,
  platformPort: 1,
  port: 1,
  neighbourPid: 1,
  bystander: { pid: 1, address: "0x1", descriptor: 1 },
  socketPath: "/socket",
  abstractName: "name",
  setUserIdProgram: "/program",
  cgroupFiles: ["/cgroup"],
};

/** The page of docs/ that says what was tried against which level, and what came of it; the tests hold it to that. */
export function attacksPage(): string {
  const sections = attackGroups.map(({ title, attacks }) => {
    const rows = attacks.map(({ what, attempt, without, inContainer }) => {
      const contained = asProgram(attempt(anyAims)) === null ? "not tried" : (inContainer ?? "fails");
      return `| ${what} | ${WITHOUT[without]} | fails | fails | ${contained} |`;
    });
    return [
      `## ${title}`,
      "",
      "| Attack | `--sandbox none` | `process`, as root | `process`, as an ordinary user | container |",
      "| --- | --- | --- | --- | --- |",
      ...rows,
    ].join("\n");
  });
  return `# Attacks

Generated from \`test/isolation/attacks.ts\` by \`npm run docs\`; edit the source instead.

What functions try in the project's own tests, through the whole platform, in each kind of [sandbox](security.md#sandboxes): every attack is shown to succeed where nothing
isolates, so that what stops it is the sandbox. The mode of the network is [\`egress\`](security.md#network), that of containers \`none\`. "The engine's profile decides": what is tried reaches
nothing of others, and engines differ in whether they allow it.

Tried besides, by tests beside this table: floods and bombs of every kind ([limits](limits.md)), forged [frames](frames.md), what one function leaves behind for the next, and what each mode of the network
blocks.

${sections.join("\n\n")}
`;
}
