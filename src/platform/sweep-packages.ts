import type { Digest } from "../core/function.ts";

/** What a sweep of code packages looks at. */
export interface SweepView {
  readonly stored: readonly Digest[];
  /** Packages that a version names, or an instance runs from. */
  readonly referenced: ReadonlySet<Digest>;
  /** When each package was last uploaded, asked for or found referenced, milliseconds since the epoch; absent: not since the platform began. */
  readonly usedAtMs: ReadonlyMap<Digest, number>;
  readonly startedAtMs: number;
}

/**
 * The packages that can go: nothing refers to them, and nobody has shown interest for the grace time. Between an upload and the deploy that
 * refers to it, and while a deploy asks whether an upload is needed, a package has no other protection.
 */
export function decideSweep(view: SweepView, nowMs: number, graceMs: number): readonly Digest[] {
  return view.stored.filter((digest) => {
    if (view.referenced.has(digest)) return false;
    return nowMs - (view.usedAtMs.get(digest) ?? view.startedAtMs) >= graceMs;
  });
}
