import { z } from "zod";
import { AnswerHead } from "../../../dialect.ts";
import { eventStreamMessage } from "../../lambda/eventstream.ts";
import { AwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import type { LogGroup, LogGroups } from "../groups.ts";
import type { LogEvent, LogLines } from "../lines.ts";
import { parsePattern } from "../pattern.ts";
import { groupName, groupOf, nameOf, readToken, resourceOf, streamName, writeToken } from "./shapes.ts";

const EVENTS_MAX = 10_000;
const FOREVER_MS = Number.MAX_SAFE_INTEGER;
const DAY_MS = 24 * 3_600_000;
const OLDEST_PUT_MS = 14 * DAY_MS;
const NEWEST_PUT_MS = 2 * 3_600_000;
const TAIL_EVERY_MS = 1_000;
const TAIL_MS_MAX = 3 * 3_600_000;
const time = z.int().min(0);
const either = { logGroupName: groupName.optional(), logGroupIdentifier: z.string().optional() };

export function eventOperations(groups: LogGroups, lines: LogLines): readonly Operation[] {
  return [putting(groups, lines), reading(groups, lines), filtering(groups, lines), tailing(groups, lines)];
}

function putting(groups: LogGroups, lines: LogLines): Operation {
  const event = z.object({ timestamp: time, message: z.string().min(1).max(1_048_576) });
  return operation(
    "PutLogEvents",
    {
      action: "logs:PutLogEvents",
      input: z.object({
        logGroupName: groupName,
        logStreamName: streamName,
        logEvents: z.array(event).min(1).max(EVENTS_MAX),
        sequenceToken: z.string().optional(),
      }),
      resource: resourceOf,
    },
    async (input, context) => {
      const { logGroupName: name, logStreamName: stream } = input;
      const group = await groupOf(groups, lines, { name, context });
      if (group.streams[stream] === undefined)
        throw new AwsError("ResourceNotFoundException", "The specified log stream does not exist.");
      const tooOld = input.logEvents.filter(({ timestamp }) => timestamp < context.nowMs - OLDEST_PUT_MS).length;
      const tooNew = input.logEvents.findIndex(({ timestamp }) => timestamp > context.nowMs + NEWEST_PUT_MS);
      const kept = input.logEvents.slice(tooOld, tooNew < 0 ? undefined : tooNew);
      await lines.put(context.principal.namespace, { group: name, stream }, kept);
      const rejected = {
        ...(tooNew < 0 ? {} : { tooNewLogEventStartIndex: tooNew }),
        ...(tooOld === 0 ? {} : { tooOldLogEventEndIndex: tooOld }),
      };
      return {
        body: {
          nextSequenceToken: "1",
          ...(Object.keys(rejected).length === 0 ? {} : { rejectedLogEventsInfo: rejected }),
        },
      };
    },
  );
}

function reading(groups: LogGroups, lines: LogLines): Operation {
  const token = z.object({ direction: z.enum(["f", "b"]), time, sequence: z.int() });
  return operation(
    "GetLogEvents",
    {
      action: "logs:GetLogEvents",
      input: z.object({
        ...either,
        logStreamName: streamName,
        startTime: time.default(0),
        endTime: time.default(FOREVER_MS),
        limit: z.int().min(1).max(EVENTS_MAX).default(EVENTS_MAX),
        startFromHead: z.boolean().default(false),
        nextToken: z.string().optional(),
      }),
      resource: resourceOf,
    },
    async (input, context) => {
      const group = await groupOf(groups, lines, { name: nameOf(input), context });
      const from = input.nextToken === undefined ? null : readToken(token, input.nextToken.replace(/^[fb]\//, ""));
      const forward = from === null ? input.startFromHead : from.direction === "f";
      const window = {
        sinceMs: forward && from !== null ? Math.max(input.startTime, from.time) : input.startTime,
        beforeMs: !forward && from !== null ? Math.min(input.endTime, from.time + 1) : input.endTime,
      };
      const { events } = await lines.read(context.principal.namespace, group, {
        ...window,
        afterSequence: 0,
        newest: !forward,
        nowMs: context.nowMs,
      });
      const wanted = events.filter(
        (event) =>
          event.streamName === input.logStreamName && (from === null || isBeyond(event, from, forward ? 1 : -1)),
      );
      const shown = forward ? wanted.slice(0, input.limit) : wanted.slice(-input.limit);
      const tokenAt = (direction: "f" | "b", event: LogEvent | undefined): string =>
        `${direction}/${writeToken({ direction, time: event?.timeMs ?? from?.time ?? (direction === "f" ? input.startTime : FOREVER_MS - 1), sequence: event?.sequence ?? from?.sequence ?? 0 })}`;
      return {
        body: {
          events: shown.map(({ timeMs, message }) => ({
            timestamp: timeMs,
            message: message.replace(/\n$/, ""),
            ingestionTime: timeMs,
          })),
          nextForwardToken: tokenAt("f", shown.at(-1)),
          nextBackwardToken: tokenAt("b", shown[0]),
        },
      };
    },
  );
}

/** Whether an event stands behind (1) or before (-1) a place. */
function isBeyond(
  event: LogEvent,
  place: { readonly time: number; readonly sequence: number },
  direction: 1 | -1,
): boolean {
  return (event.timeMs - place.time || event.sequence - place.sequence) * direction > 0;
}

function filtering(groups: LogGroups, lines: LogLines): Operation {
  const token = z.object({ time, sequence: z.int() });
  return operation(
    "FilterLogEvents",
    {
      action: "logs:FilterLogEvents",
      input: z.object({
        ...either,
        logStreamNames: z.array(streamName).max(100).optional(),
        logStreamNamePrefix: z.string().optional(),
        startTime: time.default(0),
        endTime: time.default(FOREVER_MS),
        filterPattern: z.string().optional(),
        limit: z.int().min(1).max(EVENTS_MAX).default(EVENTS_MAX),
        nextToken: z.string().optional(),
        interleaved: z.boolean().optional(),
      }),
      resource: resourceOf,
    },
    async (input, context) => {
      const group = await groupOf(groups, lines, { name: nameOf(input), context });
      const matches = parsePattern(input.filterPattern);
      const from = input.nextToken === undefined ? null : readToken(token, input.nextToken);
      const { events, complete } = await lines.read(context.principal.namespace, group, {
        sinceMs: Math.max(input.startTime, from?.time ?? 0),
        beforeMs: input.endTime === FOREVER_MS ? FOREVER_MS : input.endTime + 1,
        afterSequence: 0,
        newest: false,
        nowMs: context.nowMs,
      });
      const found = events.filter(
        (event) =>
          (from === null || isBeyond(event, from, 1)) &&
          (input.logStreamNames === undefined || input.logStreamNames.includes(event.streamName)) &&
          event.streamName.startsWith(input.logStreamNamePrefix ?? "") &&
          matches(event.message),
      );
      const shown = found.slice(0, input.limit);
      const last = shown.length < found.length ? shown.at(-1) : complete ? undefined : events.at(-1);
      return {
        body: {
          events: shown.map(told),
          searchedLogStreams: [],
          ...(last === undefined ? {} : { nextToken: writeToken({ time: last.timeMs, sequence: last.sequence }) }),
        },
      };
    },
  );
}

function told({ sequence, streamName: logStreamName, timeMs, message }: LogEvent): Record<string, unknown> {
  return {
    eventId: String(sequence).padStart(56, "0"),
    logStreamName,
    timestamp: timeMs,
    message: message.replace(/\n$/, ""),
    ingestionTime: timeMs,
  };
}

/** Follows groups for as long as the client listens, three hours at most. */
function tailing(groups: LogGroups, lines: LogLines): Operation {
  return operation(
    "StartLiveTail",
    {
      action: "logs:StartLiveTail",
      input: z.object({
        logGroupIdentifiers: z.array(z.string()).min(1).max(10),
        logStreamNames: z.array(streamName).optional(),
        logStreamNamePrefixes: z.array(z.string()).optional(),
        logEventFilterPattern: z.string().optional(),
      }),
    },
    async (input, context) => {
      const matches = parsePattern(input.logEventFilterPattern);
      const followed = await Promise.all(
        input.logGroupIdentifiers.map(async (logGroupIdentifier) => {
          const name = nameOf({ logGroupIdentifier });
          return await groupOf(groups, lines, { name, context });
        }),
      );
      const wants = (event: LogEvent): boolean =>
        (input.logStreamNames === undefined || input.logStreamNames.includes(event.streamName)) &&
        (input.logStreamNamePrefixes === undefined ||
          input.logStreamNamePrefixes.some((prefix) => event.streamName.startsWith(prefix))) &&
        matches(event.message);
      await follow(lines, followed, {
        context,
        wants,
        session: { ...input, requestId: context.requestId, sessionId: context.requestId },
      });
      return null;
    },
  );
}

async function follow(
  lines: LogLines,
  groups: readonly LogGroup[],
  of: {
    readonly context: CallContext;
    readonly wants: (event: LogEvent) => boolean;
    readonly session: Readonly<Record<string, unknown>>;
  },
): Promise<void> {
  const { context, wants, session } = of;
  const { response } = context.request;
  const send = (type: string, payload: unknown): void => {
    const headers = { ":event-type": type, ":content-type": "application/json", ":message-type": "event" };
    response.write(eventStreamMessage(headers, Buffer.from(JSON.stringify(payload))));
  };
  response.begin(new AnswerHead(200, ["Content-Type", "application/vnd.amazon.eventstream"]));
  send("sessionStart", session);
  const beganAtMs = Date.now();
  const seen = new Map<string, number>();
  while (!context.signal.aborted && Date.now() - beganAtMs < TAIL_MS_MAX) {
    const results: Record<string, unknown>[] = [];
    for (const group of groups) {
      const query = {
        sinceMs: beganAtMs - DAY_MS,
        beforeMs: FOREVER_MS,
        afterSequence: seen.get(group.name) ?? 0,
        newest: true,
        nowMs: Date.now(),
      };
      const { events } = await lines.read(context.principal.namespace, group, query);
      const fresh = events.filter((event) => event.timeMs >= beganAtMs && wants(event));
      seen.set(group.name, Math.max(seen.get(group.name) ?? 0, ...events.map(({ sequence }) => sequence)));
      for (const event of fresh)
        results.push({ ...told(event), logStreamName: event.streamName, logGroupIdentifier: group.name });
    }
    send("sessionUpdate", { sessionMetadata: { sampled: false }, sessionResults: results });
    await pause(TAIL_EVERY_MS, context.signal);
  }
  response.end();
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
