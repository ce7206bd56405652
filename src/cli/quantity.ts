import { usageFailure } from "./failure.ts";

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const MIB = 1024 * 1024;

/**
 * Milliseconds of `500ms`, `30s`, `1.5m`, `2h`, `7d`.
 * @throws CliFailure `usage`
 */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text.trim());
  const unitMs = UNIT_MS[match?.[2] ?? ""];
  if (match === null || unitMs === undefined) {
    throw usageFailure(`'${text}' is not a duration`, "Write a number and a unit: 500ms, 30s, 5m, 2h.");
  }
  return Math.round(Number(match[1]) * unitMs);
}

/**
 * Bytes of `256` (mebibytes), `256MB`, `1GB`, `1.5GiB`.
 * @throws CliFailure `usage`
 */
export function parseMemory(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(m|mb|mib|g|gb|gib)?$/i.exec(text.trim());
  if (match === null) {
    throw usageFailure(`'${text}' is not an amount of memory`, "Write megabytes or a unit: 256, 256MB, 1GB.");
  }
  return Math.round(Number(match[1]) * (match[2]?.toLowerCase().startsWith("g") === true ? 1024 * MIB : MIB));
}

/**
 * A whole number of at least `least`.
 * @throws CliFailure `usage`
 */
export function parseCount(text: string, what: string, least = 1): number {
  const count = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(count) || count < least) {
    throw usageFailure(`'${text}' is not ${what}`, `Write a whole number, ${least} or more.`);
  }
  return count;
}

/**
 * Cores of `0.5`, `2`.
 * @throws CliFailure `usage`
 */
export function parseCores(text: string): number {
  const cores = /^\d+(?:\.\d+)?$/.test(text.trim()) ? Number(text) : 0;
  if (cores > 0) return cores;
  throw usageFailure(`'${text}' is not a number of cores`, "Write a number above 0: 0.5, 1, 2.");
}

/**
 * RFC 3339 of a moment: `10m` (ago) or a date and time.
 * @throws CliFailure `usage`
 */
export function parseSince(text: string, nowMs: number): string {
  if (/^\d+(?:\.\d+)?[a-z]+$/.test(text)) return new Date(nowMs - parseDuration(text)).toISOString();
  const atMs = Date.parse(text);
  if (Number.isNaN(atMs)) {
    throw usageFailure(`'${text}' is not a time`, "Write how long ago (10m, 2h, 3d) or a time (2030-01-31T12:00:00Z).");
  }
  return new Date(atMs).toISOString();
}

/** `850 µs`, `12.3 ms`, `4.56 s`, `2m 5s`, `1h 30m`. */
export function formatDuration(durationMs: number): string {
  if (durationMs < 1) return `${Math.round(durationMs * 1000)} µs`;
  if (durationMs < 999.95) return `${trimmed(durationMs, durationMs < 100 ? 1 : 0)} ms`;
  if (durationMs < 59_995) return `${trimmed(durationMs / 1000, 2)} s`;
  const seconds = Math.round(durationMs / 1000);
  if (seconds < 3600) return joined([Math.floor(seconds / 60), "m"], [seconds % 60, "s"]);
  const minutes = Math.round(seconds / 60);
  if (minutes < 24 * 60) return joined([Math.floor(minutes / 60), "h"], [minutes % 60, "m"]);
  const hours = Math.round(minutes / 60);
  return joined([Math.floor(hours / 24), "d"], [hours % 24, "h"]);
}

/** `812 B`, `12.4 KB`, `256 MB`, `1.5 GB`, in steps of 1,024. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let amount = bytes;
  let step = 0;
  while (amount >= 1024 && step < units.length - 1) {
    amount /= 1024;
    step++;
  }
  return `${trimmed(amount, step === 0 || amount >= 100 ? 0 : 1)} ${units[step]}`;
}

/** How long ago, in one unit: `now`, `45s ago`, `3m ago`, `2h ago`, `5d ago`. */
export function formatAgo(time: string, nowMs: number): string {
  const seconds = Math.floor((nowMs - Date.parse(time)) / 1000);
  if (!(seconds >= 1)) return "now";
  if (seconds < 60) return `${seconds}s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h ago`;
  return `${Math.floor(seconds / 86_400)}d ago`;
}

export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function trimmed(amount: number, digits: number): string {
  return String(Number(amount.toFixed(digits)));
}

function joined(...parts: readonly [number, string][]): string {
  return parts
    .filter(([amount], index) => index === 0 || amount > 0)
    .map(([amount, unit]) => `${amount}${unit}`)
    .join(" ");
}
