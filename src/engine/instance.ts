import type { Clock } from "../core/clock.ts";
import { KoineError, toKoineError } from "../core/errors.ts";
import { newId } from "../core/ids.ts";
import type { Version } from "../core/function.ts";
import { type InstanceEvent, type InstanceState, slotsTaken, transition } from "../core/instance.ts";
import type { InvocationWatch, LogRecord, LogStream } from "../core/invocation.ts";
import type { NetworkAccess } from "../core/network.ts";
import {
  isInvokesEarly,
  type Link,
  type Program,
  type Specialisation,
  type Specialised,
} from "../protocols/protocol.ts";
import { insidePaths } from "../runtimes/runtime.ts";
import { isAttachable, isFreezable, type Mount, type Sandbox, type SandboxEnd } from "../sandbox/sandbox.ts";
import { boot } from "./boot.ts";
import { loadError } from "./endings.ts";
import { LineAssembler } from "./log-lines.ts";
import { OutputAllowance } from "./output-allowance.ts";
import { enterInside } from "./inside.ts";
import {
  type Booted,
  type EngineParts,
  type InsideOpening,
  type PreparedVersion,
  sandboxLimits,
  type SandboxShare,
} from "./parts.ts";
import { planProgram } from "./program.ts";
import { networkOf, type Recipe } from "./recipe.ts";
import { seenFrom, specialisationOf } from "./specialisation.ts";
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
  /** Its free slots as its pool has counted them. */
  listedSlots = 0;
  state: InstanceState;
  memoryBytes = 0;
  readonly #parts: EngineParts;
  readonly #sandbox: Sandbox;
  readonly #assemblers = new Map<string | null, LineAssembler>();
  readonly #output: OutputAllowance;
  #lastInvocationId: string | null = null;
  #memorySampledAtMs = 0;
  #owner: InstanceOwner | null = null;
  /** Invocations it has begun. */
  served = 0;
  /** Memory that the node has set aside for it, in bytes. */
  reservedBytes = 0;
  /** What its start took, in milliseconds. */
  startMs = 0;
  /** Null: nobody wants to know of its invocations. */
  watch: InvocationWatch | null = null;

  constructor(parts: EngineParts, version: Version, booted: Booted, specialised: Specialised) {
    this.#parts = parts;
    this.#output = new OutputAllowance(parts.limits, parts.clock.monotonicMs());
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
    const { state } = this;
    // One that stays busy keeps the time since when it is; asking for it would cost each of many calls.
    const staysBusy =
      state.kind === "busy" && (event.kind === "acquired" || (event.kind === "released" && state.slotsTaken > 1));
    this.state = transition(state, event, staysBusy ? state.sinceMs : this.#parts.clock.nowMs());
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
    if (graceMs > 0) {
      this.watch?.stopping?.();
      this.link.close();
    }
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
    const nowMs = this.#parts.clock.monotonicMs();
    const allowed = this.#output.take(chunk.length, nowMs);
    const notice = this.#output.notice(nowMs);
    if (notice !== null)
      logLine(this.#parts, this.version, {
        instanceId: this.id,
        activationId: invocationId,
        stream: "platform",
        line: notice,
        timeMs,
      });
    if (allowed > 0)
      this.#write(invocationId, stream, allowed < chunk.length ? chunk.subarray(0, allowed) : chunk, timeMs);
  }

  // oxlint-disable-next-line max-params -- the same as of `log`
  #write(invocationId: string | null, stream: LogStream, chunk: Buffer, timeMs: number): void {
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

/** An invocation that is sent to an instance together with what makes it one. */
export interface EarlyInvocation {
  sendEarly(link: Link): void;
}

export interface StartRequest {
  readonly version: Version;
  readonly recipe: Recipe;
  /** null: every instance is made anew. */
  readonly spares: SparePool | null;
  /** Whether it is started to see whether the handler loads: then there is time to keep what was compiled. */
  readonly isCheck: boolean;
  /** Asked when the specialisation is about to be sent: what is answered goes along. */
  takeEarly(): EarlyInvocation | null;
  /** Called as soon as the handler has loaded, before anything of an answer arrives. */
  loaded(instance: Instance): void;
}

/**
 * Makes an instance: from a spare sandbox where one is ready, else from a new one.
 * @throws KoineError, of fault `function` when the handler cannot be loaded
 */
export async function startInstance(parts: EngineParts, request: StartRequest, signal: AbortSignal): Promise<Instance> {
  const { version, recipe } = request;
  const prepared = await parts.prepareVersion(version, signal);
  const specialisation = specialisationOf(version, { prepared, recipe, isCheck: request.isCheck });
  const { booted, program, planned } = await bootFor(parts, { ...request, prepared, specialisation }, signal);
  try {
    const opening = planned?.opening ?? parts.openInside?.(version, booted.sandbox.id) ?? null;
    const given =
      opening === null ? {} : await enterInside(parts, opening, { sandbox: booted.sandbox, port: planned?.port ?? 0 });
    const told = { ...specialisation, environment: { ...specialisation.environment, ...given } };
    const watch = opening?.watch ?? null;
    const context = { specialisation: told, program, watch, readyMsMax: readyMsMax(parts, recipe), request, signal };
    return await specialise(parts, version, booted, context);
  } catch (thrown) {
    parts.supervise("stop an instance that did not load", booted.sandbox.stop(0));
    throw thrown;
  }
}

interface BootContext extends StartRequest {
  readonly prepared: PreparedVersion;
  readonly specialisation: Specialisation;
}

