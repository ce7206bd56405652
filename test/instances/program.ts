import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { systemClock } from "../../src/core/clock.ts";
import type { FunctionSpec, Version } from "../../src/core/function.ts";
import { newId } from "../../src/core/ids.ts";
import type {
  Activation,
  Call,
  Exchange,
  HttpCall,
  InvocationFigures,
  LogRecord,
  Outcome,
  RawHeaders,
  Responder,
  ResponseHead,
} from "../../src/core/invocation.ts";
import { limits } from "../../src/core/limits.ts";
import { Telemetry } from "../../src/core/telemetry.ts";
import { Engine } from "../../src/engine/engine.ts";
import type { EngineParts } from "../../src/engine/parts.ts";
import { createFramesProtocol } from "../../src/protocols/frames.ts";
import type { Protocol } from "../../src/protocols/protocol.ts";
import { createCustomRuntime } from "../../src/runtimes/custom.ts";
import { createNodeRuntime } from "../../src/runtimes/nodejs.ts";
import { createPythonRuntime } from "../../src/runtimes/python.ts";
import type { Runtime } from "../../src/runtimes/runtime.ts";
import { openNoneDriver } from "../../src/sandbox/none/driver.ts";
import { openProcessDriver } from "../../src/sandbox/process/driver.ts";
import type { SandboxDriver } from "../../src/sandbox/sandbox.ts";

/** Files by path; those that begin with `#!` or are bytes can be executed. */
export type Files = Readonly<Record<string, string | Buffer>>;

const root = new URL("../../", import.meta.url);
const pathOf = (path: string): string => new URL(path, root).pathname;

/** An engine with real sandboxes, which runs functions that bring their own program. */
export class ProgramMachine implements AsyncDisposable {
  readonly driver: SandboxDriver;
  readonly engine: Engine;
  readonly lines: LogRecord[] = [];
  readonly activations: Activation[] = [];
  readonly unsupervised: unknown[] = [];
  readonly #directory: string;
  readonly #folders = new Map<string, string>();
  #versions = 0;

