import type { RawHeaders } from "../core/invocation.ts";

/** Fields of which a message has one: where it has more, the first counts. The lines of others mean the same as one line with commas. */
const SINGLE = new Set([
  "authorization",
  "content-length",
  "content-type",
  "host",
  "last-event-id",
  "origin",
  "user-agent",
]);

/**
 * The headers of a request as they were received, with lookups by lower-case name. Immutable: a front end gives the same object to requests
 * whose headers are the same to the byte, and what was derived from them is then there already.
 */
export class RequestHeaders {
  readonly raw: RawHeaders;
  #names: readonly string[] | null;
  #json: string | null = null;
  #origin: string | null = null;
  #withoutAuthorization: RequestHeaders | null = null;

  /** @param names the names of `raw` in lower case, where somebody has them already */
  constructor(raw: RawHeaders, names: readonly string[] | null = null) {
    this.raw = raw;
    this.#names = names;
  }

  /** The value of a field by its lower-case name. */
  get(name: string): string | undefined {
    const names = (this.#names ??= lowerNames(this.raw));
    const first = names.indexOf(name);
    if (first < 0) return undefined;
    const value = this.raw[first * 2 + 1] ?? "";
    if (SINGLE.has(name) || !names.includes(name, first + 1)) return value;
    return names.flatMap((other, index) => (other === name ? [this.raw[index * 2 + 1] ?? ""] : [])).join(", ");
  }

  /** How many lines have this name. */
  count(name: string): number {
    return (this.#names ??= lowerNames(this.raw)).filter((other) => other === name).length;
  }

  /** `raw` as JSON text. */
  get json(): string {
    return (this.#json ??= JSON.stringify(this.raw));
  }

  /** Scheme and authority that the client used: `http://127.0.0.1:4000`. */
  get origin(): string {
    return (this.#origin ??= `http://${this.get("host") ?? "localhost"}`);
  }

  /** The same without what proves who the caller is. */
  get withoutAuthorization(): RequestHeaders {
    return (this.#withoutAuthorization ??= this.#filtered());
  }

  #filtered(): RequestHeaders {
    if (this.get("authorization") === undefined) return this;
    const kept: string[] = [];
    for (let index = 0; index + 1 < this.raw.length; index += 2) {
      const name = this.raw[index] ?? "";
      if (name.toLowerCase() !== "authorization") kept.push(name, this.raw[index + 1] ?? "");
    }
    return new RequestHeaders(kept);
  }
}

function lowerNames(raw: RawHeaders): readonly string[] {
  const names: string[] = [];
  for (let index = 0; index < raw.length; index += 2) names.push((raw[index] ?? "").toLowerCase());
  return names;
}
