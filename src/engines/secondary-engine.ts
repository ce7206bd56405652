import type { Clock } from "../core/clock.ts";
import { KoineError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import type { Exchange, Invocation, InvocationFigures, Outcome, Responder } from "../core/invocation.ts";
import type { Version } from "../core/function.ts";
import type { EdgeRequest } from "../gateway/edge-request.ts";
import type { Answer } from "./channel.ts";
import { EngineChannel } from "./channel.ts";
import { answerPassed } from "./passing.ts";
import { EngineProcess, type EngineProgram } from "./process.ts";
import { type EngineReport, type Ran, type ToPrimary, type ToSecondary, versionName } from "./wire.ts";

export interface SecondaryEvents {
  told(message: ToPrimary, bytes: Buffer): void;
  called(message: ToPrimary): Promise<Answer>;
  /** A request that only this process can answer. */
  passedOn(request: EdgeRequest): void;
}

/** One running process of a further engine, as the first engine's process sees it. */
export class SecondaryEngine {
  readonly number: number;
  readonly process: EngineProcess;
  /** What it said last of what it does. */
  report: EngineReport | null = null;
  /** Asynchronous invocations that it runs. */
  running = 0;
  readonly #channel: EngineChannel<ToSecondary, ToPrimary>;
  readonly #clock: Clock;
  #ended = false;

  private constructor(number: number, process: EngineProcess, context: { clock: Clock; events: SecondaryEvents }) {
    const { clock, events } = context;
    this.number = number;
    this.process = process;
    this.#clock = clock;
    this.#channel = new EngineChannel(process.control, {
      told: (message, bytes) => {
        // What it held is free already when its last words come; its records are still good.
        if (message.to === "share" && this.#ended) return;
        events.told(message, bytes);
      },
      called: (message) => events.called(message),
      closed: () => {},
    });
    void process.ended.then(() => {
      this.#ended = true;
    });
    answerPassed(process.passing, (request) => events.passedOn(request));
  }

  /** @throws KoineError `engine-failed` */
  static async start(
    program: EngineProgram,
    number: number,
    context: { readonly clock: Clock; readonly events: SecondaryEvents },
  ): Promise<SecondaryEngine> {
    return new SecondaryEngine(number, await EngineProcess.start(program, number), context);
  }

  tell(message: ToSecondary): void {
    this.#channel.tell(message);
  }

  /**
   * One that does not answer in time is of no use to anybody: it is ended, and started anew.
   * @throws KoineError what it threw; `engine-failed` when it ended or was ended
   */
  async call(message: ToSecondary, withinMs: number = limits.engineAnswerMsMax): Promise<unknown> {
    const cancel = this.#clock.after(withinMs, () => this.process.kill());
    try {
      return (await this.#channel.call(message)).value;
    } catch (thrown) {
      throw this.#channel.closed ? this.#gone() : thrown;
    } finally {
      cancel();
    }
  }

  /** Waits for what may take as long as it wants. @throws KoineError `engine-failed` when it ended */
  async callPatiently(message: ToSecondary): Promise<unknown> {
    try {
      return (await this.#channel.call(message)).value;
    } catch (thrown) {
      throw this.#channel.closed ? this.#gone() : thrown;
    }
  }

  /** Runs an invocation there; its answer comes as a whole. When the engine ends, the invocation was rejected: nobody knows how far it came. */
  run(invocation: Invocation, version: Version, responder: Responder): Exchange {
    this.running++;
    void this.#run(invocation, version, responder).finally(() => {
      this.running--;
    });
    return {
      write: () => true,
      end: () => {},
      resume: () => {},
      cancel: () => void this.call({ to: "cancel", id: invocation.id, namespace: version.namespace }).catch(() => {}),
    };
  }

  /** Never rejects. */
  async #run(invocation: Invocation, version: Version, responder: Responder): Promise<void> {
    const { body, ...rest } = invocation;
    try {
      const message: ToSecondary = { to: "run", invocation: rest, version: versionName(version) };
      const { value, bytes } = await this.#channel.call(message, body);
      const { head, outcome, figures } = value as Ran;
      if (head !== null) responder.head(head, figures.cold ? "cold" : "warm");
      if (bytes.length > 0) responder.body(bytes);
      if (head !== null) responder.bodyEnded();
      responder.ended(outcome, figures);
    } catch (thrown) {
      const error = thrown instanceof KoineError && !this.#channel.closed ? thrown : this.#gone();
      const rejected: Outcome = { kind: "rejected", error: error.report(), retryAfterMs: RETRY_AFTER_MS };
      responder.ended(rejected, NO_FIGURES);
    }
  }

  #gone(): KoineError {
    return new KoineError("engine-failed", { engine: this.number, detail: "its process ended" });
  }
}

const RETRY_AFTER_MS = 1_000;
const NO_FIGURES: InvocationFigures = {
  cold: false,
  queuedMs: 0,
  startMs: 0,
  durationMs: 0,
  memoryBytes: 0,
  instanceId: "",
};
