import { StringDecoder } from "node:string_decoder";
import type { LogStream } from "../core/invocation.ts";
import type { Limits } from "../core/limits.ts";

type LineBounds = Pick<Limits, "logLineBytesMax" | "logBytesPerInvocationMax">;

/**
 * Turns one writer's output into lines: whole UTF-8 characters, bounded length, bounded sum. What exceeds the sum is counted and
 * reported once, at the end.
 */
export class LineAssembler {
  readonly #bounds: LineBounds;
  readonly #emit: (stream: LogStream, line: string, timeMs: number) => void;
  readonly #streams = new Map<LogStream, { decoder: StringDecoder; rest: string; timeMs: number }>();
  #bytes = 0;
  #droppedBytes = 0;

  constructor(bounds: LineBounds, emit: (stream: LogStream, line: string, timeMs: number) => void) {
    this.#bounds = bounds;
    this.#emit = emit;
  }

  write(stream: LogStream, chunk: Buffer, timeMs: number): void {
    const room = this.#bounds.logBytesPerInvocationMax - this.#bytes;
    if (room <= 0) {
      this.#droppedBytes += chunk.length;
      return;
    }
    const taken = chunk.length <= room ? chunk : chunk.subarray(0, room);
    this.#droppedBytes += chunk.length - taken.length;
    this.#bytes += taken.length;
    let part = this.#streams.get(stream);
    if (part === undefined) {
      part = { decoder: new StringDecoder("utf8"), rest: "", timeMs };
      this.#streams.set(stream, part);
    }
    if (part.rest === "") part.timeMs = timeMs;
    const text = part.rest + part.decoder.write(taken);
    const lines = text.split("\n");
    part.rest = lines.pop() ?? "";
    for (const line of lines) {
      this.#line(stream, line, part.timeMs);
      part.timeMs = timeMs;
    }
    if (part.rest.length > this.#bounds.logLineBytesMax) {
      this.#line(stream, part.rest, part.timeMs);
      part.rest = "";
    }
  }

  /** Emits what has no line end yet, and the notice of what was dropped; the assembler can be used on. */
  flush(timeMs: number): void {
    for (const [stream, part] of this.#streams) {
      const rest = part.rest + part.decoder.end();
      part.rest = "";
      if (rest !== "") this.#line(stream, rest, part.timeMs);
    }
    if (this.#droppedBytes > 0) {
      const notice = `${this.#droppedBytes} bytes of output were dropped: more than ${this.#bounds.logBytesPerInvocationMax} bytes per invocation`;
      this.#droppedBytes = 0;
      this.#emit("platform", notice, timeMs);
    }
  }

  #line(stream: LogStream, text: string, timeMs: number): void {
    const line = text.endsWith("\r") ? text.slice(0, -1) : text;
    if (line.length <= this.#bounds.logLineBytesMax) {
      this.#emit(stream, line, timeMs);
      return;
    }
    const kept = line.slice(0, this.#bounds.logLineBytesMax);
    this.#emit(stream, `${kept} … (${line.length - kept.length} characters cut)`, timeMs);
  }
}
