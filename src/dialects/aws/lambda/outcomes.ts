import type { EndedInvocation, EnqueueOptions, FollowUp, OutcomeFollower } from "../../../core/enqueue.ts";
import { KoineError } from "../../../core/errors.ts";
import { newId } from "../../../core/ids.ts";
import type { Outcome } from "../../../core/invocation.ts";
import { parseArn } from "../account.ts";
import type { MessageAttribute } from "../sqs/message.ts";
import type { Queues } from "../sqs/queues.ts";
import { AwsError } from "../wire/error.ts";
import { arnOfFound, type Found, type LambdaFunctions, refOf } from "./functions.ts";
import { invalid } from "./names.ts";
import { errorPayload } from "./operations/invoke.ts";
import { LATEST, type Snapshot } from "./records.ts";

/** Names this follower in queued work; never changed, or work of an earlier version could not end. */
const NAME = "aws-lambda";
/** One minute before the first retry, two before the second. */
const DELAYS_MS = [60_000, 120_000];
const RETRIES_DEFAULT = 2;
const AGE_SECONDS_DEFAULT = 6 * 3_600;
/** Records beyond this leave out what they carry, as no queue would take them; in bytes. */
const RECORD_BYTES_MAX = 1_000_000;
const ERROR_MESSAGE_LENGTH_MAX = 1_024;

/** What is known of an invocation when it is accepted, kept with it. */
interface Note {
  readonly functionArn: string;
  readonly executedVersion: string;
  readonly timeoutMs: number;
  readonly onSuccess?: string | undefined;
  readonly onFailure?: string | undefined;
  readonly deadLetter?: string | undefined;
}

interface InvokeSettings {
  readonly MaximumRetryAttempts?: number;
  readonly MaximumEventAgeInSeconds?: number;
  readonly DestinationConfig?: {
    readonly OnSuccess?: { readonly Destination?: string };
    readonly OnFailure?: { readonly Destination?: string };
  };
}

/** A message as it waits for its queue. */
interface Outgoing {
  readonly body: string;
  readonly attributes: Readonly<Record<string, MessageAttribute>>;
}

/** Asynchronous calls as the API has them: retries, the age of events, destinations, dead-letter queues. */
export class Outcomes implements OutcomeFollower {
  readonly #functions: LambdaFunctions;
  readonly #queues: Queues;

  constructor(functions: LambdaFunctions, queues: Queues) {
    this.#functions = functions;
    this.#queues = queues;
    functions.platform.outcomeFollowers.set(NAME, this);
  }

  /** How an event for a function is handled, by the settings that hold now. */
  options(found: Found, chosen: Snapshot, region: string): EnqueueOptions {
    const key = found.name.qualifier ?? LATEST;
    const settings = (found.record.eventInvoke[key]?.settings ?? {}) as InvokeSettings;
    const { MaximumRetryAttempts: retries = RETRIES_DEFAULT, MaximumEventAgeInSeconds: seconds = AGE_SECONDS_DEFAULT } =
      settings;
    const arn = arnOfFound(found, region);
    const note: Note = {
      functionArn: key === LATEST ? `${arn}:${LATEST}` : arn,
      executedVersion: chosen.version,
      timeoutMs: Number(chosen.configuration["Timeout"] ?? 3) * 1_000,
      onSuccess: settings.DestinationConfig?.OnSuccess?.Destination || undefined,
      onFailure: settings.DestinationConfig?.OnFailure?.Destination || undefined,
      deadLetter:
        (chosen.configuration["DeadLetterConfig"] as { TargetArn?: string } | undefined)?.TargetArn || undefined,
    };
    const { onSuccess, onFailure, deadLetter } = note;
    const followed = onSuccess !== undefined || onFailure !== undefined || deadLetter !== undefined;
    return {
      retry: { attemptsMax: retries + 1, ageMsMax: seconds * 1_000, delaysMs: DELAYS_MS },
      ...(followed
        ? {
            follower: {
              name: NAME,
              note: { ...note },
              keepsFailures: onFailure !== undefined || deadLetter !== undefined,
            },
          }
        : {}),
    };
  }

