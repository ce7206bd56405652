import type { Clock } from "../../core/clock.ts";
import { KoineError } from "../../core/errors.ts";
import type { NetworkAccess } from "../../core/network.ts";
import type { SandboxLimits } from "../sandbox.ts";
import type { Cgroup, Cgroups } from "./cgroup.ts";
import type { Identities } from "./identity.ts";
import { type LaunchPlan, launchDescriptors, planLaunch } from "./launch.ts";
import { type Networks, type SandboxNetwork, unavailable } from "../network/networks.ts";
import type { Started, Starter } from "./start.ts";

/** A process that is a member of its cgroups and has its user; it becomes a sandbox when bubblewrap is told how. */
export interface Launch {
  /** Names its cgroup. */
  readonly id: string;
  readonly userId: number | null;
  readonly cgroup: Cgroup;
  readonly started: Started;
  /** null: it has that of the machine, or bubblewrap makes one without anything. */
  readonly network: SandboxNetwork | null;
  /** Ends what is left of its processes; never rejects. */
  end(): Promise<void>;
  /** Ends it and gives everything back; never rejects. */
  release(): Promise<void>;
}

export interface LaunchesOptions {
  readonly starter: Starter;
  readonly cgroups: Cgroups;
  readonly identities: Identities | null;
  readonly networks: Networks;
  /** What those that wait have of the network. */
  readonly networkAhead: NetworkAccess;
  readonly plan: Pick<LaunchPlan, "machine" | "filterFile">;
  /** How many wait. Joining cgroups takes some 10 ms, in which nothing is computed: the kernel waits for all its processors. */
  readonly ahead: number;
  readonly clock: Clock;
}

/** Refilled a while after the last one was taken: who takes one is about to use the processor. */
const REFILL_DELAY_MS = 100;
/** They are made before the limits of their sandboxes are known. */
const limitsAhead: SandboxLimits = {
  memoryBytesMax: 256 * 1024 * 1024,
  pidsMax: 256,
  cpuCores: null,
  tmpBytesMax: 0,
  openFilesMax: 0,
  fileBytesMax: 0,
};

/** Launches, some of them begun ahead; each is used once. */
export class Launches {
  readonly #options: LaunchesOptions;
  readonly #waiting: Launch[] = [];
  readonly #all = new Set<string>();
  #last = 0;
  #cancelRefill: (() => void) | null = null;
  #refilling = false;
  #closed = false;

  constructor(options: LaunchesOptions) {
    this.#options = options;
  }

  /** Those that wait or are in use. */
  get ids(): ReadonlySet<string> {
    return this.#all;
  }

  /** One that waits, or a new one; with these limits set. @throws KoineError `sandbox-failed`, `network-unavailable` */
  async take(limits: SandboxLimits, network: NetworkAccess): Promise<Launch> {
    this.#scheduleRefill();
    // One that waits can be given less of the network than it was made for, but not more.
    const fits =
      network.mode === "host"
        ? this.#options.networkAhead.mode === "host"
        : this.#options.networkAhead.mode === "egress" || network.mode === this.#options.networkAhead.mode;
    const launch = fits ? this.#waiting.shift() : undefined;
    if (launch === undefined) return await this.#begin(limits, network);
    try {
      launch.cgroup.setLimits(limits);
      return launch;
    } catch (thrown) {
      void launch.release();
      throw new KoineError("sandbox-failed", { detail: "its limits could not be set" }, { cause: thrown });
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#cancelRefill?.();
    await Promise.all(this.#waiting.splice(0).map((launch) => launch.release()));
  }

  #scheduleRefill(): void {
    if (this.#options.ahead === 0 || this.#closed) return;
    this.#cancelRefill?.();
    this.#cancelRefill = this.#options.clock.after(REFILL_DELAY_MS, () => this.#refill());
  }

  /** One at a time, with pauses: nobody waits for it. */
  #refill(): void {
    this.#cancelRefill = null;
    if (this.#closed || this.#refilling || this.#waiting.length >= this.#options.ahead) return;
    this.#refilling = true;
    void this.#begin(limitsAhead, this.#options.networkAhead).then(
      (launch) => {
        this.#refilling = false;
        this.#wait(launch);
        this.#scheduleRefill();
      },
      // Whoever needs one is told why it cannot be.
      () => {
        this.#refilling = false;
      },
    );
  }

  #wait(launch: Launch): void {
    if (this.#closed) return void launch.release();
    this.#waiting.push(launch);
    void launch.started.ended.then(() => {
      const index = this.#waiting.indexOf(launch);
      if (index < 0) return;
      this.#waiting.splice(index, 1);
      void launch.release();
    });
  }

  async #begin(limits: SandboxLimits, access: NetworkAccess): Promise<Launch> {
    const { starter, cgroups, identities, networks, plan } = this.#options;
    if (access.mode === "egress" && !networks.egress.had) throw unavailable("egress", networks.egress);
    const userId = identities?.acquire() ?? null;
    if (identities !== null && userId === null)
      throw new KoineError("sandbox-failed", { detail: "all user ids for sandboxes are taken" });
    const id = `${process.pid}-${++this.#last}`;
    let cgroup: Cgroup | null = null;
    let network: SandboxNetwork | null = null;
    try {
      // Before anything else goes on: a sweep must know it for ours.
      this.#all.add(id);
      cgroup = await cgroups.create(id, limits);
      network = access.mode === "host" ? null : await networks.make(access);
      if (this.#closed) throw new KoineError("sandbox-failed", { detail: "the platform stops" });
      const { file, args } = planLaunch({
        ...plan,
        userId,
        joinFiles: cgroup.joinFiles,
        networkPath: network?.path ?? null,
      });
      const started = starter.start(file, args, launchDescriptors.lifeline);
      return this.#launch({ id, userId, cgroup, started, network });
    } catch (thrown) {
      if (userId !== null) identities?.release(userId);
      await cgroup?.tryRemove();
      this.#all.delete(id);
      network?.release();
      if (thrown instanceof KoineError) throw thrown;
      throw new KoineError("sandbox-failed", { detail: "its process could not be started" }, { cause: thrown });
    }
  }

  #launch(parts: Omit<Launch, "end" | "release">): Launch {
    const { id, userId, cgroup, started, network } = parts;
    const end = once(async () => {
      // One that still waits for its arguments ends when there will be none.
      started.pipe(launchDescriptors.arguments).destroy();
      network?.release();
      await cgroup.destroy();
      this.#all.delete(id);
    });
    const release = once(async () => {
      await end();
      if (userId !== null) this.#options.identities?.release(userId);
    });
    return { ...parts, end, release };
  }
}

function once(action: () => Promise<void>): () => Promise<void> {
  let done: Promise<void> | null = null;
  return () => (done ??= action().catch(() => {}));
}
