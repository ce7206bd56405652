import assert from "node:assert/strict";
import { test } from "node:test";
import { renderFacts, renderTable, textWidth } from "./table.ts";
import { coloured, withoutControls } from "./terminal.ts";

test("columns line up whatever their cells are made of", () => {
  const columns = [{ title: "NAME" }, { title: "COUNT", align: "right" }, { title: "NOTE" }] as const;
  const rows = [
    ["日本", "1", "wide"],
    [coloured("green", "ok"), "1000", ""],
    ["é", "22", "combined"],
  ];
  const lines = renderTable(columns, rows, (title) => title).split("\n");
  assert.deepEqual(lines, [
    "NAME  COUNT  NOTE",
    "日本      1  wide",
    `${coloured("green", "ok")}     1000`,
    "é        22  combined",
  ]);
});

test("facts line up by their names", () => {
  assert.equal(
    renderFacts(
      [
        ["a", "1"],
        ["long", "2"],
      ],
      (name) => name,
    ),
    "a     1\nlong  2",
  );
});

test("a text is as wide as a terminal shows it", () => {
  assert.deepEqual(["abc", "日本", "👍🏽", "e\u0301", "\x1b[31mred\x1b[39m"].map(textWidth), [3, 4, 2, 1, 3]);
});

test("output of functions keeps its colours and loses what moves the cursor or sets the title", () => {
  assert.equal(withoutControls("\x1b[31mred\x1b[0m\x1b[2J\x1b]0;title\x07\r\x08!"), "\x1b[31mred\x1b[0m!");
});
