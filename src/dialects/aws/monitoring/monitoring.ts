import { z } from "zod";
import type { Platform } from "../../../platform/platform.ts";
import { AwsError } from "../wire/error.ts";
import { type CallContext, type Operation, operation, type Service } from "../wire/service.ts";
import { LAMBDA_NAMESPACE, type MetricName, metricNames, samplesOf } from "./samples.ts";
import { inBuckets, isStatistic, statisticOf } from "./statistics.ts";

/** A time as any of the protocols writes it, in milliseconds since the epoch. */
const time = z.union([
  z.date().transform((date) => date.getTime()),
  z.number().transform((seconds) => seconds * 1_000),
  z.iso.datetime({ offset: true }).transform((text) => Date.parse(text)),
]);
const dimension = z.object({ Name: z.string(), Value: z.string() });
const dimensions = z.array(dimension).max(30).default([]);
const period = z.coerce.number().int().min(1).max(86_400);
const statistic = z
  .string()
  .refine(isStatistic, "Member must be SampleCount, Sum, Average, Minimum, Maximum or a percentile such as p99");
const flag = z.union([z.boolean(), z.enum(["true", "false"]).transform((text) => text === "true")]);
const POINTS_MAX = 100_800;

/** CloudWatch's metrics of functions, computed from the activations that the platform keeps. */
export function createMonitoring(platform: Platform): Service {
  const operations = [statisticsOperation(platform), metricDataOperation(platform), listOperation(platform)];
  return {
    name: "monitoring",
    protocols: ["json", "query", "cbor"],
    target: "GraniteServiceVersion20100801",
    queryVersion: "2010-08-01",
    xmlNamespace: "http://monitoring.amazonaws.com/doc/2010-08-01/",
    operations: new Map(operations.map((each) => [each.name, each])),
    route: () => null,
    queryErrors: { ValidationException: "InvalidParameterValue", AccessDeniedException: "AccessDenied" },
  };
}

function namesOf(list: readonly z.output<typeof dimension>[]): Record<string, string> {
  return Object.fromEntries(list.map(({ Name, Value }) => [Name, Value]));
}

function checkTimes(startMs: number, endMs: number, periodSeconds: number): void {
  if (startMs >= endMs)
    throw new AwsError("InvalidParameterValue", "The parameter StartTime must be less than the parameter EndTime.");
  if ((endMs - startMs) / (periodSeconds * 1_000) > POINTS_MAX)
    throw new AwsError(
      "InvalidParameterCombination",
      `You have requested more than ${POINTS_MAX} datapoints; ask for less time or a longer period.`,
    );
}

function statisticsOperation(platform: Platform): Operation {
  return operation(
    "GetMetricStatistics",
    {
      action: "cloudwatch:GetMetricStatistics",
      input: z.object({
        Namespace: z.string(),
        MetricName: z.string(),
        Dimensions: dimensions,
        StartTime: time,
        EndTime: time,
        Period: period,
        Statistics: z.array(statistic).default([]),
        ExtendedStatistics: z.array(statistic).default([]),
        Unit: z.string().optional(),
      }),
    },
    async (input, { principal }) => {
      checkTimes(input.StartTime, input.EndTime, input.Period);
      const metric: MetricName = {
        namespace: input.Namespace,
        name: input.MetricName,
        dimensions: namesOf(input.Dimensions),
      };
      const samples = await samplesOf(platform, {
        namespace: principal.namespace,
        metric,
        sinceMs: input.StartTime,
        beforeMs: input.EndTime,
      });
      const Datapoints = inBuckets(samples, input.Period * 1_000).map(({ startMs, values }) => ({
        Timestamp: new Date(startMs),
        ...Object.fromEntries(input.Statistics.map((name) => [name, statisticOf(name, values)])),
        ...(input.ExtendedStatistics.length === 0
          ? {}
          : {
              ExtendedStatistics: Object.fromEntries(
                input.ExtendedStatistics.map((name) => [name, statisticOf(name, values)]),
              ),
            }),
        Unit: unitOf(input.MetricName),
      }));
      return { body: { Label: input.MetricName, Datapoints } };
    },
  );
}

