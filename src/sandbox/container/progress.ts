import type { Readable } from "node:stream";
import { createInterface } from "node:readline";

/** One message of the engine's while it pulls or builds. */
export interface ProgressMessage {
  readonly status?: string;
  readonly id?: string;
  readonly progressDetail?: { readonly current?: number; readonly total?: number };
  readonly stream?: string;
  readonly error?: string;
  readonly aux?: { readonly ID?: string };
}

/** The messages of a streamed answer, one JSON text per line. */
export async function* messagesOf(source: Readable): AsyncGenerator<ProgressMessage> {
  for await (const line of createInterface({ input: source, crlfDelay: Number.POSITIVE_INFINITY })) {
    if (line.trim() === "") continue;
    const parsed: unknown = JSON.parse(line);
    if (typeof parsed === "object" && parsed !== null) yield parsed;
  }
}

const MEBIBYTE = 1024 * 1024;

/** Adds up what an engine tells about the layers of a pull. */
export class PullProgress {
  readonly #image: string;
  readonly #layers = new Map<string, { current: number; total: number; done: boolean }>();

  constructor(image: string) {
    this.#image = image;
  }

  /** Answers the line that says how far it is. */
  take({ id, status = "", progressDetail }: ProgressMessage): string {
    if (id !== undefined && /^[0-9a-f]{12}$/.test(id)) {
      const layer = this.#layers.get(id) ?? { current: 0, total: 0, done: false };
      if (status === "Downloading") {
        layer.current = progressDetail?.current ?? layer.current;
        layer.total = progressDetail?.total ?? layer.total;
      }
      if (/^(?:Download complete|Pull complete|Already exists)/.test(status)) {
        layer.current = layer.total;
        layer.done = true;
      }
      this.#layers.set(id, layer);
    }
    return this.line;
  }

  get line(): string {
    const layers = [...this.#layers.values()];
    const sum = (field: "current" | "total"): number => layers.reduce((total, layer) => total + layer[field], 0);
    const done = layers.filter((layer) => layer.done).length;
    const parts = layers.length === 0 ? [] : [`${done} of ${layers.length} layers`];
    if (sum("total") > 0) parts.push(`${megabytes(sum("current"))} of ${megabytes(sum("total"))} MB`);
    return `pulling ${this.#image}${parts.length === 0 ? "" : `: ${parts.join(", ")}`}`;
  }
}

function megabytes(bytes: number): string {
  return (bytes / MEBIBYTE).toFixed(1);
}
