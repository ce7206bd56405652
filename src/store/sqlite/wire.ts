import { KoineError, toKoineError, type ErrorCode, type ErrorValues } from "../../core/errors.ts";
import type { FormatName } from "./formats.ts";

/** What the caller and the thread of a database file say to each other. */
export interface ThreadOpening {
  readonly directory: string;
  readonly format: FormatName;
  /** Most pages of 4 KiB the file may have; null: as many as the disk has. */
  readonly pagesMax: number | null;
}

/** The first message of a thread. */
export type Started = { readonly started: true } | { readonly started: false; readonly error: WireError };

/** What travels: calls or answers, and what their bytes were packed into. */
export type Message<Each> = readonly [each: readonly Each[], luggage: Uint8Array<ArrayBuffer> | null];

/** One call. The calls of one turn of the caller's loop come in one message. */
export type Request = readonly [number: number, operation: string, args: readonly unknown[]];

/** The answer to one call. The answers of one transaction come in one message. */
export type Response =
  | readonly [number: number, ok: true, value: unknown]
  | readonly [number: number, ok: false, error: WireError];

export interface WireError {
  readonly code: ErrorCode;
  readonly values: ErrorValues;
  /** Message and stack of what was thrown, for the platform's log. */
  readonly cause: string;
}

/** The operation that closes the file and ends the thread, after all that was called before it. */
export const CLOSE = "close";

export function toWire(thrown: unknown): WireError {
  const { code, values, cause, stack } = toKoineError(thrown);
  return { code, values, cause: cause instanceof Error ? (cause.stack ?? cause.message) : (stack ?? "") };
}

export function fromWire({ code, values, cause }: WireError): KoineError {
  return new KoineError(code, values, { cause: new Error(cause) });
}
