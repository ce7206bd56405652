import { CsvParser, TooLargeError } from "./csv.mjs";
import { Column } from "./column.mjs";

const DELIMITERS = new Map([
  ["comma", ","],
  ["semicolon", ";"],
  ["tab", "\t"],
]);
const BAD_ROWS_SHOWN = 10;

export default async function csvReport(request) {
  if (request.method !== "POST") return refuse(405, "POST a CSV", { allow: "POST" });
  const delimiter = DELIMITERS.get(new URL(request.url).searchParams.get("delimiter") ?? "comma");
  if (delimiter === undefined) return refuse(400, `delimiter must be one of ${[...DELIMITERS.keys()].join(", ")}`);
  const report = new Report();
  try {
    await parse(request.body ?? [], new CsvParser({ delimiter, onRow: (row) => report.add(row) }));
  } catch (error) {
    if (error instanceof TooLargeError) return refuse(413, error.message);
    if (error.code === "ERR_ENCODING_INVALID_ENCODED_DATA") return refuse(400, "the body is not UTF-8");
    throw error;
  }
  if (report.columns === null) return refuse(400, "the body is empty: POST a CSV whose first row names the columns");
  const summary = report.summary();
  console.log(`${summary.rows} rows, ${summary.badRows.count} bad`);
  return Response.json(summary);
}

/** Takes one chunk at a time; the platform holds the sender back meanwhile. */
async function parse(chunks, parser) {
  // Keeps the bytes of a character that two chunks share, and takes away a byte order mark.
  const decoder = new TextDecoder("utf-8", { fatal: true });
  for await (const chunk of chunks) parser.write(decoder.decode(chunk, { stream: true }));
  parser.write(decoder.decode());
  parser.end();
}

class Report {
  columns = null;
  #rows = 0;
  #badRows = 0;
  #badRowsShown = [];

  /** The first row names the columns; a row with another number of fields, or with broken quotes, only counts as bad. */
  add({ fields, line, problem }) {
    if (this.columns === null) {
      this.columns = fields.map((name, index) => new Column(name.trim() || `column ${index + 1}`));
      return;
    }
    const reason = problem ?? this.#lengthProblem(fields);
    if (reason !== null) {
      this.#badRows++;
      if (this.#badRowsShown.length < BAD_ROWS_SHOWN) this.#badRowsShown.push({ line, reason });
      return;
    }
    this.#rows++;
    for (let index = 0; index < fields.length; index++) this.columns[index].add(fields[index]);
  }

  summary() {
    return {
      rows: this.#rows,
      badRows: { count: this.#badRows, first: this.#badRowsShown },
      columns: this.columns.map((column) => column.summary()),
    };
  }

  #lengthProblem(fields) {
    if (fields.length === this.columns.length) return null;
    return `${fields.length} fields instead of ${this.columns.length}`;
  }
}

function refuse(status, error, headers = {}) {
  return Response.json({ error }, { status, headers });
}
