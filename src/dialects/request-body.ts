import { KoineError } from "../core/errors.ts";
import type { RequestBody } from "./dialect.ts";

/**
 * A body's pieces, for those who take them one by one.
 * @throws KoineError `client-closed-request` when the client leaves before the end
 */
export async function* piecesOf(body: RequestBody): AsyncIterable<Buffer> {
  if (body.whole !== null) {
    if (body.whole.length > 0) yield body.whole;
    return;
  }
  const pieces: Buffer[] = [];
  const state: { end: "completed" | "cut" | null; wake: () => void } = { end: null, wake: () => {} };
  const ends = (how: "completed" | "cut"): void => {
    state.end = how;
    state.wake();
  };
  body.read({
    piece: (chunk) => {
      pieces.push(chunk);
      body.pause();
      state.wake();
    },
    completed: () => ends("completed"),
    cut: () => ends("cut"),
  });
  for (;;) {
    const piece = pieces.shift();
    if (piece !== undefined) yield piece;
    else if (state.end === "completed") return;
    else if (state.end === "cut") throw new KoineError("client-closed-request");
    else {
      const woken = new Promise<void>((resolve) => {
        state.wake = resolve;
      });
      body.resume();
      await woken;
    }
  }
}

/**
 * The whole body.
 * @throws KoineError `payload-too-large` as soon as it exceeds `bytesMax`; `client-closed-request`
 */
export async function wholeOf(body: RequestBody, bytesMax: number, what: string): Promise<Buffer> {
  const tooLarge = (): KoineError => new KoineError("payload-too-large", { what, limit: bytesMax });
  if ((body.whole?.length ?? body.lengthBytes ?? 0) > bytesMax) throw tooLarge();
  if (body.whole !== null) return body.whole;
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of piecesOf(body)) {
    bytes += piece.length;
    if (bytes > bytesMax) throw tooLarge();
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}
