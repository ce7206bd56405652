import type { Spread } from "../measure/statistics.ts";

/** `2.43 ms`, `61 µs`. */
export function duration(ms: number): string {
  if (ms === 0) return "0";
  if (ms >= 1_000) return `${digits(ms / 1_000)} s`;
  return ms < 1 ? `${digits(ms * 1_000)} µs` : `${digits(ms)} ms`;
}

export function durations(shares: Readonly<Record<string, number>>): string {
  return Object.entries(shares)
    .map(([name, ms]) => `${name} ${duration(ms)}`)
    .join(", ");
}

/** `61.2k/s`. */
export function rate(perSecond: number): string {
  return perSecond >= 10_000 ? `${digits(perSecond / 1_000)}k/s` : `${digits(perSecond)}/s`;
}

export function bytes(count: number): string {
  if (count >= 1024 ** 3) return `${digits(count / 1024 ** 3)} GiB`;
  if (count >= 1024 ** 2) return `${digits(count / 1024 ** 2)} MiB`;
  return count >= 1024 ? `${digits(count / 1024)} KiB` : `${Math.round(count)} B`;
}

/** `0.93× (0.90–0.95)`; the range only where there is one. */
export function ratio({ median, min, max }: Spread): string {
  const range = max > min ? ` (${digits(min)}–${digits(max)})` : "";
  return `${digits(median)}×${range}`;
}

export function times(value: number): string {
  return `${digits(value)}×`;
}

/** Three significant digits, never in powers of ten. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return "–";
  if (Math.abs(value) >= 100) return String(Math.round(value));
  return String(Number(value.toPrecision(3)));
}
