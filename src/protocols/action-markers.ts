const MARKER = Buffer.from("XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX");
const NEWLINE = 10;
const CARRIAGE_RETURN = 13;
/** Longest wait for a marker after an answer, in milliseconds. */
const WAIT_MS_MAX = 500;

type Stream = "stdout" | "stderr";

/** The lines that programs write to both of their outputs after every activation: taken out, and waited for. */
export class EndMarkers {
  readonly #rest: Record<Stream, Buffer> = { stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) };
  readonly #seen: Record<Stream, number> = { stdout: 0, stderr: 0 };
  /** Whether a part of the present line has been let through. */
  readonly #isWithin: Record<Stream, boolean> = { stdout: false, stderr: false };
  #expected = 0;
  #wake: (() => void) | null = null;
  /** Programs that write none are not waited for twice. */
  #isMarking = true;

  /** What is left of output without markers. What may be the beginning of one is kept back. */
  filter(stream: Stream, chunk: Buffer): Buffer {
    const bytes = this.#rest[stream].length === 0 ? chunk : Buffer.concat([this.#rest[stream], chunk]);
    const kept: Buffer[] = [];
    let at = 0;
    for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, at)) {
      const markAt = markerEndingAt(bytes.subarray(at, end));
      if (markAt === null) kept.push(bytes.subarray(at, end + 1));
      else {
        this.#count(stream);
        // The action's last line had no end of its own.
        if (markAt > 0 || this.#isWithin[stream]) kept.push(bytes.subarray(at, at + markAt), Buffer.of(NEWLINE));
      }
      this.#isWithin[stream] = false;
      at = end + 1;
    }
    const rest = bytes.subarray(at);
    const held = heldLength(rest);
    this.#rest[stream] = Buffer.from(rest.subarray(rest.length - held));
    if (held < rest.length) {
      kept.push(rest.subarray(0, rest.length - held));
      this.#isWithin[stream] = true;
    }
    return kept.length === 1 ? (kept[0] ?? chunk) : Buffer.concat(kept);
  }

  /** Resolves when both outputs have ended their next activation, or soon. */
  async next(): Promise<void> {
    this.#expected++;
    if (!this.#isMarking || this.#hasAll()) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.#isMarking = false;
        resolve();
      }, WAIT_MS_MAX);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = null;
  }

  close(): void {
    this.#wake?.();
  }

  #count(stream: Stream): void {
    this.#seen[stream]++;
    if (this.#hasAll()) this.#wake?.();
  }

  #hasAll(): boolean {
    return this.#seen.stdout >= this.#expected && this.#seen.stderr >= this.#expected;
  }
}

/** Where in a line the marker begins with which it ends; null: it does not. */
function markerEndingAt(line: Buffer): number | null {
  const length = line.at(-1) === CARRIAGE_RETURN ? line.length - 1 : line.length;
  const at = length - MARKER.length;
  return at >= 0 && line.subarray(at, length).equals(MARKER) ? at : null;
}

/** How many of the last bytes may be the beginning of a marker. */
function heldLength(rest: Buffer): number {
  for (let length = Math.min(rest.length, MARKER.length); length > 0; length--)
    if (rest.subarray(rest.length - length).equals(MARKER.subarray(0, length))) return length;
  return 0;
}
