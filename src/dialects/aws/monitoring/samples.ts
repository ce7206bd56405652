import type { Activation } from "../../../core/invocation.ts";
import type { Platform } from "../../../platform/platform.ts";
import { AwsError } from "../wire/error.ts";

/** A metric as callers name it. */
export interface MetricName {
  readonly namespace: string;
  readonly name: string;
  readonly dimensions: Readonly<Record<string, string>>;
}

export const LAMBDA_NAMESPACE = "AWS/Lambda";

/** Metrics of functions, by name: what an activation counts as; null: it does not count. */
const METRICS: Readonly<Record<string, (activation: Activation) => number | null>> = {
  Invocations: ({ state }) => (state === "rejected" || state === "queued" ? null : 1),
  Errors: ({ state }) => (state === "rejected" || state === "queued" ? null : state === "succeeded" ? 0 : 1),
  Throttles: ({ state }) => (state === "rejected" ? 1 : 0),
  Duration: ({ state, durationMs }) => (state === "rejected" || state === "queued" ? null : durationMs),
  ConcurrentExecutions: ({ state }) => (state === "rejected" || state === "queued" ? null : 1),
  AsyncEventAge: ({ mode, queuedMs }) => (mode === "async" ? queuedMs : null),
};

export const metricNames: readonly string[] = Object.keys(METRICS);

const PAGE = 1_000;
const ACTIVATIONS_MAX = 200_000;

/**
 * Samples of a metric, made of the platform's activations; empty for metrics that nobody measures here.
 * @throws AwsError `LimitExceeded` when there are more activations than can be looked through at once
 */
export async function samplesOf(
  platform: Platform,
  of: { readonly namespace: string; readonly metric: MetricName; readonly sinceMs: number; readonly beforeMs: number },
): Promise<readonly { readonly atMs: number; readonly value: number }[]> {
  const { metric, namespace, sinceMs, beforeMs } = of;
  const measure = metric.namespace === LAMBDA_NAMESPACE ? METRICS[metric.name] : undefined;
  if (measure === undefined) return [];
  const name = metric.dimensions["FunctionName"];
  const samples: { atMs: number; value: number }[] = [];
  let after: string | undefined;
  for (let seen = 0; ;) {
    const page = await platform.activations({
      namespace,
      ...(name === undefined ? {} : { package: "", name }),
      sinceMs,
      beforeMs,
      limit: PAGE,
      ...(after === undefined ? {} : { after }),
    });
    for (const activation of page) {
      const value = measure(activation);
      if (value !== null) samples.push({ atMs: activation.startedAtMs, value });
    }
    seen += page.length;
    after = page.at(-1)?.id;
    if (page.length < PAGE) return samples;
    if (seen >= ACTIVATIONS_MAX)
      throw new AwsError(
        "LimitExceeded",
        `There are more than ${ACTIVATIONS_MAX} calls in this time; ask for less of it.`,
      );
  }
}
