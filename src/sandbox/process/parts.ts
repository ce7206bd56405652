import { lchown, readdir } from "node:fs/promises";
import { join, posix } from "node:path";
import { KoineError } from "../../core/errors.ts";
import type { NetworkAccess } from "../../core/network.ts";
import type { Attachable, Mount, SandboxRequest } from "../sandbox.ts";
import type { Equipment } from "./equipment.ts";
import type { Launch } from "./launches.ts";
import { RootFolder, type StagedSource } from "./staging.ts";

/** What one sandbox has of the machine while it lives. */
export interface Parts {
  /** null: bubblewrap makes the root in memory. */
  readonly root: RootFolder | null;
  readonly launch: Launch;
  /** Those of the request, with sources that the sandbox's user can reach. */
  readonly mounts: readonly Mount[];
  readonly attach: Attachable["attach"] | null;
  /** Ends what is left in the cgroup and gives everything back; may be called again. */
  release(): Promise<void>;
}

/** @throws KoineError `sandbox-failed`, with nothing left behind */
export async function acquireParts(equipment: Equipment, request: SandboxRequest): Promise<Parts> {
  const undo: (() => Promise<void> | void)[] = [];
  let released: Promise<void> | null = null;
  const release = (): Promise<void> => (released ??= undoAll(undo));
  const isReleased = (): boolean => released !== null;
  try {
    const launch = await equipment.launches.take(request.limits, accessOf(request));
    undo.push(() => launch.release());
    if (request.background === true) launch.cgroup.setShare("background");
    const { userId } = launch;
    const root = equipment.staging === null ? null : makeRoot(equipment, request.id, undo);
    const holder: Holder = { equipment, userId, root, undo, isReleased };
    const mounts: Mount[] = [];
    for (const mount of request.mounts) mounts.push(await holdMount(holder, mount));
    // The last to be done is the first to be undone: processes end before what they use is taken away.
    undo.push(() => launch.end());
    const attach = request.attachable === true && root !== null ? attachTo(holder, root, request.mounts, launch) : null;
    return { root, launch, mounts, attach, release };
  } catch (thrown) {
    await release();
    throw thrown;
  }
}

/** What the request says of the network. */
export function accessOf({ network, allowNetwork }: SandboxRequest): NetworkAccess {
  return { mode: network, allow: network === "egress" ? (allowNetwork ?? []) : [] };
}

interface Holder {
  readonly equipment: Equipment;
  readonly userId: number | null;
  readonly root: RootFolder | null;
  readonly undo: (() => Promise<void> | void)[];
  isReleased(): boolean;
}

/** In the reverse order; one that fails does not keep the others. */
async function undoAll(undo: readonly (() => Promise<void> | void)[]): Promise<void> {
  for (const step of undo.toReversed()) {
    try {
      await step();
    } catch {
      // What could not be given back is taken away when the platform's mount namespace ends, or by the next sweep.
    }
  }
}

/** Folders that bubblewrap mounts upon. */
const ownFolders = ["/usr", "/etc", "/proc", "/dev", "/tmp"];

function makeRoot(equipment: Equipment, id: string, undo: (() => void)[]): RootFolder {
  const { staging, machine } = equipment;
  if (staging === null) throw new Error("roots are only made in a staging area");
  const root = new RootFolder(join(staging.rootsFolder, id));
  undo.push(() => root.remove());
  for (const folder of ownFolders) root.makePoint(folder, true);
  for (const folder of machine.systemFolders) {
    if (folder.kind === "folder") root.makePoint(folder.path, true);
    else root.makeLink(folder.path, folder.to);
  }
  return root;
}

/** Stages the source, makes the mount point, and lets the sandbox's user write where it may. */
async function holdMount(holder: Holder, mount: Mount): Promise<Mount> {
  const { equipment, userId, root, undo } = holder;
  const writable = mount.writable === true;
  if (!posix.isAbsolute(mount.target) || posix.normalize(mount.target) !== mount.target) {
    throw new KoineError("sandbox-failed", { detail: `'${mount.target}' is not an absolute path` });
  }
  if (writable && userId !== null) {
    const platformId = process.getuid?.() ?? 0;
    undo.push(() => giveTo(mount.source, platformId));
    await giveTo(mount.source, userId);
  }
  if (equipment.staging === null || root === null) return mount;
  const staged: StagedSource = await equipment.staging.acquire(mount.source, { writable });
  undo.push(() => staged.release());
  if (!ownFolders.some((folder) => isWithin(mount.target, folder))) root.makePoint(mount.target, staged.isFolder);
  return { ...mount, source: staged.path };
}

function attachTo(
  holder: Holder,
  root: RootFolder,
  first: readonly Mount[],
  { cgroup, network }: Launch,
): NonNullable<Parts["attach"]> {
  const { staging } = holder.equipment;
  const occupied = new Set([...ownFolders, ...first.map((mount) => mount.target)]);
  return async (mounts, limits, access) => {
    // Its rules are set on another thread, while the code is mounted.
    const connected = access === undefined ? null : changeNetwork(network, access);
    connected?.catch(() => {});
    for (const mount of mounts) {
      const above = [...occupied].find((target) => isWithin(mount.target, target));
      if (above !== undefined || staging === null) {
        throw new KoineError("sandbox-failed", {
          detail: `nothing can be attached at ${mount.target}: ${above} is there`,
        });
      }
      occupied.add(mount.target);
      const staged = await holdMount(holder, mount);
      if (holder.isReleased()) throw new KoineError("sandbox-failed", { detail: "it ended before code was attached" });
      const point = join(root.path, mount.target);
      await staging.mounting.bind(staged.source, point);
      holder.undo.push(() => staging.mounting.detach(point));
    }
    try {
      cgroup.setLimits(limits);
    } catch (thrown) {
      throw new KoineError("sandbox-failed", { detail: "its limits could not be changed" }, { cause: thrown });
    }
    await connected;
  };
}

/** @throws KoineError `sandbox-failed` when that cannot be done to a sandbox that runs */
async function changeNetwork(network: Launch["network"], access: NetworkAccess): Promise<void> {
  if (network !== null) return await network.set(access);
  if (access.mode !== "host") {
    throw new KoineError("sandbox-failed", {
      detail: `the network mode '${access.mode}' must be known before its start`,
    });
  }
}

function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(`${folder}/`);
}

/** Changes the owner of a file, or of a folder and all in it; links themselves, never what they lead to. */
async function giveTo(path: string, id: number): Promise<void> {
  await lchown(path, id, id);
  const entries = await readdir(path, { withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    const inner = join(path, entry.name);
    if (entry.isDirectory()) await giveTo(inner, id);
    else await lchown(inner, id, id);
  }
}
