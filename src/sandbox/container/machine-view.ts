import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";

/** A container as the machine sees it, where its processes are this machine's own. */
export interface MachineView {
  /** Its first process. */
  readonly pid: number;
  memory(): { readonly currentBytes: number; readonly peakBytes: number } | null;
  outOfMemoryKills(): number;
  /** Forks that its limit refused. */
  refusedForks(): number;
}

const CGROUP_ROOT = "/sys/fs/cgroup";

/**
 * Looks at a container's first process from here. An engine may run elsewhere, in a virtual machine or behind a forwarded socket: then that
 * number is nobody's here, or somebody else's.
 * @returns null when the process is not that container's
 */
export async function viewFromMachine(pid: number, containerId: string): Promise<MachineView | null> {
  const text = pid > 0 ? await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "") : "";
  if (!text.includes(containerId)) return null;
  const folders = cgroupFolders(text);
  const { memory, pids } = folders;
  const memoryEvents = `${memory.folder}/${memory.version === 2 ? "memory.events" : "memory.oom_control"}`;
  const pidsEvents = `${pids.folder}/pids.events`;
  let peakBytes = 0;
  return {
    pid,
    memory() {
      const isV2 = memory.version === 2;
      const current = numberIn(`${memory.folder}/${isV2 ? "memory.current" : "memory.usage_in_bytes"}`);
      if (current === null) return null;
      const peak = numberIn(`${memory.folder}/${isV2 ? "memory.peak" : "memory.max_usage_in_bytes"}`) ?? current;
      peakBytes = Math.max(peakBytes, peak, current);
      return { currentBytes: current, peakBytes };
    },
    outOfMemoryKills: () => fieldIn(memoryEvents, "oom_kill"),
    refusedForks: () => fieldIn(pidsEvents, "max"),
  };
}

interface CgroupFolder {
  readonly folder: string;
  readonly version: 1 | 2;
}

/** The folders of the controllers that matter, from the text of `/proc/PID/cgroup`. */
export function cgroupFolders(text: string): { readonly memory: CgroupFolder; readonly pids: CgroupFolder } {
  const lines = text.split("\n").map((line) => /^\d+:([^:]*):(.*)$/.exec(line));
  const unified = lines.find((match) => match?.[1] === "")?.[2] ?? "/";
  const of = (controller: string): CgroupFolder => {
    const own = lines.find((match) => match?.[1]?.split(",").includes(controller) === true);
    if (own === undefined || own === null) return { folder: CGROUP_ROOT + unified, version: 2 };
    return { folder: `${CGROUP_ROOT}/${own[1]}${own[2]}`, version: 1 };
  };
  return { memory: of("memory"), pids: of("pids") };
}

function contentOf(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

function numberIn(path: string): number | null {
  const text = contentOf(path)?.trim();
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : null;
}

function fieldIn(path: string, name: string): number {
  const line = contentOf(path)
    ?.split("\n")
    .find((text) => text.startsWith(`${name} `));
  return line === undefined ? 0 : Number(line.slice(name.length + 1));
}
