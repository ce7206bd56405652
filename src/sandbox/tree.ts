import { readdirSync, readFileSync } from "node:fs";

/** Reading and steering a tree of processes through /proc, for where no cgroup does it. Linux only; elsewhere trees look empty. */

/** All processes below `pid`, parents before children; without `pid` itself. */
export function descendantsOf(pid: number): number[] {
  const found: number[] = [];
  const open = [pid];
  for (let parent = open.pop(); parent !== undefined; parent = open.pop()) {
    for (const child of childrenOf(parent)) {
      found.push(child);
      open.push(child);
    }
  }
  return found;
}

/** The direct children, oldest first. */
export function childrenOf(pid: number): number[] {
  const children: number[] = [];
  for (const thread of entriesOf(`/proc/${pid}/task`)) {
    const text = contentOf(`/proc/${pid}/task/${thread}/children`);
    for (const child of text?.trim().split(" ") ?? []) if (child !== "") children.push(Number(child));
  }
  return children;
}

/** Resident memory of the processes together. Programs and libraries, which they share, count once: as much as the one with the most has. */
export function residentBytes(pids: readonly number[]): number {
  let ownKibibytes = 0;
  let fileKibibytes = 0;
  for (const pid of pids) {
    const status = contentOf(`/proc/${pid}/status`) ?? "";
    const kibibytes = (name: string): number =>
      Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)?.[1] ?? 0);
    ownKibibytes += kibibytes("RssAnon") + kibibytes("RssShmem");
    fileKibibytes = Math.max(fileKibibytes, kibibytes("RssFile"));
  }
  return (ownKibibytes + fileKibibytes) * 1024;
}

/** Changes when a process id is given to another process; null when there is no such process. */
export function startTimeOf(pid: number): string | null {
  // The name in parentheses may hold anything, hence counted from its end.
  return contentOf(`/proc/${pid}/stat`)?.split(") ").at(-1)?.split(" ")[19] ?? null;
}

/** Answers whether the process was there to get the signal. */
export function send(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch {
    return false;
  }
}

/** Sends to all, again and again until no process has appeared in between: one that forks may be faster than one round. */
export function sendToTree(members: () => readonly number[], signal: NodeJS.Signals): void {
  const reached = new Set<number>();
  for (let round = 0; round < 100; round++) {
    const fresh = members().filter((pid) => !reached.has(pid));
    if (fresh.length === 0) return;
    for (const pid of fresh) {
      reached.add(pid);
      send(pid, signal);
    }
  }
}

function contentOf(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

function entriesOf(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
