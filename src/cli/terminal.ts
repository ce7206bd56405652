import type { CliIo } from "./io.ts";

export type Colour = "bold" | "dim" | "red" | "green" | "yellow" | "cyan";
export type Paint = (colour: Colour, text: string) => string;

const CODES: Readonly<Record<Colour, readonly [number, number]>> = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  cyan: [36, 39],
};

export const plain: Paint = (_, text) => text;
export const coloured: Paint = (colour, text) => {
  const [on, off] = CODES[colour];
  return text === "" ? "" : `\x1b[${on}m${text}\x1b[${off}m`;
};

/** What long work shows on stderr while it lasts: a moving line on a terminal, else one plain line per phase. */
export interface Progress {
  phase(text: string): void;
  /** A line that stays, such as an installer's output. */
  line(text: string): void;
  /** Removes the moving line. */
  end(): void;
}

export const silent: Progress = { phase: () => {}, line: () => {}, end: () => {} };

export function plainProgress(stderr: CliIo["stderr"]): Progress {
  return {
    phase: (text) => void stderr.write(`${text}\n`),
    line: (text) => void stderr.write(`  ${text}\n`),
    end: () => {},
  };
}

const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const FRAME_MS = 80;

export function movingProgress(stderr: CliIo["stderr"], paint: Paint): Progress {
  let current: string | null = null;
  let frame = 0;
  let timer: NodeJS.Timeout | null = null;
  const draw = (): void => {
    if (current === null) return;
    stderr.write(`\r\x1b[2K${paint("cyan", FRAMES[frame % FRAMES.length] ?? "")} ${current}`);
    frame++;
  };
  const erase = (): void => {
    if (current !== null) stderr.write("\r\x1b[2K");
  };
  return {
    phase(text) {
      current = text;
      timer ??= setInterval(draw, FRAME_MS).unref();
      draw();
    },
    line(text) {
      erase();
      stderr.write(`  ${paint("dim", text)}\n`);
      draw();
    },
    end() {
      erase();
      current = null;
      if (timer !== null) clearInterval(timer);
      timer = null;
    },
  };
}

/** Without what could move the cursor, change the title or hide text; colours stay. For output of functions on a terminal. */
export function withoutControls(text: string): string {
  // oxlint-disable-next-line no-misleading-character-class
  return text
    .replaceAll(/\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?/g, "")
    .replaceAll(/\x1b\[[0-9;?]*[@-ln-~]/g, "")
    .replaceAll(/\x1b(?!\[[0-9;]*m)/g, "")
    .replaceAll(/[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]/g, "");
}
