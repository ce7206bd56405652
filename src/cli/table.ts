import { stripVTControlCharacters } from "node:util";

export interface Column {
  readonly title: string;
  readonly align?: "left" | "right";
}

/** Lines of a table whose columns are as wide as their widest cell on a terminal; two spaces between, none at the end. */
export function renderTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  paintTitle: (text: string) => string,
): string {
  const widths = columns.map((column, index) =>
    Math.max(textWidth(column.title), ...rows.map((row) => textWidth(row[index] ?? ""))),
  );
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, index) => {
        const space = " ".repeat(Math.max(0, (widths[index] ?? 0) - textWidth(cell)));
        if (columns[index]?.align === "right") return space + cell;
        return index === cells.length - 1 ? cell : cell + space;
      })
      .join("  ")
      .trimEnd();
  return [line(columns.map((column) => paintTitle(column.title))), ...rows.map(line)].join("\n");
}

/** Lines of `name  value`, names as wide as the widest. */
export function renderFacts(
  facts: readonly (readonly [string, string])[],
  paintName: (text: string) => string,
): string {
  const width = Math.max(...facts.map(([name]) => textWidth(name)));
  return facts
    .map(([name, text]) => `${paintName(name)}${" ".repeat(width - textWidth(name))}  ${text}`.trimEnd())
    .join("\n");
}

/** Cells that a text takes on a terminal: 2 for wide East Asian characters and emoji, 0 for colour codes and marks. */
export function textWidth(text: string): number {
  const plain = stripVTControlCharacters(text);
  if (/^[\x20-\x7e]*$/.test(plain)) return plain.length;
  let width = 0;
  for (const { segment } of new Intl.Segmenter(undefined, { granularity: "grapheme" }).segment(plain)) {
    if (/^[\p{Mark}\p{Control}\p{Format}]+$/u.test(segment)) continue;
    width += WIDE.test(segment) ? 2 : 1;
  }
  return width;
}

const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}|\ufe0f/u;
