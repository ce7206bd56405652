import { limits } from "../core/limits.ts";
import type { Version } from "../core/function.ts";
import type { Invocation, InvocationFigures, Outcome, ResponseHead } from "../core/invocation.ts";
import type { Engine } from "../engine/engine.ts";
import type { Ran } from "./wire.ts";

/** Runs an invocation and gives its answer as a whole; what is longer than is kept of one is cut, and the function not disturbed. */
export function runWhole(
  engine: Pick<Engine, "invoke">,
  invocation: Invocation,
  version: Version,
): Promise<Ran & { readonly body: Buffer }> {
  const { promise, resolve } = Promise.withResolvers<Ran & { readonly body: Buffer }>();
  const chunks: Buffer[] = [];
  let roomBytes: number = limits.resultBytesMax;
  let head: ResponseHead | null = null;
  engine.invoke(invocation, version, {
    head: (received) => {
      head = { status: received.status, headers: received.headers };
    },
    body: (chunk) => {
      if (roomBytes > 0) chunks.push(chunk.subarray(0, roomBytes));
      roomBytes -= chunk.length;
      return true;
    },
    bodyEnded: () => {},
    ended: (outcome: Outcome, figures: InvocationFigures) =>
      resolve({ outcome, figures, head, body: Buffer.concat(chunks) }),
  });
  return promise;
}
