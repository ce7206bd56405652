import type { ErrorReport } from "./errors.ts";
import type { Alias, FunctionSpec } from "./function.ts";
import type { Activation, Attempt } from "./invocation.ts";

/**
 * The shapes of the native management API, shared by the gateway's side and by the CLI. Times are RFC 3339 strings on the wire,
 * durations milliseconds, sizes bytes. `{ns}` is a namespace; `{fn}` a function's name or `package/name` with the slash as `%2F`.
 *
 *   GET    /v1/status                                            PlatformStatus
 *   GET    /v1/doctor                                            DoctorReport
 *   GET    /v1/runtimes                                          Page<RuntimeView>
 *   HEAD   /v1/code/{digest}                                     200 or 404: is this package there already?
 *   POST   /v1/code                       zip archive            201 CodeView   (application/zip; streamed)
 *   GET    /v1/namespaces/{ns}/functions?after&limit             Page<FunctionView>
 *   PUT    /v1/namespaces/{ns}/functions/{fn}   DeployRequest    200 unchanged or updated, 201 created: DeployResult
 *          With `Accept: application/x-ndjson`: a line per DeployProgress, the last one with `result` or `error`.
 *   GET    /v1/namespaces/{ns}/functions/{fn}                    FunctionView
 *   DELETE /v1/namespaces/{ns}/functions/{fn}                    204
 *   GET    /v1/namespaces/{ns}/functions/{fn}/versions           Page<VersionView>   newest first
 *   POST   /v1/namespaces/{ns}/functions/{fn}/publish  { version }          FunctionView   makes a version live
 *   POST   /v1/namespaces/{ns}/functions/{fn}/rollback { version? }         FunctionView   live ⇄ previous, or to a version
 *   GET    /v1/namespaces/{ns}/functions/{fn}/aliases            Page<AliasView>
 *   PUT    /v1/namespaces/{ns}/functions/{fn}/aliases/{alias}    AliasRequest → AliasView
 *   DELETE /v1/namespaces/{ns}/functions/{fn}/aliases/{alias}    204
 *   POST   /v1/namespaces/{ns}/functions/{fn}/invoke?qualifier&mode=sync|async   any body → the handler's result
 *          An event call (not HTTP): `lambda` handlers get the JSON as their event. Answers 200 with the result, the error's status with
 *          ErrorBody, or 202 InvokeAccepted with Location. Headers below tell about the run.
 *   GET    /v1/namespaces/{ns}/functions/{fn}/logs?since&before&limit&activation&version&follow=true
 *          Page<LogView>; with follow=true server-sent events: `event: log` with a LogView as data and its sequence as id.
 *   GET    /v1/namespaces/{ns}/activations?function&state&since&before&after&limit   Page<ActivationView>   newest first
 *   GET    /v1/namespaces/{ns}/activations/{id}                  RunView
 *   POST   /v1/namespaces/{ns}/activations/{id}/cancel           204: it waits or runs no more; 409 when it had ended
 *   POST   /v1/namespaces/{ns}/activations/{id}/replay           202 InvokeAccepted, for dead letters; 409 for others
 *   GET    /v1/namespaces/{ns}/dead-letters?function&code&since&before&after&limit   Page<DeadLetterView>   by id, so the oldest accepted first
 *   GET    /v1/namespaces/{ns}/dead-letters/{id}                 DeadLetterDetailView
 *   POST   /v1/namespaces/{ns}/dead-letters/replay   { function?, code?, since?, before?, limit?, perSecond? }   DeadLettersReplayed
 *   POST   /v1/namespaces/{ns}/dead-letters/purge    { function?, code?, since?, before?, limit? }   DeadLettersPurged
 *   POST   /v1/namespaces/{ns}/dead-letters/{id}/replay          202 InvokeAccepted
 *   DELETE /v1/namespaces/{ns}/dead-letters/{id}                 204
 *   GET    /v1/namespaces/{ns}/activations/{id}/logs             Page<LogView>
 *   GET    /v1/namespaces/{ns}/activations/{id}/result           the stored answer of an asynchronous invocation; 404 while there is none
 *   GET    /v1/namespaces/{ns}/secrets                           Page<SecretView>   never a value
 *   PUT    /v1/namespaces/{ns}/secrets/{name}   { value }        200 or 201 SecretView
 *   DELETE /v1/namespaces/{ns}/secrets/{name}                    204
 *   GET    /v1/trigger-kinds                                     Page<TriggerKindView>
 *   GET    /v1/namespaces/{ns}/triggers?after&limit              Page<TriggerView>   by name
 *   POST   /v1/namespaces/{ns}/triggers         TriggerRequestBody with `name`   201 TriggerView; 409 when there is one
 *   PUT    /v1/namespaces/{ns}/triggers/{name}  TriggerRequestBody   200 or 201 TriggerView
 *   GET    /v1/namespaces/{ns}/triggers/{name}                   TriggerView
 *   DELETE /v1/namespaces/{ns}/triggers/{name}                   204
 *   POST   /v1/namespaces/{ns}/triggers/{name}/pause             TriggerView
 *   POST   /v1/namespaces/{ns}/triggers/{name}/resume            TriggerView
 *   POST   /v1/namespaces/{ns}/triggers/{name}/test   { event?, deliver? }   TriggerTestView
 *   POST   /v1/namespaces/{ns}/triggers/{name}/events   CloudEvents in any mode   202 PublishView   delivered as if its source had emitted them
 *   GET    /v1/namespaces/{ns}/topics                            Page<TopicView>
 *   PUT    /v1/namespaces/{ns}/topics/{name}    { description? } 200 or 201 TopicView
 *   DELETE /v1/namespaces/{ns}/topics/{name}                     204
 *   POST   /v1/namespaces/{ns}/topics/{name}    CloudEvents in any mode, or any JSON   202 PublishView
 *
 * Functions are called over HTTP at ANY /fn/{fn}[:qualifier]/path and /ns/{ns}/fn/{fn}[:qualifier]/path; `Prefer: respond-async` answers 202 with
 * InvokeAccepted and `Location: /v1/namespaces/{ns}/activations/{id}`.
 */

