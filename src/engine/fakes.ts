import { Duplex, PassThrough } from "node:stream";
import { VirtualClock } from "../core/clock.ts";
import type { FunctionSpec, Version } from "../core/function.ts";
import type {
  Activation,
  Exchange,
  Invocation,
  InvocationFigures,
  LogRecord,
  Outcome,
  Responder,
} from "../core/invocation.ts";
import { limits } from "../core/limits.ts";
import { Telemetry } from "../core/telemetry.ts";
import type {
  InvokesEarly,
  Link,
  LinkEvents,
  LinkInvocation,
  LinkResponder,
  Protocol,
  Specialised,
} from "../protocols/protocol.ts";
import type { Runtime } from "../runtimes/runtime.ts";
import type { Attachable, Freezable, Sandbox, SandboxDriver, SandboxEnd } from "../sandbox/sandbox.ts";
import { Engine } from "./engine.ts";
import type { EngineSettings, Sharing } from "./parts.ts";

/** Stand-ins for sandboxes and their processes, so that the engine's decisions can be watched in virtual time. */

/** The instance's side of one invocation, for a test to answer. */
export interface FakeCall {
  readonly invocation: LinkInvocation;
  readonly responder: LinkResponder;
  readonly sandbox: FakeSandbox;
  cancelled: boolean;
}

export class FakeSandbox implements Sandbox, Attachable, Freezable {
  readonly id: string;
  readonly channel = new Duplex({ read() {}, write: (_, __, done) => done() });
  readonly stdout = new PassThrough();
  readonly stderr = new PassThrough();
  readonly ended: Promise<SandboxEnd>;
  attached: string | null = null;
  alive = true;
  frozen = false;
  events: LinkEvents | null = null;
  pings = 0;
  readonly calls = new Set<FakeCall>();
  #end: (end: SandboxEnd) => void = () => {};

  constructor(id: string) {
    this.id = id;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  memory(): null {
    return null;
  }

  async attach(mounts: readonly { readonly source: string }[]): Promise<void> {
    this.attached = mounts[0]?.source ?? null;
  }

  async freeze(): Promise<void> {
    this.frozen = true;
  }

  async thaw(): Promise<void> {
    this.frozen = false;
  }

  async stop(): Promise<SandboxEnd> {
    this.end({ kind: "stopped" });
    return await this.ended;
  }

  /** The process tree is gone, for this reason. */
  end(end: SandboxEnd): void {
    if (!this.alive) return;
    this.alive = false;
    for (const call of this.calls) call.responder.lost();
    this.calls.clear();
    this.#end(end);
    this.events?.closed("ended");
  }
}

export class FakeMachine {
  readonly clock = new VirtualClock();
  readonly sandboxes: FakeSandbox[] = [];
  readonly waitingCalls: FakeCall[] = [];
  readonly activations: Activation[] = [];
  readonly lines: LogRecord[] = [];
  readonly unsupervised: unknown[] = [];
  readonly telemetry = new Telemetry();
  /** What loading a handler does; throws for one that cannot be loaded. */
  load: () => Promise<Specialised> = async () => ({ handlerModel: "web", loadMs: 1 });
  /** Whether processes take an invocation before they have loaded. */
  invokesEarly = false;
  readonly engine: Engine;

