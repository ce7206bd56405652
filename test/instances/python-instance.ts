import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Duplex } from "node:stream";
import { fileURLToPath } from "node:url";
import type { ErrorReport } from "../../src/core/errors.ts";
import { newId } from "../../src/core/ids.ts";
import type { EventCall, Exchange, HttpCall, ResponseHead } from "../../src/core/invocation.ts";
import { createFramesProtocol } from "../../src/protocols/frames.ts";
import {
  type Early,
  isInvokesEarly,
  type Link,
  type Specialisation,
  type Specialised,
} from "../../src/protocols/protocol.ts";
import { findPython, type PythonInterpreter } from "../../src/runtimes/python.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const handlers = (dialect: string, file: string): string =>
  join(root, "src/dialects", dialect, "handlers/python", file);

export const pythonAdapters: Specialisation["adapters"] = [
  { dialect: "native", model: "asgi", path: handlers("native", "asgi.py") },
  { dialect: "native", model: "wsgi", path: handlers("native", "wsgi.py") },
  { dialect: "aws", model: "lambda", path: handlers("aws", "lambda.py") },
];

export interface InstanceOptions {
  /** Files of the package by path. */
  readonly files: Readonly<Record<string, string>>;
  readonly handler?: string;
  readonly handlerModel?: string;
  readonly instanceConcurrency?: number;
  readonly environment?: Readonly<Record<string, string>>;
}

export interface Answer {
  readonly head: ResponseHead | null;
  readonly body: Buffer;
  readonly ending: "succeeded" | "failed" | "lost";
  readonly error: ErrorReport | null;
}

export interface LogEntry {
  readonly id: string | null;
  readonly stream: string;
  readonly text: string;
}

/** An invocation under way: its answer may be awaited whole or looked at as it arrives. */
export interface Running {
  readonly id: string;
  readonly exchange: Exchange;
  readonly answer: Promise<Answer>;
  /** Resolves when the text of the body so far matches. */
  bodyHas(text: string): Promise<void>;
  readonly bytesSoFar: () => number;
  /** Whether received bytes are accepted; while false the answer's window fills. */
  accept(accepting: boolean): void;
}

/** A Python process on descriptor 3, without any sandbox. */
export class PythonInstance implements AsyncDisposable {
  readonly process: ChildProcess;
  readonly link: Link;
  readonly logs: LogEntry[] = [];
  readonly folder: string;
  readonly exited: Promise<number | string>;
  #stderr = "";
  #listeners: (() => void)[] = [];

