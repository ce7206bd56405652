import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ErrorReport } from "../core/errors.ts";
import { newId } from "../core/ids.ts";
import type { Exchange, HttpCall, ResponseHead } from "../core/invocation.ts";
import { limits } from "../core/limits.ts";
import {
  isInvokesEarly,
  type Link,
  type LinkResponder,
  type Protocol,
  type Reach,
  type Specialisation,
} from "./protocol.ts";

/** A process that speaks the protocol and has booted or will; it ends with `stop`. */
export interface ProtocolProcess {
  readonly reach: Reach;
  /**
   * What makes the process serve these paths:
   * `/echo` answers 201 with the request's body as it comes, and its `x-tag` header;
   * `/large?bytes=N` answers N bytes of `x`; `/fail` throws an error of class `RangeError` with message `broken`;
   * `/exit` ends the process at once; `/wait` answers when the caller has gone away; `/log?text=T` logs T, gives others a turn, logs T
   * again, and answers.
   */
  readonly specialisation: Specialisation;
  /** The same with a handler that does not exist. */
  readonly missing: Specialisation;
  readonly exited: Promise<unknown>;
  stop(): Promise<void>;
}

/** What a protocol cannot have, because the program at its other end is the user's and not a bootstrap of ours. */
export interface ProtocolTraits {
  /** Knows handlers by name and the class of what they throw, and says which invocation wrote what. */
  readonly handlers: boolean;
  /** Both bodies flow while the invocation runs; else they are whole. */
  readonly streams: boolean;
  /** Can tell a program that nobody wants its answer any more. */
  readonly cancels: boolean;
  /** Closing the link ends the process. */
  readonly closesProcess: boolean;
  /** The end of one invocation's program is the end of the link. */
  readonly oneProcess: boolean;
  /** Invocations that one process serves at a time. */
  readonly concurrency: number;
}

const bootstrapTraits: ProtocolTraits = {
  handlers: true,
  streams: true,
  cancels: true,
  closesProcess: true,
  oneProcess: true,
  concurrency: 300,
};

/** Registers the tests that every Protocol must pass, against a real process that speaks it. */
export function protocolConformance(
  name: string,
  protocol: Protocol,
  start: () => Promise<ProtocolProcess>,
  traits: ProtocolTraits = bootstrapTraits,
): void {
  describe(`${name} keeps the protocol's contract`, { timeout: 60_000 }, () => {
    const begin = (): Promise<Begun> => Begun.begin(protocol, start);
    specialisationTests(protocol, start, traits);
    earlyTests(protocol, start);
    answerTests(begin, traits);
    flowTests(begin, traits);
    if (traits.oneProcess) endTests(begin, traits);
  });
}

function specialisationTests(
  protocol: Protocol,
  start: () => Promise<ProtocolProcess>,
  { handlers }: ProtocolTraits,
): void {
  test("a process that has booted is specialised once and says which model it chose", async () => {
    await using begun = await Begun.begin(protocol, start);
    assert.notEqual(begun.specialised.handlerModel, "auto");
    assert.ok(begun.specialised.loadMs >= 0);
  });

  if (!handlers) return;
  test("a handler that does not exist is the function's fault", async () => {
    await using begun = await Begun.boot(protocol, start);
    const specialised = begun.link.specialise(begun.process.missing, AbortSignal.timeout(20_000));
    await assert.rejects(specialised, { code: "handler-not-found" });
  });

  test("waiting for a process ends when its signal says so", async () => {
    await using begun = await Begun.boot(protocol, start);
    const gone = AbortSignal.abort(new Error("enough"));
    await assert.rejects(begun.link.specialise(begun.process.specialisation, gone), { message: "enough" });
  });
}