/** Response headers of every invocation. */
export const invocationHeaders = {
  /** On every response of the platform; equals the activation id. */
  requestId: "x-request-id",
  /** `cold` or `warm`. */
  start: "x-koine-start",
  /** Version number that ran. */
  version: "x-koine-version",
  /** Set when an answer is the platform's own error: its code. */
  error: "x-koine-error",
} as const;

/** Body of every error response. */
export interface ErrorBody {
  readonly error: ErrorReport & { readonly requestId: string };
}

export interface Page<Item> {
  readonly items: readonly Item[];
  /** Pass as `after` to get the next page; null: this is the last. */
  readonly next: string | null;
}

export interface CodeView {
  readonly digest: string;
  /** Unpacked. */
  readonly bytes: number;
  readonly files: number;
}

/** What `deploy` sends: the spec, with everything but `code` or `image` optional; a field that is absent gets its default, not the previous version's value. */
export type DeployRequest = Partial<Omit<FunctionSpec, "dialect">> & {
  /** Builds an image from the package `code`, and deploys that. The path of a Dockerfile in the package. */
  readonly build?: { readonly dockerfile: string };
  /** Whether to load the handler once before going live, so that a broken one is refused; default true. */
  readonly check?: boolean;
  /** Whether the new version goes live; default true. */
  readonly live?: boolean;
};

export interface DeployResult {
  readonly change: "created" | "updated" | "unchanged";
  readonly function: FunctionView;
  readonly version: VersionView;
}

export type DeployProgress =
  | { readonly phase: "unpacking" | "installing" | "checking" | "publishing"; readonly message: string }
  | { readonly phase: "output"; readonly message: string }
  | { readonly phase: "done"; readonly result: DeployResult }
  | { readonly phase: "failed"; readonly error: ErrorBody["error"] };

