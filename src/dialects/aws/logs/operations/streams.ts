import { z } from "zod";
import { AwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import type { LogGroup, LogGroups } from "../groups.ts";
import type { LogLines } from "../lines.ts";
import { groupArn, groupName, groupOf, nameOf, readToken, resourceOf, streamName, writeToken } from "./shapes.ts";

interface StreamFacts {
  readonly name: string;
  readonly createdAtMs: number;
  readonly firstMs: number | null;
  readonly lastMs: number | null;
}

export function streamOperations(groups: LogGroups, lines: LogLines): readonly Operation[] {
  const one = z.object({ logGroupName: groupName, logStreamName: streamName });
  return [
    operation(
      "CreateLogStream",
      { action: "logs:CreateLogStream", input: one, resource: resourceOf },
      async (input, context) => {
        const { logGroupName: name, logStreamName: stream } = input;
        const group = await groupOf(groups, lines, { name, context });
        if (group.streams[stream] !== undefined)
          throw new AwsError("ResourceAlreadyExistsException", "The specified log stream already exists");
        await groups.change(context.principal.namespace, name, (before) => {
          const now = before ?? group;
          return { ...now, streams: { ...now.streams, [stream]: context.nowMs } };
        });
        return { body: null };
      },
    ),
    operation(
      "DeleteLogStream",
      { action: "logs:DeleteLogStream", input: one, resource: resourceOf },
      async (input, context) => {
        const { logGroupName: name, logStreamName: stream } = input;
        const group = await groupOf(groups, lines, { name, context });
        if (group.streams[stream] === undefined)
          throw new AwsError("ResourceNotFoundException", "The specified log stream does not exist.");
        await groups.change(context.principal.namespace, name, (before) => {
          const { streams, ...now } = before ?? group;
          return { ...now, streams: Object.fromEntries(Object.entries(streams).filter(([each]) => each !== stream)) };
        });
        return { body: null };
      },
    ),
    operation(
      "DescribeLogStreams",
      {
        action: "logs:DescribeLogStreams",
        input: z.object({
          logGroupName: groupName.optional(),
          logGroupIdentifier: z.string().optional(),
          logStreamNamePrefix: z.string().default(""),
          orderBy: z.enum(["LogStreamName", "LastEventTime"]).default("LogStreamName"),
          descending: z.boolean().default(false),
          limit: z.int().min(1).max(50).default(50),
          nextToken: z.string().optional(),
        }),
        resource: resourceOf,
      },
      async (input, context) => {
        const group = await groupOf(groups, lines, { name: nameOf(input), context });
        const found = (await streamsOf(lines, group, context)).filter(({ name }) =>
          name.startsWith(input.logStreamNamePrefix),
        );
        const byTime = (a: StreamFacts, b: StreamFacts): number => (a.lastMs ?? 0) - (b.lastMs ?? 0);
        const byName = (a: StreamFacts, b: StreamFacts): number => (a.name < b.name ? -1 : 1);
        found.sort(input.orderBy === "LastEventTime" ? byTime : byName);
        if (input.descending) found.reverse();
        const from = input.nextToken === undefined ? 0 : readToken(z.int().min(0), input.nextToken);
        const shown = found.slice(from, from + input.limit);
        const more = from + shown.length < found.length;
        return {
          body: {
            logStreams: shown.map((stream) => shape(group, stream, context)),
            ...(more ? { nextToken: writeToken(from + shown.length) } : {}),
          },
        };
      },
    ),
  ];
}

/** Streams that were made, and those that lines of the group name: of the newest ten thousand. */
async function streamsOf(lines: LogLines, group: LogGroup, { principal, nowMs }: CallContext): Promise<StreamFacts[]> {
  const { events } = await lines.read(principal.namespace, group, {
    sinceMs: 0,
    beforeMs: Number.MAX_SAFE_INTEGER,
    afterSequence: 0,
    newest: true,
    nowMs,
  });
  const streams = new Map<string, StreamFacts>(
    Object.entries(group.streams).map(([name, createdAtMs]) => [
      name,
      { name, createdAtMs, firstMs: null, lastMs: null },
    ]),
  );
  for (const { streamName: name, timeMs } of events) {
    const known = streams.get(name);
    streams.set(name, {
      name,
      createdAtMs: known?.createdAtMs ?? timeMs,
      firstMs: Math.min(known?.firstMs ?? timeMs, timeMs),
      lastMs: Math.max(known?.lastMs ?? timeMs, timeMs),
    });
  }
  return [...streams.values()];
}

function shape(group: LogGroup, stream: StreamFacts, context: CallContext): Record<string, unknown> {
  return {
    logStreamName: stream.name,
    creationTime: stream.createdAtMs,
    ...(stream.firstMs === null ? {} : { firstEventTimestamp: stream.firstMs }),
    ...(stream.lastMs === null ? {} : { lastEventTimestamp: stream.lastMs, lastIngestionTime: stream.lastMs }),
    uploadSequenceToken: "1",
    arn: `${groupArn(group.name, context)}:log-stream:${stream.name}`,
    storedBytes: 0,
  };
}
