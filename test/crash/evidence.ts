import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** What a function noted: one line per event that it was given (`begin`), and how it dealt with it. */
export interface Noted {
  readonly kind: "begin" | "end" | "fail";
  /** Which function, and for what: `work`, `audit`, `schedule`, `topic`, `batch`. */
  readonly at: string;
  readonly activation: string;
  readonly attempt: number;
  /** The event's id; of an audit, the activation whose outcome it tells. */
  readonly event: string;
  /** The ordering key; of an audit, the type of the outcome. */
  readonly key: string | null;
  /** The place within the ordering key. */
  readonly n: number;
  readonly atMs: number;
  /** Whether the payload arrived as it was sent; with `begin` only. */
  readonly whole?: boolean;
}

/** Written among the notes by the harness, while no platform runs: a platform starts, or has ended. */
export type Mark =
  | { readonly kind: "started"; readonly life: number }
  | { readonly kind: "ended"; readonly life: number; readonly how: Ending };

export type Ending = "killed" | "power-cut" | "stopped";

/** What a client did: it is written before it is sent, and again when the answer is there. */
export type Told =
  | {
      readonly kind: "sent";
      readonly event: string;
      readonly to: "work" | "topic";
      readonly idempotencyKey: string | null;
      readonly delayMs: number;
      /** Attempts that are to fail. */
      readonly failures: number;
      readonly vain: boolean;
      readonly atMs: number;
    }
  | { readonly kind: "accepted"; readonly event: string; readonly activation: string; readonly duplicate: boolean }
  | { readonly kind: "refused"; readonly event: string; readonly status: number; readonly code: string };

/** What the platform says at the end, when nothing waits in its queue. */
export interface FinalWord {
  readonly deadLetters: readonly DeadLetterWord[];
  /** By activation. */
  readonly runs: Readonly<Record<string, RunWord>>;
}

export interface DeadLetterWord {
  readonly id: string;
  readonly name: string;
  readonly attempts: number;
  readonly reason: string;
  readonly code: string;
}

export interface RunWord {
  /** Null: there is no record of it. */
  readonly state: string | null;
  readonly queued: boolean;
  readonly deadLetter: boolean;
}

/** The two files that outlive every crash: what functions noted, and what clients were told. */
export class Evidence {
  readonly notesFile: string;
  readonly #clientsFile: string;

  constructor(folder: string) {
    this.notesFile = join(folder, "notes.jsonl");
    this.#clientsFile = join(folder, "clients.jsonl");
  }

  mark(mark: Mark): void {
    appendFileSync(this.notesFile, `${JSON.stringify(mark)}\n`);
  }

  told(told: Told): void {
    appendFileSync(this.#clientsFile, `${JSON.stringify(told)}\n`);
  }

  notes(): readonly (Noted | Mark)[] {
    return linesOf(this.notesFile) as (Noted | Mark)[];
  }

  clients(): readonly Told[] {
    return linesOf(this.#clientsFile) as Told[];
  }
}

function linesOf(file: string): unknown[] {
  if (!existsSync(file)) return [];
  return readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line): unknown => JSON.parse(line));
}
