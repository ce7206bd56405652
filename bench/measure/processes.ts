import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** What the kernel tells about processes; everything answers for those that are there and skips those that have gone. */

interface ProcessState {
  readonly parent: number;
  /** Own, and of children that have ended and were waited for. */
  readonly cpuTicks: number;
}

/** Linux counts processor time for `/proc` in hundredths of a second on every architecture Node runs on. */
const TICKS_PER_SECOND = 100;

/** A process and everything that descends from it, itself first. */
export function treeOf(root: number): readonly number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    const state = Number.isInteger(pid) ? stateOf(pid) : null;
    if (state === null) continue;
    const siblings = children.get(state.parent);
    if (siblings === undefined) children.set(state.parent, [pid]);
    else siblings.push(pid);
  }
  const tree = [root];
  for (let index = 0; index < tree.length; index++) tree.push(...(children.get(tree[index] ?? 0) ?? []));
  return tree;
}

/** Processor time that a tree has used so far, in seconds, to within 10 ms per process; ended children included once they are reaped. */
export function cpuSecondsOf(root: number): number {
  return treeOf(root).reduce((sum, pid) => sum + (stateOf(pid)?.cpuTicks ?? 0), 0) / TICKS_PER_SECOND;
}

/** Processor time that these processes have used so far, in milliseconds, as the scheduler counts it: exact, without those that ended. */
export function cpuMsOf(pids: Iterable<number>): number {
  let nanoseconds = 0;
  for (const pid of pids) {
    for (const thread of threadsOf(pid)) {
      nanoseconds += Number(read(`/proc/${pid}/task/${thread}/schedstat`).split(" ")[0] ?? 0);
    }
  }
  return nanoseconds / 1e6;
}

function threadsOf(pid: number): readonly string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

/** Proportional share of memory (PSS) of these processes together, in bytes: shared pages count in equal parts to all who share them. */
export function memoryBytesOf(pids: Iterable<number>): number {
  let bytes = 0;
  for (const pid of pids) {
    const kilobytes = /^Pss:\s+(\d+) kB$/m.exec(read(`/proc/${pid}/smaps_rollup`))?.[1];
    bytes += Number(kilobytes ?? 0) * 1024;
  }
  return bytes;
}

/** Open descriptors of these processes together. */
export function descriptorsOf(pids: Iterable<number>): number {
  let count = 0;
  for (const pid of pids) {
    try {
      count += readdirSync(`/proc/${pid}/fd`).length;
    } catch {}
  }
  return count;
}

/** The namespaces of a process, as `pid:[4026531836]` by their kind. */
export function namespacesOf(pid: number | "self"): Readonly<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const kind of ["cgroup", "ipc", "mnt", "pid", "user", "uts"]) {
    try {
      found[kind] = readlinkSync(`/proc/${pid}/ns/${kind}`);
    } catch {}
  }
  return found;
}

function stateOf(pid: number): ProcessState | null {
  const text = read(`/proc/${pid}/stat`);
  // The name stands in parentheses and may hold spaces and parentheses itself.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  if (fields.length < 15) return null;
  const [user, system, childrenUser, childrenSystem] = fields.slice(11, 15).map(Number);
  const cpuTicks = (user ?? 0) + (system ?? 0) + (childrenUser ?? 0) + (childrenSystem ?? 0);
  return { parent: Number(fields[1]), cpuTicks };
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
