import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { KoineError, toKoineError } from "../core/errors.ts";
import { limits } from "../core/limits.ts";
import { ActionCall, type ActionOwner } from "./action-call.ts";
import { EndMarkers } from "./action-markers.ts";
import { codeOf, connectTo, untilReady } from "./http.ts";
import { errorText } from "./action-web.ts";
import { askProgram, type WholeAnswer } from "./http-ask.ts";
import { Connections } from "./http-connections.ts";
import { ProgramLink } from "./program-link.ts";
import type { LinkEvents, LinkInvocation, LinkResponder, Protocol, Reach, Specialisation } from "./protocol.ts";

const PORT = 8080;

/** OpenWhisk's protocol: the program is given its code by `POST /init`, once, and every invocation by `POST /run`. */
export function createActionProxyProtocol(): Protocol {
  return {
    name: "action-proxy",
    program: {
      ability: "connect",
      port: PORT,
      readyMsMax: limits.programReadyMsMax,
      environment: ({ program, instanceConcurrency }) => ({
        PORT: String(program?.port ?? PORT),
        ...(instanceConcurrency > 1 ? { __OW_ALLOW_CONCURRENT: "true" } : {}),
      }),
    },
    connect: (reach, events) => new ActionProxyLink(reach, events),
  };
}

class ActionProxyLink extends ProgramLink<ActionCall> implements ActionOwner {
  readonly #connections: Connections;
  readonly #markers = new EndMarkers();
  #port = PORT;
  specialisation: Specialisation | null = null;

  constructor(reach: Reach, events: LinkEvents) {
    super(reach, events);
    this.#connections = new Connections(() =>
      connectTo(reach, this.#port, AbortSignal.timeout(limits.programConnectMsMax)),
    );
  }

  filterOutput(stream: "stdout" | "stderr", chunk: Buffer): Buffer {
    return this.#markers.filter(stream, chunk);
  }

  // ActionOwner

  async ask(path: string, body: object, signal: AbortSignal): Promise<WholeAnswer> {
    const bytes = Buffer.from(JSON.stringify(body));
    const headers = {
      host: `127.0.0.1:${this.#port}`,
      "content-type": "application/json",
      "content-length": bytes.length,
    };
    return await askProgram(this.#connections, { method: "POST", path, headers, body: bytes, signal });
  }

  /** Output comes by another way than the answer: waits for the end that programs write there. */
  async outputEnded(): Promise<void> {
    if (this.specialisation?.instanceConcurrency === 1) await this.#markers.next();
  }

  ended(call: ActionCall): void {
    this.settled(call);
  }

  protected async prepare(specialisation: Specialisation, signal: AbortSignal): Promise<string> {
    this.specialisation = specialisation;
    this.#port = specialisation.program?.port ?? PORT;
    const port = this.#port;
    const probe = async (): Promise<string | null> => {
      try {
        (await connectTo(this.reach, port, signal)).destroy();
        return null;
      } catch (thrown) {
        if (thrown instanceof KoineError) throw thrown;
        return `nothing listens on port ${port} (${codeOf(thrown)})`;
      }
    };
    await untilReady(probe, { port, signal });
    await this.#initialise(specialisation, signal);
    return "action-proxy";
  }

  protected open(invocation: LinkInvocation, responder: LinkResponder): ActionCall {
    return new ActionCall(this, invocation, responder);
  }

  protected begin(call: ActionCall): void {
    call.begin();
  }

  protected release(): void {
    this.#connections.destroy();
    this.#markers.close();
  }

  async #initialise(specialisation: Specialisation, signal: AbortSignal): Promise<void> {
    const { handler, environment, function: named } = specialisation;
    const failed = (detail: string): KoineError => new KoineError("handler-load-failed", { handler, detail });
    const code = await readCode(specialisation);
    let answer: WholeAnswer;
    try {
      answer = await this.ask("/init", { value: { name: named.name, ...code, env: environment } }, signal);
    } catch (thrown) {
      if (signal.aborted) throw toKoineError(thrown);
      throw failed(`POST /init was not answered: ${codeOf(thrown)}`);
    }
    if (answer.status === 200) return;
    throw failed(`POST /init answered ${answer.status}: ${errorText(answer.body)}`);
  }
}

interface ActionCode {
  readonly main: string;
  readonly code: string;
  readonly binary: boolean;
}

/** The file of the package that the handler names, as `FILE` or `FILE.FUNCTION`; programs that bring their code are given none. */
async function readCode({ handler, program }: Specialisation): Promise<ActionCode> {
  const folder = program?.codeFolder ?? null;
  const none = { main: "main", code: "", binary: false };
  if (folder === null) return none;
  const dot = handler.lastIndexOf(".");
  const candidates: [string, string][] = [
    [handler, "main"],
    ...(dot > 0 ? [[handler.slice(0, dot), handler.slice(dot + 1)] satisfies [string, string]] : []),
  ];
  for (const [file, main] of candidates) {
    const path = join(folder, file);
    const found = await stat(path).catch(() => null);
    if (found?.isFile() !== true || isLaunched(file, program?.command ?? [])) continue;
    if (found.size > limits.programPayloadBytesMax)
      throw new KoineError("handler-load-failed", { handler, detail: `${file} is too large to be sent by /init` });
    const bytes = await readFile(path);
    const binary = bytes.includes(0);
    return { main, code: bytes.toString(binary ? "base64" : "utf8"), binary };
  }
  return none;
}

/** The program itself is not its own action. */
function isLaunched(file: string, command: readonly string[]): boolean {
  return command.some((word) => word === file || word.endsWith(`/${file}`));
}
