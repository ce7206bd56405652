import type { CliFailure } from "./failure.ts";
import type { CliIo } from "./io.ts";
import { readDisplay } from "./settings.ts";
import type { Column } from "./table.ts";
import { renderFacts, renderTable } from "./table.ts";
import type { Paint, Progress } from "./terminal.ts";
import { coloured, movingProgress, plain, plainProgress, silent } from "./terminal.ts";

export interface OutputFlags {
  /** `json`, else for people. */
  readonly output?: string;
  readonly quiet?: boolean;
  /** False: `--no-color`. */
  readonly color?: boolean;
}

/** Where a command's words go: what was asked for to stdout, everything else to stderr. */
export class Output {
  readonly json: boolean;
  /** For stdout and for stderr: each is coloured only where it is a terminal. */
  readonly paint: Paint;
  readonly paintNote: Paint;
  readonly #io: CliIo;
  readonly #quiet: boolean;
  readonly #moving: boolean;

  constructor(io: CliIo, flags: OutputFlags) {
    const display = readDisplay(io);
    const colour = display.colour && flags.color !== false;
    this.#io = io;
    this.#quiet = flags.quiet === true;
    this.#moving = display.moving && flags.color !== false && io.isTerminal.stderr;
    this.json = flags.output === "json";
    this.paint = colour && io.isTerminal.stdout && !this.json ? coloured : plain;
    this.paintNote = colour && io.isTerminal.stderr ? coloured : plain;
  }

  /** Answers a command: the view itself with `-o json`, else the text for people. */
  show(view: unknown, text: () => string): void {
    if (this.json) this.value(view);
    else this.line(text());
  }

  /** Answers a command with a listing: a page with all the items, or a table; an empty one is a note. */
  list<Item>(
    items: readonly Item[],
    table: {
      readonly columns: readonly Column[];
      readonly row: (item: Item) => readonly string[];
      readonly empty: string;
    },
  ): void {
    if (this.json) this.value({ items, next: null });
    else if (items.length === 0) this.note(table.empty);
    else this.line(renderTable(table.columns, items.map(table.row), (title) => this.paint("bold", title)));
  }

  facts(facts: readonly (readonly [string, string])[]): string {
    return renderFacts(facts, (name) => this.paint("dim", name));
  }

  line(text: string): void {
    this.#io.stdout.write(`${text}\n`);
  }

  value(view: unknown): void {
    this.#io.stdout.write(`${JSON.stringify(view, null, 2)}\n`);
  }

  /** A remark on stderr, which `--quiet` leaves out. */
  note(text: string): void {
    if (!this.#quiet) this.#io.stderr.write(`${text}\n`);
  }

  /** `✓ text` on a terminal. */
  done(text: string): void {
    this.note(this.paintNote === plain ? text : `${this.paintNote("green", "✓")} ${text}`);
  }

  warn(text: string): void {
    this.#io.stderr.write(`${this.paintNote("yellow", "warning:")} ${text}\n`);
  }

  failure(failure: CliFailure): void {
    const text = this.json ? JSON.stringify(failure.json(), null, 2) : renderFailure(failure, this.paintNote);
    this.#io.stderr.write(`${text}\n`);
  }

  progress(): Progress {
    if (this.#quiet) return silent;
    return this.#moving ? movingProgress(this.#io.stderr, this.paintNote) : plainProgress(this.#io.stderr);
  }
}

/** Message, what user code threw, hint, and the facts that whoever helps will ask for. */
export function renderFailure(failure: CliFailure, paint: Paint): string {
  const { cause } = failure.report;
  const thrown = cause === undefined ? [] : (cause.stack ?? `${cause.type}: ${cause.message}`).split("\n");
  const facts = [
    `code ${failure.code}`,
    `fault ${failure.fault}`,
    ...(failure.requestId === null || failure.requestId === "" ? [] : [`request ${failure.requestId}`]),
  ];
  return [
    `${paint("red", "error:")} ${failure.message}`,
    ...thrown.map((line) => `  ${paint("dim", line)}`),
    ...(failure.hint === "" ? [] : [`  ${paint("cyan", "hint:")} ${failure.hint}`]),
    `  ${paint("dim", facts.join("  "))}`,
  ].join("\n");
}
