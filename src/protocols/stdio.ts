import {
  callEnvironment,
  contentTypeOf,
  failureOf,
  HELD_BYTES_MAX,
  HELD_MS_MAX,
  TAIL_BYTES_MAX,
} from "../../bootstrap/nodejs/stdio-call.mjs";
import { KoineError, toKoineError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { type OpenCall, ProgramLink } from "./program-link.ts";
import type { Execution, LinkInvocation, LinkResponder, Protocol, Specialisation } from "./protocol.ts";

/**
 * A program per invocation: the body on its stdin, the answer from its stdout, the request in its environment; an exit code other than 0 is a
 * failure. For sandboxes whose driver runs further programs; in others the bootstrap does the same.
 */
export function createStdioProtocol(): Protocol {
  return {
    name: "stdio",
    program: { ability: "execute", port: 0, readyMsMax: limits.programReadyMsMax, environment: () => ({}) },
    connect: (reach, events) => new StdioLink(reach, events),
  };
}

class StdioLink extends ProgramLink<StdioCall> {
  readonly #stopping = new AbortController();
  #specialisation: Specialisation | null = null;

  protected async prepare(specialisation: Specialisation): Promise<string> {
    if (this.reach.execute === undefined) {
      const remedy = "'koine doctor' says what this machine offers.";
      throw new KoineError("not-supported", { what: "Running a program per call in this kind of sandbox", remedy });
    }
    this.#specialisation = specialisation;
    return "stdio";
  }

  protected open(invocation: LinkInvocation, responder: LinkResponder): StdioCall {
    return new StdioCall(invocation, responder, (call) => this.settled(call));
  }

  protected begin(call: StdioCall): void {
    const specialisation = this.#specialisation;
    const { execute } = this.reach;
    if (specialisation === null || execute === undefined) {
      queueMicrotask(() =>
        call.fail(new KoineError("internal", { detail: "a link was used before it was specialised" })),
      );
      return;
    }
    const { environment, program } = specialisation;
    const request = {
      command: program?.command ?? [],
      environment: { ...environment, ...call.environment },
    };
    execute.call(this.reach, request, AbortSignal.any([call.signal, this.#stopping.signal])).then(
      (execution) => call.run(execution, environment["content_type"]),
      (thrown: unknown) => call.fail(toKoineError(thrown)),
    );
  }

  protected release(): void {
    this.#stopping.abort();
  }
}

class StdioCall implements OpenCall {
  readonly #invocation: LinkInvocation;
  readonly #responder: LinkResponder;
  readonly #settled: (call: StdioCall) => void;
  readonly #stopped = new AbortController();
  #execution: Execution | null = null;
  #contentType: string | undefined;
  #isOver = false;
  #hasBegun = false;
  /** Body that came before the program ran. */
  readonly #early: Buffer[] = [];
  #bodyEnded: boolean;
  readonly #held: Buffer[] = [];
  #heldBytes = 0;
  #heldTimer: NodeJS.Timeout | null = null;
  #tail = "";

  constructor(invocation: LinkInvocation, responder: LinkResponder, settled: (call: StdioCall) => void) {
    this.#invocation = invocation;
    this.#responder = responder;
    this.#settled = settled;
    this.#bodyEnded = invocation.bodyComplete;
    if (invocation.body.length > 0) this.#early.push(invocation.body);
  }

  get signal(): AbortSignal {
    return this.#stopped.signal;
  }

  get environment(): Readonly<Record<string, string>> {
    const { id, attempt, deadlineMs, call, body, bodyComplete } = this.#invocation;
    const length = bodyComplete ? body.length : null;
    if (call.kind === "event")
      return callEnvironment({ id, attempt, deadlineMs, kind: "event", contentType: call.contentType }, length);
    return callEnvironment({ ...call, id, attempt, deadlineMs, headers: [...call.headers] }, length);
  }

  run(execution: Execution, contentType: string | undefined): void {
    if (this.#isOver) {
      execution.kill();
      return;
    }
    this.#execution = execution;
    this.#contentType = contentType;
    const { stdin, stdout, stderr } = execution;
    // A program need not read what it is given.
    stdin.on("error", () => {}).on("drain", () => this.#drained());
    stdout.on("error", () => {}).on("data", (chunk: Buffer) => this.#output(chunk));
    stderr.on("error", () => {}).on("data", (chunk: Buffer) => this.#said(chunk));
    for (const chunk of this.#early.splice(0)) stdin.write(chunk);
    if (this.#bodyEnded) stdin.end();
    else this.#responder.drained();
    const closed = Promise.all([closeOf(stdout), closeOf(stderr)]);
    execution.ended.then(
      async (end) => {
        await closed;
        this.#finish(end);
      },
      (thrown: unknown) => this.fail(toKoineError(thrown)),
    );
  }

  // Exchange

  write(chunk: Buffer): boolean {
    if (this.#isOver) return true;
    if (this.#execution !== null) return this.#execution.stdin.write(chunk);
    this.#early.push(chunk);
    return false;
  }

  end(): void {
    this.#bodyEnded = true;
    this.#execution?.stdin.end();
  }

  resume(): void {
    this.#execution?.stdout.resume();
  }

  cancel(): void {
    this.fail(new KoineError("client-closed-request"));
  }

  lost(): void {
    if (this.#over()) this.#responder.lost();
  }

  fail(error: KoineError): void {
    if (this.#over()) this.#responder.failed(error.report());
  }

  #drained(): void {
    if (!this.#isOver) this.#responder.drained();
  }

  #output(chunk: Buffer): void {
    if (this.#isOver) return;
    if (this.#hasBegun) {
      this.#give(chunk);
      return;
    }
    this.#held.push(chunk);
    this.#heldBytes += chunk.length;
    this.#heldTimer ??= setTimeout(() => this.#begin(), HELD_MS_MAX);
    if (this.#heldBytes >= HELD_BYTES_MAX) this.#begin();
  }

  #said(chunk: Buffer): void {
    this.#tail = (this.#tail + chunk.toString("latin1")).slice(-TAIL_BYTES_MAX);
  }

  #begin(): void {
    if (this.#hasBegun || this.#isOver) return;
    this.#hasBegun = true;
    const first = Buffer.concat(this.#held.splice(0));
    this.#responder.head({ status: 200, headers: ["content-type", contentTypeOf(this.#contentType, first)] });
    if (first.length > 0) this.#give(first);
  }

  #give(chunk: Buffer): void {
    if (!this.#responder.body(chunk)) this.#execution?.stdout.pause();
  }

  #finish(end: { readonly exitCode: number | null; readonly signal: string | null }): void {
    const failure = failureOf(end, Buffer.from(this.#tail, "latin1").toString("utf8"));
    if (failure !== null) {
      this.fail(new KoineError("handler-failed", { detail: failure }));
      return;
    }
    this.#begin();
    if (!this.#over()) return;
    this.#responder.bodyEnded();
    this.#responder.succeeded();
  }

  /** Answers whether it was not over before. */
  #over(): boolean {
    if (this.#isOver) return false;
    this.#isOver = true;
    if (this.#heldTimer !== null) clearTimeout(this.#heldTimer);
    this.#stopped.abort();
    this.#execution?.kill();
    this.#settled(this);
    return true;
  }
}

function closeOf(stream: NodeJS.ReadableStream & { readonly closed?: boolean }): Promise<void> {
  return new Promise((resolve) => {
    if (stream.closed === true) resolve();
    else stream.once("close", () => resolve());
  });
}