  constructor(settings: Partial<EngineSettings> = {}, sharing: ((clock: VirtualClock) => Sharing) | null = null) {
    this.engine = new Engine({
      clock: this.clock,
      limits,
      driver: this.#driver(),
      imageDriver: null,
      protocols: new Map([["frames", this.#protocol()]]),
      agent: null,
      runtimes: new Map([["nodejs26.x", fakeRuntime]]),
      adaptersOf: () => [],
      adapterMounts: [],
      network: { mode: "host", allow: [] },
      prepareVersion: async (version) => ({
        codeFolder: `/packages/${version.spec.code}`,
        environment: {},
        codeCacheFolder: null,
      }),
      keepCodeCache: async () => {},
      onFinished: (activation) => this.activations.push(activation),
      onLog: (record) => this.lines.push(record),
      sharing: sharing?.(this.clock) ?? null,
      telemetry: this.telemetry,
      logger: { log: () => {} },
      supervise: (_, promise) => {
        promise.catch((thrown: unknown) => this.unsupervised.push(thrown));
      },
      settings: {
        memoryBudgetBytes: 16 * 1024 ** 3,
        instancesMax: 100,
        idleTimeoutMs: 60_000,
        sparesMin: 0,
        sparesMax: 0,
        sparesBootingMax: 2,
        ...settings,
      },
    });
  }

  get alive(): readonly FakeSandbox[] {
    return this.sandboxes.filter((sandbox) => sandbox.alive);
  }

  /** Lets everything that is due now happen. */
  async settle(): Promise<void> {
    await this.clock.advance(0);
    await this.clock.advance(0);
  }

  invoke(version: Version, id = `call-${this.activations.length}-${Math.random()}`): FakeCaller {
    const caller = new FakeCaller();
    const invocation: Invocation = {
      id,
      ref: { namespace: version.namespace, package: version.package, name: version.name },
      call: { kind: "event", contentType: "application/json" },
      mode: "sync",
      attempt: 1,
      receivedAtMs: this.clock.nowMs(),
      body: Buffer.alloc(0),
      bodyComplete: true,
    };
    caller.exchange = this.engine.invoke(invocation, version, caller);
    return caller;
  }

  /** Answers the oldest running call. */
  async answer(body = "done"): Promise<void> {
    const call = this.waitingCalls.shift();
    if (call === undefined) throw new Error("nothing runs");
    call.sandbox.calls.delete(call);
    call.responder.head({ status: 200, headers: [] });
    call.responder.body(Buffer.from(body));
    call.responder.bodyEnded();
    call.responder.succeeded();
    await this.settle();
  }

  #driver(): SandboxDriver {
    return {
      name: "fake",
      inspect: async () => [],
      create: async (request) => {
        const sandbox = new FakeSandbox(request.id);
        this.sandboxes.push(sandbox);
        return sandbox;
      },
      sweep: async () => 0,
      close: async () => {},
    };
  }

  #protocol(): Protocol {
    return {
      name: "fake",
      connect: (reach, events) => {
        const sandbox = this.sandboxes.find((candidate) => candidate.channel === reach.channel);
        if (sandbox === undefined) throw new Error("no sandbox has this channel");
        sandbox.events = events;
        return this.#link(sandbox);
      },
    };
  }

  #link(sandbox: FakeSandbox): Link & InvokesEarly {
    return {
      ready: async () => {},
      specialise: async () => await this.load(),
      invokesEarly: this.invokesEarly,
      specialiseEarly: async (_, early) => {
        early.invoke();
        const specialised = await this.load();
        early.loaded(specialised);
        return specialised;
      },
      invoke: (invocation, responder): Exchange => {
        const call: FakeCall = { invocation, responder, sandbox, cancelled: false };
        sandbox.calls.add(call);
        this.waitingCalls.push(call);
        return {
          write: () => true,
          end: () => {},
          resume: () => {},
          cancel: () => {
            call.cancelled = true;
          },
        };
      },
      ping: async () => {
        sandbox.pings++;
        return true;
      },
      close: () => {},
    };
  }
}

export class FakeCaller implements Responder {
  exchange: Exchange | null = null;
  text = "";
  outcome: Outcome | null = null;
  figures: InvocationFigures | null = null;

  head(): void {}

  body(chunk: Buffer): boolean {
    this.text += chunk.toString();
    return true;
  }

  bodyEnded(): void {}

  ended(outcome: Outcome, figures: InvocationFigures): void {
    if (this.outcome !== null) throw new Error("an invocation ended twice");
    this.outcome = outcome;
    this.figures = figures;
  }

  /** `succeeded`, or the error's code. */
  get result(): string | null {
    if (this.outcome === null) return null;
    return this.outcome.kind === "succeeded" ? "succeeded" : this.outcome.error.code;
  }
}

export function fakeVersion(
  spec: Partial<FunctionSpec> = {},
  identity: { readonly name?: string; readonly number?: number } = {},
): Version {
  return {
    namespace: "default",
    package: "",
    name: identity.name ?? "hello",
    number: identity.number ?? 1,
    specDigest: "sha256:0",
    createdAtMs: 1,
    spec: {
      code: "sha256:0",
      runtime: "nodejs26.x",
      handler: "index",
      handlerModel: "auto",
      environment: {},
      secrets: [],
      memoryBytesMax: limits.memoryBytesDefault,
      timeoutMs: 3_000,
      instanceConcurrency: 1,
      reservedConcurrency: null,
      idleTimeoutMs: null,
      access: "token",
      dialect: "native",
      description: "",
      annotations: {},
      ...spec,
    },
  };
}

const fakeRuntime: Runtime = {
  name: "nodejs26.x",
  language: "nodejs",
  prepare: async () => ({
    command: ["/node"],
    environment: {},
    mounts: [],
    overheadBytes: 0,
    version: "26.0.0",
    build: null,
  }),
};
