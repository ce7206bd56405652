import { randomUUID } from "node:crypto";
import type { Clock } from "../../../core/clock.ts";
import type { Supervise } from "../../../core/telemetry.ts";
import type { ValueChange, Values } from "../../../store/store.ts";
import { AwsError } from "../wire/error.ts";
import type { QueueSettings } from "./attributes.ts";
import type { Message, MessageAttribute, MessageState } from "./message.ts";
import { type Entry, Shelf } from "./shelf.ts";

/** What is sent, after it was checked. */
export interface Outgoing {
  readonly body: string;
  readonly attributes: Readonly<Record<string, MessageAttribute>>;
  readonly traceHeader: string | null;
  readonly senderId: string;
  /** Null: the queue's own. */
  readonly delaySeconds: number | null;
  readonly groupId: string | null;
  readonly deduplicationId: string | null;
}

export interface Sent {
  readonly id: string;
  readonly sequence: number;
}

export interface Received {
  readonly message: Message;
  readonly state: MessageState;
  readonly receiptHandle: string;
}

/** Where a queue keeps things: three collections of values, keys `namespace/queue/…`. */
const MESSAGES = "aws.sqs.messages";
const STATES = "aws.sqs.states";
const DEDUPLICATION = "aws.sqs.deduplication";
const DEDUPLICATION_MS = 5 * 60_000;
const MESSAGES_MAX = 2_000_000;
const PAGE = 500;
const MOVE_MS_MAX = 60_000;

interface Parts {
  readonly values: Values;
  readonly clock: Clock;
  readonly supervise: Supervise;
  /** `namespace/name` */
  readonly key: string;
  /** Distinguishes a queue from an earlier one of the same name. */
  readonly generation: string;
  settings(): QueueSettings;
  /** The queue that takes what was received too often; null: there is none of that ARN. */
  deadLetters(arn: string): Promise<MessageQueue | null>;
  readonly arn: string;
}

interface Waiter {
  wake(): void;
}

/**
 * One queue: its order in memory, its messages on disk before a send is answered. Receiving changes states, which are written without being awaited: after a
 * crash a message may be visible earlier than it would have been, never gone.
 */
export class MessageQueue {
  readonly arn: string;
  readonly #parts: Parts;
  readonly #shelf: Shelf;
  readonly #prefix: string;
  readonly #deduplication = new Map<string, { readonly sent: Sent; readonly untilMs: number }>();
  readonly #waiters = new Set<Waiter>();
  #sequence = 0;
  #cancelWake: (() => void) | null = null;
  #wakeAtMs = Number.POSITIVE_INFINITY;

  private constructor(parts: Parts) {
    this.#parts = parts;
    this.arn = parts.arn;
    this.#shelf = new Shelf(parts.settings().fifo);
    this.#prefix = `${parts.key}/${parts.generation}/`;
  }

