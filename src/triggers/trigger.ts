import { z } from "zod";
import type { Clock } from "../core/clock.ts";
import { KoineError } from "../core/errors.ts";
import type { CloudEvent } from "../core/event.ts";
import type { Logger } from "../core/telemetry.ts";

/**
 * A trigger is a stored rule: this kind of event → this function. A kind says what its settings are and how its events come in: it `pull`s them
 * (a TriggerSource that runs on one node at a time), gets them as HTTP requests (a TriggerRoute, on every node), or has them published to it by
 * the platform itself (`topic`). One file per kind in this folder, plus one line in `compose.ts`. `conformance.ts` is the suite for pulling kinds.
 *
 * What every trigger has is done by the host and not by kinds: filter, batches, order of delivery, retry, dead letters, pause, restart with
 * backoff, metrics, the one-node rule, and secrets.
 */
export type TriggerKind = PullKind | RouteKind | SubscriptionKind;

interface KindFacts {
  /** `cron`, `kafka`, …; what `--kind` says. */
  readonly name: string;
  /** One line for people: `messages of Kafka topics`. */
  readonly summary: string;
  /** Describes the settings; for `/openapi.json`, docs and `koine trigger kinds`. */
  readonly settings: z.ZodType;
  readonly abilities: TriggerAbilities;
  /**
   * The settings with their defaults, as they are stored.
   * @throws KoineError `invalid-trigger` that names each place that is wrong
   */
  parse(settings: unknown): unknown;
  /** An event as this kind would emit it, for `koine trigger test`. */
  sample(settings: unknown): CloudEvent;
  /** That the events are to be handled one after the other, where the settings say so by themselves; else null. */
  orderingOf(settings: unknown): "all" | null;
}

export interface TriggerAbilities {
  /** Whether its events carry `partitionkey` and are emitted in the order of the source per key. */
  readonly ordering: boolean;
  /** Whether a source that is opened again continues behind its checkpoint, so that what came meanwhile is not lost. */
  readonly replay: boolean;
}

export interface PullKind extends KindFacts {
  readonly way: "pull";
  /** Must not connect or wait: that is `run`'s business. */
  open(settings: unknown, host: SourceHost): TriggerSource;
  /** Connects as `run` would, looks whether what the settings name is there, and leaves no trace. Rejects with what is wrong. */
  check?(settings: unknown, host: SourceHost, signal: AbortSignal): Promise<void>;
}

/** A running adapter that emits the events of one stored trigger. */
export interface TriggerSource {
  /**
   * Connects and emits until the signal aborts, then lets go of everything and resolves (or rejects with the signal's reason, which is the same). Any
   * other rejection is a fault: the host shows it and runs a source opened anew, with backoff. So a source need not reconnect by itself where its
   * client library does not; where the library does, the source reports `connecting` meanwhile.
   */
  run(emit: Emit, signal: AbortSignal): Promise<void>;
}

/**
 * Hands an event over; resolves once it is durable (or filtered out), and only then may the source acknowledge it or advance its checkpoint past it.
 * Rejects when it is not: then the source must not advance, and mostly lets the rejection end its run.
 *
 * Back-pressure: a full queue makes it wait, up to `limits.triggerAcceptMsMax`. Batches fill from calls that wait: a source that awaits each call before
 * the next gets batches of one. Have several calls open, at most `limits.triggerInFlightMax`, and use `Progress` to know up to where all are accepted.
 * Order is that of the calls. The same event emitted again (same source and id, after a restart) is recognised for `limits.idempotencyWindowMs` and not
 * delivered twice, unless it travels in a batch.
 */
export type Emit = (event: CloudEvent) => Promise<Emitted>;

export interface Emitted {
  /** The invocation that the event became part of; null when it was filtered out. */
  readonly activationId: string | null;
}