export interface FunctionView {
  readonly namespace: string;
  readonly package: string;
  readonly name: string;
  readonly liveVersion: number;
  readonly previousVersion: number | null;
  readonly newestVersion: number;
  readonly createdAt: string;
  readonly updatedAt: string;
  /** Path below the platform's address: `/fn/hello`. */
  readonly path: string;
  /** Of the live version. */
  readonly spec: FunctionSpec;
  readonly aliases: readonly AliasView[];
  /** Instances of all its versions now. */
  readonly instances: {
    readonly starting: number;
    readonly idle: number;
    readonly busy: number;
    readonly frozen: number;
  };
}

export interface VersionView {
  readonly number: number;
  readonly live: boolean;
  readonly aliases: readonly string[];
  readonly createdAt: string;
  readonly specDigest: string;
  readonly spec: FunctionSpec;
}

export type AliasView = Omit<Alias, "updatedAtMs"> & { readonly updatedAt: string };

export interface AliasRequest {
  readonly version: number;
  readonly additional?: { readonly version: number; readonly weight: number };
}

export interface InvokeAccepted {
  readonly activationId: string;
  /** Set when the idempotency key was known: nothing was added, the activation is that of the earlier call. */
  readonly duplicate?: true;
}

export type AttemptView = Omit<Attempt, "startedAtMs" | "endedAtMs"> & {
  readonly startedAt: string;
  readonly endedAt: string;
};

/** An activation with what is known of it beside its record. */
export interface RunView extends ActivationView {
  /** Those that were kept, oldest first; empty where there was one and it is told by the record. */
  readonly attempts: readonly AttemptView[];
  /** Null: it is not in the queue. */
  readonly queued: { readonly running: boolean; readonly dueAt: string } | null;
  /** Whether it is a dead letter, which can be replayed. */
  readonly deadLetter: boolean;
}

export interface DeadLetterView {
  /** The activation's id; for a delivery that of the delivery. */
  readonly id: string;
  readonly namespace: string;
  readonly package: string;
  readonly name: string;
  readonly kind: "invocation" | "delivery";
  readonly attempts: number;
  readonly reason: string;
  /** Error code of the last attempt. */
  readonly code: string;
  readonly acceptedAt: string;
  readonly diedAt: string;
}

export interface DeadLetterDetailView extends DeadLetterView {
  readonly event: {
    readonly method?: string;
    readonly url?: string;
    readonly destination?: string;
    readonly activationId?: string;
    readonly contentType: string;
    readonly body?: string;
    readonly bodyBase64?: string;
  };
  readonly history: readonly AttemptView[];
}

export interface DeadLettersReplayed {
  readonly replayed: number;
  readonly activationIds: readonly string[];
  /** Whether there are more that were asked for. */
  readonly more: boolean;
}

export interface DeadLettersPurged {
  readonly purged: number;
  readonly more: boolean;
}

export type ActivationView = Omit<Activation, "startedAtMs"> & { readonly startedAt: string };

export interface LogView {
  readonly sequence: number;
  readonly time: string;
  readonly function: string;
  readonly version: number;
  readonly activationId: string | null;
  readonly instanceId: string;
  readonly stream: "stdout" | "stderr" | "platform";
  readonly line: string;
}

export interface SecretView {
  readonly name: string;
  readonly createdAt: string;
  readonly updatedAt: string;
}

export interface RuntimeView {
  readonly name: string;
  readonly language: string;
  /** Handler models it understands, in the order they are tried. */
  readonly handlerModels: readonly string[];
  /** Version of the interpreter once prepared; null before its first use. */
  readonly version: string | null;
}

/** One of the processes that serve; the first has everything else too. */
export interface EngineView {
  /** Counts from 1. */
  readonly engine: number;
  /** Null: it has ended, and is being started anew. */
  readonly pid: number | null;
  /** Connections that it serves. */
  readonly connections: number;
  /** Invocations that run or wait in it. */
  readonly inFlight: number;
  readonly instances: PlatformStatus["instances"];
}

