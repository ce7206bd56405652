import { closeSync, constants, openSync, readdirSync, readFileSync, rmdirSync, writeSync } from "node:fs";
import { mkdir, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { KoineError } from "../../core/errors.ts";
import { send } from "../tree.ts";
import type { SandboxLimits } from "../sandbox.ts";
import { cgroupPositions, claimControllers, type Controller, type ControllerBase } from "./cgroup-position.ts";

/** Processes of bubblewrap itself, which are in the sandbox's cgroup too. */
export const LAUNCHER_PIDS = 2;
const CPU_PERIOD_US = 100_000;
/** As much memory as goes with one core in a sandbox without a share of its own: what it weighs where others want the processor too. */
const BYTES_PER_CORE = 1024 * 1024 * 1024;
/** Weights of sandboxes differ by no more than this, whatever their memory. */
const WEIGHT_CORES_MIN = 0.125;
const WEIGHT_CORES_MAX = 8;
/** What one core weighs: the kernel's defaults. */
const PARTS_PER_CORE = { 1: 1_024, 2: 100 } as const;
/** A sandbox in the background gets this fraction of what it gets else. */
const BACKGROUND_PARTS = 32;

/**
 * The cgroups of one platform: one for each sandbox, in as many hierarchies as it takes. Versions 1 and 2 differ in file names
 * and in whether the controllers share a folder; nobody outside of this file knows which it is.
 */
export class Cgroups {
  readonly #bases: ReadonlyMap<Controller, ControllerBase>;
  #removals: Promise<unknown> = Promise.resolve();

  constructor(bases: ReadonlyMap<Controller, ControllerBase>) {
    this.#bases = bases;
  }

  /** @param tag names the platform: cgroups of a killed one are found again by it */
  static open(tag: string): Cgroups {
    try {
      const read = (name: string): string => readFileSync(`/proc/self/${name}`, "utf8");
      return new Cgroups(claimControllers(cgroupPositions(read("mountinfo"), read("cgroup")), `koine-${tag}`));
    } catch {
      return new Cgroups(new Map());
    }
  }

  has(controller: Controller): boolean {
    return this.#bases.has(controller);
  }

  /** `version 1`, for people; null where the controller is not to be had. */
  describe(controller: Controller): string | null {
    const base = this.#bases.get(controller);
    return base === undefined ? null : `cgroup version ${base.version}`;
  }

  /** @throws KoineError `sandbox-failed` */
  async create(id: string, limits: SandboxLimits): Promise<Cgroup> {
    const cgroup = new Cgroup(this.#bases, id, (removal) => this.#inTurn(removal));
    try {
      await cgroup.make();
      cgroup.setLimits(limits);
      return cgroup;
    } catch (thrown) {
      await cgroup.tryRemove();
      throw new KoineError("sandbox-failed", { detail: "its cgroup could not be made" }, { cause: thrown });
    }
  }

  /** Ends and removes what an earlier platform of the same tag left, all but `own`; answers how many sandboxes that were. */
  async sweep(own: ReadonlySet<string>): Promise<number> {
    const folders = new Set([...this.#bases.values()].map((base) => base.folder));
    const ids = new Set([...folders].flatMap((folder) => subfolders(folder))).difference(own);
    for (const id of ids) await new Cgroup(this.#bases, id).destroy();
    return ids.size;
  }

  /** Removals may wait long for the kernel: one at a time leaves the other threads of the pool to others. */
  #inTurn(removal: () => Promise<boolean>): Promise<boolean> {
    const removed = this.#removals.then(removal);
    this.#removals = removed.catch(() => {});
    return removed;
  }

  close(): void {
    for (const base of new Set([...this.#bases.values()].map(({ folder }) => folder))) attempt(() => rmdirSync(base));
  }
}

/**
 * Making and removing folders waits for a lock of the kernel that those who fork and end without pause hold for most of a second: never on
 * the thread that serves.
 */
export class Cgroup {
  readonly #folders: ReadonlyMap<Controller, ControllerBase>;
  readonly #paths: readonly string[];
  #limits: SandboxLimits | null = null;
  #share: "background" | "full" = "full";
  #removed = false;
  readonly #inTurn: (removal: () => Promise<boolean>) => Promise<boolean>;

  constructor(
    bases: ReadonlyMap<Controller, ControllerBase>,
    id: string,
    inTurn: (removal: () => Promise<boolean>) => Promise<boolean> = (removal) => removal(),
  ) {
    this.#inTurn = inTurn;
    this.#folders = new Map(
      [...bases].map(([controller, base]) => [controller, { ...base, folder: join(base.folder, id) }]),
    );
    this.#paths = [...new Set([...this.#folders.values()].map((place) => place.folder))];
  }

  /** Files that a process writes 0 to, to become a member. */
  get joinFiles(): readonly string[] {
    return this.#paths.map((folder) => join(folder, "cgroup.procs"));
  }

  async make(): Promise<void> {
    await Promise.all(this.#paths.map((path) => mkdir(path)));
  }

  /** Writes only what changes. @throws Error when the kernel does not take one of them */
  setLimits(limits: SandboxLimits): void {
    const before = this.#limits;
    // Whatever fails below, nothing is known then.
    this.#limits = null;
    if (before?.memoryBytesMax !== limits.memoryBytesMax) this.#setMemory(limits.memoryBytesMax);
    if (before?.pidsMax !== limits.pidsMax) this.#write("pids", "pids.max", String(limits.pidsMax + LAUNCHER_PIDS));
    if (before === null || before.cpuCores !== limits.cpuCores) this.#setQuota(limits);
    this.#limits = limits;
    if (before === null || weightOf(before) !== weightOf(limits)) this.#setWeight();
  }

  /** How much of a contended processor it gets beside the other sandboxes. */
  setShare(share: "background" | "full"): void {
    this.#share = share;
    this.#setWeight();
  }

  #setWeight(): void {
    const version = this.#version("cpu");
    if (version === null) return;
    const cores = weightOf(this.#limits) / (this.#share === "background" ? BACKGROUND_PARTS : 1);
    const parts = Math.max(2, Math.ceil(cores * PARTS_PER_CORE[version]));
    attempt(() => this.#write("cpu", version === 2 ? "cpu.weight" : "cpu.shares", String(parts)));
  }

  #setQuota(limits: SandboxLimits): void {
    const quotaUs = limits.cpuCores === null ? null : Math.max(1_000, Math.round(limits.cpuCores * CPU_PERIOD_US));
    if (this.#version("cpu") === 2) this.#write("cpu", "cpu.max", `${quotaUs ?? "max"} ${CPU_PERIOD_US}`);
    else this.#write("cpu", "cpu.cfs_quota_us", String(quotaUs ?? -1));
  }

  memory(): { readonly currentBytes: number; readonly peakBytes: number } | null {
    const isV2 = this.#version("memory") === 2;
    const current = Number(this.#read("memory", isV2 ? "memory.current" : "memory.usage_in_bytes") ?? Number.NaN);
    // memory.peak is younger than version 2 itself.
    const peak = Number(this.#read("memory", isV2 ? "memory.peak" : "memory.max_usage_in_bytes") ?? current);
    return Number.isNaN(current) ? null : { currentBytes: current, peakBytes: Math.max(current, peak) };
  }

  /** Processes that the kernel ended for lack of memory. */
  outOfMemoryKills(): number {
    const file = this.#version("memory") === 2 ? "memory.events" : "memory.oom_control";
    return field(this.#read("memory", file), "oom_kill");
  }

  /** Forks that the limit refused. */
  refusedForks(): number {
    return field(this.#read("pids", "pids.events"), "max");
  }

  async freeze(): Promise<void> {
    if (this.#version("freezer") === 2) {
      this.#write("freezer", "cgroup.freeze", "1");
      await this.#until(() => field(this.#read("freezer", "cgroup.events"), "frozen") === 1);
    } else {
      this.#write("freezer", "freezer.state", "FROZEN");
      await this.#until(() => this.#read("freezer", "freezer.state")?.trim() !== "FREEZING");
    }
  }

  thaw(): void {
    if (this.#version("freezer") === 2) this.#write("freezer", "cgroup.freeze", "0");
    else this.#write("freezer", "freezer.state", "THAWED");
  }

  members(): number[] {
    const pids = new Set<number>();
    for (const file of this.joinFiles) {
      for (const line of contentOf(file)?.trim().split("\n") ?? []) if (line !== "") pids.add(Number(line));
    }
    return [...pids];
  }

  /** Ends all members; they are gone when `destroy` resolves, not yet when this returns. */
  kill(): void {
    // In version 1 what is frozen does not notice that it was killed.
    if (this.#version("freezer") === 1) attempt(() => this.thaw());
    for (const path of this.#paths) attempt(() => put(join(path, "cgroup.kill"), "1"));
    for (const pid of this.members()) send(pid, "SIGKILL");
  }

  /** Kills until nobody is left, then removes the folders. */
  async destroy(): Promise<void> {
    await this.#until(async () => {
      if (this.members().length === 0) return await this.#inTurn(() => this.tryRemove());
      this.kill();
      return false;
    });
    this.#removed = true;
  }

  async tryRemove(): Promise<boolean> {
    let gone = true;
    for (const path of this.#paths) {
      try {
        await rmdir(path);
      } catch (thrown) {
        gone &&= thrown instanceof Error && "code" in thrown && thrown.code === "ENOENT";
      }
    }
    return gone;
  }

  #setMemory(bytes: number): void {
    if (this.#version("memory") === 2) {
      this.#write("memory", "memory.max", String(bytes));
      attempt(() => this.#write("memory", "memory.swap.max", "0"));
      // One process without the others is no use: all go together.
      attempt(() => this.#write("memory", "memory.oom.group", "1"));
      return;
    }
    // Memory with swap may never be less than memory, hence their order depends on the direction of the change.
    const withSwap = () => attempt(() => this.#write("memory", "memory.memsw.limit_in_bytes", String(bytes)));
    withSwap();
    this.#write("memory", "memory.limit_in_bytes", String(bytes));
    withSwap();
  }

  #version(controller: Controller): 1 | 2 | null {
    return this.#folders.get(controller)?.version ?? null;
  }

  /** Does nothing where the controller is not to be had. */
  #write(controller: Controller, file: string, text: string): void {
    const place = this.#folders.get(controller);
    if (place !== undefined && !this.#removed) put(join(place.folder, file), text);
  }

  #read(controller: Controller, file: string): string | null {
    const place = this.#folders.get(controller);
    return place === undefined ? null : contentOf(join(place.folder, file));
  }

  /** Asks at growing intervals, for two seconds at most. */
  async #until(isTrue: () => boolean | Promise<boolean>): Promise<void> {
    for (let delayMs = 0.5, waitedMs = 0; !(await isTrue()) && waitedMs < 2_000; waitedMs += delayMs) {
      delayMs = Math.min(delayMs * 2, 50);
      await delay(delayMs);
    }
  }
}

/** In cores: its share, or what goes with its memory. */
function weightOf(limits: SandboxLimits | null): number {
  if (limits === null) return 1;
  const cores = limits.cpuCores ?? limits.memoryBytesMax / BYTES_PER_CORE;
  return Math.min(WEIGHT_CORES_MAX, Math.max(WEIGHT_CORES_MIN, cores));
}

/** Never makes a file: one that is missing is one this kernel does not know. */
function put(path: string, text: string): void {
  const file = openSync(path, constants.O_WRONLY | constants.O_TRUNC);
  try {
    writeSync(file, text);
  } finally {
    closeSync(file);
  }
}

function subfolders(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch {
    return [];
  }
}

function field(text: string | null, name: string): number {
  return Number(new RegExp(`^${name} (\\d+)$`, "m").exec(text ?? "")?.[1] ?? 0);
}

function contentOf(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

function attempt(action: () => void): void {
  try {
    action();
  } catch {
    // The kernel has no such ability, or what it was about is gone.
  }
}
