import { existsSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Clock, systemClock } from "../../core/clock.ts";
import { KoineError } from "../../core/errors.ts";
import type { Logger } from "../../core/telemetry.ts";
import { Cgroups } from "./cgroup.ts";
import { fillEtc } from "./etc.ts";
import { type Identities, isMachineRoot, openIdentities } from "./identity.ts";
import { Launches } from "./launches.ts";
import { type Machine, readMachine } from "./machine.ts";
import { MemoryWatch } from "./memory-watch.ts";
import { filterArchitecture, seccompFilter } from "./seccomp.ts";
import { firstReachable, Staging } from "./staging.ts";
import { openStarter } from "./start.ts";
import { keepDescriptors, openMounting } from "./syscalls.ts";

export interface ProcessDriverOptions {
  /** A folder for this driver alone; made when missing. */
  readonly directory: string;
  /** Names this platform on the machine; derived from its data directory, so that a restart has the same. Letters, digits and `-`. */
  readonly tag: string;
  /** Whether this process was started in a mount namespace of its own, where it may mount what nobody else sees. */
  readonly privateMounts: boolean;
  readonly logger: Logger;
  /** The path of `bwrap`, when it is not in one of the usual folders. */
  readonly bubblewrap?: string;
  readonly clock?: Clock;
  /** Launches that wait for their sandbox, each a process of less than a megabyte; none when absent. */
  readonly launchesAhead?: number;
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
  /** What of /proc must be covered where a sandbox has the platform's own user. */
  readonly coveredFiles: readonly string[];
  readonly filterFile: string | null;
  /** Whether nothing but their own file descriptors is open in sandboxes. */
  readonly descriptorsKept: boolean;
  readonly watch: MemoryWatch;
  readonly clock: Clock;
}

/** @throws KoineError `sandbox-failed` when bubblewrap is missing */
export async function openEquipment(options: ProcessDriverOptions): Promise<Equipment> {
  const machine = await readMachine(options.bubblewrap ?? null);
  if (machine === null) throw new KoineError("sandbox-failed", { detail: "bubblewrap (bwrap) is not installed" });
  await mkdir(options.directory, { recursive: true, mode: 0o711 });
  const mayBecome = machine.setpriv === null ? null : openIdentities(options.tag);
  const staging = options.privateMounts ? await openStaging(options, mayBecome !== null) : null;
  const etcFolder = join(staging?.directory ?? options.directory, "etc");
  await fillEtc(etcFolder);
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
    launches: new Launches({ starter, cgroups, identities, plan, ahead, clock }),
    etcFolder,
    coveredFiles: isMachineRoot() ? rootsFiles.filter((path) => existsSync(path)) : [],
    filterFile,
    descriptorsKept: keepDescriptors(),
    watch: new MemoryWatch(clock),
    clock,
  };
}

/** Root may write to these as their owner, for which it needs no capability, and so reach the whole machine. */
const rootsFiles = ["acpi", "bus", "fs", "irq", "mtrr", "scsi", "sys", "sysrq-trigger"].map((name) => `/proc/${name}`);

export async function closeEquipment({ cgroups, launches, staging, etcFolder }: Equipment): Promise<void> {
  await launches.close();
  cgroups.close();
  if (staging === null) await rm(etcFolder, { recursive: true, force: true });
  else await staging.close();
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