/** For links with the ability; others pass without trying. */
function earlyTests(protocol: Protocol, start: () => Promise<ProtocolProcess>): void {
  test("an invocation that is sent with the specialisation is answered once the handler has loaded", async () => {
    await using begun = await Begun.boot(protocol, start);
    if (!isInvokesEarly(begun.link)) return;
    const seen: string[] = [];
    const early: AnswerRecord[] = [];
    const invoke = (): void => {
      early.push(
        begun.call({ method: "POST", url: "/echo" }, null),
        begun.call({ method: "POST", url: "/echo" }, "two"),
      );
    };
    const loaded = (): number => seen.push("loaded", ...early.flatMap(({ order }) => order));
    const signal = AbortSignal.timeout(20_000);
    const specialised = begun.link.specialiseEarly(begun.process.specialisation, { invoke, loaded }, signal);
    early[0]?.exchange.write(Buffer.from("one"));
    early[0]?.exchange.end();
    assert.notEqual((await specialised).handlerModel, "auto");
    assert.deepEqual(await Promise.all(early.map(({ ended }) => ended)), ["succeeded", "succeeded"]);
    assert.deepEqual(
      early.map(({ text }) => text),
      ["one", "two"],
    );
    assert.deepEqual(seen, ["loaded"]);
  });

  test("an invocation that was sent with the specialisation can be cancelled", async () => {
    await using begun = await Begun.boot(protocol, start);
    if (!isInvokesEarly(begun.link)) return;
    const early: AnswerRecord[] = [];
    const invoke = (): void => {
      early.push(begun.call({ url: "/wait" }));
      early[0]?.exchange.cancel();
    };
    const signal = AbortSignal.timeout(20_000);
    await begun.link.specialiseEarly(begun.process.specialisation, { invoke, loaded: () => {} }, signal);
    assert.notEqual(await early[0]?.ended, "lost");
  });

  test("an invocation that was sent to a handler that cannot be loaded is lost", async () => {
    await using begun = await Begun.boot(protocol, start);
    if (!isInvokesEarly(begun.link)) return;
    const early: AnswerRecord[] = [];
    const invoke = (): number => early.push(begun.call({ url: "/echo" }));
    const loaded = (): never => assert.fail("it was told to have loaded");
    const signal = AbortSignal.timeout(20_000);
    const specialised = begun.link.specialiseEarly(begun.process.missing, { invoke, loaded }, signal);
    await assert.rejects(specialised, { code: "handler-not-found" });
    assert.equal(await early[0]?.ended, "lost");
    assert.deepEqual(early[0]?.order, ["lost"]);
  });
}

function answerTests(begin: () => Promise<Begun>, { handlers, concurrency }: ProtocolTraits): void {
  test("an answer has the status, the headers and the body that the handler gave", async () => {
    await using begun = await begin();
    const answer = begun.call({ method: "POST", url: "/echo", headers: ["x-tag", "tagged"] }, "over and out");
    assert.equal(await answer.ended, "succeeded");
    assert.equal(answer.status, 201);
    assert.equal(answer.header("x-tag"), "tagged");
    assert.equal(answer.text, "over and out");
    assert.deepEqual(answer.order, ["head", "body", "bodyEnded", "succeeded"]);
  });

  test("an answer without a body has none", async () => {
    await using begun = await begin();
    const answer = begun.call({ method: "POST", url: "/echo" }, "");
    assert.equal(await answer.ended, "succeeded");
    assert.equal(answer.text, "");
  });

  test("many invocations at a time get their own answers", async () => {
    await using begun = await begin();
    const answers = Array.from({ length: concurrency }, (_, index) =>
      begun.call({ method: "POST", url: "/echo" }, `body ${index}`),
    );
    const endings = await Promise.all(answers.map((answer) => answer.ended));
    assert.ok(endings.every((ending) => ending === "succeeded"));
    assert.ok(answers.every((answer, index) => answer.text === `body ${index}`));
  });

  if (!handlers) return;
  test("an error of the handler fails its invocation with type and message, and nothing else", async () => {
    await using begun = await begin();
    const broken = begun.call({ url: "/fail" });
    const whole = begun.call({ method: "POST", url: "/echo" }, "fine");
    assert.equal(await broken.ended, "failed");
    assert.equal(broken.error?.code, "handler-failed");
    assert.equal(broken.error?.fault, "function");
    assert.equal(broken.error?.cause?.type, "RangeError");
    assert.equal(broken.error?.cause?.message, "broken");
    assert.equal(await whole.ended, "succeeded");
  });

  test("output is reported with the invocation that wrote it, before that ends", async () => {
    await using begun = await begin();
    const one = begun.call({ url: "/log?text=one" });
    const two = begun.call({ url: "/log?text=two" });
    await Promise.all([one.ended, two.ended]);
    assert.deepEqual(begun.linesOf(one.id), ["one", "one"]);
    assert.deepEqual(begun.linesOf(two.id), ["two", "two"]);
  });
}

