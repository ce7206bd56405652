import type { MetricRow } from "../row.ts";

const COLUMNS = ["#", "Metric", "Ours", "Reference", "Ratio", "Target", "Met"] as const;

/** The rows as lines of equal columns, each note below its row. */
export function textTable(rows: readonly MetricRow[]): string {
  const cells = [COLUMNS, ...rows.map(cellsOf)];
  const widths = COLUMNS.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd();
  const notes = rows.flatMap(({ id, metric, note }) => (note === undefined ? [] : [`${id} ${metric}: ${note}`]));
  return [...cells.map(line), "", ...notes, ""].join("\n");
}

export function markdownTable(rows: readonly MetricRow[]): string {
  const line = (row: readonly string[]): string => `| ${row.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  const body = rows.map((row) => line([...cellsOf(row), row.note ?? ""]));
  return [line([...COLUMNS, "Note"]), `|${" --- |".repeat(COLUMNS.length + 1)}`, ...body, ""].join("\n");
}

function cellsOf(row: MetricRow): readonly string[] {
  const met = row.met === null ? "–" : row.met ? "yes" : "no";
  return [row.id, row.metric, row.ours, row.reference, row.ratio, row.target, met];
}
