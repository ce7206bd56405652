import type { Clock } from "../core/clock.ts";
import { KoineError, toKoineError } from "../core/errors.ts";
import { type FunctionSpec, type Version } from "../core/function.ts";
import { type InstanceEvent, type InstanceState, slotsTaken, transition } from "../core/instance.ts";
import type { LogStream } from "../core/invocation.ts";
import type { Link, Specialisation, Specialised } from "../protocols/protocol.ts";
import { insidePaths, type Runtime } from "../runtimes/runtime.ts";
import {
  isAttachable,
  isFreezable,
  isPathMapped,
  type Mount,
  type Sandbox,
  type SandboxEnd,
} from "../sandbox/sandbox.ts";
import { boot } from "./boot.ts";
import { LineAssembler } from "./log-lines.ts";
import { type Booted, type EngineParts, type PreparedVersion, sandboxLimits } from "./parts.ts";
import type { SparePool } from "./spares.ts";

/** What an instance tells its pool. */
export interface InstanceOwner {
  /** The process is gone or no longer usable; every invocation on it has ended or will be told `lost`. */
  instanceEnded(instance: Instance): void;
}

const MEMORY_SAMPLE_MS = 1_000;
/** How much of a failed process's last output is shown. */
const LAST_WORDS_BYTES = 1_000;
/** How long a process may take to end after its link has closed. */
const ENDING_MS_MAX = 1_000;

/** One Sandbox specialised to one Version. */
export class Instance {
  readonly id: string;
  readonly version: Version;
  readonly link: Link;
  readonly specialised: Specialised;
  /** Whether it stands in its pool's list of instances with a free slot. */
  listed = false;
  state: InstanceState;
  memoryBytes = 0;
  readonly #parts: EngineParts;
  readonly #sandbox: Sandbox;
  readonly #assemblers = new Map<string | null, LineAssembler>();
  #lastInvocationId: string | null = null;
  #memorySampledAtMs = 0;
  #owner: InstanceOwner | null = null;
  /** Invocations it has begun. */
  served = 0;
  /** Memory that the node has set aside for it, in bytes. */
  reservedBytes = 0;
  /** What its start took, in milliseconds. */
  startMs = 0;

  constructor(parts: EngineParts, version: Version, booted: Booted, specialised: Specialised) {
    this.#parts = parts;
    this.id = booted.sandbox.id;
    this.version = version;
    this.link = booted.link;
    this.specialised = specialised;
    this.#sandbox = booted.sandbox;
    this.state = transition({ kind: "starting", sinceMs: parts.clock.nowMs() }, { kind: "ready" }, parts.clock.nowMs());
  }

  /** Must be called before the first invocation. */
  ownedBy(owner: InstanceOwner): void {
    this.#owner = owner;
  }

  get freeSlots(): number {
    if (this.state.kind !== "idle" && this.state.kind !== "busy" && this.state.kind !== "frozen") return 0;
    return this.version.spec.instanceConcurrency - slotsTaken(this.state);
  }

