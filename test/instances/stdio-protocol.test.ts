import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { duplexPair } from "node:stream";
import { test } from "node:test";
import type { Exchange, HttpCall, ResponseHead } from "../../src/core/invocation.ts";
import type { Execution, ExecuteRequest, Link, LinkResponder, Specialisation } from "../../src/protocols/protocol.ts";
import { createStdioProtocol } from "../../src/protocols/stdio.ts";

/** Where a driver runs the programs; here they are plain processes of the machine. */
const SCRIPT = `
  case $Http_Path in
    /fail) echo partly; echo "it broke" >&2; exit 3 ;;
    /wait) echo on; exec sleep 1000 ;;
    /zeros) head -c 3000000 /dev/zero ;;
    *) echo "$Http_Method $WORD $CONTENT_LENGTH"; tr a-z A-Z ;;
  esac`;

const specialisation: Specialisation = {
  codePath: "/code",
  handler: "script",
  handlerModel: "auto",
  environment: { WORD: "word", PATH: process.env["PATH"] ?? "" },
  function: { namespace: "default", package: "", name: "x", version: 1 },
  memoryBytesMax: 1,
  timeoutMs: 1_000,
  instanceConcurrency: 10,
  adapters: [],
  program: { command: ["/bin/sh", "-c", SCRIPT], port: 0, readyPath: null, codeFolder: null },
};

class Scene {
  readonly link: Link;
  end: () => void = () => {};
  executions = 0;
  /** Programs that have ended. */
  ended = 0;

  constructor(execute: (request: ExecuteRequest) => Promise<Execution> = async (request) => this.#spawn(request)) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.end = resolve;
    const reach = { channel: duplexPair()[0], ended: promise, execute };
    this.link = createStdioProtocol().connect(reach, { log: () => {}, closed: () => {} });
  }

  static async ready(execute?: (request: ExecuteRequest) => Promise<Execution>): Promise<Scene> {
    const scene = new Scene(execute);
    await scene.link.specialise(specialisation, AbortSignal.timeout(1_000));
    return scene;
  }

  call(url: string, body: string | null = ""): Ends {
    const ends = new Ends();
    const call: HttpCall = {
      kind: "http",
      method: "PUT",
      url,
      headers: [],
      basePath: "/fn/x",
      origin: "http://localhost",
      remoteAddress: "",
    };
    const invocation = {
      id: "an-id",
      attempt: 1,
      deadlineMs: 0,
      body: Buffer.from(body ?? ""),
      bodyComplete: body !== null,
    };
    ends.exchange = this.link.invoke({ ...invocation, call }, ends);
    return ends;
  }

  #spawn({ command, environment }: ExecuteRequest): Execution {
    this.executions++;
    const [file = "", ...args] = command;
    const child = spawn(file, args, { env: { ...environment }, stdio: ["pipe", "pipe", "pipe"] });
    const ended = new Promise<Awaited<Execution["ended"]>>((resolve) => {
      child.once("exit", (exitCode, signal) => {
        this.ended++;
        resolve({ exitCode, signal });
      });
    });
    return {
      stdin: child.stdin,
      stdout: child.stdout,
      stderr: child.stderr,
      ended,
      kill: () => void child.kill("SIGKILL"),
    };
  }
}

class Ends implements LinkResponder {
  exchange: Exchange = { write: () => true, end() {}, resume() {}, cancel() {} };
  received: ResponseHead | null = null;
  text = "";
  bytes = 0;
  accepting = true;
  message = "";
  readonly ending: Promise<string>;
  #end: (how: string) => void;
  #watchers: (() => void)[] = [];

  constructor() {
    const { promise, resolve } = Promise.withResolvers<string>();
    this.ending = promise;
    this.#end = resolve;
  }

  head(head: ResponseHead): void {
    this.received = head;
  }
  body(chunk: Buffer): boolean {
    this.bytes += chunk.length;
    if (this.text.length < 1_000) this.text += chunk.toString();
    for (const look of this.#watchers.splice(0)) look();
    return this.accepting;
  }
  drained(): void {}
  bodyEnded(): void {}
  succeeded(): void {
    this.#end("succeeded");
  }
  failed({ code, message }: { readonly code: string; readonly message: string }): void {
    this.message = message;
    this.#end(code);
  }
  lost(): void {
    this.#end("lost");
  }
  something(): Promise<void> {
    return new Promise((resolve) => this.#watchers.push(resolve));
  }
}

test("a program is run with the body on its stdin, and its output is the answer", async () => {
  const scene = await Scene.ready();
  const whole = scene.call("/", "hello");
  assert.equal(await whole.ending, "succeeded");
  assert.equal(whole.text, "PUT word 5\nHELLO");
  assert.deepEqual(whole.received, { status: 200, headers: ["content-type", "text/plain; charset=utf-8"] });
  const parts = scene.call("/", null);
  // One part comes before the program runs, the other when it does.
  parts.exchange.write(Buffer.from("early "));
  await parts.something();
  parts.exchange.write(Buffer.from("late"));
  parts.exchange.end();
  assert.equal(await parts.ending, "succeeded");
  assert.equal(parts.text, "PUT word \nEARLY LATE");
});

test("an exit code fails with the end of stderr, before anything was answered", async () => {
  const scene = await Scene.ready();
  const failed = scene.call("/fail");
  assert.equal(await failed.ending, "handler-failed");
  assert.deepEqual([failed.message, failed.bytes], ["exit status 3: it broke", 0]);
});

test("output that nobody takes waits", async () => {
  const scene = await Scene.ready();
  const slow = scene.call("/zeros");
  slow.accepting = false;
  await slow.something();
  assert.ok(slow.bytes < 1_000_000);
  slow.accepting = true;
  slow.exchange.resume();
  assert.equal(await slow.ending, "succeeded");
  assert.equal(slow.bytes, 3_000_000);
});

test("a call that is cancelled, or whose sandbox is gone, ends its program", async () => {
  const scene = await Scene.ready();
  const cancelled = scene.call("/wait");
  await cancelled.something();
  cancelled.exchange.cancel();
  assert.equal(await cancelled.ending, "client-closed-request");
  const lost = scene.call("/wait");
  await lost.something();
  scene.end();
  assert.equal(await lost.ending, "lost");
  while (scene.ended < scene.executions) await new Promise((resolve) => setImmediate(resolve));
});

test("a driver that cannot run it fails the call, and one that runs none is told at once", async () => {
  const scene = await Scene.ready(() => Promise.reject(new Error("no such program")));
  const failed = scene.call("/");
  assert.equal(await failed.ending, "internal");
  const reach = { channel: duplexPair()[0], ended: new Promise<void>(() => {}) };
  const link = createStdioProtocol().connect(reach, { log: () => {}, closed: () => {} });
  await assert.rejects(link.specialise(specialisation, AbortSignal.timeout(1_000)), { code: "not-supported" });
});
