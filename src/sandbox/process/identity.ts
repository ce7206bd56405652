import { readFileSync } from "node:fs";

const FIRST_ID = 70_000;
/** Where user ids above 65,535 do not exist, as in containers with a narrow map; below systemd's dynamic users. */
const FIRST_ID_NARROW = 60_600;
const IDS_PER_PLATFORM = 1_000;
const IDS_NARROW = 500;
const PLATFORMS = 20;

/**
 * Unprivileged user ids of the kernel, one for each sandbox at a time, so that a way out of one sandbox is not a way into another.
 * Only for a platform that runs as root.
 */
export class Identities {
  readonly #first: number;
  readonly #count: number;
  readonly #taken = new Set<number>();

  constructor(first: number, count: number) {
    this.#first = first;
    this.#count = count;
  }

  /** null when all are taken. */
  acquire(): number | null {
    for (let id = this.#first; id < this.#first + this.#count; id++) {
      if (this.#taken.has(id)) continue;
      this.#taken.add(id);
      return id;
    }
    return null;
  }

  release(id: number): void {
    this.#taken.delete(id);
  }
}

/** One of several equal parts of a platform's ids, counted from 0. */
export interface IdentityPart {
  readonly index: number;
  readonly count: number;
}

/** null where this process cannot become another user. Platforms with different tags mostly use different ids, parts of one always. */
export function openIdentities(tag: string, part: IdentityPart = { index: 0, count: 1 }): Identities | null {
  if (process.getuid?.() !== 0) return null;
  const ranges = mappedRanges(readFileSync("/proc/self/uid_map", "utf8"));
  const platform = [...tag].reduce((sum, letter) => (sum * 31 + (letter.codePointAt(0) ?? 0)) % PLATFORMS, 0);
  const first = FIRST_ID + platform * IDS_PER_PLATFORM;
  const isMapped = (start: number, count: number): boolean =>
    ranges.some((range) => range.first <= start && start + count <= range.first + range.count);
  if (isMapped(first, IDS_PER_PLATFORM)) return identitiesOf(part, first, IDS_PER_PLATFORM);
  if (isMapped(FIRST_ID_NARROW, IDS_NARROW)) return identitiesOf(part, FIRST_ID_NARROW, IDS_NARROW);
  return null;
}

export function identitiesOf({ index, count }: IdentityPart, first: number, ids: number): Identities {
  const each = Math.floor(ids / count);
  return new Identities(first + index * each, each);
}

/** Ids that exist in this process' user namespace, from the text of its uid_map. */
export function mappedRanges(uidMap: string): { readonly first: number; readonly count: number }[] {
  return uidMap
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/).map(Number))
    .map(([first = 0, , count = 0]) => ({ first, count }));
}

/** Whether this process may be root of the machine, not only of a user namespace that an ordinary user made. */
export function isMachineRoot(): boolean {
  if (process.getuid?.() !== 0) return false;
  const [inside, outside] = readFileSync("/proc/self/uid_map", "utf8").trim().split(/\s+/);
  return inside === "0" && outside === "0";
}
