import { KoineError, toKoineError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { actionAnswer, actionParameters, errorText } from "./action-web.ts";
import type { WholeAnswer } from "./http-ask.ts";
import type { OpenCall } from "./program-link.ts";
import type { LinkInvocation, LinkResponder, Specialisation } from "./protocol.ts";

/** What a call needs of its link. */
export interface ActionOwner {
  readonly specialisation: Specialisation | null;
  ask(path: string, body: object, signal: AbortSignal): Promise<WholeAnswer>;
  outputEnded(): Promise<void>;
  endsSoon(withinMs: number): Promise<boolean>;
  ended(call: ActionCall): void;
}

const ENDING_MS_MAX = 500;

/** One activation: its parameters are JSON, and so is what comes of it. */
export class ActionCall implements OpenCall {
  readonly #owner: ActionOwner;
  readonly #invocation: LinkInvocation;
  readonly #responder: LinkResponder;
  readonly #body: Buffer[];
  readonly #stopped = new AbortController();
  #bodyBytes: number;
  #isOver = false;

  constructor(owner: ActionOwner, invocation: LinkInvocation, responder: LinkResponder) {
    this.#owner = owner;
    this.#invocation = invocation;
    this.#responder = responder;
    this.#body = [invocation.body];
    this.#bodyBytes = invocation.body.length;
  }

  begin(): void {
    if (this.#invocation.bodyComplete) void this.#run();
    else this.#responder.drained();
  }

  // Exchange

  write(chunk: Buffer): boolean {
    this.#bodyBytes += chunk.length;
    const limit = limits.programPayloadBytesMax;
    if (this.#bodyBytes <= limit) this.#body.push(chunk);
    else this.#fail(new KoineError("payload-too-large", { what: "an invocation by this protocol", limit }));
    return true;
  }

  end(): void {
    void this.#run();
  }

  resume(): void {}

  cancel(): void {
    this.#fail(new KoineError("client-closed-request"));
  }

  lost(): void {
    if (this.#over()) this.#responder.lost();
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    const { specialisation } = this.#owner;
    if (this.#isOver || specialisation === null) return;
    const { id, call, deadlineMs } = this.#invocation;
    const { namespace, package: inPackage, name } = specialisation.function;
    let answer: WholeAnswer;
    try {
      const value = actionParameters(call, Buffer.concat(this.#body.splice(0)));
      const facts = {
        namespace,
        action_name: `/${[namespace, inPackage, name].filter((part) => part !== "").join("/")}`,
        api_host: "",
        api_key: "",
        activation_id: id,
        transaction_id: id,
        deadline: String(Math.floor(deadlineMs)),
      };
      answer = await this.#owner.ask("/run", { value, ...facts }, this.#stopped.signal);
    } catch (thrown) {
      await this.#broken(thrown);
      return;
    }
    await this.#owner.outputEnded();
    try {
      this.#conclude(answer);
    } catch (thrown) {
      this.#fail(toKoineError(thrown));
    }
  }

  #conclude({ status, body, isCut }: WholeAnswer): void {
    if (this.#isOver) return;
    if (isCut) {
      const detail = `it has more than ${limits.programPayloadBytesMax} bytes`;
      throw new KoineError("invalid-response", { detail });
    }
    if (status !== 200) {
      const thrown = { type: "DeveloperError", message: errorText(body) };
      const detail = `POST /run answered ${status}: ${thrown.message}`;
      throw new KoineError("handler-failed", { detail }, { thrown });
    }
    const { head, body: bytes } = actionAnswer(this.#invocation.call, body);
    this.#responder.head(head);
    if (bytes.length > 0) this.#responder.body(bytes, true);
    if (!this.#over()) return;
    this.#responder.bodyEnded();
    this.#responder.succeeded();
  }

  async #broken(thrown: unknown): Promise<void> {
    if (this.#isOver) return;
    if (thrown instanceof KoineError) {
      this.#fail(thrown);
      return;
    }
    const code = thrown instanceof Error && "code" in thrown ? String(thrown.code) : "";
    const isMalformed = code.startsWith("HPE_");
    if (!isMalformed && (await this.#owner.endsSoon(ENDING_MS_MAX))) return;
    const said = thrown instanceof Error ? thrown.message : String(thrown);
    const detail = isMalformed ? `it is not HTTP: ${said}` : `the program broke the connection: ${said}`;
    this.#fail(new KoineError("invalid-response", { detail }, { cause: thrown }));
  }

  #fail(error: KoineError): void {
    if (this.#over()) this.#responder.failed(error.report());
  }

  /** Answers whether it was not over before. */
  #over(): boolean {
    if (this.#isOver) return false;
    this.#isOver = true;
    this.#stopped.abort();
    this.#owner.ended(this);
    return true;
  }
}
