import { existsSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Clock, systemClock } from "../../core/clock.ts";
import { KoineError } from "../../core/errors.ts";
import type { NetworkAccess } from "../../core/network.ts";
import type { Logger } from "../../core/telemetry.ts";
import { type InsideNetworks, openInsideNetworks } from "../inside-network.ts";
import { Cgroups } from "./cgroup.ts";
import { fillEtc } from "./etc.ts";
import { type Identities, type IdentityPart, isMachineRoot, openIdentities } from "./identity.ts";
import type { Masked } from "./launch.ts";
import { Launches } from "./launches.ts";
import { type Machine, readMachine } from "./machine.ts";
import { MemoryWatch } from "./memory-watch.ts";
import { type Networks, openNetworks } from "../network/networks.ts";
import { filterArchitecture, seccompFilter } from "./seccomp.ts";
import { firstReachable, Staging } from "./staging.ts";
import { openStarter } from "./start.ts";
import { keepDescriptors, openMounting } from "./syscalls.ts";

export interface ProcessDriverOptions {
  /** A folder for this driver alone; made when missing. */
  readonly directory: string;
  /** Names this platform on the machine; derived from its data directory, so that a restart has the same. Letters, digits and `-`. */
  readonly tag: string;
  /** What the ids of this platform's sandboxes are derived from, and which part of them is this driver's; absent: from `tag`, and all. */
  readonly identities?: { readonly tag: string; readonly part: IdentityPart };
  /** Whether this process was started in a mount namespace of its own, where it may mount what nobody else sees. */
  readonly privateMounts: boolean;
  readonly logger: Logger;
  /** The path of `bwrap`, when it is not in one of the usual folders. */
  readonly bubblewrap?: string;
  readonly clock?: Clock;
  /** Launches that wait for their sandbox, each a process of less than a megabyte; none when absent. */
  readonly launchesAhead?: number;
  /** What most sandboxes will have of the network: launches ahead are made for it. `host` when absent. */
  readonly networkAhead?: NetworkAccess;
}

/** Everything the driver found and set up on this machine. */
export interface Equipment {
  readonly machine: Machine;
  /** null: sources are bound where they are, and nothing can be attached later. */
  readonly staging: Staging | null;
  /** null: sandboxes have the kernel's user id of the platform. */
  readonly identities: Identities | null;
  readonly cgroups: Cgroups;
  readonly launches: Launches;
  readonly etcFolder: string;
  /** The machine's list of resolvers as it was at the start; null: it has none. */
  readonly resolversFile: string | null;
  /** Makes networks of their own for sandboxes. */
  readonly ownNetworks: Networks;
  /** What of /proc must be covered where a sandbox has the platform's own user. */
  readonly coveredFiles: readonly string[];
  readonly masked: Masked;
  readonly filterFile: string | null;
  /** Whether nothing but their own file descriptors is open in sandboxes. */
  readonly descriptorsKept: boolean;
  /** null where this Node cannot enter the networks of sandboxes. */
  readonly networks: InsideNetworks | null;
  readonly watch: MemoryWatch;
  readonly clock: Clock;
}

/** @throws KoineError `sandbox-failed` when bubblewrap is missing */
export async function openEquipment(options: ProcessDriverOptions): Promise<Equipment> {
  const machine = await readMachine(options.bubblewrap ?? null);
  if (machine === null) throw new KoineError("sandbox-failed", { detail: "bubblewrap (bwrap) is not installed" });
  await mkdir(options.directory, { recursive: true, mode: 0o711 });
  const mayBecome =
    machine.setpriv === null ? null : openIdentities(options.identities?.tag ?? options.tag, options.identities?.part);
  const staging = options.privateMounts ? await openStaging(options, mayBecome !== null) : null;
  const etcFolder = join(staging?.directory ?? options.directory, "etc");
  const resolversFile = await fillEtc(etcFolder);
  const ownNetworks = await openNetworks({ entering: machine.nsenter });
  const architecture = filterArchitecture(process.arch);
  const filterFile = architecture === null ? null : join(options.directory, "seccomp.bpf");
  if (architecture !== null && filterFile !== null) await writeFile(filterFile, seccompFilter(architecture));
  const clock = options.clock ?? systemClock;
  // Another user could not reach what lies in the platform's own folders, unless it is staged.
  const identities = staging === null ? null : mayBecome;
  const cgroups = Cgroups.open(options.tag);
  const starter = openStarter();
  const ahead = options.launchesAhead ?? 0;
  const plan = { machine, filterFile };
  return {
    machine,
    staging,
    identities,
    cgroups,
    launches: new Launches({
      starter,
      cgroups,
      identities,
      networks: ownNetworks,
      networkAhead: aheadOf(options, ownNetworks),
      plan,
      ahead,
      clock,
    }),
    etcFolder,
    resolversFile,
    ownNetworks,
    coveredFiles: isMachineRoot() ? rootsFiles.filter((path) => existsSync(path)) : [],
    masked: masked(),
    filterFile,
    descriptorsKept: keepDescriptors(),
    networks: openInsideNetworks(),
    watch: new MemoryWatch(clock),
    clock,
  };
}

/** The kernel's command line may hold secrets; the rest tells of other tenants' keys, timers and hardware, or of what was installed here. */
function masked(): Masked {
  const files = [
    "cmdline",
    "config.gz",
    "interrupts",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "latency_stats",
    "modules",
  ];
  const more = ["sched_debug", "schedstat", "softirqs", "timer_list", "vmallocinfo"];
  const folders = ["/proc/acpi", "/proc/asound", "/proc/scsi", "/usr/src", "/usr/local/etc", "/usr/local/src"];
  return {
    files: [...files, ...more].map((name) => `/proc/${name}`).filter((path) => existsSync(path)),
    folders: folders.filter((path) => existsSync(path)),
  };
}

/** Root may write to these as their owner, for which it needs no capability, and so reach the whole machine. */
const rootsFiles = ["acpi", "bus", "fs", "irq", "mtrr", "scsi", "sys", "sysrq-trigger"].map((name) => `/proc/${name}`);

/** What cannot be had is not made ahead: whoever asks for it is told why. */
function aheadOf({ networkAhead }: ProcessDriverOptions, { egress }: Networks): NetworkAccess {
  const wanted = networkAhead ?? { mode: "host", allow: [] };
  return wanted.mode === "egress" && !egress.had ? { mode: "none", allow: [] } : wanted;
}

export async function closeEquipment(equipment: Equipment): Promise<void> {
  const { cgroups, launches, staging, etcFolder, resolversFile, ownNetworks } = equipment;
  await launches.close();
  await ownNetworks.close();
  cgroups.close();
  if (staging !== null) return await staging.close();
  await rm(etcFolder, { recursive: true, force: true });
  if (resolversFile !== null) await rm(resolversFile, { force: true });
}

/** Where root may make folders, nobody else may, and everybody can look in. */
const rootsFolders = ["/run", "/var/lib", "/opt"];

async function openStaging(options: ProcessDriverOptions, foreignUser: boolean): Promise<Staging | null> {
  const own = join(options.directory, "staging");
  const directory = foreignUser
    ? await firstReachable([own, ...rootsFolders.map((folder) => `${folder}/koine-${options.tag}`)])
    : own;
  try {
    if (directory === null) throw new Error("no folder was found that other users can reach");
    return await Staging.open({ directory, mounting: openMounting(), foreignUser });
  } catch (thrown) {
    options.logger.log("warn", "code cannot be attached to running sandboxes: mounting failed", {
      error: String(thrown),
    });
    return null;
  }
}
