import {
  chmod,
  chown,
  constants,
  copyFile,
  link,
  mkdir,
  open,
  readdir,
  readlink,
  rename,
  stat,
  symlink,
} from "node:fs/promises";
import { join } from "node:path";
import { concurrently } from "./concurrently.ts";

const FILES_AT_A_TIME = 8;

/** Paths relative to the folder; folders come before what is in them. Pipes, sockets and devices are left out. */
interface TreeListing {
  readonly folders: readonly string[];
  readonly files: readonly string[];
  readonly links: readonly string[];
}

/**
 * Makes `to` look like `from`, with files shared between both: hard links, which cost no space, or copies where the file system refuses.
 * Nothing may write into either afterwards.
 */
export async function linkTree(from: string, to: string): Promise<void> {
  await replicate(from, to, linkFile);
}

async function linkFile(source: string, target: string): Promise<void> {
  try {
    await link(source, target);
  } catch (thrown) {
    if (!isSystemError(thrown, "EMLINK", "EPERM", "EXDEV", "ENOTSUP")) throw thrown;
    await copyFile(source, target, constants.COPYFILE_FICLONE);
  }
}

/** As `linkTree`, of several trees: where two have something at the same path, the later one's is there. */
export async function overlayTrees(trees: readonly string[], to: string): Promise<void> {
  await mkdir(to);
  await chmod(to, 0o755);
  const folders = new Set([""]);
  const leaves = new Set<string>();
  for (const from of trees.toReversed()) {
    const tree = await listTree(from);
    for (const path of tree.folders) {
      if (folders.has(path) || isBelow(path, leaves)) continue;
      await mkdir(join(to, path));
      await chmod(join(to, path), 0o755);
      folders.add(path);
    }
    const free = (path: string): boolean => !folders.has(path) && !isBelow(path, leaves);
    const files = tree.files.filter(free);
    await concurrently(files, FILES_AT_A_TIME, (path) => linkFile(join(from, path), join(to, path)));
    const links = tree.links.filter(free);
    for (const path of links) await symlink(await readlink(join(from, path)), join(to, path));
    for (const path of [...files, ...links]) leaves.add(path);
  }
}

/** Whether a path, or a folder it is in, is taken by something that is no folder. */
function isBelow(path: string, leaves: ReadonlySet<string>): boolean {
  for (let end = path.length; end > 0; end = path.lastIndexOf("/", end - 1))
    if (leaves.has(path.slice(0, end))) return true;
  return false;
}

/** Copies a tree that may then be written to, sharing blocks where the file system can. */
export async function copyTree(from: string, to: string): Promise<void> {
  await replicate(from, to, (source, target) => copyFile(source, target, constants.COPYFILE_FICLONE));
}

/**
 * Takes over a tree that a sandbox wrote: everything belongs to the platform's user and is readable for all, and the content of all
 * files is on disk. Answers how much there is.
 */
export async function adoptTree(folder: string): Promise<{ readonly files: number; readonly bytes: number }> {
  const { files, folders } = await listTree(folder);
  const user = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  for (const path of ["", ...folders]) {
    const found = await stat(join(folder, path));
    if (found.uid !== user.uid) await chown(join(folder, path), user.uid, user.gid);
    await chmod(join(folder, path), 0o755);
  }
  let bytes = 0;
  await concurrently(files, FILES_AT_A_TIME, async (path) => {
    await using file = await open(join(folder, path), "r");
    const found = await file.stat();
    bytes += found.size;
    if (found.uid !== user.uid) await file.chown(user.uid, user.gid);
    await file.chmod((found.mode & 0o100) === 0 ? 0o644 : 0o755);
    await file.datasync();
  });
  return { files: files.length, bytes };
}

/** Moves a finished folder to its place; answers false when something is there already, which then stays. */
export async function settleFolder(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (thrown) {
    if (isSystemError(thrown, "ENOTEMPTY", "EEXIST")) return false;
    throw thrown;
  }
}

export function isSystemError(thrown: unknown, ...codes: readonly string[]): boolean {
  return thrown instanceof Error && "code" in thrown && typeof thrown.code === "string" && codes.includes(thrown.code);
}

async function replicate(
  from: string,
  to: string,
  file: (source: string, target: string) => Promise<void>,
): Promise<void> {
  const tree = await listTree(from);
  for (const path of ["", ...tree.folders]) {
    await mkdir(join(to, path));
    await chmod(join(to, path), 0o755);
  }
  await concurrently(tree.files, FILES_AT_A_TIME, (path) => file(join(from, path), join(to, path)));
  for (const path of tree.links) await symlink(await readlink(join(from, path)), join(to, path));
}

async function listTree(root: string): Promise<TreeListing> {
  const folders: string[] = [];
  const files: string[] = [];
  const links: string[] = [];
  const waiting = [""];
  for (let folder = waiting.pop(); folder !== undefined; folder = waiting.pop()) {
    for (const entry of await readdir(join(root, folder), { withFileTypes: true })) {
      const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory()) {
        folders.push(path);
        waiting.push(path);
      } else if (entry.isSymbolicLink()) links.push(path);
      else if (entry.isFile()) files.push(path);
    }
  }
  return { folders, files, links };
}