  /**
   * Refuses a destination that nothing could reach.
   * @throws AwsError `InvalidParameterValueException`
   */
  check(
    namespace: string,
    arn: string | undefined,
    of: { readonly member: string; readonly functions: boolean },
  ): void {
    if (arn === undefined || arn === "") return;
    const parsed = parseArn(arn);
    const refuse = (detail: string): AwsError => invalid(`The provided ${of.member} ${arn} is invalid: ${detail}`);
    switch (parsed?.service) {
      case "sqs": {
        const queue = this.#queues.findByArn(namespace, arn);
        if (queue === null) throw refuse("there is no such queue");
        if (queue.settings.fifo) throw refuse("FIFO queues cannot be one");
        return;
      }
      case "lambda": {
        if (!of.functions) throw refuse("it must be the ARN of a queue");
        if (this.#target(namespace, arn) === null) throw refuse("there is no such function");
        return;
      }
      case "sns":
      case "events":
      case "s3":
        throw refuse(`there is no service '${parsed.service}' here yet; name a queue (sqs) or a function (lambda)`);
      default:
        throw refuse("it must be the ARN of a queue or a function");
    }
  }

  follow(ended: EndedInvocation): readonly FollowUp[] {
    const note = ended.note as unknown as Note;
    const succeeded = ended.attempt.outcome === "succeeded";
    const destination = succeeded ? note.onSuccess : note.onFailure;
    const followUps: FollowUp[] = [];
    if (destination !== undefined) followUps.push(this.#toDestination(ended, note, destination));
    if (!succeeded && note.deadLetter !== undefined) {
      const message = { body: ended.invocation.body.toString("utf8"), attributes: deadLetterAttributes(ended, note) };
      followUps.push(delivery(note.deadLetter, message));
    }
    return followUps;
  }

  async deliver({ namespace, destination, body }: Parameters<OutcomeFollower["deliver"]>[0]): Promise<void> {
    const record = this.#queues.findByArn(namespace, destination);
    if (record === null)
      throw new KoineError("destination-failed", { destination, detail: "there is no such queue any more" });
    const queue = await this.#queues.messages(record);
    const { body: text, attributes } = JSON.parse(body.toString("utf8")) as Outgoing;
    const plain = { traceHeader: null, senderId: "lambda", delaySeconds: null, groupId: null, deduplicationId: null };
    await queue.send([{ ...plain, body: text, attributes }]);
  }

  #toDestination(ended: EndedInvocation, note: Note, destination: string): FollowUp {
    const body = recordOf(ended, note);
    if (parseArn(destination)?.service !== "lambda") return delivery(destination, { body, attributes: {} });
    const { namespace } = ended.invocation.ref;
    const target = this.#target(namespace, destination);
    const region = parseArn(destination)?.region ?? "us-east-1";
    const ref =
      target === null
        ? { namespace, package: "", name: parseArn(destination)?.resource.split(":")[1] ?? "" }
        : refOf(target.name);
    const isLatest = target === null || target.snapshot.number === target.record.latest.number;
    const lambda = target === null ? {} : { invokedFunctionArn: arnOfFound(target, region) };
    return {
      kind: "invocation",
      invocation: {
        id: newId(ended.endedAtMs),
        ref: { ...ref, ...(isLatest ? {} : { qualifier: String(target.snapshot.number) }) },
        call: { kind: "event", contentType: "application/json", context: { lambda } },
        mode: "async",
        attempt: 1,
        receivedAtMs: ended.endedAtMs,
        body: Buffer.from(body),
        bodyComplete: true,
      },
      options: target === null ? {} : this.options(target, target.snapshot, region),
    };
  }

  #target(namespace: string, arn: string): Found | null {
    const parsed = parseArn(arn);
    const [kind, name = "", qualifier = null] = parsed?.resource.split(":") ?? [];
    if (parsed === null || kind !== "function") return null;
    try {
      return this.#functions.findNow({ namespace, name, qualifier }, parsed);
    } catch (thrown) {
      if (thrown instanceof AwsError) return null;
      throw thrown;
    }
  }
}

function delivery(destination: string, message: Outgoing): FollowUp {
  return { kind: "delivery", destination, body: Buffer.from(JSON.stringify(message)) };
}

/** The record that destinations get. */
function recordOf(ended: EndedInvocation, note: Note): string {
  const { invocation, attempt, expired, answer, endedAtMs } = ended;
  const succeeded = attempt.outcome === "succeeded";
  const request = {
    requestId: invocation.id,
    functionArn: note.functionArn,
    condition: succeeded ? "Success" : expired ? "EventAgeExceeded" : "RetriesExhausted",
    approximateInvokeCount: attempt.number,
  };
  const context = {
    statusCode: attempt.outcome === "rejected" ? 429 : 200,
    executedVersion: note.executedVersion,
    ...(succeeded ? {} : { functionError: "Unhandled" }),
  };
  const payload = succeeded ? jsonOf(answer?.body ?? Buffer.alloc(0)) : failureOf(ended, note);
  const record = (requestPayload: unknown, responsePayload: unknown): string =>
    JSON.stringify({
      version: "1.0",
      timestamp: new Date(endedAtMs).toISOString(),
      requestContext: request,
      requestPayload,
      responseContext: context,
      responsePayload,
    });
  const whole = record(jsonOf(invocation.body), payload);
  return Buffer.byteLength(whole) <= RECORD_BYTES_MAX ? whole : record(null, null);
}

function deadLetterAttributes(ended: EndedInvocation, note: Note): Outgoing["attributes"] {
  const message = failureOf(ended, note).errorMessage.slice(0, ERROR_MESSAGE_LENGTH_MAX);
  return {
    RequestID: { DataType: "String", StringValue: ended.invocation.id },
    ErrorCode: { DataType: "Number", StringValue: ended.attempt.outcome === "rejected" ? "429" : "200" },
    ErrorMessage: { DataType: "String", StringValue: message === "" ? "unknown" : message },
  };
}

function failureOf({ invocation, attempt }: EndedInvocation, note: Note): ReturnType<typeof errorPayload> {
  const { error } = attempt;
  if (error === null) return { errorType: "Runtime.Unknown", errorMessage: "unknown" };
  const outcome: Outcome =
    attempt.outcome === "timedOut" ? { kind: "timedOut", error } : { kind: "failed", fault: error.fault, error };
  return errorPayload(outcome, { requestId: invocation.id, timeoutMs: note.timeoutMs });
}

function jsonOf(bytes: Buffer): unknown {
  if (bytes.length === 0) return {};
  const text = bytes.toString("utf8");
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}
