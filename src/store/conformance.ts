import { describe, type TestContext } from "node:test";
import { blobsConformance } from "./conformance/blobs.ts";
import { logConformance } from "./conformance/log.ts";
import { queueConformance } from "./conformance/queue.ts";
import { valuesConformance } from "./conformance/values.ts";
import type { Store } from "./store.ts";

export type Ability = "values" | "log" | "queue" | "blobs";

/**
 * Registers the tests that every implementation of these abilities must pass. `open` gives an empty store for one test and closes it through
 * `context.after`.
 */
export function storeConformance<Served extends Ability>(
  name: string,
  abilities: readonly Served[],
  open: (context: TestContext) => Promise<Pick<Store, Served>>,
): void {
  const serves = (ability: Ability): boolean => abilities.some((served) => served === ability);
  // Narrowing a generic Pick by a value is beyond the type system; `abilities` says what is there.
  const opened = async (context: TestContext): Promise<Store> => (await open(context)) as unknown as Store;
  describe(`${name} keeps the store's contract`, () => {
    if (serves("values")) valuesConformance(async (context) => (await opened(context)).values);
    if (serves("log")) logConformance(async (context) => (await opened(context)).log);
    if (serves("queue")) queueConformance(async (context) => (await opened(context)).queue);
    if (serves("blobs")) blobsConformance(async (context) => (await opened(context)).blobs);
  });
}
