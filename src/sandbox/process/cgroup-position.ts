import { accessSync, constants, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

export type Controller = "memory" | "pids" | "cpu" | "freezer";
export const controllers: readonly Controller[] = ["memory", "pids", "cpu", "freezer"];

/** Where the cgroups of sandboxes are made for one controller. */
export interface ControllerBase {
  readonly version: 1 | 2;
  readonly folder: string;
}

export interface CgroupPositions {
  /** Folders of this process in the hierarchies of version 1. */
  readonly version1: ReadonlyMap<Controller, string>;
  /** The folder of this process in the hierarchy of version 2, and where that is mounted. */
  readonly version2: { readonly folder: string; readonly mountPoint: string } | null;
}

/**
 * Finds this process in the cgroup hierarchies.
 * @param mountinfo the text of /proc/self/mountinfo
 * @param membership the text of /proc/self/cgroup
 */
export function cgroupPositions(mountinfo: string, membership: string): CgroupPositions {
  const paths = new Map<string, string>();
  for (const line of membership.split("\n")) {
    const [, names, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (names === undefined || path === undefined) continue;
    for (const name of names.split(",")) paths.set(name, path);
  }
  const version1 = new Map<Controller, string>();
  let version2: CgroupPositions["version2"] = null;
  for (const line of mountinfo.split("\n")) {
    const [mount = "", filesystem = ""] = line.split(" - ");
    const [, , , root = "", mountPoint = ""] = mount.split(" ");
    const [type, , options = ""] = filesystem.split(" ");
    if (type === "cgroup2" && version2 === null) {
      const folder = below(mountPoint, root, paths.get(""));
      if (folder !== null) version2 = { folder, mountPoint };
    }
    if (type !== "cgroup") continue;
    for (const controller of controllers) {
      const folder = below(mountPoint, root, paths.get(controller));
      if (options.split(",").includes(controller) && folder !== null) version1.set(controller, folder);
    }
  }
  return { version1, version2 };
}

/**
 * Makes the folder `name` at this process' position and switches on the controllers there. Of version 2 it takes the nearest
 * folder above that hands them down already; else it has its own position hand them down, for which the processes in it move into a
 * folder `<name>-platform`, as the kernel wants none beside controlled folders.
 * @returns what can be used; controllers that cannot are missing
 */
export function claimControllers(positions: CgroupPositions, name: string): Map<Controller, ControllerBase> {
  const claimed = new Map<Controller, ControllerBase>();
  for (const [controller, folder] of positions.version1) {
    const base = join(folder, name);
    if (makeWritable(base)) claimed.set(controller, { version: 1, folder: base });
  }
  if (positions.version2 === null || controllers.every((controller) => claimed.has(controller))) return claimed;
  const parent = handingDown(positions.version2, `${name}-platform`);
  // The freezer of version 2 is in every folder and needs no controller.
  const wanted = parent === null ? [] : controlledBy(parent, "cgroup.subtree_control");
  const folder = join(parent ?? positions.version2.folder, name);
  if (!makeWritable(folder)) return claimed;
  for (const controller of wanted) {
    if (!claimed.has(controller) && attemptWrite(join(folder, "cgroup.subtree_control"), `+${controller}`)) {
      claimed.set(controller, { version: 2, folder });
    }
  }
  if (!claimed.has("freezer")) claimed.set("freezer", { version: 2, folder });
  return claimed;
}

const handedDown = ["memory", "pids", "cpu"] as const;

function handingDown(position: { readonly folder: string; readonly mountPoint: string }, aside: string): string | null {
  let best: { readonly folder: string; readonly count: number } | null = null;
  for (let folder = position.folder; ; folder = dirname(folder)) {
    const count = controlledBy(folder, "cgroup.subtree_control").length;
    if (count > (best?.count ?? 0) && isWritable(join(folder, "cgroup.procs"))) best = { folder, count };
    if (folder === position.mountPoint || folder === dirname(folder)) break;
  }
  if (best !== null) return best.folder;
  const available = controlledBy(position.folder, "cgroup.controllers");
  if (available.length === 0) return null;
  const own = join(position.folder, "cgroup.subtree_control");
  const request = available.map((controller) => `+${controller}`).join(" ");
  if (attemptWrite(own, request)) return position.folder;
  if (!makeWritable(join(position.folder, aside))) return null;
  const processes = readFileSync(join(position.folder, "cgroup.procs"), "utf8").trim().split("\n");
  for (const pid of processes) attemptWrite(join(position.folder, aside, "cgroup.procs"), pid);
  return attemptWrite(own, request) ? position.folder : null;
}

function controlledBy(folder: string, file: string): Controller[] {
  try {
    const names = readFileSync(join(folder, file), "utf8").trim().split(" ");
    return handedDown.filter((controller) => names.includes(controller));
  } catch {
    return [];
  }
}

/** Inside a container the mount may show only a part of the hierarchy, whose root is then not `/`. */
function below(mountPoint: string, root: string, path: string | undefined): string | null {
  if (path === undefined || path.startsWith("/..")) return null;
  if (root === "/") return resolve(mountPoint, `.${path}`);
  if (path === root || path.startsWith(`${root}/`)) return resolve(mountPoint, `.${path.slice(root.length)}`);
  return null;
}

function makeWritable(folder: string): boolean {
  try {
    mkdirSync(folder, { recursive: true });
    return isWritable(folder) && isWritable(join(folder, "cgroup.procs"));
  } catch {
    return false;
  }
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function attemptWrite(file: string, text: string): boolean {
  try {
    writeFileSync(file, text);
    return true;
  } catch {
    return false;
  }
}
