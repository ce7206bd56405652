import { z } from "zod";
import { AwsError } from "../../wire/error.ts";
import { type CallContext, type Operation, operation } from "../../wire/service.ts";
import { arnOf, type QueueRecord, type Queues } from "../queues.ts";

interface Move {
  readonly handle: string;
  readonly sourceArn: string;
  readonly destinationArn: string | null;
  readonly startedAtMs: number;
  readonly wanted: number;
  moved: number;
  status: "RUNNING" | "COMPLETED" | "CANCELLED" | "FAILED";
  failure: string | null;
}

const STEP = 100;
const KEPT_MAX = 10;

/** Moves of dead letters back to where they came from, or elsewhere. A move that a crash interrupts is started again by whoever wants it. */
export function moveOperations(queues: Queues): readonly Operation[] {
  const moves = new Map<string, Move[]>();
  const sourceOf = (arn: string, context: CallContext): QueueRecord => {
    const record = queues.findByArn(context.principal.namespace, arn);
    if (record !== null) return record;
    throw new AwsError(
      "ResourceNotFoundException",
      "The resource that you specified for the SourceArn parameter doesn't exist.",
      { status: 404 },
    );
  };
  const source = z.object({ SourceArn: z.string().max(1_024) });
  const resource = ({ SourceArn }: { readonly SourceArn: string }): string => SourceArn;
  return [
    operation(
      "StartMessageMoveTask",
      {
        action: "sqs:StartMessageMoveTask",
        input: source.extend({
          DestinationArn: z.string().max(1_024).optional(),
          MaxNumberOfMessagesPerSecond: z.coerce.number().int().min(1).max(500).optional(),
        }),
        resource,
      },
      async ({ SourceArn, DestinationArn }, context) => {
        const record = sourceOf(SourceArn, context);
        const { namespace } = context.principal;
        const known = moves.get(SourceArn) ?? [];
        if (known.some(({ status }) => status === "RUNNING"))
          throw new AwsError(
            "UnsupportedOperation",
            "There is already a task running. Only one active task is allowed for a source queue arn at a given time.",
          );
        if (
          DestinationArn === undefined &&
          !queues.list(namespace).some(({ settings }) => settings.redrive?.deadLetterTargetArn === arnOf(record))
        )
          throw new AwsError("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.");
        if (DestinationArn !== undefined && queues.findByArn(namespace, DestinationArn) === null)
          throw new AwsError(
            "ResourceNotFoundException",
            "The resource that you specified for the DestinationArn parameter doesn't exist.",
            { status: 404 },
          );
        const messages = await queues.messages(record);
        const move: Move = {
          handle: Buffer.from(JSON.stringify({ SourceArn, id: context.requestId })).toString("base64"),
          sourceArn: SourceArn,
          destinationArn: DestinationArn ?? null,
          startedAtMs: context.nowMs,
          wanted: messages.counts().visible,
          moved: 0,
          status: "RUNNING",
          failure: null,
        };
        moves.set(SourceArn, [move, ...known].slice(0, KEPT_MAX));
        void run(queues, record, move);
        return { body: { TaskHandle: move.handle } };
      },
    ),
    operation(
      "ListMessageMoveTasks",
      {
        action: "sqs:ListMessageMoveTasks",
        input: source.extend({ MaxResults: z.coerce.number().int().min(1).max(10).default(1) }),
        resource,
      },
      async ({ SourceArn, MaxResults }, context) => {
        sourceOf(SourceArn, context);
        return { body: { Results: (moves.get(SourceArn) ?? []).slice(0, MaxResults).map(shape) } };
      },
    ),
    operation(
      "CancelMessageMoveTask",
      { action: "sqs:CancelMessageMoveTask", input: z.object({ TaskHandle: z.string() }) },
      async ({ TaskHandle }) => {
        const move = [...moves.values()].flat().find(({ handle }) => handle === TaskHandle);
        if (move === undefined)
          throw new AwsError("ResourceNotFoundException", "The task handle does not exist.", { status: 404 });
        if (move.status === "RUNNING") move.status = "CANCELLED";
        return { body: { ApproximateNumberOfMessagesMoved: move.moved } };
      },
    ),
  ];
}

async function run(queues: Queues, record: QueueRecord, move: Move): Promise<void> {
  const { namespace } = record;
  try {
    const messages = await queues.messages(record);
    const targetOf = async ({ sourceArn }: { readonly sourceArn: string | null }) => {
      const target = queues.findByArn(namespace, move.destinationArn ?? sourceArn ?? "");
      return target === null ? null : await queues.messages(target);
    };
    while (move.status === "RUNNING") {
      const moved = await messages.moveTo(targetOf, STEP);
      move.moved += moved;
      if (moved === 0) move.status = "COMPLETED";
    }
  } catch (thrown) {
    move.status = "FAILED";
    move.failure = thrown instanceof Error ? thrown.message : String(thrown);
  }
}

function shape(move: Move): Record<string, unknown> {
  return {
    ...(move.status === "RUNNING" ? { TaskHandle: move.handle } : {}),
    Status: move.status,
    SourceArn: move.sourceArn,
    ...(move.destinationArn === null ? {} : { DestinationArn: move.destinationArn }),
    ApproximateNumberOfMessagesMoved: move.moved,
    ApproximateNumberOfMessagesToMove: move.wanted,
    ...(move.failure === null ? {} : { FailureReason: move.failure }),
    StartedTimestamp: move.startedAtMs,
  };
}
