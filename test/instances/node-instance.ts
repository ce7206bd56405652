import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { NODE_FLAGS } from "../../src/runtimes/nodejs.ts";
import type { Duplex } from "node:stream";
import { fileURLToPath } from "node:url";
import type { ErrorReport } from "../../src/core/errors.ts";
import { newId } from "../../src/core/ids.ts";
import type { EventCall, Exchange, HttpCall, ResponseHead } from "../../src/core/invocation.ts";
import { createFramesProtocol } from "../../src/protocols/frames.ts";
import type { ProtocolProcess } from "../../src/protocols/conformance.ts";
import type { Link, LinkResponder, Specialisation, Specialised } from "../../src/protocols/protocol.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

export const nodeBootstrap = join(root, "bootstrap/nodejs/main.mjs");
export const nodeAdapters: Specialisation["adapters"] = [
  { dialect: "native", model: "web", path: join(root, "src/dialects/native/handlers/nodejs/web.mjs") },
  { dialect: "aws", model: "lambda", path: join(root, "src/dialects/aws/handlers/nodejs/lambda.mjs") },
];

export interface StartOptions {
  /** Files of the package by path. */
  readonly files: Readonly<Record<string, string>>;
  readonly handler?: string;
  readonly handlerModel?: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly memoryBytesMax?: number;
  /** The Node to run on; ours when absent. */
  readonly node?: string;
}

export interface Answer {
  readonly status: number | null;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  readonly ending: "succeeded" | "failed" | "lost";
  readonly error: ErrorReport | null;
}

/** One invocation under way. */
export class Running implements LinkResponder {
  readonly id = newId();
  readonly answer: Promise<Answer>;
  exchange: Exchange | null = null;
  /** Whether received bytes are accepted; while false the answer's window fills. */
  accepting = true;
  bytesReceived = 0;
  drainedCount = 0;
  bodyComplete = false;
  readonly #chunks: Buffer[] = [];
  readonly #settle: (answer: Answer) => void;
  #head: ResponseHead | null = null;
  #watchers: (() => void)[] = [];

  constructor() {
    const { promise, resolve } = Promise.withResolvers<Answer>();
    this.answer = promise;
    this.#settle = resolve;
  }

  get text(): string {
    return Buffer.concat(this.#chunks).toString();
  }

  /** Resolves when something that is true of the answer so far has become so. */
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

  head(head: ResponseHead): void {
    this.#head = head;
    this.#changed();
  }

  body(chunk: Buffer): boolean {
    this.#chunks.push(Buffer.from(chunk));
    this.bytesReceived += chunk.length;
    this.#changed();
    return this.accepting;
  }

  drained(): void {
    this.drainedCount++;
    this.#changed();
  }

  bodyEnded(): void {
    this.bodyComplete = true;
    this.#changed();
  }

  succeeded(): void {
    this.#end("succeeded", null);
  }

  failed(error: ErrorReport): void {
    this.#end("failed", error);
  }

  lost(): void {
    this.#end("lost", null);
  }

  #changed(): void {
    for (const look of this.#watchers) look();
  }

  #end(ending: Answer["ending"], error: ErrorReport | null): void {
    const headers: Record<string, string> = {};
    const flat = this.#head?.headers ?? [];
    for (let index = 0; index < flat.length; index += 2) {
      const name = flat[index] ?? "";
      headers[name] = headers[name] === undefined ? (flat[index + 1] ?? "") : `${headers[name]}|${flat[index + 1]}`;
    }
    this.#settle({ status: this.#head?.status ?? null, headers, body: Buffer.concat(this.#chunks), ending, error });
    this.#changed();
  }
}

export const plainCall: HttpCall = {
  kind: "http",
  method: "GET",
  url: "/",
  headers: ["Host", "localhost:4000", "User-Agent", "test"],
  basePath: "/fn/greet",
  origin: "http://localhost:4000",
  remoteAddress: "127.0.0.1",
};

async function writePackage(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "koine-nodejs-"));
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), text);
  }
  return folder;
}

/** KOINE_TEST_NODE names another Node, to try the bootstrap on older versions. */
function spawnNode(
  node: string = process.env["KOINE_TEST_NODE"] ?? process.execPath,
  bootstrap: string = nodeBootstrap,
): ChildProcess {
  return spawn(node, [...NODE_FLAGS, bootstrap, ...nodeAdapters.map(({ path }) => path)], {
    stdio: ["ignore", "pipe", "pipe", "pipe"],
    env: { PATH: process.env["PATH"] ?? "", KOINE_LEFTOVER: "must not be seen" },
  });
}

