import { PassThrough, type Duplex, type Readable } from "node:stream";

export interface Demultiplexed {
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** The very first byte of standard output, which is taken out of it; null when the stream ended before one came. */
  readonly firstByte: Promise<number | null>;
  /** Has `listener` called whenever something came on standard error. */
  onComplaint(listener: () => void): void;
}

const HEADER_BYTES = 8;
const STDERR = 2;

/**
 * Takes apart the stream in which an engine sends both outputs of a program: each piece has a header with the stream's number at 0 and the
 * length at 4. What nobody reads is held back in the engine, and so in the program.
 * @param withFirstByte whether the first byte of standard output belongs to the hold program
 */
export function demultiplex(source: Duplex, { withFirstByte }: { readonly withFirstByte: boolean }): Demultiplexed {
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  for (const stream of [stdout, stderr]) stream.on("error", () => {});
  let header = Buffer.alloc(0);
  let target = stdout;
  let left = 0;
  let complained = (): void => {};
  let tellFirst: ((byte: number | null) => void) | null = null;
  const firstByte = new Promise<number | null>((resolve) => {
    if (withFirstByte) tellFirst = resolve;
    else resolve(null);
  });
  const first = (byte: number | null): void => {
    tellFirst?.(byte);
    tellFirst = null;
  };

  /** Answers whether more may come at once. */
  const deliver = (piece: Buffer): boolean => {
    let bytes = piece;
    if (target === stdout && tellFirst !== null && bytes.length > 0) {
      first(bytes[0] ?? null);
      bytes = bytes.subarray(1);
    }
    return bytes.length === 0 || target.write(bytes);
  };

  const take = (chunk: Buffer): void => {
    let flowing = true;
    for (let at = 0; at < chunk.length;) {
      if (left === 0) {
        const missing = HEADER_BYTES - header.length;
        header = Buffer.concat([header, chunk.subarray(at, at + missing)]);
        at += missing;
        if (header.length < HEADER_BYTES) break;
        target = header[0] === STDERR ? stderr : stdout;
        left = header.readUInt32BE(4);
        header = Buffer.alloc(0);
        continue;
      }
      const piece = chunk.subarray(at, at + left);
      at += piece.length;
      left -= piece.length;
      if (target === stderr) complained();
      flowing = deliver(piece) && flowing;
    }
    if (flowing) return;
    source.pause();
    const full = [stdout, stderr].filter((stream) => stream.writableNeedDrain);
    let waiting = full.length;
    for (const stream of full) {
      stream.once("drain", () => {
        waiting--;
        if (waiting === 0) source.resume();
      });
    }
  };
  const end = (): void => {
    first(null);
    stdout.end();
    stderr.end();
  };
  source.on("data", take).on("end", end).on("close", end).on("error", end);
  return {
    stdout,
    stderr,
    firstByte,
    onComplaint: (listener) => {
      complained = listener;
    },
  };
}