function unitOf(name: string): string {
  return name === "Duration" || name === "AsyncEventAge" ? "Milliseconds" : "Count";
}

const query = z.object({
  Id: z.string().regex(/^[a-z]\w{0,254}$/),
  Label: z.string().optional(),
  ReturnData: flag.default(true),
  Expression: z.string().optional(),
  MetricStat: z
    .object({
      Metric: z.object({ Namespace: z.string(), MetricName: z.string(), Dimensions: dimensions }),
      Period: period,
      Stat: statistic,
      Unit: z.string().optional(),
    })
    .optional(),
});

function metricDataOperation(platform: Platform): Operation {
  return operation(
    "GetMetricData",
    {
      action: "cloudwatch:GetMetricData",
      input: z.object({
        MetricDataQueries: z.array(query).min(1).max(500),
        StartTime: time,
        EndTime: time,
        ScanBy: z.enum(["TimestampAscending", "TimestampDescending"]).default("TimestampDescending"),
        MaxDatapoints: z.coerce.number().int().optional(),
      }),
    },
    async (input, context) => {
      const results: Record<string, unknown>[] = [];
      for (const each of input.MetricDataQueries.filter(({ ReturnData }) => ReturnData))
        results.push(await answer(platform, each, { input, context }));
      return { body: { MetricDataResults: results, Messages: [] } };
    },
  );
}

async function answer(
  platform: Platform,
  { Id, Label, Expression, MetricStat }: z.output<typeof query>,
  of: {
    readonly input: { readonly StartTime: number; readonly EndTime: number; readonly ScanBy: string };
    readonly context: CallContext;
  },
): Promise<Record<string, unknown>> {
  if (MetricStat === undefined)
    throw new AwsError(
      "ValidationError",
      `The query '${Id}' needs MetricStat: expressions${Expression === undefined ? "" : ` such as '${Expression}'`} are not computed here.`,
    );
  const { StartTime, EndTime, ScanBy } = of.input;
  checkTimes(StartTime, EndTime, MetricStat.Period);
  const { Namespace, MetricName: name, Dimensions } = MetricStat.Metric;
  const metric = { namespace: Namespace, name, dimensions: namesOf(Dimensions) };
  const samples = await samplesOf(platform, {
    namespace: of.context.principal.namespace,
    metric,
    sinceMs: StartTime,
    beforeMs: EndTime,
  });
  const buckets = inBuckets(samples, MetricStat.Period * 1_000);
  const ordered = ScanBy === "TimestampAscending" ? buckets : buckets.toReversed();
  return {
    Id,
    Label: Label ?? name,
    Timestamps: ordered.map(({ startMs }) => new Date(startMs)),
    Values: ordered.map(({ values }) => statisticOf(MetricStat.Stat, values)),
    StatusCode: "Complete",
  };
}

function listOperation(platform: Platform): Operation {
  const wanted = z.object({ Name: z.string(), Value: z.string().optional() });
  return operation(
    "ListMetrics",
    {
      action: "cloudwatch:ListMetrics",
      input: z.object({
        Namespace: z.string().optional(),
        MetricName: z.string().optional(),
        Dimensions: z.array(wanted).default([]),
        NextToken: z.string().optional(),
      }),
    },
    async (input, { principal }) => {
      const functions = [...platform.parts.catalogue.all()]
        .filter(({ record }) => record.namespace === principal.namespace && record.package === "")
        .map(({ record }) => record.name);
      const all = functions.flatMap((name) =>
        metricNames.map((MetricName) => ({
          Namespace: LAMBDA_NAMESPACE,
          MetricName,
          Dimensions: [{ Name: "FunctionName", Value: name }],
        })),
      );
      const Metrics = all.filter(
        (metric) =>
          (input.Namespace === undefined || metric.Namespace === input.Namespace) &&
          (input.MetricName === undefined || metric.MetricName === input.MetricName) &&
          input.Dimensions.every(({ Name, Value }) =>
            metric.Dimensions.some((each) => each.Name === Name && (Value === undefined || each.Value === Value)),
          ),
      );
      return { body: { Metrics } };
    },
  );
}