  private constructor(process: ChildProcess, folder: string) {
    this.process = process;
    this.folder = folder;
    this.exited = new Promise((resolve) => process.once("exit", (code, signal) => resolve(code ?? signal ?? "")));
    process.stdout?.on("data", (chunk: Buffer) => (this.#stderr += chunk.toString()));
    process.stderr?.on("data", (chunk: Buffer) => (this.#stderr += chunk.toString()));
    this.link = createFramesProtocol().connect(
      { channel: process.stdio[3] as Duplex, ended: this.exited },
      {
        log: (id, stream, chunk) => {
          this.logs.push({ id, stream, text: chunk.toString() });
          for (const listener of this.#listeners) listener();
        },
        closed: () => {},
      },
    );
  }

  static async boot(files: Readonly<Record<string, string>> = {}): Promise<PythonInstance> {
    const folder = await mkdtemp(join(tmpdir(), "koine-python-"));
    for (const [path, text] of Object.entries(files)) {
      await mkdir(dirname(join(folder, path)), { recursive: true });
      await writeFile(join(folder, path), text);
    }
    const instance = new PythonInstance(await spawnPython(), folder);
    await instance.link.ready(AbortSignal.timeout(15_000));
    return instance;
  }

  static async start(options: InstanceOptions): Promise<PythonInstance> {
    const instance = await PythonInstance.boot(options.files);
    await instance.specialise(options);
    return instance;
  }

  /** @param early what goes along with the specialisation */
  specialise(options: Omit<InstanceOptions, "files">, early?: Early): Promise<Specialised> {
    const specialisation: Specialisation = {
      codePath: this.folder,
      handler: options.handler ?? "app",
      handlerModel: options.handlerModel ?? "auto",
      environment: options.environment ?? {},
      function: { namespace: "default", package: "", name: "greet", version: 3 },
      memoryBytesMax: 128 * 1024 * 1024,
      timeoutMs: 30_000,
      instanceConcurrency: options.instanceConcurrency ?? 1,
      adapters: pythonAdapters,
    };
    const signal = AbortSignal.timeout(15_000);
    if (early === undefined) return this.link.specialise(specialisation, signal);
    if (!isInvokesEarly(this.link)) throw new Error("the process takes no invocation before it has loaded");
    return this.link.specialiseEarly(specialisation, early, signal);
  }

  /** What was written to the real stdout and stderr. */
  get rawOutput(): string {
    return this.#stderr;
  }

  logged(predicate: (logs: readonly LogEntry[]) => boolean): Promise<void> {
    return new Promise((resolve) => {
      const look = (): void => {
        if (!predicate(this.logs)) return;
        this.#listeners = this.#listeners.filter((listener) => listener !== look);
        resolve();
      };
      this.#listeners.push(look);
      look();
    });
  }

  logText(id: string | null): string {
    return this.logs.flatMap((log) => (log.id === id ? [log.text] : [])).join("");
  }

  http(call: Partial<HttpCall>, body: Buffer | string = "", bodyComplete = true): Running {
    return this.#run({ ...plainCall, ...call }, Buffer.from(body), bodyComplete);
  }

  event(payload: unknown, call: Partial<EventCall> = {}): Running {
    return this.send(JSON.stringify(payload), call);
  }

  /** An event call with a payload that need not be JSON. */
  send(text: string, call: Partial<EventCall> = {}): Running {
    return this.#run({ kind: "event", contentType: "application/json", ...call }, Buffer.from(text), true);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.link.close();
    this.process.kill("SIGKILL");
    await this.exited;
    await rm(this.folder, { recursive: true, force: true });
  }

  #run(call: HttpCall | EventCall, body: Buffer, bodyComplete: boolean): Running {
    const id = newId();
    let head: ResponseHead | null = null;
    const parts: Buffer[] = [];
    let accepting = true;
    let look = (): void => {};
    const { promise, resolve } = Promise.withResolvers<Answer>();
    const end = (ending: Answer["ending"], error: ErrorReport | null = null): void =>
      resolve({ head, body: Buffer.concat(parts), ending, error });
    const invocation = { id, call, attempt: 1, deadlineMs: Date.now() + 30_000, body, bodyComplete };
    const exchange = this.link.invoke(invocation, {
      head: (given) => {
        head = given;
      },
      body: (chunk) => {
        parts.push(chunk);
        look();
        return accepting;
      },
      drained: () => {},
      bodyEnded: () => {},
      succeeded: () => end("succeeded"),
      failed: (error) => end("failed", error),
      lost: () => end("lost"),
    });
    return {
      id,
      exchange,
      answer: promise,
      bytesSoFar: () => parts.reduce((sum, part) => sum + part.length, 0),
      bodyHas: (text) =>
        new Promise((found) => {
          look = () => {
            if (Buffer.concat(parts).toString().includes(text)) found();
          };
          look();
        }),
      accept: (now) => {
        accepting = now;
        if (now) exchange.resume();
      },
    };
  }
}

/** The bootstrap as the platform launches it, with a socket on descriptor 3. */
export async function spawnPython(): Promise<ChildProcess> {
  found ??= findPython("python3", process.env["PATH"] ?? "", AbortSignal.timeout(15_000));
  const interpreter = await found;
  const bootstrap = join(root, "bootstrap/python/main.py");
  return spawn(interpreter.executable, ["-I", "-S", "-B", bootstrap], {
    stdio: ["ignore", "pipe", "pipe", "pipe"],
    env: { PATH: "/usr/bin:/bin", LANG: "C.UTF-8" },
  });
}

let found: Promise<PythonInterpreter> | null = null;

const plainCall: HttpCall = {
  kind: "http",
  method: "GET",
  url: "/",
  headers: ["Host", "127.0.0.1:4000"],
  basePath: "/fn/greet",
  origin: "http://127.0.0.1:4000",
  remoteAddress: "10.1.2.3",
};