function flowTests(begin: () => Promise<Begun>, { streams, cancels, concurrency }: ProtocolTraits): void {
  if (cancels) cancellationTests(begin);
  if (!streams) return;
  test("a body that is given in parts arrives whole, as fast as it is taken", async () => {
    await using begun = await begin();
    const answer = begun.call({ method: "POST", url: "/echo" }, null);
    const part = Buffer.alloc(100_000, "p");
    let sent = 0;
    while (sent < 50) {
      sent++;
      if (!answer.exchange.write(part)) await answer.drain();
    }
    answer.exchange.end();
    assert.equal(await answer.ended, "succeeded");
    assert.equal(answer.bytes, 50 * part.length);
  });

  test("a body larger than the window is sent whole when it is given at once", async () => {
    await using begun = await begin();
    const answer = begun.call({ method: "POST", url: "/echo" }, "b".repeat(3 * limits.streamWindowBytes + 1));
    assert.equal(await answer.ended, "succeeded");
    assert.equal(answer.bytes, 3 * limits.streamWindowBytes + 1);
  });

  test("an answer that nobody takes stops at the window, and others go on", async () => {
    await using begun = await begin();
    const slow = begun.call({ url: `/large?bytes=${10 * limits.streamWindowBytes}` });
    slow.accepting = false;
    await slow.until(() => slow.bytes > 0);
    if (concurrency > 1) {
      const other = begun.call({ method: "POST", url: "/echo" }, "me first");
      assert.equal(await other.ended, "succeeded");
    }
    assert.ok(slow.bytes <= limits.streamWindowBytes, `${slow.bytes} bytes were sent`);
    slow.accepting = true;
    slow.exchange.resume();
    assert.equal(await slow.ended, "succeeded");
    assert.equal(slow.bytes, 10 * limits.streamWindowBytes);
  });

  test("cancelling an answer that is not taken lets it end", async () => {
    await using begun = await begin();
    const answer = begun.call({ url: `/large?bytes=${10 * limits.streamWindowBytes}` });
    answer.accepting = false;
    await answer.until(() => answer.bytes > 0);
    answer.exchange.cancel();
    assert.notEqual(await answer.ended, "lost");
  });
}

function cancellationTests(begin: () => Promise<Begun>): void {
  test("cancelling tells the handler, and the invocation ends", async () => {
    await using begun = await begin();
    const answer = begun.call({ url: "/wait" });
    answer.exchange.cancel();
    assert.notEqual(await answer.ended, "lost");
    assert.equal(await begun.call({ method: "POST", url: "/echo" }, "still there").ended, "succeeded");
  });
}

function endTests(begin: () => Promise<Begun>, { closesProcess, concurrency }: ProtocolTraits): void {
  test("a process that ends loses every invocation, and only then the link is closed", async () => {
    await using begun = await begin();
    const waiting = concurrency > 1 ? [begun.call({ url: "/wait" }), begun.call({ url: "/wait" })] : [];
    const exiting = begun.call({ url: "/exit" });
    await begun.closed;
    const endings = await Promise.all([...waiting, exiting].map((answer) => answer.ended));
    assert.ok(
      endings.every((ending) => ending === "lost"),
      endings.join(", "),
    );
    assert.equal(begun.closedCount, 1);
    assert.equal(begun.openWhenClosed, 0);
    const late = begun.call({ method: "POST", url: "/echo" }, "too late");
    assert.equal(await late.ended, "lost");
    assert.equal(await begun.link.ping(1_000), false);
  });

  test("a living process answers a ping", async () => {
    await using begun = await begin();
    assert.equal(await begun.link.ping(20_000), true);
  });

  test("closing ends the process and loses what is under way", async () => {
    await using begun = await begin();
    const answer = begun.call({ url: "/wait" });
    begun.link.close();
    assert.equal(await answer.ended, "lost");
    if (!closesProcess) await begun.process.stop();
    await begun.process.exited;
    await begun.closed;
    assert.equal(begun.closedCount, 1);
  });
}

const plainCall: HttpCall = {
  kind: "http",
  method: "GET",
  url: "/",
  headers: [],
  basePath: "/fn/x",
  origin: "http://localhost",
  remoteAddress: "127.0.0.1",
};