  /** Opens a queue with what is on disk. */
  static async open(parts: Parts): Promise<MessageQueue> {
    const queue = new MessageQueue(parts);
    const states = new Map<string, MessageState>();
    for await (const { key, value } of entriesOf(parts.values, STATES, queue.#prefix))
      states.set(key, value as MessageState);
    const nowMs = parts.clock.nowMs();
    for await (const { key, value } of entriesOf(parts.values, MESSAGES, queue.#prefix)) {
      const message = value as Message;
      queue.#shelf.add(message, states.get(key) ?? newState(message.sentAtMs), nowMs);
      queue.#sequence = Math.max(queue.#sequence, message.sequence);
    }
    for await (const { key, value } of entriesOf(parts.values, DEDUPLICATION, queue.#prefix)) {
      const known = value as { sent: Sent; untilMs: number };
      queue.#deduplication.set(key.slice(queue.#prefix.length), known);
      queue.#sequence = Math.max(queue.#sequence, known.sent.sequence);
    }
    return queue;
  }

  get settings(): QueueSettings {
    return this.#parts.settings();
  }

  counts(): ReturnType<Shelf["counts"]> {
    this.#expire();
    return this.#shelf.counts(this.#parts.clock.nowMs());
  }

  /** Puts messages in, all in one commit: on disk when it resolves. @throws AwsError `OverLimit` */
  async send(outgoing: readonly Outgoing[]): Promise<readonly Sent[]> {
    const { clock, values } = this.#parts;
    const nowMs = clock.nowMs();
    if (this.#shelf.size + outgoing.length > MESSAGES_MAX)
      throw new AwsError(
        "OverLimit",
        `The queue holds ${MESSAGES_MAX} messages already; receive and delete some first.`,
        { status: 403 },
      );
    this.#forget(nowMs);
    const changes: ValueChange[] = [];
    const added: { readonly message: Message; readonly state: MessageState }[] = [];
    const sent = outgoing.map((each) => this.#prepare(each, { nowMs, changes, added }));
    try {
      if (changes.length > 0) await values.commit(changes);
    } catch (thrown) {
      // What was not accepted can be sent again.
      for (const { message } of added)
        if (message.deduplicationId !== null)
          this.#deduplication.delete(this.#scopeOf(message) + message.deduplicationId);
      throw thrown;
    }
    for (const { message, state } of added) this.#shelf.add(message, state, nowMs);
    if (added.length > 0) this.#wake();
    return sent;
  }

  /** Takes up to `limit` messages; waits for the first one until the time is over or the signal aborts. */
  async receive(request: {
    readonly limit: number;
    readonly visibilityMs: number;
    readonly waitMs: number;
    readonly signal: AbortSignal;
  }): Promise<readonly Received[]> {
    const { clock } = this.#parts;
    const untilMs = clock.nowMs() + request.waitMs;
    for (;;) {
      const received = await this.#take(request.limit, request.visibilityMs);
      if (received.length > 0 || clock.nowMs() >= untilMs || request.signal.aborted) return received;
      await this.#changed(untilMs, request.signal);
    }
  }

  /** Removes a received message. A receipt of a standard queue is good even after the message became visible again. */
  async delete(receiptHandle: string): Promise<void> {
    const entry = this.#entryOf(receiptHandle);
    if (entry === null) return;
    if (this.settings.fifo && receiptHandle !== this.#receiptOf(entry)) {
      // Somebody else has it now, or could have.
      if (entry.state.visibleAtMs <= this.#parts.clock.nowMs())
        throw new AwsError(
          "InvalidParameterValue",
          `Value ${receiptHandle} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.`,
        );
      return;
    }
    await this.#parts.values.commit(this.#removals([entry]));
    this.#shelf.remove(entry);
    // What stands behind it in its group can be received now.
    if (this.settings.fifo) this.#wake();
  }

  /** @throws AwsError `MessageNotInflight` */
  async changeVisibility(receiptHandle: string, visibilityMs: number): Promise<void> {
    const entry = this.#entryOf(receiptHandle);
    const nowMs = this.#parts.clock.nowMs();
    if (entry === null || entry.state.visibleAtMs <= nowMs || receiptHandle !== this.#receiptOf(entry))
      throw new AwsError(
        "MessageNotInflight",
        `Value ${receiptHandle} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available for visibility timeout change.`,
      );
    this.#shelf.reschedule(entry, { ...entry.state, visibleAtMs: nowMs + visibilityMs }, nowMs);
    this.#wake();
    await this.#parts.values.commit([this.#stateChange(entry)]);
  }

  /** Removes everything that is there now. */
  async purge(): Promise<void> {
    const entries = [...this.#shelf.all()];
    for (let from = 0; from < entries.length; from += PAGE) {
      const page = entries.slice(from, from + PAGE);
      await this.#parts.values.commit(this.#removals(page));
      for (const entry of page) this.#shelf.remove(entry);
    }
  }

  /** Removes everything, for a queue that is gone itself. */
  async destroy(): Promise<void> {
    await this.purge();
    const known = [...this.#deduplication.keys()].map((id) => removal(DEDUPLICATION, this.#prefix + id));
    if (known.length > 0) await this.#parts.values.commit(known);
    this.#cancelWake?.();
    for (const waiter of this.#waiters) waiter.wake();
  }

  /** Moves up to `limit` messages into other queues, each in one step; answers how many. What has no place to go stays. */
  async moveTo(targetOf: (message: Message) => Promise<MessageQueue | null>, limit: number): Promise<number> {
    const nowMs = this.#parts.clock.nowMs();
    const taken: { readonly entry: Entry; readonly before: MessageState }[] = [];
    for (const entry of this.#shelf.receivable(nowMs)) {
      taken.push({ entry, before: entry.state });
      // Nobody else receives it meanwhile.
      this.#shelf.reschedule(entry, { ...entry.state, visibleAtMs: nowMs + MOVE_MS_MAX }, nowMs);
      if (taken.length >= limit) break;
    }
    let moved = 0;
    for (const { entry, before } of taken) {
      const message = await this.#read(entry);
      const target = message === null ? null : await targetOf(message);
      if (message === null || target === null) {
        this.#shelf.reschedule(entry, before, nowMs);
        continue;
      }
      await this.#move(entry, message, target);
      moved++;
    }
    return moved;
  }

  #prepare(
    outgoing: Outgoing,
    into: {
      readonly nowMs: number;
      readonly changes: ValueChange[];
      readonly added: { message: Message; state: MessageState }[];
    },
  ): Sent {
    const { nowMs, changes, added } = into;
    const scope = this.#scopeOf(outgoing);
    const known =
      outgoing.deduplicationId === null ? undefined : this.#deduplication.get(scope + outgoing.deduplicationId);
    if (known !== undefined) return known.sent;
    const message = this.#messageOf(outgoing, { nowMs, sourceArn: null });
    const delayMs = (outgoing.delaySeconds ?? this.settings.delaySeconds) * 1_000;
    const state = newState(nowMs + delayMs);
    const sent = { id: message.id, sequence: message.sequence };
    changes.push({ collection: MESSAGES, key: this.#keyOf(message.sequence), value: message, expect: "absent" });
    if (delayMs > 0)
      changes.push({ collection: STATES, key: this.#keyOf(message.sequence), value: state, expect: "any" });
    if (outgoing.deduplicationId !== null) {
      const entry = { sent, untilMs: nowMs + DEDUPLICATION_MS };
      this.#deduplication.set(scope + outgoing.deduplicationId, entry);
      changes.push({
        collection: DEDUPLICATION,
        key: this.#prefix + scope + outgoing.deduplicationId,
        value: entry,
        expect: "any",
      });
    }
    added.push({ message, state });
    return sent;
  }

  #scopeOf({ groupId }: Pick<Outgoing, "groupId">): string {
    return this.settings.deduplicationScope === "messageGroup" ? `${groupId ?? ""}/` : "";
  }

  #messageOf(outgoing: Outgoing, of: { readonly nowMs: number; readonly sourceArn: string | null }): Message {
    const { body, attributes, traceHeader, senderId, groupId, deduplicationId } = outgoing;
    return {
      id: randomUUID(),
      sequence: ++this.#sequence,
      body,
      attributes,
      traceHeader,
      senderId,
      sentAtMs: of.nowMs,
      groupId,
      deduplicationId,
      sourceArn: of.sourceArn,
    };
  }

  async #take(limit: number, visibilityMs: number): Promise<readonly Received[]> {
    this.#expire();
    const { clock, values, supervise } = this.#parts;
    const nowMs = clock.nowMs();
    const { redrive } = this.settings;
    const taken: Entry[] = [];
    const exhausted: Entry[] = [];
    for (const entry of this.#shelf.receivable(nowMs)) {
      const tooOften = redrive !== null && entry.state.receiveCount >= redrive.maxReceiveCount;
      (tooOften ? exhausted : taken).push(entry);
      // Even with a visibility of 0 it is given once in one answer.
      const visibleAtMs = nowMs + Math.max(visibilityMs, 1);
      const { receiveCount, firstReceivedAtMs, epoch } = entry.state;
      const state = {
        receiveCount: receiveCount + 1,
        firstReceivedAtMs: firstReceivedAtMs ?? nowMs,
        visibleAtMs,
        epoch: epoch + 1,
      };
      this.#shelf.reschedule(entry, state, nowMs);
      if (taken.length >= limit) break;
    }
    for (const entry of exhausted) await this.#bury(entry, redrive?.deadLetterTargetArn ?? "");
    if (taken.length === 0) return exhausted.length > 0 ? await this.#take(limit, visibilityMs) : [];
    // Not awaited: what a crash takes of it is only that somebody else may receive the message earlier.
    supervise("keep who received what", values.commit(taken.map((entry) => this.#stateChange(entry))));
    const received = await Promise.all(
      taken.map(async (entry): Promise<Received | null> => {
        const { state } = entry;
        const receiptHandle = this.#receiptOf(entry);
        const message = await this.#read(entry);
        return message === null ? null : { message, state, receiptHandle };
      }),
    );
    return received.filter((each) => each !== null);
  }

  async #bury(entry: Entry, targetArn: string): Promise<void> {
    const message = await this.#read(entry);
    const target = await this.#parts.deadLetters(targetArn);
    // Without a place to go it stays, and is tried again.
    if (message !== null && target !== null) await this.#move(entry, message, target);
  }

  async #move(entry: Entry, message: Message, target: MessageQueue): Promise<void> {
    const nowMs = this.#parts.clock.nowMs();
    const moved: Message = { ...message, sequence: ++target.#sequence, sourceArn: this.arn };
    const state = newState(nowMs);
    await this.#parts.values.commit([
      ...this.#removals([entry]),
      { collection: MESSAGES, key: target.#keyOf(moved.sequence), value: moved, expect: "absent" },
    ]);
    this.#shelf.remove(entry);
    target.#shelf.add(moved, state, nowMs);
    target.#wake();
  }

  async #read(entry: Entry): Promise<Message | null> {
    return (
      ((await this.#parts.values.get(MESSAGES, this.#keyOf(entry.sequence)))?.value as Message | undefined) ?? null
    );
  }

  /** Forgets what is older than the queue keeps. */
  #expire(): void {
    const { clock, values, supervise } = this.#parts;
    const oldestMs = clock.nowMs() - this.settings.retentionSeconds * 1_000;
    const expired: Entry[] = [];
    for (const entry of this.#shelf.all()) {
      if (entry.sentAtMs >= oldestMs) break;
      expired.push(entry);
      if (expired.length >= PAGE) break;
    }
    if (expired.length === 0) return;
    for (const entry of expired) this.#shelf.remove(entry);
    supervise("remove expired messages", values.commit(this.#removals(expired)));
  }

  #forget(nowMs: number): void {
    const gone: ValueChange[] = [];
    for (const [id, { untilMs }] of this.#deduplication) {
      if (untilMs > nowMs) break;
      this.#deduplication.delete(id);
      gone.push(removal(DEDUPLICATION, this.#prefix + id));
    }
    if (gone.length > 0) this.#parts.supervise("forget deduplication", this.#parts.values.commit(gone));
  }

  async #changed(untilMs: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.#parts;
    await new Promise<void>((resolve) => {
      const cancel = clock.after(Math.max(0, untilMs - clock.nowMs()), () => waiter.wake());
      const waiter: Waiter = {
        wake: () => {
          cancel();
          this.#waiters.delete(waiter);
          signal.removeEventListener("abort", waiter.wake);
          resolve();
        },
      };
      signal.addEventListener("abort", waiter.wake, { once: true });
      this.#waiters.add(waiter);
      this.#scheduleWake();
    });
  }

  #wake(): void {
    for (const waiter of this.#waiters) waiter.wake();
  }

  /** Wakes those who wait when the next message becomes visible. */
  #scheduleWake(): void {
    const { clock } = this.#parts;
    const atMs = this.#shelf.nextVisibleAtMs();
    if (atMs === null || atMs >= this.#wakeAtMs) return;
    this.#cancelWake?.();
    this.#wakeAtMs = atMs;
    this.#cancelWake = clock.after(Math.max(0, atMs - clock.nowMs()), () => {
      this.#wakeAtMs = Number.POSITIVE_INFINITY;
      this.#cancelWake = null;
      this.#wake();
    });
  }

  #entryOf(receiptHandle: string): Entry | null {
    const [generation, sequence, id] = Buffer.from(receiptHandle, "base64url").toString("latin1").split("/");
    if (generation !== this.#parts.generation || id === undefined || !/^\d+$/.test(sequence ?? ""))
      throw new AwsError(
        "ReceiptHandleIsInvalid",
        `The input receipt handle "${receiptHandle}" is not a valid receipt handle.`,
      );
    const entry = this.#shelf.get(Number(sequence));
    return entry?.id === id ? entry : null;
  }

  #receiptOf({ sequence, id, state }: Entry): string {
    return Buffer.from(`${this.#parts.generation}/${sequence}/${id}/${state.epoch}`, "latin1").toString("base64url");
  }

  #keyOf(sequence: number): string {
    return this.#prefix + String(sequence).padStart(16, "0");
  }

  #stateChange(entry: Entry): ValueChange {
    return { collection: STATES, key: this.#keyOf(entry.sequence), value: entry.state, expect: "any" };
  }

  #removals(entries: readonly Entry[]): readonly ValueChange[] {
    return entries.flatMap(({ sequence }) => [
      removal(MESSAGES, this.#keyOf(sequence)),
      removal(STATES, this.#keyOf(sequence)),
    ]);
  }
}

function newState(visibleAtMs: number): MessageState {
  return { receiveCount: 0, firstReceivedAtMs: null, visibleAtMs, epoch: 0 };
}

function removal(collection: string, key: string): ValueChange {
  return { collection, key, value: null, expect: "any" };
}

async function* entriesOf(
  values: Values,
  collection: string,
  prefix: string,
): AsyncGenerator<{ readonly key: string; readonly value: unknown }> {
  for (let after: string | undefined; ;) {
    const page = await values.list(collection, { prefix, limit: PAGE, ...(after === undefined ? {} : { after }) });
    yield* page;
    after = page.at(-1)?.key;
    if (page.length < PAGE) return;
  }
}
