import { promises as dns } from "node:dns";
import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { type Address, type NetworkRule, parseAddress } from "../../core/network.ts";

const OWN_ADDRESSES_MS = 2_000;
const RESOLVERS_MS = 5_000;
const NAME_MS = 30_000;
const RESOLVERS_MAX = 3;

/** What is around the sandboxes and changes now and then: the machine's addresses, its resolvers, what names stand for. */
export class Surroundings {
  readonly #names = new Map<string, { readonly untilMs: number; readonly addresses: Promise<readonly Address[]> }>();
  readonly ownAddresses: () => readonly Address[] = kept(OWN_ADDRESSES_MS, addressesOfMachine);
  /** Addresses of the servers that the machine asks for names. */
  readonly resolvers: () => readonly string[] = kept(RESOLVERS_MS, resolversOfMachine);

  /** Looks up the names in the rules; those that cannot be found stand for nothing. */
  async namesIn(rules: readonly NetworkRule[]): Promise<ReadonlyMap<string, readonly Address[]>> {
    const names = new Set(rules.flatMap(({ target }) => (target.kind === "name" ? [target.name] : [])));
    return new Map(await Promise.all([...names].map(async (name) => [name, await this.#look(name)] as const)));
  }

  #look(name: string): Promise<readonly Address[]> {
    const nowMs = performance.now();
    const found = this.#names.get(name);
    if (found !== undefined && found.untilMs > nowMs) return found.addresses;
    const addresses = dns.lookup(name, { all: true }).then(
      (all) => all.map(({ address }) => parseAddress(address)).filter((address) => address !== null),
      () => [],
    );
    // Rules of all versions together are many at most where tenants come and go.
    if (this.#names.size >= NAMES_MAX) this.#names.clear();
    this.#names.set(name, { untilMs: nowMs + NAME_MS, addresses });
    return addresses;
  }
}

const NAMES_MAX = 10_000;

function kept<T>(ms: number, read: () => T): () => T {
  let untilMs = Number.NEGATIVE_INFINITY;
  let value: T;
  return () => {
    const nowMs = performance.now();
    if (nowMs >= untilMs) {
      value = read();
      untilMs = nowMs + ms;
    }
    return value;
  };
}

export function addressesOfMachine(): readonly Address[] {
  return Object.values(networkInterfaces())
    .flatMap((entries) => entries ?? [])
    .map(({ address }) => parseAddress(address.replace(/%.*/, "")))
    .filter((address) => address !== null);
}

function resolversOfMachine(): readonly string[] {
  try {
    const found = [...readFileSync("/etc/resolv.conf", "utf8").matchAll(/^\s*nameserver\s+(\S+)/gm)]
      .map(([, address = ""]) => address)
      .filter((address) => parseAddress(address.replace(/%.*/, "")) !== null);
    return found.length === 0 ? ["127.0.0.1"] : found.slice(0, RESOLVERS_MAX);
  } catch {
    return ["127.0.0.1"];
  }
}