  apply(event: InstanceEvent): void {
    this.state = transition(this.state, event, this.#parts.clock.nowMs());
  }

  /** Takes a slot; one that is frozen runs again from here on. */
  acquire(): void {
    if (this.state.kind === "frozen") {
      this.apply({ kind: "thawed" });
      if (isFreezable(this.#sandbox)) this.#parts.supervise("thaw an instance", this.#sandbox.thaw());
    }
    this.apply({ kind: "acquired" });
  }

  /** Keeps an idle one from using processor time until it is acquired or stopped, where the sandbox can. */
  freeze(): void {
    if (this.state.kind !== "idle" || !isFreezable(this.#sandbox)) return;
    this.apply({ kind: "froze" });
    this.#parts.supervise("freeze an instance", this.#sandbox.freeze());
  }

  /** Why the sandbox is no more; resolves when it is. */
  get ended(): Promise<SandboxEnd> {
    return this.#sandbox.ended;
  }

  stop(graceMs: number): void {
    if (graceMs > 0) this.link.close();
    this.#parts.supervise("stop an instance", this.#sandbox.stop(graceMs));
  }

  /** Reads the sandbox's peak memory, at most once a second: it is a file of the kernel. */
  sampleMemory(nowMs: number): number {
    if (nowMs - this.#memorySampledAtMs >= MEMORY_SAMPLE_MS) {
      this.#memorySampledAtMs = nowMs;
      this.memoryBytes = this.#sandbox.memory()?.peakBytes ?? 0;
    }
    return this.memoryBytes;
  }

  invocationStarted(id: string): void {
    this.#lastInvocationId = id;
    this.served++;
  }

  /** Ends the lines of an invocation that has settled. */
  invocationEnded(id: string): void {
    const assembler = this.#assemblers.size === 0 ? undefined : this.#assemblers.get(id);
    if (assembler === undefined) return;
    assembler.flush(this.#parts.clock.nowMs());
    this.#assemblers.delete(id);
  }

  log(invocationId: string | null, stream: LogStream, chunk: Buffer, timeMs: number): void {
    let assembler = this.#assemblers.get(invocationId);
    if (assembler === undefined) {
      assembler = lineAssembler(this.#parts, this.version, this.id, invocationId);
      this.#assemblers.set(invocationId, assembler);
    }
    assembler.write(stream, chunk, timeMs);
  }

  /** Output past the bootstrap belongs to the one invocation that can have written it, else to none. */
  raw(stream: LogStream, chunk: Buffer): void {
    const alone = this.version.spec.instanceConcurrency === 1;
    this.log(alone ? this.#lastInvocationId : null, stream, chunk, this.#parts.clock.nowMs());
    if (alone && this.state.kind === "idle" && this.#lastInvocationId !== null)
      this.invocationEnded(this.#lastInvocationId);
  }

  closed(): void {
    for (const assembler of this.#assemblers.values()) assembler.flush(this.#parts.clock.nowMs());
    this.#assemblers.clear();
    if (this.state.kind !== "stopped") this.apply({ kind: "ended" });
    this.#owner?.instanceEnded(this);
    endSoon(this.#parts, this.#sandbox);
  }
}

export interface StartRequest {
  readonly version: Version;
  readonly runtime: Runtime;
  readonly spares: SparePool;
  /** Whether it is started to see whether the handler loads: then there is time to keep what was compiled. */
  readonly isCheck: boolean;
}

/**
 * Makes an instance: from a spare sandbox where one is ready, else from a new one.
 * @throws KoineError, of fault `function` when the handler cannot be loaded
 */
export async function startInstance(parts: EngineParts, request: StartRequest, signal: AbortSignal): Promise<Instance> {
  const { version, runtime, spares } = request;
  const prepared = await parts.prepareVersion(version, signal);
  const { codeFolder, codeCacheFolder } = prepared;
  const mounts: Mount[] = [{ source: codeFolder, target: insidePaths.code }];
  if (codeCacheFolder !== null) mounts.push({ source: codeCacheFolder, target: insidePaths.codeCache });
  const { memoryBytesMax } = version.spec;
  const spare = await takeSpare(parts, spares, { mounts, memoryBytesMax });
  const booted = spare ?? (await boot(parts, { runtime, memoryBytesMax, mounts, spare: false }, signal));
  try {
    return await specialise(parts, version, booted, {
      prepared,
      language: runtime.language,
      isCheck: request.isCheck,
      signal,
    });
  } catch (thrown) {
    parts.supervise("stop an instance that did not load", booted.sandbox.stop(0));
    throw thrown;
  }
}

/** A spare sandbox with the code in it; null when there is none. One that ends in this moment is no error: a new one is booted. */
async function takeSpare(
  parts: EngineParts,
  spares: SparePool,
  { mounts, memoryBytesMax }: { readonly mounts: readonly Mount[]; readonly memoryBytesMax: number },
): Promise<Booted | null> {
  const spare = await spares.take();
  if (spare === null || !isAttachable(spare.sandbox)) return null;
  try {
    await spare.sandbox.attach(mounts, sandboxLimits(memoryBytesMax));
    return spare;
  } catch (thrown) {
    parts.supervise("stop a spare sandbox", spare.sandbox.stop(0));
    if (spare.closedReason !== null) return null;
    throw thrown;
  }
}

interface SpecialiseContext {
  readonly prepared: PreparedVersion;
  readonly language: string;
  readonly isCheck: boolean;
  readonly signal: AbortSignal;
}

async function specialise(
  parts: EngineParts,
  version: Version,
  booted: Booted,
  context: SpecialiseContext,
): Promise<Instance> {
  const { spec } = version;
  const { sandbox } = booted;
  const loading = lineAssembler(parts, version, sandbox.id, null);
  let written = Buffer.alloc(0);
  const collect = (stream: LogStream, chunk: Buffer): void => {
    loading.write(stream, chunk, parts.clock.nowMs());
    written = Buffer.concat([written, chunk]).subarray(-LAST_WORDS_BYTES);
  };
  let ended: (error: KoineError) => void = () => {};
  const lost = new Promise<never>((_, reject) => {
    ended = reject;
  });
  lost.catch(() => {});
  booted.owner = {
    log: (_, stream, chunk) => collect(stream, chunk),
    raw: collect,
    closed: () => {
      parts.supervise(
        "ask why an instance ended while loading",
        sandbox.ended.then((end) => ended(loadError(end, spec, written.toString("utf8").trim()))),
      );
      endSoon(parts, sandbox);
    },
  };
  if (booted.closedReason !== null) booted.owner.closed(booted.closedReason);
  using deadline = new Deadline(parts.clock, parts.limits.loadTimeoutMs, context.signal);
  try {
    const specialised = await Promise.race([
      booted.link.specialise(specialisationOf(parts, version, { ...context, sandbox }), deadline.signal),
      lost,
    ]);
    loading.flush(parts.clock.nowMs());
    const { codeCache } = specialised;
    if (codeCache !== undefined) parts.supervise("keep compiled code", parts.keepCodeCache(version, codeCache));
    const instance = new Instance(parts, version, booted, specialised);
    booted.owner = instance;
    return instance;
  } catch (thrown) {
    loading.flush(parts.clock.nowMs());
    if (deadline.signal.aborted && !context.signal.aborted) {
      throw new KoineError("handler-load-timeout", { handler: spec.handler, timeoutMs: parts.limits.loadTimeoutMs });
    }
    const error = toKoineError(thrown);
    // The sandbox knows better than the link why it ended.
    if (booted.closedReason !== null) await lost;
    throw error;
  }
}

function specialisationOf(
  parts: EngineParts,
  version: Version,
  { sandbox, prepared, language, isCheck }: SpecialiseContext & { readonly sandbox: Sandbox },
): Specialisation {
  const { spec } = version;
  const inside = (path: string): string => (isPathMapped(sandbox) ? sandbox.toOutside(path) : path);
  const isCached = prepared.codeCacheFolder !== null;
  return {
    codePath: inside(insidePaths.code),
    handler: spec.handler,
    handlerModel: spec.handlerModel,
    environment: prepared.environment,
    function: {
      namespace: version.namespace,
      package: version.package,
      name: version.name,
      version: version.number,
    },
    memoryBytesMax: spec.memoryBytesMax,
    timeoutMs: spec.timeoutMs,
    instanceConcurrency: spec.instanceConcurrency,
    adapters: parts.adaptersOf(language).map((adapter) => ({ ...adapter, path: inside(adapter.path) })),
    ...(isCached || isCheck ? { codeCache: { path: isCached ? inside(insidePaths.codeCache) : null } } : {}),
  };
}

/** A signal that fires with another one, or when the time is over. */
class Deadline implements Disposable {
  readonly #controller = new AbortController();
  readonly #above: AbortSignal;
  readonly #cancelTimer: () => void;
  readonly #onAbort = (): void => this.#controller.abort(this.#above.reason);

  constructor(clock: Clock, timeMs: number, above: AbortSignal) {
    this.#above = above;
    this.#cancelTimer = clock.after(timeMs, () => this.#controller.abort());
    if (above.aborted) this.#onAbort();
    else above.addEventListener("abort", this.#onAbort, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  [Symbol.dispose](): void {
    this.#cancelTimer();
    this.#above.removeEventListener("abort", this.#onAbort);
  }
}

/** A process whose link closed is about to end by itself, and then tells why; one that does not is ended. */
function endSoon(parts: EngineParts, sandbox: Sandbox): void {
  const cancel = parts.clock.after(ENDING_MS_MAX, () => {
    parts.supervise("stop a sandbox whose link closed", sandbox.stop(0));
  });
  parts.supervise("wait for the end of a sandbox", sandbox.ended.then(cancel));
}

function lineAssembler(
  parts: EngineParts,
  version: Version,
  instanceId: string,
  activationId: string | null,
): LineAssembler {
  const { namespace, name, number } = version;
  const packageName = version.package;
  return new LineAssembler(parts.limits, (stream, line, timeMs) =>
    parts.onLog({
      namespace,
      package: packageName,
      name,
      version: number,
      instanceId,
      activationId,
      timeMs,
      stream,
      line,
    }),
  );
}

/** @param lastWords what the process wrote before it ended: a function that was never deployed has no logs to look into */
function loadError(end: SandboxEnd, spec: FunctionSpec, lastWords: string): KoineError {
  const failed = (how: string): KoineError => {
    const detail = `the process ${how} while loading${lastWords === "" ? "" : `; it wrote: ${lastWords}`}`;
    return new KoineError("handler-load-failed", { handler: spec.handler, detail });
  };
  switch (end.kind) {
    case "exited":
      return failed(`exited with code ${end.exitCode}`);
    case "killed":
      return failed(`was ended by ${end.signal}`);
    case "stopped":
      return failed("ended");
    default:
      return endError(end, spec);
  }
}

/** What the end of an instance means for an invocation that was running on it. */
export function endError(end: SandboxEnd, spec: FunctionSpec): KoineError {
  switch (end.kind) {
    case "exited":
      return new KoineError("function-exited", { detail: `exit code ${end.exitCode}` });
    case "killed":
      return new KoineError("function-exited", { detail: `ended by ${end.signal}` });
    case "out-of-memory":
      return new KoineError("out-of-memory", { memory: `${Math.round(spec.memoryBytesMax / 1024 / 1024)} MB` });
    case "too-many-processes":
      return new KoineError("too-many-processes", { limit: sandboxLimits(0).pidsMax });
    case "stopped":
      return new KoineError("function-exited", { detail: "its instance was stopped" });
    default:
      return end satisfies never;
  }
}
