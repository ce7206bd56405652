import type { ErrorReport } from "./errors.ts";
import type { Alias, FunctionSpec } from "./function.ts";
import type { Activation } from "./invocation.ts";

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
 *   GET    /v1/namespaces/{ns}/activations/{id}                  ActivationView
 *   GET    /v1/namespaces/{ns}/activations/{id}/logs             Page<LogView>
 *   GET    /v1/namespaces/{ns}/activations/{id}/result           the stored answer of an asynchronous invocation; 404 while there is none
 *   GET    /v1/namespaces/{ns}/secrets                           Page<SecretView>   never a value
 *   PUT    /v1/namespaces/{ns}/secrets/{name}   { value }        200 or 201 SecretView
 *   DELETE /v1/namespaces/{ns}/secrets/{name}                    204
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

/** What `deploy` sends: the spec, with everything but code optional; a field that is absent gets its default, not the previous version's value. */
export type DeployRequest = Pick<FunctionSpec, "code"> &
  Partial<Omit<FunctionSpec, "code" | "dialect">> & {
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