/** What a source is given. */
export interface SourceHost {
  readonly trigger: { readonly id: string; readonly namespace: string; readonly name: string };
  readonly clock: Clock;
  readonly checkpoint: Checkpoint;
  readonly logger: Logger;
  /** The value of a secret that the settings name. What it answers must never be logged nor be part of an error's message. */
  secret(reference: SecretReference): string;
  /** Tells how the source is; what is left out stays as it was. Cheap: call it as often as there is news. */
  report(report: SourceReport): void;
  /** Whether an invocation is over: done, cancelled or a dead letter, and not only between two attempts. */
  isOver(activationId: string): Promise<boolean>;
  /** From 0 to 1, below 1. */
  random(): number;
}

export interface SourceReport {
  /** `connected` when events can come; the host says `starting` before the first. */
  readonly state?: "connecting" | "connected";
  /** Events that wait at the source, and how old the oldest of them is; null: not known. */
  readonly lag?: { readonly events: number | null; readonly ms: number | null };
  /** What a person may want to know: the broker's name, a skipped message. Never a credential. */
  readonly detail?: string;
}

/** Where a source remembers how far it came: durable, and fenced, so that a node that has lost the trigger cannot write it. */
export interface Checkpoint {
  /** What was written last by whoever ran this trigger; null at first. */
  read(): Promise<string | null>;
  /** Durable when it resolves. Several calls of one turn become one write. @throws KoineError `conflict` when another node has taken over */
  write(position: string): Promise<void>;
}

/** Events that arrive as HTTP requests. */
export interface RouteKind extends KindFacts {
  readonly way: "route";
  /** Opened on every node, again after every change. */
  open(settings: unknown, host: RouteHost): TriggerRoute;
}

export interface RouteHost {
  readonly trigger: SourceHost["trigger"];
  readonly clock: Clock;
  secret(reference: SecretReference): string;
}

/** Which requests, and what becomes of one. */
export interface TriggerRoute {
  /** Absent: every host. In lower case; `*.example.com` stands for one label or more. */
  readonly host?: string;
  /** Empty: every method. Upper case. */
  readonly methods: readonly string[];
  /** `/hooks/{id}/items`; `{rest+}` as the last takes all that is left. */
  readonly path: string;
  /** Also asked for CORS preflights, which are `OPTIONS`, whatever `methods` says. */
  receive(request: TriggerRequest): Promise<RouteDecision>;
}

/** A whole request, as it came. */
export interface TriggerRequest {
  readonly method: string;
  readonly path: string;
  /** With `?`, or empty. */
  readonly query: string;
  readonly parameters: Readonly<Record<string, string>>;
  /** The value of a field by its lower-case name. */
  header(name: string): string | undefined;
  readonly rawHeaders: readonly string[];
  readonly body: Buffer;
  readonly remoteAddress: string;
  readonly receivedAtMs: number;
}

export type RouteDecision =
  /** Deliver these durably, all or none, then answer: 202 and what was accepted, or `answer`. */
  | {
      readonly kind: "accept";
      readonly events: readonly CloudEvent[];
      readonly headers?: readonly string[];
      readonly answer?: RouteAnswer;
    }
  /** Let the function answer this request. The event is for the filter. */
  | { readonly kind: "call"; readonly event: CloudEvent; readonly headers?: readonly string[] }
  /** Nothing for the function: a preflight, a handshake of the sender. */
  | { readonly kind: "answer"; readonly answer: RouteAnswer };

export interface RouteAnswer {
  readonly status: number;
  readonly headers: readonly string[];
  readonly body: string;
}

/** Events that are published to it within the platform; the platform looks at its settings. */
export interface SubscriptionKind extends KindFacts {
  readonly way: "subscription";
  /** The topic that it subscribes to. */
  topicOf(settings: unknown): string;
}

/** In settings a credential is never a value but the name of one of the namespace's secrets: `{ "secret": "KAFKA_PASSWORD" }`. */
export interface SecretReference {
  readonly secret: string;
}

const SECRET_HINT = 'must be the name of a secret, written { "secret": "NAME" }; set it with \'koine secret set NAME\'';

