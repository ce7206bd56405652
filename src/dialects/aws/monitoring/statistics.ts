/** What is known of one stretch of time: enough for every statistic. */
export interface Bucket {
  readonly startMs: number;
  readonly values: readonly number[];
}

const PERCENTILE = /^p(\d{1,2}(?:\.\d{1,10})?|100)$/;

/** Whether a text names a statistic that can be told. */
export function isStatistic(name: string): boolean {
  return ["SampleCount", "Sum", "Average", "Minimum", "Maximum"].includes(name) || PERCENTILE.test(name);
}

/** One statistic of values, of which there is at least one. */
export function statisticOf(name: string, values: readonly number[]): number {
  const sum = values.reduce((total, value) => total + value, 0);
  switch (name) {
    case "SampleCount":
      return values.length;
    case "Sum":
      return sum;
    case "Average":
      return sum / values.length;
    case "Minimum":
      return values.reduce((least, value) => Math.min(least, value), Number.POSITIVE_INFINITY);
    case "Maximum":
      return values.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
    default: {
      const share = Number(PERCENTILE.exec(name)?.[1] ?? 50) / 100;
      const sorted = values.toSorted((a, b) => a - b);
      return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))] ?? 0;
    }
  }
}

/** Samples in stretches of a period each, oldest first; stretches begin at whole multiples of the period, and those without samples are left out. */
export function inBuckets(
  samples: readonly { readonly atMs: number; readonly value: number }[],
  periodMs: number,
): readonly Bucket[] {
  const buckets = new Map<number, number[]>();
  for (const { atMs, value } of samples) {
    const startMs = Math.floor(atMs / periodMs) * periodMs;
    const known = buckets.get(startMs);
    if (known === undefined) buckets.set(startMs, [value]);
    else known.push(value);
  }
  return [...buckets].map(([startMs, values]) => ({ startMs, values })).sort((a, b) => a.startMs - b.startMs);
}
