import type { Supervise } from "../../../core/telemetry.ts";
import type { Sealer } from "../../../platform/secrets.ts";
import type { Blobs } from "../../../store/store.ts";
import { AnswerHead, type GatewayRequest } from "../../dialect.ts";
import { AwsError } from "../wire/error.ts";
import { respondAwsError } from "../wire/serve.ts";

interface Ticket {
  readonly digest: string;
  readonly untilMs: number;
}

const PATH = "/_aws/code/";
const CONTEXT = "aws code archive";
const VALID_MS = 10 * 60_000;

/** Archives for download, at addresses that say by themselves what they are for and until when: whoever was told one may use it. */
export class Archives {
  readonly #blobs: Blobs;
  readonly #sealer: Sealer;
  readonly #nowMs: () => number;

  constructor(blobs: Blobs, sealer: Sealer, nowMs: () => number) {
    this.#blobs = blobs;
    this.#sealer = sealer;
    this.#nowMs = nowMs;
  }

  locate(digest: string, origin: string): string {
    const ticket: Ticket = { digest, untilMs: this.#nowMs() + VALID_MS };
    return `${origin}${PATH}${this.#sealer.seal(JSON.stringify(ticket), CONTEXT)}`;
  }

  /** Answers false for other paths. */
  handle(request: GatewayRequest, supervise: Supervise): boolean {
    if (!request.path.startsWith(PATH)) return false;
    const sent = this.#send(request, request.path.slice(PATH.length)).catch((thrown: unknown) => {
      respondAwsError(
        request,
        thrown instanceof AwsError
          ? thrown
          : new AwsError("InternalError", "The archive cannot be read.", { status: 500 }),
        null,
      );
    });
    supervise("send an archive", sent);
    return true;
  }

  async #send(request: GatewayRequest, sealed: string): Promise<void> {
    const archive = await this.#blobs.open(this.#digestOf(sealed));
    if (archive === null) throw new AwsError("NoSuchKey", "The specified key does not exist.", { status: 404 });
    const { response } = request;
    let flowed = (): void => {};
    response.listener = {
      flowed: () => flowed(),
      left: () => {
        archive.destroy();
        flowed();
      },
    };
    response.begin(new AnswerHead(200, ["Content-Type", "application/zip"]));
    for await (const chunk of archive) {
      if (response.write(chunk as Buffer)) continue;
      await new Promise<void>((resolve) => {
        flowed = resolve;
      });
    }
    response.end();
  }

  #digestOf(sealed: string): string {
    let ticket: Ticket;
    try {
      ticket = JSON.parse(this.#sealer.open(sealed, CONTEXT)) as Ticket;
    } catch {
      throw new AwsError("AccessDenied", "Access Denied", { status: 403 });
    }
    if (ticket.untilMs < this.#nowMs()) throw new AwsError("AccessDenied", "Request has expired", { status: 403 });
    return ticket.digest;
  }
}
