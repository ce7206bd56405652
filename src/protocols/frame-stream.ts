import type { ErrorReport } from "../core/errors.ts";
import { KoineError } from "../core/errors.ts";
import type { Exchange } from "../core/invocation.ts";
import { limits } from "../core/limits.ts";
import { LAST, type Outbox, frameType } from "./frame-codec.ts";
import type { EncodedHead, ParsedHead } from "./frame-json.ts";
import type { LinkInvocation, LinkResponder } from "./protocol.ts";

/** The link as one of its streams sees it. */
export interface StreamSender {
  /** Something was put into the outbox. */
  schedule(): void;
  ended(number: number): void;
}

const EMPTY = Buffer.alloc(0);
const WINDOW_BYTES = limits.streamWindowBytes;
/** Credit is given in steps of this size: a small answer needs none at all. */
const CREDIT_BYTES = WINDOW_BYTES / 2;

/** The engine's end of one invocation: windows in both directions, and the order in which frames may come. */
export class FrameStream implements Exchange {
  readonly number: number;
  /** The invocation's id. */
  readonly id: string;
  readonly #responder: LinkResponder;
  readonly #link: StreamSender;
  readonly #outbox: Outbox;
  #phase: "open" | "cancelled" | "ended" = "open";
  #headSeen = false;
  #bodySeen = false;
  /** Bytes the instance may still send. */
  #receiveWindow = WINDOW_BYTES;
  /** Bytes that were received and for which no credit was given yet. */
  #uncredited = 0;
  #paused = false;
  /** Bytes we may still send. */
  #sendWindow = WINDOW_BYTES;
  #waiting: Buffer[] = [];
  #sendComplete = false;
  #drainWanted = false;

  // oxlint-disable-next-line max-params -- made once per invocation: an options object would be garbage on the hot path
  constructor(number: number, id: string, responder: LinkResponder, link: StreamSender, outbox: Outbox) {
    this.number = number;
    this.id = id;
    this.#responder = responder;
    this.#link = link;
    this.#outbox = outbox;
  }

  start(invocation: LinkInvocation, head: EncodedHead): void {
    const { body } = invocation;
    const fits = body.length <= WINDOW_BYTES;
    const first = fits ? body : body.subarray(0, WINDOW_BYTES);
    const complete = invocation.bodyComplete && fits;
    this.#sendWindow -= first.length;
    this.#outbox.headed(frameType.invoke, this.number, complete ? LAST : 0, head, first);
    this.#link.schedule();
    if (!fits) this.#waiting.push(body.subarray(WINDOW_BYTES));
    if (invocation.bodyComplete) this.#sendComplete = true;
    else this.#drainWanted = !fits;
  }

  // Exchange: what the engine does

  write(chunk: Buffer): boolean {
    if (this.#phase !== "open" || this.#sendComplete || chunk.length === 0) return true;
    this.#waiting.push(chunk);
    this.#sendWaiting();
    this.#drainWanted = this.#waiting.length > 0 || this.#sendWindow === 0;
    return !this.#drainWanted;
  }

  end(): void {
    if (this.#phase !== "open" || this.#sendComplete) return;
    this.#sendComplete = true;
    this.#drainWanted = false;
    if (this.#waiting.length === 0) this.#sendData(EMPTY, LAST);
  }

  resume(): void {
    this.#paused = false;
    this.#giveCredit();
  }

  cancel(): void {
    if (this.#phase !== "open") return;
    this.#phase = "cancelled";
    this.#waiting = [];
    this.#outbox.numbers(frameType.cancel, this.number, 0);
    this.#link.schedule();
    this.resume();
  }

  // What the instance does. A text says how it broke the rules.

  head({ head, problem }: ParsedHead): string | null {
    if (this.#headSeen) return "a second HEAD on one stream";
    this.#headSeen = true;
    if (problem === null) {
      if (this.#phase === "open") this.#responder.head(head);
      return null;
    }
    // The answer is the function's fault and fails alone; what else the instance sends on this stream is dropped.
    this.#outbox.numbers(frameType.cancel, this.number, 0);
    this.#link.schedule();
    this.failed(new KoineError("invalid-response", { detail: problem }).report());
    return null;
  }

  dataHeader(length: number): string | null {
    if (!this.#headSeen) return "DATA before HEAD";
    if (this.#bodySeen) return "DATA after the last of a body";
    if (length > this.#receiveWindow) return "more DATA than its window allows";
    this.#receiveWindow -= length;
    return null;
  }

  data(piece: Buffer, last: boolean): void {
    if (this.#phase === "ended") return;
    if (last) this.#bodySeen = true;
    this.#uncredited += piece.length;
    if (piece.length > 0 && this.#phase === "open" && !this.#responder.body(piece, last)) this.#paused = true;
    if (last) this.#bodyEnded();
    else this.#giveCredit();
  }

  credit(bytes: number): string | null {
    if (this.#phase !== "open") return null;
    this.#sendWindow += bytes;
    if (this.#sendWindow > WINDOW_BYTES) return "more CREDIT than bytes were sent";
    this.#sendWaiting();
    if (this.#drainWanted && this.#waiting.length === 0 && this.#sendWindow > 0) {
      this.#drainWanted = false;
      this.#responder.drained();
    }
    return null;
  }

  settled(): string | null {
    if (!this.#headSeen) return "END before HEAD";
    if (!this.#bodySeen) this.#bodyEnded();
    this.#settle();
    this.#responder.succeeded();
    return null;
  }

  failed(error: ErrorReport): void {
    this.#settle();
    this.#responder.failed(error);
  }

  lost(): void {
    if (this.#phase === "ended") return;
    this.#settle();
    this.#responder.lost();
  }

  #bodyEnded(): void {
    this.#bodySeen = true;
    if (this.#phase === "open") this.#responder.bodyEnded();
  }

  #settle(): void {
    this.#phase = "ended";
    this.#waiting = [];
    this.#link.ended(this.number);
  }

  #giveCredit(): void {
    if (this.#paused || this.#bodySeen || this.#phase === "ended" || this.#uncredited < CREDIT_BYTES) return;
    this.#outbox.numbers(frameType.credit, this.number, 4, this.#uncredited);
    this.#receiveWindow += this.#uncredited;
    this.#uncredited = 0;
    this.#link.schedule();
  }

  #sendWaiting(): void {
    while (this.#sendWindow > 0) {
      const chunk = this.#waiting[0];
      if (chunk === undefined) return;
      const part = chunk.length <= this.#sendWindow ? chunk : chunk.subarray(0, this.#sendWindow);
      if (part === chunk) this.#waiting.shift();
      else this.#waiting[0] = chunk.subarray(part.length);
      this.#sendData(part, this.#sendComplete && this.#waiting.length === 0 ? LAST : 0);
    }
  }

  #sendData(part: Buffer, flags: number): void {
    this.#sendWindow -= part.length;
    this.#outbox.frame(frameType.data, this.number, flags, part);
    this.#link.schedule();
  }
}