/** A process with its link. */
class Begun implements AsyncDisposable {
  readonly process: ProtocolProcess;
  readonly link: Link;
  readonly closed: Promise<void>;
  specialised: { readonly handlerModel: string; readonly loadMs: number } = { handlerModel: "", loadMs: -1 };
  closedCount = 0;
  openWhenClosed = -1;
  readonly #open = new Set<AnswerRecord>();
  readonly #logs: { readonly id: string | null; readonly text: string }[] = [];

  private constructor(protocol: Protocol, process: ProtocolProcess) {
    this.process = process;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.link = protocol.connect(process.reach, {
      log: (id, _stream, chunk) => this.#logs.push({ id, text: chunk.toString() }),
      closed: () => {
        this.closedCount++;
        this.openWhenClosed = this.#open.size;
        resolve();
      },
    });
  }

  static async boot(protocol: Protocol, start: () => Promise<ProtocolProcess>): Promise<Begun> {
    const begun = new Begun(protocol, await start());
    await begun.link.ready(AbortSignal.timeout(20_000));
    return begun;
  }

  static async begin(protocol: Protocol, start: () => Promise<ProtocolProcess>): Promise<Begun> {
    const begun = await Begun.boot(protocol, start);
    const signal = AbortSignal.timeout(20_000);
    begun.specialised = await begun.link.specialise(begun.process.specialisation, signal);
    return begun;
  }

  /** `body: null` means that it follows through the exchange. */
  call(call: Partial<HttpCall>, body: string | null = ""): AnswerRecord {
    const record = new AnswerRecord(() => this.#open.delete(record));
    this.#open.add(record);
    record.exchange = this.link.invoke(
      {
        id: record.id,
        call: { ...plainCall, ...call },
        attempt: 1,
        deadlineMs: Date.now() + 30_000,
        body: Buffer.from(body ?? ""),
        bodyComplete: body !== null,
      },
      record,
    );
    return record;
  }

  linesOf(id: string): string[] {
    const text = this.#logs.flatMap((log) => (log.id === id ? [log.text] : [])).join("");
    return text.split("\n").filter((line) => line !== "");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.process.stop();
  }
}

const noExchange: Exchange = { write: () => true, end() {}, resume() {}, cancel() {} };

class AnswerRecord implements LinkResponder {
  readonly id = newId();
  readonly ended: Promise<"succeeded" | "failed" | "lost">;
  readonly order: string[] = [];
  exchange: Exchange = noExchange;
  accepting = true;
  status = 0;
  bytes = 0;
  error: ErrorReport | null = null;
  readonly #end: (ending: "succeeded" | "failed" | "lost") => void;
  #headers: readonly string[] = [];
  readonly #chunks: Buffer[] = [];
  #watchers: (() => void)[] = [];
  #drained = 0;
  #drainsSeen = 0;

  constructor(onEnd: () => void) {
    const { promise, resolve } = Promise.withResolvers<"succeeded" | "failed" | "lost">();
    this.ended = promise;
    this.#end = (ending) => {
      this.order.push(ending);
      onEnd();
      resolve(ending);
    };
  }

  get text(): string {
    return Buffer.concat(this.#chunks).toString();
  }

  header(name: string): string | undefined {
    const at = this.#headers.findIndex((part, index) => index % 2 === 0 && part.toLowerCase() === name);
    return at < 0 ? undefined : this.#headers[at + 1];
  }

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

  async drain(): Promise<void> {
    await this.until(() => this.#drained > this.#drainsSeen);
    this.#drainsSeen = this.#drained;
  }

  head(head: ResponseHead): void {
    this.order.push("head");
    this.status = head.status;
    this.#headers = head.headers;
  }

  body(chunk: Buffer): boolean {
    if (this.order.at(-1) !== "body") this.order.push("body");
    this.#chunks.push(chunk);
    this.bytes += chunk.length;
    for (const look of this.#watchers) look();
    return this.accepting;
  }

  drained(): void {
    this.#drained++;
    for (const look of this.#watchers) look();
  }

  bodyEnded(): void {
    this.order.push("bodyEnded");
  }

  succeeded(): void {
    this.#end("succeeded");
  }

  failed(error: ErrorReport): void {
    this.error = error;
    this.#end("failed");
  }

  lost(): void {
    this.#end("lost");
  }
}