  private constructor(driver: SandboxDriver, directory: string, protocols: readonly Protocol[]) {
    this.driver = driver;
    this.#directory = directory;
    const all = [createFramesProtocol(), ...protocols];
    this.engine = new Engine(this.#parts(new Map(all.map((protocol) => [protocol.name, protocol]))));
  }

  static async open(
    protocols: readonly Protocol[],
    options: { readonly driver?: "process" | "none" } = {},
  ): Promise<ProgramMachine> {
    const directory = await mkdtemp(join(tmpdir(), "koine-program-"));
    const sandboxes = join(directory, "sandboxes");
    const driver =
      options.driver === "none"
        ? await openNoneDriver({ directory: sandboxes })
        : await openProcessDriver({
            directory: sandboxes,
            tag: `program-${process.pid}`,
            privateMounts: false,
            logger: { log: () => {} },
          });
    return new ProgramMachine(driver, directory, protocols);
  }

  /** A function of these files. */
  async deploy(files: Files, spec: Partial<FunctionSpec>): Promise<Version> {
    const number = ++this.#versions;
    const folder = join(this.#directory, `code-${number}`);
    await writeFiles(folder, files);
    const code = `sha256:${number}`;
    this.#folders.set(code, folder);
    return {
      namespace: "default",
      package: "",
      name: `program-${number}`,
      number: 1,
      specDigest: code,
      createdAtMs: number,
      spec: { ...plainSpec, code, ...spec },
    };
  }

  call(version: Version, request: Partial<HttpCall> = {}, body: string | Buffer | null = ""): ProgramCall {
    return this.run(version, { ...plainCall, ...request }, body);
  }

  /** `body: null` means that it follows through the exchange. */
  run(version: Version, call: Call, body: string | Buffer | null = ""): ProgramCall {
    const answer = new ProgramCall();
    answer.exchange = this.engine.invoke(
      {
        id: answer.id,
        ref: { namespace: version.namespace, package: version.package, name: version.name },
        call,
        mode: "sync",
        attempt: 1,
        receivedAtMs: Date.now(),
        body: Buffer.from(body ?? ""),
        bodyComplete: body !== null,
      },
      version,
      answer,
    );
    return answer;
  }

  /** What an invocation wrote; null: what was written by none. */
  linesOf(id: string | null): readonly string[] {
    return this.lines.filter((record) => record.activationId === id).map(({ line }) => line);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.engine.close();
    await this.driver.close();
    await rm(this.#directory, { recursive: true, force: true });
    if (this.unsupervised.length > 0) throw new AggregateError(this.unsupervised, "something failed unheard");
  }

  #parts(protocols: ReadonlyMap<string, Protocol>): EngineParts {
    const handlers = pathOf("src/dialects/native/handlers");
    return {
      clock: systemClock,
      limits,
      driver: this.driver,
      imageDriver: null,
      protocols,
      agent: {
        runtime: "nodejs26.x",
        language: "nodejs",
        adapter: { dialect: "native", model: "stdio", path: "/koine/bootstrap/nodejs/stdio.mjs" },
      },
      runtimes: new Map(runtimes(this.#directory).map((runtime) => [runtime.name, runtime])),
      adaptersOf: () => [],
      adapterMounts: [{ source: handlers, target: "/koine/handlers/native" }],
      network: { mode: this.driver.sharesNetwork === true ? "host" : "none", allow: [] },
      prepareVersion: (version) => {
        const codeFolder = this.#folders.get(version.spec.code) ?? "";
        return { codeFolder, environment: version.spec.environment, codeCacheFolder: null };
      },
      keepCodeCache: async () => {},
      onFinished: (activation) => this.activations.push(activation),
      onLog: (record) => this.lines.push(record),
      sharing: null,
      telemetry: new Telemetry(),
      logger: { log: () => {} },
      supervise: (_, promise) => {
        promise.catch((thrown: unknown) => this.unsupervised.push(thrown));
      },
      settings: {
        memoryBudgetBytes: 4 * 1024 ** 3,
        instancesMax: 20,
        idleTimeoutMs: 60_000,
        sparesMin: 0,
        sparesMax: 0,
        sparesBootingMax: 1,
      },
    };
  }
}

function runtimes(directory: string): readonly Runtime[] {
  const node = createNodeRuntime({
    name: "nodejs26.x",
    cacheDirectory: join(directory, "runtimes"),
    bootstrapFolder: pathOf("bootstrap/nodejs"),
    adapters: [],
    environment: process.env,
  });
  const python = createPythonRuntime({
    name: "python3",
    bootstrapFolder: pathOf("bootstrap/python"),
    searchPath: process.env["PATH"] ?? "",
  });
  return [node, python, createCustomRuntime()];
}

export async function writeFiles(folder: string, files: Files): Promise<void> {
  for (const [path, content] of Object.entries(files)) {
    const file = join(folder, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, content);
    await chmod(file, Buffer.isBuffer(content) || content.startsWith("#!") ? 0o755 : 0o644);
  }
  await mkdir(folder, { recursive: true });
}

const plainSpec: FunctionSpec = {
  code: "",
  runtime: "custom",
  handler: "bootstrap",
  handlerModel: "auto",
  environment: {},
  secrets: [],
  memoryBytesMax: limits.memoryBytesDefault,
  timeoutMs: 10_000,
  instanceConcurrency: 1,
  reservedConcurrency: null,
  idleTimeoutMs: null,
  access: "token",
  dialect: "native",
  description: "",
  annotations: {},
};

const plainCall: HttpCall = {
  kind: "http",
  method: "GET",
  url: "/",
  headers: ["Host", "localhost"],
  basePath: "/fn/x",
  origin: "http://localhost",
  remoteAddress: "127.0.0.1",
};

const noExchange: Exchange = { write: () => true, end() {}, resume() {}, cancel() {} };

/** A call and what came of it. */
export class ProgramCall implements Responder {
  readonly id = newId();
  readonly outcome: Promise<Outcome>;
  exchange: Exchange = noExchange;
  accepting = true;
  status: number | null = null;
  headers: RawHeaders = [];
  bytes = 0;
  bodyIsWhole = false;
  figures: InvocationFigures | null = null;
  readonly #chunks: Buffer[] = [];
  readonly #end: (outcome: Outcome) => void;
  #watchers: (() => void)[] = [];
  #drains = 0;

  constructor() {
    const { promise, resolve } = Promise.withResolvers<Outcome>();
    this.outcome = promise;
    this.#end = resolve;
  }

  /** `succeeded`, or the error's code. */
  get result(): Promise<string> {
    return this.outcome.then((outcome) => (outcome.kind === "succeeded" ? "succeeded" : outcome.error.code));
  }

  /** The error's message; empty without one. */
  get message(): Promise<string> {
    return this.outcome.then((outcome) => (outcome.kind === "succeeded" ? "" : outcome.error.message));
  }

  get text(): string {
    return Buffer.concat(this.#chunks).toString("utf8");
  }

  header(name: string): string | undefined {
    const at = this.headers.findIndex((part, index) => index % 2 === 0 && part.toLowerCase() === name);
    return at < 0 ? undefined : this.headers[at + 1];
  }

  /** Resolves when something holds that may change with everything that arrives. */
  until(holds: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const look = (): void => {
        if (!holds()) return;
        this.#watchers = this.#watchers.filter((other) => other !== look);
        resolve();
      };
      this.#watchers.push(look);
      look();
    });
  }

  drained(): void {
    this.#drains++;
    this.#look();
  }

  /** Resolves when the instance can take more. */
  async untilDrained(): Promise<void> {
    const before = this.#drains;
    await this.until(() => this.#drains > before);
  }

  head(head: ResponseHead): void {
    this.status = head.status;
    this.headers = head.headers;
    this.#look();
  }

  body(chunk: Buffer): boolean {
    this.#chunks.push(chunk);
    this.bytes += chunk.length;
    this.#look();
    return this.accepting;
  }

  bodyEnded(): void {
    this.bodyIsWhole = true;
    this.#look();
  }

  ended(outcome: Outcome, figures: InvocationFigures): void {
    this.figures = figures;
    this.#end(outcome);
    this.#look();
  }

  #look(): void {
    for (const look of this.#watchers) look();
  }
}