function specialisationOf(folder: string, options: Omit<StartOptions, "files">): Specialisation {
  return {
    codePath: folder,
    handler: options.handler ?? "index",
    handlerModel: options.handlerModel ?? "auto",
    environment: options.environment ?? {},
    function: { namespace: "default", package: "", name: "greet", version: 3 },
    memoryBytesMax: options.memoryBytesMax ?? 256 * 1024 * 1024,
    timeoutMs: 30_000,
    instanceConcurrency: 10,
    adapters: nodeAdapters,
  };
}

/** A process for the conformance suite, without a link; `bootstrap` is the file that Node runs. */
export async function startNodeProcess(
  files: Readonly<Record<string, string>>,
  bootstrap?: string,
): Promise<ProtocolProcess> {
  const folder = await writePackage(files);
  const child = spawnNode(undefined, bootstrap);
  const exited = once(child, "exit");
  return {
    reach: { channel: child.stdio[3] as Duplex, ended: exited },
    specialisation: specialisationOf(folder, {}),
    missing: specialisationOf(folder, { handler: "nowhere.handler" }),
    exited,
    async stop() {
      child.kill("SIGKILL");
      await exited;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** A Node process that serves one function on descriptor 3, without any sandbox. */
export class NodeInstance implements AsyncDisposable {
  readonly process: ChildProcess;
  readonly link: Link;
  readonly folder: string;
  readonly logs: { readonly id: string | null; readonly stream: string; readonly text: string }[] = [];
  readonly exited: Promise<number | string>;
  /** Resolves with the reason when the link has closed. */
  readonly closed: Promise<string>;
  /** What was written to the real stdout and stderr. */
  rawOutput = "";
  #watchers: (() => void)[] = [];

  private constructor(process: ChildProcess, folder: string) {
    this.process = process;
    this.folder = folder;
    this.exited = once(process, "exit").then(([code, signal]) => code ?? signal);
    for (const output of [process.stdout, process.stderr]) {
      output?.on("data", (chunk: Buffer) => (this.rawOutput += chunk.toString()));
    }
    const { promise, resolve } = Promise.withResolvers<string>();
    this.closed = promise;
    this.link = createFramesProtocol().connect(
      { channel: process.stdio[3] as Duplex, ended: this.exited },
      {
        log: (id, stream, chunk) => {
          this.logs.push({ id, stream, text: chunk.toString() });
          for (const look of this.#watchers) look();
        },
        closed: resolve,
      },
    );
  }

  /** Boots a process that waits for its specialisation. */
  static async boot(options: Pick<StartOptions, "files" | "node">): Promise<NodeInstance> {
    const folder = await writePackage(options.files);
    const child = spawnNode(options.node);
    const instance = new NodeInstance(child, folder);
    await instance.link.ready(AbortSignal.timeout(20_000));
    return instance;
  }

  /** Boots and specialises; what loading said is in `specialised`. */
  static async start(options: StartOptions): Promise<NodeInstance> {
    const instance = await NodeInstance.boot(options);
    try {
      await instance.specialise(options);
      return instance;
    } catch (error) {
      await instance[Symbol.asyncDispose]();
      throw error;
    }
  }

  specialise(options: Omit<StartOptions, "files">): Promise<Specialised> {
    const specialisation = specialisationOf(this.folder, options);
    return this.link.specialise(specialisation, AbortSignal.timeout(20_000));
  }

  /** Begins an HTTP call; `body: null` means that it follows through the exchange. */
  http(call: Partial<HttpCall> = {}, body: string | Buffer | null = ""): Running {
    return this.#run({ ...plainCall, ...call }, body);
  }

  /** Begins a call with a payload. */
  event(payload: unknown, context?: Readonly<Record<string, unknown>>): Running {
    const call: EventCall = {
      kind: "event",
      contentType: "application/json",
      ...(context === undefined ? {} : { context }),
    };
    return this.#run(call, typeof payload === "string" ? payload : JSON.stringify(payload));
  }

  logText(id: string | null): string {
    return this.logs.flatMap((log) => (log.id === id ? [log.text] : [])).join("");
  }

  logged(holds: () => boolean): Promise<void> {
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

  async [Symbol.asyncDispose](): Promise<void> {
    this.process.kill("SIGKILL");
    await this.closed;
    await this.exited;
    await rm(this.folder, { recursive: true, force: true });
  }

  #run(call: HttpCall | EventCall, body: string | Buffer | null): Running {
    const running = new Running();
    const deadlineMs = Date.now() + 30_000;
    const given = { body: Buffer.from(body ?? ""), bodyComplete: body !== null };
    running.exchange = this.link.invoke({ id: running.id, call, attempt: 1, deadlineMs, ...given }, running);
    return running;
  }
}
