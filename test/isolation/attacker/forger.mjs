// Writes whatever bytes it is told to the channel that its own instance and the engine talk over.
import { writeSync } from "node:fs";

const CHANNEL = 3;
const ATTEMPTS_MAX = 20_000;

export default async function forge(request) {
  const { pieces = [], again = 1, answers = true } = await request.json();
  const bytes = pieces.map((piece) => Buffer.from(piece, "base64"));
  for (let round = 0; round < again; round++) for (const piece of bytes) await write(piece);
  return answers ? new Response("done") : new Promise(() => {});
}

/** Waits where the engine does not read, as a socket that does not block says it. */
async function write(piece) {
  for (let at = 0, attempts = 0; at < piece.length && attempts < ATTEMPTS_MAX;) {
    try {
      at += writeSync(CHANNEL, piece, at);
    } catch (thrown) {
      if (thrown.code !== "EAGAIN") throw thrown;
      attempts++;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}
