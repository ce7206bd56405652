import type { Activation, LogRecord } from "../../core/invocation.ts";
import { limits } from "../../core/limits.ts";
import type { PackedRecords } from "../store.ts";
import { BLOCK_ROWS_MAX } from "./activation-rows.ts";
import { Backlog } from "./backlog.ts";

/** How long records wait for others to travel with them. */
const GATHER_MS = 25;

export interface RelaySettings {
  /** Brings records to the process that has the log. */
  send(records: PackedRecords): void;
  /** Whether more would only wait on the way. */
  stuck(): boolean;
}

/** Stands in for the log in a process that has none: packs activations and lines as they come and sends them on in groups. Bounded as the log's own backlog. */
export class RecordRelay {
  readonly #settings: RelaySettings;
  readonly #backlog = new Backlog({
    recordsMax: limits.appendBacklogRecordsMax,
    bytesMax: limits.appendBacklogBytesMax,
  });
  #timer: NodeJS.Timeout | null = null;

  constructor(settings: RelaySettings) {
    this.#settings = settings;
  }

  activation(activation: Activation): void {
    this.#backlog.add({ activations: [activation], logs: [] });
    this.#added();
  }

  line(record: LogRecord): void {
    this.#backlog.add({ activations: [], logs: [record] });
    this.#added();
  }

  /** Sends everything that waits. */
  flush(): void {
    while (this.#backlog.records > 0) {
      const taken = this.#backlog.take(BLOCK_ROWS_MAX);
      const count = (taken.activations?.length ?? 0) + taken.logs.length;
      const lines = taken.logs.length === 0 ? null : JSON.stringify(taken.logs);
      const packed = taken.activations?.pack();
      this.#settings.send({ count, activations: packed?.records ?? null, shapes: packed?.shapes ?? "[]", lines });
    }
  }

  #added(): void {
    if (this.#backlog.records >= BLOCK_ROWS_MAX && !this.#settings.stuck()) this.flush();
    else if (this.#timer === null) this.#timer = setTimeout(() => this.#due(), GATHER_MS).unref();
  }

  #due(): void {
    this.#timer = this.#settings.stuck() ? setTimeout(() => this.#due(), GATHER_MS).unref() : null;
    if (this.#timer === null) this.flush();
  }
}
