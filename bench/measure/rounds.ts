import { ratios, type Spread, spread, validRounds } from "./statistics.ts";

/** One of those that are compared; each round calls each once. */
export interface Contender<Figures> {
  readonly name: string;
  run(): Promise<Figures>;
}

export interface RoundsOptions {
  /** Rounds that are kept; one more is run first and dropped. */
  readonly count: number;
  /** Whose stray voids a round. */
  readonly reference: string;
  readonly strayMax?: number;
}

export interface Rounds<Figures> {
  /** Figures of the rounds that count, by contender; all lists are equally long. */
  of(name: string): readonly Figures[];
  readonly run: number;
  readonly valid: number;
}

const STRAY_MAX = 0.15;

/**
 * Interleaved rounds A B C A B C …: whatever disturbs the machine disturbs all alike. A round in which the reference strays from its
 * median is void; void ones are run again, up to as many times as there are rounds, so that the whole is bounded.
 */
export async function interleave<Figures>(
  contenders: readonly Contender<Figures>[],
  figureOf: (figures: Figures) => number,
  { count, reference, strayMax = STRAY_MAX }: RoundsOptions,
): Promise<Rounds<Figures>> {
  const kept = new Map<string, Figures[]>(contenders.map(({ name }) => [name, []]));
  const values = (): number[] => (kept.get(reference) ?? []).map(figureOf);
  let run = 0;
  for (; run <= count * 2; run++) {
    if (run > count && validRounds(values(), strayMax).length >= count) break;
    for (const contender of contenders) {
      const figures = await contender.run();
      if (run > 0) kept.get(contender.name)?.push(figures);
    }
  }
  const valid = validRounds(values(), strayMax);
  return {
    of: (name) => valid.flatMap((round) => kept.get(name)?.[round] ?? []),
    run: run - 1,
    valid: valid.length,
  };
}

/** Median and range of the per-round ratios of one figure. */
export function ratioOf<Figures>(
  rounds: Rounds<Figures>,
  names: { readonly ours: string; readonly reference: string },
  figureOf: (figures: Figures) => number,
): Spread {
  return spread(ratios(rounds.of(names.ours).map(figureOf), rounds.of(names.reference).map(figureOf)));
}
