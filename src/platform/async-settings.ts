import { KoineError } from "../core/errors.ts";
import {
  type Destinations,
  type FunctionRef,
  type FunctionSpec,
  functionKey,
  type RetrySettings,
} from "../core/function.ts";
import type { Limits } from "../core/limits.ts";
import { destinationSecrets, parseDestination } from "./destinations.ts";
import type { PlatformParts } from "./parts.ts";

interface AsyncSettings {
  readonly retry?: RetrySettings | undefined;
  readonly destinations?: Destinations | undefined;
}

/** What a spec says of asynchronous invocations; what is absent stays so, or the digests of older versions would change. @throws KoineError `limit-exceeded` */
export function completeAsync(
  { retry, destinations }: AsyncSettings,
  limits: Limits,
): Pick<FunctionSpec, "retry" | "destinations"> {
  checkWithin("attempts", retry?.attemptsMax, { min: 1, max: limits.asyncAttemptsMax });
  checkWithin("retry delay in milliseconds", retry?.delayMs, { min: 0, max: limits.retryDelayMsMax });
  checkWithin("event age in milliseconds", retry?.ageMsMax, { min: 1_000, max: limits.asyncAgeMsMax });
  return {
    ...(retry === undefined || isEmpty(retry) ? {} : { retry }),
    ...(destinations === undefined || isEmpty(destinations) ? {} : { destinations }),
  };
}

/**
 * Refuses destinations that nothing could reach, before anything depends on them.
 * @throws KoineError `destination-refused`, `function-not-found`, `topic-not-found`, `secret-not-found`
 */
export async function checkDestinations(
  {
    catalogue,
    secrets,
    topicExists,
  }: Pick<PlatformParts, "catalogue" | "secrets"> & {
    topicExists(namespace: string, topic: string): Promise<unknown>;
  },
  ref: FunctionRef,
  destinations: Destinations | undefined,
): Promise<void> {
  for (const text of [destinations?.onSuccess, destinations?.onFailure]) {
    if (text === undefined) continue;
    const destination = parseDestination(text, ref.namespace);
    if (destination.kind === "topic") await topicExists(ref.namespace, destination.topic);
    if (destination.kind === "function" && functionKey(destination.ref) !== functionKey(ref))
      catalogue.resolve(destination.ref);
  }
  await secrets.open(ref.namespace, destinationSecrets(destinations, ref.namespace));
}

function isEmpty(settings: object): boolean {
  return Object.values(settings).every((value) => value === undefined);
}

function checkWithin(
  what: string,
  value: number | undefined,
  { min, max }: { readonly min: number; readonly max: number },
): void {
  if (value === undefined || (Number.isInteger(value) && value >= min && value <= max)) return;
  throw new KoineError("limit-exceeded", { what, value, allowed: `a whole number from ${min} to ${max}` });
}
