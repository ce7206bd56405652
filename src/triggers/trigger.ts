import type { CloudEvent } from "../core/event.ts";

/** Hands an event over; resolves once it is accepted durably, rejects when it is not: then the source must not advance. */
export type Emit = (event: CloudEvent, signal: AbortSignal) => Promise<void>;

/** A running adapter that emits the events of one stored Trigger. One file per source in this folder, plus one line in `compose.ts`. */
export interface TriggerSource {
  /** Ends when the signal aborts; a rejection is a fault of the source and leads to a restart with backoff. */
  run(emit: Emit, signal: AbortSignal): Promise<void>;
}

/** Makes the sources of one kind. */
export interface TriggerKind {
  /** `cron`, `kafka`, … */
  readonly name: string;
  /** @throws KoineError `invalid-request` for settings that this kind does not understand */
  open(settings: Readonly<Record<string, unknown>>, checkpoint: Checkpoint): TriggerSource;
}

/** Where a source remembers how far it came; written after the events up to there were accepted. */
export interface Checkpoint {
  read(): Promise<string | null>;
  write(position: string): Promise<void>;
}
