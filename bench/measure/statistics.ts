/** Middle, least and most of some figures. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** @throws RangeError where there are no figures */
export function spread(values: readonly number[]): Spread {
  if (values.length === 0) throw new RangeError("there is nothing to take the median of");
  const sorted = values.toSorted((a, b) => a - b);
  return { median: percentile(sorted, 0.5), min: sorted[0] ?? 0, max: sorted.at(-1) ?? 0 };
}

export function median(values: readonly number[]): number {
  return spread(values).median;
}

/** Of figures in any order, with linear interpolation between neighbours. @throws RangeError where there are none */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const position = share * (sorted.length - 1);
  const below = sorted[Math.floor(position)];
  const above = sorted[Math.ceil(position)];
  if (below === undefined || above === undefined) throw new RangeError("there is nothing to take a percentile of");
  return below + (above - below) * (position - Math.floor(position));
}

/** Which rounds count: those in which the reference keeps within `strayMax` (a share) of its median over all rounds. */
export function validRounds(reference: readonly number[], strayMax: number): readonly number[] {
  if (reference.length === 0) return [];
  const middle = median(reference);
  return [...reference.keys()].filter((round) => Math.abs((reference[round] ?? 0) / middle - 1) <= strayMax);
}

/** Ours over theirs, round by round. */
export function ratios(ours: readonly number[], reference: readonly number[]): readonly number[] {
  return ours.map((value, round) => value / (reference[round] ?? Number.NaN));
}

/** Least-squares slope of `y` over `x`; 0 where there are fewer than two points. */
export function slope(points: readonly (readonly [x: number, y: number])[]): number {
  if (points.length < 2) return 0;
  const meanX = points.reduce((sum, [x]) => sum + x, 0) / points.length;
  const meanY = points.reduce((sum, [, y]) => sum + y, 0) / points.length;
  const above = points.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0);
  const below = points.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
  return below === 0 ? 0 : above / below;
}
