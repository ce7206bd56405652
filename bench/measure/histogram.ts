/** Sub-buckets per power of two: a value is known to within 1/256, under 0.4 %. */
const SUB_BITS = 7;
const SUB_COUNT = 1 << SUB_BITS;
/** The unit in which values are counted, in nanoseconds. */
const UNIT_NS = 64;
const UNITS_PER_MS = 1_000_000 / UNIT_NS;
const UNITS_MAX = 2 ** 31 - 1;
const BUCKETS = SUB_COUNT + (31 - SUB_BITS) * SUB_COUNT;

/** What a histogram looks like between processes. */
export interface HistogramRecord {
  readonly counts: readonly (readonly [bucket: number, count: number])[];
  readonly maxMs: number;
  readonly sumMs: number;
}

/**
 * Counts durations in buckets of constant relative width, as HdrHistogram does: constant memory, no value is lost, and percentiles of
 * any height. From 64 ns to 137 s; what is longer counts as that.
 */
export class Histogram {
  readonly #counts = new Uint32Array(BUCKETS);
  #count = 0;
  #maxMs = 0;
  #sumMs = 0;

  static from(record: HistogramRecord): Histogram {
    const histogram = new Histogram();
    histogram.add(record);
    return histogram;
  }

  get count(): number {
    return this.#count;
  }

  get maxMs(): number {
    return this.#maxMs;
  }

  get meanMs(): number {
    return this.#count === 0 ? 0 : this.#sumMs / this.#count;
  }

  record(valueMs: number): void {
    const index = bucketOf(Math.min(UNITS_MAX, Math.max(0, Math.round(valueMs * UNITS_PER_MS))));
    this.#counts[index] = (this.#counts[index] ?? 0) + 1;
    this.#count++;
    this.#sumMs += valueMs;
    if (valueMs > this.#maxMs) this.#maxMs = valueMs;
  }

  /** Adds all that another one has counted. */
  add(record: HistogramRecord): void {
    for (const [index, count] of record.counts) {
      this.#counts[index] = (this.#counts[index] ?? 0) + count;
      this.#count += count;
    }
    this.#sumMs += record.sumMs;
    this.#maxMs = Math.max(this.#maxMs, record.maxMs);
  }

  /** The smallest value that at least this share of all values does not exceed, in milliseconds; 0 when there are none. */
  percentileMs(share: number): number {
    if (this.#count === 0) return 0;
    if (share >= 1) return this.#maxMs;
    const wanted = Math.max(1, Math.ceil(share * this.#count));
    let seen = 0;
    for (let index = 0; index < BUCKETS; index++) {
      seen += this.#counts[index] ?? 0;
      if (seen >= wanted) return Math.min(this.#maxMs, middleOf(index) / UNITS_PER_MS);
    }
    return this.#maxMs;
  }

  toJSON(): HistogramRecord {
    const counts: (readonly [number, number])[] = [];
    for (const [index, count] of this.#counts.entries()) if (count > 0) counts.push([index, count]);
    return { counts, maxMs: this.#maxMs, sumMs: this.#sumMs };
  }
}

function bucketOf(units: number): number {
  if (units < SUB_COUNT * 2) return units;
  const shift = 31 - Math.clz32(units) - SUB_BITS;
  return shift * SUB_COUNT + (units >>> shift);
}

function middleOf(bucket: number): number {
  if (bucket < SUB_COUNT * 2) return bucket;
  const shift = Math.floor(bucket / SUB_COUNT) - 1;
  return (bucket - shift * SUB_COUNT + 0.5) * 2 ** shift;
}
