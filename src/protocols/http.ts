import { setTimeout as delay } from "node:timers/promises";
import { type Clock, systemClock } from "../core/clock.ts";
import { KoineError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { Timeouts } from "../core/timeouts.ts";
import { askProgram } from "./http-ask.ts";
import { HttpExchange, type HttpOwner } from "./http-exchange.ts";
import { Connections } from "./http-connections.ts";
import { ProgramLink } from "./program-link.ts";
import type {
  LinkEvents,
  LinkInvocation,
  LinkResponder,
  ProgramNeeds,
  Protocol,
  Reach,
  Specialisation,
} from "./protocol.ts";

/** The port of programs that are not told another. */
export const HTTP_PORT = 8080;

/** Any HTTP/1.1 server: an invocation is a request. Events are posted to `/`. */
export function createHttpProtocol(options: { readonly clock?: Clock } = {}): Protocol {
  const clock = options.clock ?? systemClock;
  return {
    name: "http",
    program: httpNeeds,
    connect: (reach, events) => new HttpLink(reach, events, clock),
  };
}

export const httpNeeds: ProgramNeeds = {
  ability: "connect",
  port: HTTP_PORT,
  readyMsMax: limits.programReadyMsMax,
  environment: ({ program }) => ({ PORT: String(program?.port ?? HTTP_PORT) }),
};

const ATTEMPT_DELAY_MS_FIRST = 2;
const ATTEMPT_DELAY_MS_MAX = 50;

class HttpLink extends ProgramLink<HttpExchange> implements HttpOwner {
  readonly clock: Clock;
  readonly upgraded: Timeouts;
  readonly #connections: Connections;
  #port = HTTP_PORT;

  constructor(reach: Reach, events: LinkEvents, clock: Clock) {
    super(reach, events);
    this.clock = clock;
    this.upgraded = new Timeouts(clock, limits.upgradedIdleMsMax);
    this.#connections = new Connections(() => {
      const signal = AbortSignal.timeout(limits.programConnectMsMax);
      return connectTo(reach, this.#port, signal);
    }, clock);
  }

  get connections(): Connections {
    return this.#connections;
  }

  ended(call: HttpExchange): void {
    this.settled(call);
  }

  protected async prepare({ program }: Specialisation, signal: AbortSignal): Promise<string> {
    if (program === undefined) throw new KoineError("internal", { detail: "a program was launched without a port" });
    this.#port = program.port;
    const { readyPath } = program;
    const probe = readyPath === null ? () => this.#accepts(signal) : () => this.#answers(readyPath, signal);
    await untilReady(probe, { port: program.port, signal });
    return "http";
  }

  protected open(invocation: LinkInvocation, responder: LinkResponder): HttpExchange {
    return new HttpExchange(this, invocation, responder);
  }

  protected begin(call: HttpExchange): void {
    call.begin();
  }

  protected release(): void {
    this.#connections.destroy();
    this.upgraded.close();
  }

  /** Why it does not accept a connection yet; null: it does. */
  async #accepts(signal: AbortSignal): Promise<string | null> {
    try {
      (await connectTo(this.reach, this.#port, signal)).destroy();
      return null;
    } catch (thrown) {
      if (thrown instanceof KoineError) throw thrown;
      return `nothing listens on port ${this.#port} (${codeOf(thrown)})`;
    }
  }

  async #answers(path: string, signal: AbortSignal): Promise<string | null> {
    const refused = await this.#accepts(signal);
    if (refused !== null) return refused;
    try {
      const headers = { host: `127.0.0.1:${this.#port}` };
      const { status } = await askProgram(this.#connections, { method: "GET", path, headers, signal });
      return status >= 200 && status < 400 ? null : `${path} answers ${status}`;
    } catch (thrown) {
      return `${path} does not answer (${codeOf(thrown)})`;
    }
  }
}

/** @throws KoineError `not-supported` where the sandbox cannot be reached */
export async function connectTo(reach: Reach, port: number, signal: AbortSignal) {
  if (reach.connect === undefined) {
    throw new KoineError("not-supported", {
      what: "Reaching a program in this kind of sandbox",
      remedy: "'koine doctor' says what this machine offers.",
    });
  }
  const connection = await reach.connect(port, signal);
  connection.on("error", () => {});
  return connection;
}

/**
 * Asks a program again and again whether it can be used, at first often.
 * @param probe answers why not yet, or null
 * @throws KoineError `program-not-ready` when the signal fires first
 */
export async function untilReady(
  probe: () => Promise<string | null>,
  { port, signal }: { readonly port: number; readonly signal: AbortSignal },
): Promise<void> {
  const beganMs = performance.now();
  let detail = "it was not asked";
  for (let delayMs = ATTEMPT_DELAY_MS_FIRST; ; delayMs = Math.min(delayMs * 1.5, ATTEMPT_DELAY_MS_MAX)) {
    const answer = await probe();
    if (answer === null) return;
    if (!signal.aborted) detail = answer;
    const isOver = await delay(delayMs, false, { signal }).catch(() => true);
    if (isOver !== true && !signal.aborted) continue;
    const remedy = `Listen on 127.0.0.1:$PORT (${port} here), or say the port with --port; see what it wrote with 'koine logs'.`;
    const timeoutMs = Math.round(performance.now() - beganMs);
    throw new KoineError("program-not-ready", { timeoutMs, detail, remedy });
  }
}

export function codeOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  return "code" in thrown && typeof thrown.code === "string" ? thrown.code : thrown.message;
}