export interface PlatformStatus {
  readonly version: string;
  readonly startedAt: string;
  readonly dataDirectory: string;
  readonly sandbox: string;
  readonly functions: number;
  readonly instances: {
    readonly starting: number;
    readonly idle: number;
    readonly busy: number;
    readonly frozen: number;
  };
  readonly spares: Readonly<Record<string, number>>;
  readonly memory: { readonly usedBytes: number; readonly budgetBytes: number };
  readonly queue: { readonly waiting: number; readonly leased: number; readonly dead: number };
  readonly authentication: boolean;
  readonly engines: readonly EngineView[];
}

export interface DoctorReport {
  readonly sandbox: string;
  readonly facts: readonly {
    readonly ability: string;
    readonly holds: boolean;
    readonly detail: string;
    readonly remedy: string;
  }[];
}

/** What a user says about a trigger. Durations in milliseconds. */
export interface TriggerRequestBody {
  readonly kind: string;
  /** `name`, `package/name`, with an optional `:qualifier`. */
  readonly function: string;
  readonly settings?: unknown;
  readonly filter?: unknown;
  readonly batch?: { readonly size?: number; readonly windowMs?: number } | null;
  readonly ordering?: "none" | "key" | "all";
  readonly retry?: { readonly attemptsMax?: number; readonly ageMsMax?: number; readonly delaysMs?: readonly number[] };
  readonly priority?: "high" | "normal" | "low";
  readonly paused?: boolean;
  readonly description?: string;
}

export interface TriggerView {
  readonly namespace: string;
  readonly name: string;
  readonly kind: string;
  readonly function: string;
  readonly settings: unknown;
  readonly filter: unknown;
  readonly batch: { readonly size: number; readonly windowMs: number } | null;
  readonly ordering: "none" | "key" | "all";
  readonly retry: NonNullable<TriggerRequestBody["retry"]>;
  readonly priority: "high" | "normal" | "low";
  readonly description: string;
  readonly createdAt: string;
  readonly updatedAt: string;
  /** `paused`, `starting`, `connecting`, `connected`, `failing`, `finished`, or `elsewhere`: another node has it, or will take it. */
  readonly state: string;
  readonly detail: string;
  /** Why it is failing, or failed last since it was connected. */
  readonly error: (ErrorReport & { readonly at: string }) | null;
  /** The node that runs it; null for kinds that every node serves. */
  readonly node: string | null;
  readonly lag: { readonly events: number | null; readonly ms: number | null } | null;
  readonly lastEventAt: string | null;
  /** On the node that answers, since it started. */
  readonly events: {
    readonly received: number;
    readonly filtered: number;
    readonly delivered: number;
    readonly failed: number;
  };
  /** Where requests go, for kinds that are routes: `POST /hooks/{id}`. */
  readonly route: string | null;
}

export interface TriggerKindView {
  readonly name: string;
  readonly summary: string;
  readonly abilities: { readonly ordering: boolean; readonly replay: boolean };
  /** JSON Schema. */
  readonly settings: unknown;
}

export interface TriggerTestView {
  /** In the JSON format of CloudEvents. */
  readonly event: unknown;
  readonly matched: boolean;
  readonly activationId: string | null;
  readonly connection: { readonly ok: boolean; readonly detail: string } | null;
}

export interface TopicView {
  readonly namespace: string;
  readonly name: string;
  readonly description: string;
  readonly createdAt: string;
  /** Names of the triggers that subscribe to it. */
  readonly subscriptions: readonly string[];
}

/** What became of events that were sent to a topic or a trigger. */
export interface PublishView {
  /** Subscriptions that took at least one; for a trigger 1 or 0. */
  readonly subscriptions: number;
  readonly activationIds: readonly string[];
}