/** The schema of a setting that is a credential. */
export function secretReference(description: string) {
  return z
    .strictObject(
      { secret: z.string({ error: SECRET_HINT }).regex(/^[A-Za-z_][A-Za-z0-9_]*$/, SECRET_HINT) },
      SECRET_HINT,
    )
    .meta({ description: `${description}; the name of a secret` });
}

/** The schema of an address that must not carry a password: it would be stored and shown in clear. */
export function address(description: string, protocols: readonly string[]) {
  return z
    .string()
    .max(2_048)
    .superRefine((text, context) => {
      const url = URL.parse(text);
      const names = protocols.map((protocol) => `${protocol}://`).join(" or ");
      if (url === null || !protocols.includes(url.protocol.slice(0, -1)))
        context.addIssue({ code: "custom", message: `must be an address that begins with ${names}` });
      else if (url.password !== "")
        context.addIssue({ code: "custom", message: "must not hold a password: name a secret in the setting for it" });
    })
    .meta({ description });
}

/** The names of all secrets that settings refer to. */
export function secretsIn(settings: unknown): readonly string[] {
  if (typeof settings !== "object" || settings === null) return [];
  const entries = Object.entries(settings);
  const [name, value] = entries[0] ?? [];
  if (entries.length === 1 && name === "secret" && typeof value === "string") return [value];
  return [...new Set(entries.flatMap(([, inner]) => secretsIn(inner)))];
}

interface Description<Schema extends z.ZodType> {
  readonly name: string;
  readonly summary: string;
  readonly settings: Schema;
  readonly abilities?: TriggerAbilities;
  sample(settings: z.output<Schema>): CloudEvent;
  orderingOf?(settings: z.output<Schema>): "all" | null;
}

/** Makes a pulling kind; ties the types of its functions to its schema. */
export function pullKind<Schema extends z.ZodType>(
  description: Description<Schema> & {
    open(settings: z.output<Schema>, host: SourceHost): TriggerSource;
    check?(settings: z.output<Schema>, host: SourceHost, signal: AbortSignal): Promise<void>;
  },
): PullKind {
  const { open, check } = description;
  return {
    way: "pull",
    ...facts(description),
    open: (settings, host) => open(settings as z.output<Schema>, host),
    ...(check === undefined
      ? {}
      : {
          check: (settings: unknown, host: SourceHost, signal: AbortSignal) =>
            check(settings as z.output<Schema>, host, signal),
        }),
  };
}

/** Makes a kind whose events are HTTP requests. */
export function routeKind<Schema extends z.ZodType>(
  description: Description<Schema> & { open(settings: z.output<Schema>, host: RouteHost): TriggerRoute },
): RouteKind {
  const { open } = description;
  return { way: "route", ...facts(description), open: (settings, host) => open(settings as z.output<Schema>, host) };
}

/** Makes a kind that the platform publishes to. */
export function subscriptionKind<Schema extends z.ZodType>(
  description: Description<Schema> & { topicOf(settings: z.output<Schema>): string },
): SubscriptionKind {
  const { topicOf } = description;
  return { way: "subscription", ...facts(description), topicOf: (settings) => topicOf(settings as z.output<Schema>) };
}

function facts<Schema extends z.ZodType>(description: Description<Schema>): KindFacts {
  const {
    name,
    summary,
    settings: schema,
    abilities = { ordering: false, replay: false },
    sample,
    orderingOf,
  } = description;
  return {
    name,
    summary,
    settings: schema,
    abilities,
    parse(settings) {
      const result = schema.safeParse(settings);
      if (result.success) return result.data;
      const problems = result.error.issues.map((issue) => {
        const where = ["settings", ...issue.path].join(".");
        return `${where} ${issue.message.replace(/^Invalid input: /, "")}`;
      });
      throw new KoineError("invalid-trigger", { kind: name, detail: problems.join("; ") });
    },
    sample: (settings) => sample(settings as z.output<Schema>),
    orderingOf: (settings) => orderingOf?.(settings as z.output<Schema>) ?? null,
  };
}
