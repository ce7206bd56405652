import { z } from "zod";
import { KoineError } from "../../core/errors.ts";
import { type HttpConnections, httpConnections } from "../connection/http.ts";
import { openSigner, type Sign, type signingSettings } from "../connection/signed.ts";
import type { TlsSettings } from "../connection/tls.ts";
import type { SourceHost } from "../trigger.ts";

/** How a dialect calls things on this wire. */
export interface QueueWording {
  /** What precedes an operation's name in the header that says which one it is. */
  readonly target: string;
  readonly contentType: string;
}

export interface Message {
  readonly id: string;
  /** With which it is deleted. */
  readonly receipt: string;
  readonly body: string;
  /** Messages of one group are in order; null: the queue has no order. */
  readonly group: string | null;
  readonly sentAtMs: number | null;
}

type Settings = z.output<z.ZodObject<typeof signingSettings>> & {
  readonly queueUrl: string;
  readonly endpoint?: string | undefined;
  readonly tls?: TlsSettings | undefined;
};

const ANSWER_MS_MAX = 15_000;

const receivedSchema = z.object({
  Messages: z
    .array(
      z.object({
        MessageId: z.string().min(1),
        ReceiptHandle: z.string().min(1),
        Body: z.string(),
        Attributes: z.record(z.string(), z.string()).optional(),
      }),
    )
    .nullish(),
});
const batchSchema = z.object({
  Failed: z.array(z.object({ Id: z.string(), Code: z.string().optional(), Message: z.string().optional() })).nullish(),
});
const attributesSchema = z.object({ Attributes: z.record(z.string(), z.string()).nullish() });
const errorSchema = z.looseObject({
  __type: z.string().optional(),
  message: z.string().optional(),
  Message: z.string().optional(),
});

/** The JSON protocol of SQS, as far as a consumer needs it. */
export class QueueClient implements Disposable {
  readonly #settings: Settings;
  readonly #connections: HttpConnections;
  readonly #sign: Sign;
  readonly #wording: QueueWording;

  private constructor(
    settings: Settings,
    parts: { readonly connections: HttpConnections; readonly sign: Sign; readonly wording: QueueWording },
  ) {
    this.#settings = settings;
    this.#connections = parts.connections;
    this.#sign = parts.sign;
    this.#wording = parts.wording;
  }

  static async open(
    settings: Settings,
    host: Pick<SourceHost, "secret">,
    { wording, connections }: { readonly wording: QueueWording; readonly connections: number },
  ): Promise<QueueClient> {
    const sign = await openSigner(settings, "sqs", host);
    return new QueueClient(settings, {
      connections: httpConnections(settings.tls, host, { connections }),
      sign,
      wording,
    });
  }

  /** Waits for messages; they are hidden from others for a while then. */
  async receive({
    most,
    waitSeconds,
    visibilitySeconds,
  }: {
    readonly most: number;
    readonly waitSeconds: number;
    readonly visibilitySeconds: number;
  }): Promise<readonly Message[]> {
    const body = {
      MaxNumberOfMessages: most,
      WaitTimeSeconds: waitSeconds,
      VisibilityTimeout: visibilitySeconds,
      // The second name is that of older servers.
      MessageSystemAttributeNames: ["MessageGroupId", "SentTimestamp"],
      AttributeNames: ["MessageGroupId", "SentTimestamp"],
    };
    const timeoutMs = waitSeconds * 1_000 + ANSWER_MS_MAX;
    const signal = AbortSignal.timeout(timeoutMs);
    const answer = await this.#ask("ReceiveMessage", body, { signal, timeoutMs });
    return (read(receivedSchema, answer).Messages ?? []).map(({ MessageId, ReceiptHandle, Body, Attributes = {} }) => ({
      id: MessageId,
      receipt: ReceiptHandle,
      body: Body,
      group: Attributes["MessageGroupId"] ?? null,
      sentAtMs: Number(Attributes["SentTimestamp"]) || null,
    }));
  }

  /** Deletes up to ten; answers why some could not be. */
  async delete(receipts: readonly string[]): Promise<readonly string[]> {
    const entries = receipts.map((receipt, index) => ({ Id: String(index), ReceiptHandle: receipt }));
    return await this.#batch("DeleteMessageBatch", entries);
  }

  /** Shows up to ten to others again. */
  async release(receipts: readonly string[]): Promise<void> {
    const entries = receipts.map((receipt, index) => ({
      Id: String(index),
      ReceiptHandle: receipt,
      VisibilityTimeout: 0,
    }));
    await this.#batch("ChangeMessageVisibilityBatch", entries);
  }

  /** How many messages wait, and how many somebody has received and not deleted. */
  async facts(signal: AbortSignal): Promise<{ readonly waiting: number; readonly received: number }> {
    const names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
    const answer = await this.#ask(
      "GetQueueAttributes",
      { AttributeNames: names },
      { signal, timeoutMs: ANSWER_MS_MAX },
    );
    const [waiting, received] = names.map((name) => Number(read(attributesSchema, answer).Attributes?.[name] ?? 0));
    return { waiting: waiting ?? 0, received: received ?? 0 };
  }

  [Symbol.dispose](): void {
    this.#connections[Symbol.dispose]();
  }

  async #batch(operation: string, entries: readonly Readonly<Record<string, unknown>>[]): Promise<readonly string[]> {
    // What was accepted is acknowledged even when the source is told to end.
    const signal = AbortSignal.timeout(ANSWER_MS_MAX);
    const answer = await this.#ask(operation, { Entries: entries }, { signal, timeoutMs: ANSWER_MS_MAX });
    const failed = read(batchSchema, answer).Failed ?? [];
    return failed.map(({ Code, Message: message }) => message ?? Code ?? "no reason was given");
  }

  async #ask(
    operation: string,
    content: Readonly<Record<string, unknown>>,
    { signal, timeoutMs }: { readonly signal: AbortSignal; readonly timeoutMs: number },
  ): Promise<unknown> {
    const { queueUrl, endpoint } = this.#settings;
    const url = new URL("/", endpoint ?? queueUrl);
    const body = JSON.stringify({ QueueUrl: queueUrl, ...content });
    const unsigned = {
      "content-type": this.#wording.contentType,
      "x-amz-target": `${this.#wording.target}.${operation}`,
    };
    const headers = await this.#sign({ method: "POST", url, headers: unsigned, body });
    const answer = await this.#connections.ask({ method: "POST", url, headers, body, timeoutMs, signal });
    const found = parsed(answer.body);
    if (answer.status === 200) return found;
    const { __type: type = "", message, Message: other } = errorSchema.safeParse(found).data ?? {};
    const why = [type.slice(type.indexOf("#") + 1), message ?? other].filter((word) => (word ?? "") !== "").join(": ");
    throw new KoineError("source-failed", {
      detail: `${operation} at ${url.origin} was answered ${answer.status}${why === "" ? "" : `, ${why}`}`,
    });
  }
}

function read<Schema extends z.ZodType>(schema: Schema, answer: unknown): z.output<Schema> {
  const result = schema.safeParse(answer);
  if (result.success) return result.data;
  throw new KoineError("source-failed", { detail: "the server's answer is not one of the queue protocol" });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return {};
  }
}
