import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { access, lstat, readlink } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

/** What of the machine's own programs and folders sandboxes are made with. */
export interface Machine {
  readonly bubblewrap: string;
  readonly bubblewrapVersion: string;
  /** Whether this bubblewrap can limit the size of a tmpfs: since 0.7. */
  readonly limitsTmp: boolean;
  /** Becomes another user before bubblewrap starts; null where it is missing. */
  readonly setpriv: string | null;
  /** Enters a network that was made before; null where it is missing. */
  readonly nsenter: string | null;
  readonly shell: string;
  /** `/bin`, `/lib`, …: links into /usr on most machines, folders of their own on some. */
  readonly systemFolders: readonly SystemFolder[];
}

export type SystemFolder =
  | { readonly kind: "link"; readonly path: string; readonly to: string }
  | { readonly kind: "folder"; readonly path: string };

const programFolders = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin"];
const systemFolders = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/** null when bubblewrap is not installed. */
export async function readMachine(bubblewrap: string | null): Promise<Machine | null> {
  const found = bubblewrap ?? (await findProgram("bwrap"));
  if (found === null) return null;
  const version = await promisify(execFile)(found, ["--version"], { env: {} }).then(
    ({ stdout }) => stdout.trim().split(" ").at(-1) ?? "",
    () => null,
  );
  if (version === null) return null;
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return {
    bubblewrap: found,
    bubblewrapVersion: version,
    limitsTmp: major > 0 || minor >= 7,
    setpriv: await findProgram("setpriv"),
    nsenter: await findProgram("nsenter"),
    shell: "/bin/sh",
    systemFolders: (await Promise.all(systemFolders.map((path) => systemFolder(path)))).filter((one) => one !== null),
  };
}

async function systemFolder(path: string): Promise<SystemFolder | null> {
  try {
    const entry = await lstat(path);
    return entry.isSymbolicLink() ? { kind: "link", path, to: await readlink(path) } : { kind: "folder", path };
  } catch {
    return null;
  }
}

async function findProgram(name: string): Promise<string | null> {
  for (const folder of programFolders) {
    const path = join(folder, name);
    const isThere = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (isThere) return path;
  }
  return null;
}
