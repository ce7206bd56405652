import { isReachable, type Sandbox } from "../sandbox/sandbox.ts";
import type { EngineParts, InsideOpening } from "./parts.ts";

/**
 * Lets an instance have what was opened for it: listens for it inside, and answers what its environment gets; all of it ends with the sandbox.
 * @throws KoineError `not-supported`
 */
export async function enterInside(
  parts: Pick<EngineParts, "supervise">,
  opening: InsideOpening,
  {
    sandbox,
    port,
  }: {
    readonly sandbox: Sandbox;
    /** 0: any; null: the sandbox was told that there is none. */
    readonly port: number | null;
  },
): Promise<Readonly<Record<string, string>>> {
  const { serve } = opening;
  parts.supervise(
    "close what was opened for an instance",
    sandbox.ended.then(() => opening.close()),
  );
  if (serve === null || port === null || !isReachable(sandbox)) return opening.environment(null);
  const listening = await sandbox.listen(port, serve);
  parts.supervise(
    "close the port of an instance",
    sandbox.ended.then(() => listening[Symbol.asyncDispose]()),
  );
  return opening.environment(listening.port);
}
