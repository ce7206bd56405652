/** One line of the table that `npm run bench` prints. */
export interface MetricRow {
  /** Number in the list of targets, such as `1b`; several rows may share one. */
  readonly id: string;
  readonly metric: string;
  readonly ours: string;
  /** What it is compared with, from the same run. */
  readonly reference: string;
  /** Median and range of the ratio, as `0.93 (0.90–0.95)`. */
  readonly ratio: string;
  readonly target: string;
  /** Null: there is no target, or it could not be measured; the note says why. */
  readonly met: boolean | null;
  readonly note?: string;
  /** The figures behind the texts, for the JSON; units in the names. */
  readonly figures?: Readonly<Record<string, unknown>>;
}

/** A row for what could not be measured. */
export function missingRow(id: string, metric: string, target: string, why: string): MetricRow {
  return { id, metric, ours: "–", reference: "–", ratio: "–", target, met: null, note: why };
}
