import type { Settlement } from "../store.ts";

/** Where bytes begin in what travels with a message, and how many they are. */
type Place = readonly [at: number, length: number];

/** Larger ones travel by themselves: whoever keeps one of a message would keep the memory of all. */
const TOGETHER_BYTES_MAX = 16 * 1024;
const FIRST_BYTES = 16 * 1024;

/** Small payloads of one message in one memory: to make, to send and to collect one for each costs more than their content does. */
export class Luggage {
  #bytes = new Uint8Array(0);
  #end = 0;

  /** What stands for the bytes in the message. */
  readonly pack = (bytes: unknown): unknown => {
    if (!(bytes instanceof Uint8Array)) return bytes;
    // A message carries the whole memory behind a view, so one that travels by itself goes as a copy.
    if (bytes.length > TOGETHER_BYTES_MAX) return new Uint8Array(bytes);
    const at = this.#end;
    this.#end += bytes.length;
    if (this.#end > this.#bytes.length) this.#grow();
    this.#bytes.set(bytes, at);
    return [at, bytes.length] satisfies Place;
  };

  /** For the message, which it must be transferred with; null: there is nothing. */
  take(): Uint8Array<ArrayBuffer> | null {
    if (this.#end === 0) return null;
    const taken = this.#bytes;
    this.#bytes = new Uint8Array(0);
    this.#end = 0;
    return taken;
  }

  #grow(): void {
    const larger = new Uint8Array(Math.max(FIRST_BYTES, this.#end * 2));
    larger.set(this.#bytes);
    this.#bytes = larger;
  }
}

/** The bytes of a message in the places of what stands for them. */
export function unpacking(luggage: Uint8Array | null): (packed: unknown) => unknown {
  return (packed) => {
    if (!Array.isArray(packed)) return packed;
    const [at, length] = packed as unknown as Place;
    return luggage === null ? new Uint8Array(0) : luggage.subarray(at, at + length);
  };
}

type Mapping = (bytes: unknown) => unknown;

/** The arguments of a call with its bytes mapped; those of other operations go as they are. */
export function mapArguments(operation: string, args: readonly unknown[], map: Mapping): readonly unknown[] {
  switch (operation) {
    case "enqueue": {
      const [items, ...rest] = args;
      return [mapItems(items as readonly WithPayload[], map), ...rest];
    }
    case "settle": {
      const [receipt, settlement] = args;
      return [receipt, mapSettlement(settlement as Settlement, map)];
    }
    case "putResult": {
      const [id, atMs, result] = args as [unknown, unknown, { readonly body: unknown }];
      return [id, atMs, { ...result, body: map(result.body) }];
    }
    default:
      return args;
  }
}

/** Operations whose answers hold bytes. */
export function answersBytes(operation: string): boolean {
  return operation === "lease";
}

/** The answer of such an operation with its bytes mapped. */
export function mapAnswer(answer: unknown, map: Mapping): unknown {
  return (answer as readonly { readonly item: WithPayload }[]).map((lease) => ({
    ...lease,
    item: { ...lease.item, payload: map(lease.item.payload) },
  }));
}

interface WithPayload {
  readonly payload: unknown;
}

function mapItems(items: readonly WithPayload[], map: Mapping): readonly WithPayload[] {
  return items.map((item) => ({ ...item, payload: map(item.payload) }));
}

function mapSettlement(settlement: Settlement, map: Mapping): unknown {
  if (!("payload" in settlement) && !("followUps" in settlement)) return settlement;
  const { payload, followUps } = { payload: undefined, followUps: undefined, ...settlement };
  return {
    ...settlement,
    ...(payload === undefined ? {} : { payload: map(payload) }),
    ...(followUps === undefined ? {} : { followUps: mapItems(followUps, map) }),
  };
}
