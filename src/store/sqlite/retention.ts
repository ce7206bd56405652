import type { DatabaseSync, StatementSync } from "node:sqlite";
import { Blocks, type OnRemoved } from "./blocks.ts";
import { integer } from "./database.ts";

/** What one call removes at most, so that reading and writing go on in between. */
const ROWS_PER_CALL = 4_000;
/** The first pages become free only when all their rows are gone; smaller slices remove less beyond what must go. */
const SLICE_ROWS = 50;
const BLOCKS_PER_CALL = 20;
const PAGES_PER_CALL = 4_000;

export interface Removed {
  readonly activations: number;
  readonly lines: number;
  /** Whether there may be more to remove. */
  readonly more: boolean;
}

/** Removes what is too old or too much, a part per call; pages that became free are given back to the file system. */
export function retentionOperations(database: DatabaseSync) {
  const prepared = prepare(database);
  const blocks = new Blocks(database);

  const removeResults: OnRemoved = (firstId, lastId, has) => {
    for (const { id } of prepared.resultsWithin.all(firstId, lastId))
      if (has(String(id))) prepared.removeResult.run(String(id));
  };

  const removeActivations = (statement: StatementSync, ...bounds: number[]): number => {
    const gone = statement.all(...bounds);
    for (const { id } of gone) prepared.removeResult.run(String(id));
    return gone.length;
  };

  /** The time up to which a slice of so many rows goes: that of the last row of the slice, in the table where it is older. */
  const sliceEndMs = (rows: number): number =>
    Math.min(
      blocks.firstEndMs() ?? Infinity,
      ...[prepared.lineAt.get(rows - 1), prepared.activationAt.get(rows - 1)].map((row) =>
        row === undefined ? Infinity : integer(row, "atMs"),
      ),
    );

  const removeSlice = (): { readonly activations: number; readonly lines: number } => {
    const rows = sliceEndMs(SLICE_ROWS) < Infinity ? SLICE_ROWS : 1;
    const endMs = sliceEndMs(rows);
    return {
      activations:
        removeActivations(prepared.removeFirstActivations, rows, endMs) + blocks.removeFirst(endMs, removeResults),
      lines: Number(prepared.removeFirstLines.run(rows, endMs).changes),
    };
  };

  const usedBytes = (): number =>
    (integer(prepared.pages.get(), "page_count") - integer(prepared.freePages.get(), "freelist_count")) *
    integer(prepared.pageSize.get(), "page_size");

  return {
    removeOld(olderThanMs: number): Removed {
      const rows = removeActivations(prepared.removeOldActivations, olderThanMs, ROWS_PER_CALL);
      const old = blocks.removeOld(olderThanMs, BLOCKS_PER_CALL, removeResults);
      const activations = rows + old.activations;
      const lines = Number(prepared.removeOldLines.run(olderThanMs, ROWS_PER_CALL).changes);
      prepared.removeOrphanedResults.run(olderThanMs, ROWS_PER_CALL);
      database.exec(`PRAGMA incremental_vacuum(${PAGES_PER_CALL})`);
      return { activations, lines, more: rows === ROWS_PER_CALL || lines === ROWS_PER_CALL || old.more };
    },

    removeExcess(bytesMax: number): Removed {
      let activations = 0;
      let lines = 0;
      let empty = false;
      while (!empty && activations + lines < ROWS_PER_CALL && usedBytes() > bytesMax) {
        const slice = removeSlice();
        activations += slice.activations;
        lines += slice.lines;
        empty = slice.activations + slice.lines === 0;
      }
      database.exec(`PRAGMA incremental_vacuum(${PAGES_PER_CALL})`);
      return { activations, lines, more: activations + lines >= ROWS_PER_CALL };
    },
  };
}

function prepare(database: DatabaseSync) {
  return {
    removeOldActivations: database.prepare(
      `DELETE FROM activations WHERE row IN (
         SELECT a.row FROM (SELECT DISTINCT space FROM functions) s CROSS JOIN activations a
         WHERE a.space = s.space AND a.startedAtMs < ? LIMIT ?) RETURNING id`,
    ),
    removeOldLines: database.prepare(
      `DELETE FROM lines WHERE sequence IN (
         SELECT sequence FROM lines INDEXED BY lines_by_function
         WHERE fn IN (SELECT fn FROM functions) AND timeMs < ? LIMIT ?)`,
    ),
    removeResult: database.prepare("DELETE FROM results WHERE id = ?"),
    resultsWithin: database.prepare("SELECT id FROM results WHERE id BETWEEN ? AND ?"),
    removeOrphanedResults: database.prepare(
      `DELETE FROM results WHERE id IN (
         SELECT r.id FROM results r LEFT JOIN activations a ON a.id = r.id WHERE r.atMs < ? AND a.id IS NULL LIMIT ?)`,
    ),
    lineAt: database.prepare("SELECT timeMs AS atMs FROM lines ORDER BY sequence LIMIT 1 OFFSET ?"),
    activationAt: database.prepare("SELECT startedAtMs AS atMs FROM activations ORDER BY row LIMIT 1 OFFSET ?"),
    removeFirstLines: database.prepare(
      `DELETE FROM lines WHERE sequence IN (SELECT sequence FROM (
         SELECT sequence, timeMs FROM lines ORDER BY sequence LIMIT ?) WHERE timeMs <= ?)`,
    ),
    removeFirstActivations: database.prepare(
      `DELETE FROM activations WHERE row IN (SELECT row FROM (
         SELECT row, startedAtMs FROM activations ORDER BY row LIMIT ?) WHERE startedAtMs <= ?) RETURNING id`,
    ),
    pages: database.prepare("PRAGMA page_count"),
    freePages: database.prepare("PRAGMA freelist_count"),
    pageSize: database.prepare("PRAGMA page_size"),
  };
}