interface BootedFor {
  readonly booted: Booted;
  /** What was launched instead of a bootstrap. */
  readonly program: Program | null;
  /** What a program was told of the platform when it was launched. */
  readonly planned: { readonly opening: InsideOpening; readonly port: number | null } | null;
}

async function bootFor(parts: EngineParts, context: BootContext, signal: AbortSignal): Promise<BootedFor> {
  const { version, recipe, spares, prepared, specialisation } = context;
  const share = version.spec;
  const { runtime } = recipe;
  if (recipe.kind === "program") {
    const id = newId();
    const opening = parts.openInside?.(version, id) ?? null;
    try {
      const plan = await planProgram(parts, version, recipe, { prepared, specialisation, opening, signal });
      const { launch, mounts, program, insidePort: port } = plan;
      const booted = await boot(parts, { id, runtime, share, mounts, spare: false, program: launch }, signal);
      return { booted, program, planned: opening === null ? null : { opening, port } };
    } catch (thrown) {
      opening?.close();
      throw thrown;
    }
  }
  const { codeFolder, codeCacheFolder, mounts: further = [] } = prepared;
  const mounts: Mount[] = [{ source: codeFolder, target: insidePaths.code }, ...further];
  if (codeCacheFolder !== null) mounts.push({ source: codeCacheFolder, target: insidePaths.codeCache });
  if (recipe.beside !== null) mounts.push(...(await recipe.beside.prepare(signal)).mounts);
  const network = networkOf(parts, version.spec, parts.driver);
  // The network of one that runs is the platform's: it can be given less, but another kind only from the start.
  const fits = (network.mode === "host") === (parts.network.mode === "host");
  const spare = spares === null || !fits ? null : await takeSpare(parts, spares, { mounts, share, network });
  return {
    booted: spare ?? (await boot(parts, { runtime, share, network, mounts, spare: false }, signal)),
    program: null,
    planned: null,
  };
}

function readyMsMax(parts: EngineParts, recipe: Recipe): number {
  return recipe.kind === "program" ? recipe.needs.readyMsMax : parts.limits.loadTimeoutMs;
}

/** A spare sandbox with the code in it; null when there is none. One that ends in this moment is no error: a new one is booted. */
async function takeSpare(
  parts: EngineParts,
  spares: SparePool,
  given: { readonly mounts: readonly Mount[]; readonly share: SandboxShare; readonly network: NetworkAccess },
): Promise<Booted | null> {
  const spare = await spares.take();
  if (spare === null || !isAttachable(spare.sandbox)) return null;
  try {
    await spare.sandbox.attach(given.mounts, sandboxLimits(given.share), given.network);
    return spare;
  } catch (thrown) {
    parts.supervise("stop a spare sandbox", spare.sandbox.stop(0));
    if (spare.closedReason !== null) return null;
    throw thrown;
  }
}

interface SpecialiseContext {
  readonly specialisation: Specialisation;
  readonly program: Program | null;
  readonly watch: InvocationWatch | null;
  readonly readyMsMax: number;
  readonly request: StartRequest;
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
  // A program of the user's runs from the start; a bootstrap that nobody owned has nothing to say.
  if (context.program !== null) for (const { stream, chunk } of booted.early.splice(0)) collect(stream, chunk);
  if (booted.closedReason !== null) booted.owner.closed(booted.closedReason);
  /** Whoever wanted it has been told that there is none. */
  let failed = false;
  using deadline = new Deadline(parts.clock, context.readyMsMax, context.signal);
  try {
    const { promise, resolve } = Promise.withResolvers<Instance>();
    const loaded = (specialised: Specialised): void => {
      if (failed) return;
      loading.flush(parts.clock.nowMs());
      const { codeCache } = specialised;
      if (codeCache !== undefined) parts.supervise("keep compiled code", parts.keepCodeCache(version, codeCache));
      const instance = new Instance(parts, version, booted, specialised);
      instance.watch = context.watch;
      booted.owner = instance;
      context.request.loaded(instance);
      resolve(instance);
    };
    const specialisation = seenFrom(sandbox, context.specialisation, context.program);
    const specialising = specialiseLink(
      booted.link,
      specialisation,
      { request: context.request, loaded },
      deadline.signal,
    );
    return await Promise.race([specialising.then(() => promise), lost]);
  } catch (thrown) {
    failed = true;
    loading.flush(parts.clock.nowMs());
    if (deadline.signal.aborted && !context.signal.aborted && !(thrown instanceof KoineError)) {
      throw new KoineError("handler-load-timeout", { handler: spec.handler, timeoutMs: context.readyMsMax });
    }
    const error = toKoineError(thrown);
    // The sandbox knows better than the link why it ended.
    if (booted.closedReason !== null) await lost;
    throw error;
  }
}

/** Sends the first invocation along where the process at the other end can take it. */
async function specialiseLink(
  link: Link,
  specialisation: Specialisation,
  { request, loaded }: { readonly request: StartRequest; loaded(specialised: Specialised): void },
  signal: AbortSignal,
): Promise<void> {
  if (isInvokesEarly(link)) {
    await link.specialiseEarly(specialisation, { invoke: () => request.takeEarly()?.sendEarly(link), loaded }, signal);
  } else {
    loaded(await link.specialise(specialisation, signal));
  }
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
  return new LineAssembler(parts.limits, (stream, line, timeMs) =>
    logLine(parts, version, { instanceId, activationId, stream, line, timeMs }),
  );
}

function logLine(
  parts: EngineParts,
  { namespace, name, number, package: packageName }: Version,
  line: Pick<LogRecord, "instanceId" | "activationId" | "stream" | "line" | "timeMs">,
): void {
  parts.onLog({ namespace, package: packageName, name, version: number, ...line });
}
