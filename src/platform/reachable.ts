import { lookup } from "node:dns";
import { BlockList, isIP, type LookupFunction } from "node:net";
import { networkInterfaces } from "node:os";
import { KoineError } from "../core/errors.ts";

/** Addresses that are not the internet: this machine, private networks, and what the network itself uses. */
const PRIVATE: readonly (readonly [network: string, prefix: number, family: "ipv4" | "ipv6"])[] = [
  ["0.0.0.0", 8, "ipv4"],
  ["10.0.0.0", 8, "ipv4"],
  ["100.64.0.0", 10, "ipv4"],
  ["127.0.0.0", 8, "ipv4"],
  ["169.254.0.0", 16, "ipv4"],
  ["172.16.0.0", 12, "ipv4"],
  ["192.0.0.0", 24, "ipv4"],
  ["192.0.2.0", 24, "ipv4"],
  ["192.88.99.0", 24, "ipv4"],
  ["192.168.0.0", 16, "ipv4"],
  ["198.18.0.0", 15, "ipv4"],
  ["198.51.100.0", 24, "ipv4"],
  ["203.0.113.0", 24, "ipv4"],
  ["224.0.0.0", 4, "ipv4"],
  ["240.0.0.0", 4, "ipv4"],
  ["::", 96, "ipv6"],
  ["64:ff9b::", 96, "ipv6"],
  ["64:ff9b:1::", 48, "ipv6"],
  ["100::", 64, "ipv6"],
  ["2001::", 23, "ipv6"],
  ["2001:db8::", 32, "ipv6"],
  ["2002::", 16, "ipv6"],
  ["fc00::", 7, "ipv6"],
  ["fe80::", 10, "ipv6"],
  ["fec0::", 10, "ipv6"],
  ["ff00::", 8, "ipv6"],
];

/** Which addresses deliveries may go to: the internet, and what the configuration allows. A name is judged by what it resolves to, when it is used. */
export class Reachable {
  readonly #private = new BlockList();
  readonly #allowed = new BlockList();

  /** @param allowed addresses and networks such as `10.1.0.0/16`. @throws KoineError `invalid-configuration` */
  constructor(allowed: readonly string[]) {
    for (const [network, prefix, family] of PRIVATE) this.#private.addSubnet(network, prefix, family);
    for (const text of allowed) addNetwork(this.#allowed, text);
  }

  /** Whether the configuration allows an address that is not of the internet. */
  isAllowed(address: string): boolean {
    return this.#allowed.check(address, familyOf(address));
  }

  mayReach(address: string): boolean {
    if (isIP(address) === 0) return false;
    if (this.isAllowed(address)) return true;
    return !this.#private.check(address, familyOf(address)) && !isOwn(address);
  }

  /** Why an address may not be reached; null: it may. Without encryption nothing goes over the internet. */
  refusal(address: string, encrypted: boolean): string | null {
    if (!this.mayReach(address))
      return "it is this machine or in a private network; KOINE_DESTINATIONS_ALLOW can allow that";
    return encrypted || this.isAllowed(address) ? null : "over the internet only https is possible";
  }

  /** Resolves a name to those of its addresses that may be reached, for `net.connect`: so what was judged is what is connected to. */
  lookupFor(encrypted: boolean): LookupFunction {
    return (hostname, options, callback) => {
      lookup(hostname, { ...options, all: true }, (error, found) => {
        if (error !== null) {
          callback(error, []);
          return;
        }
        const reachable = found.filter(({ address }) => this.refusal(address, encrypted) === null);
        const [first] = reachable;
        if (first === undefined) {
          const detail = this.refusal(found[0]?.address ?? "", encrypted) ?? "";
          callback(new KoineError("destination-refused", { destination: hostname, detail }), []);
        } else if (options.all === true) callback(null, reachable);
        else callback(null, first.address, first.family);
      });
    };
  }
}

/** Interfaces come and go. */
function isOwn(address: string): boolean {
  return Object.values(networkInterfaces()).some((own) => own?.some((one) => one.address === address) === true);
}

function familyOf(address: string): "ipv4" | "ipv6" {
  return isIP(address) === 6 ? "ipv6" : "ipv4";
}

function addNetwork(list: BlockList, text: string): void {
  const [address = "", prefix] = text.split("/");
  const family = isIP(address);
  const bits = prefix === undefined ? (family === 6 ? 128 : 32) : Number(prefix);
  if (family === 0 || !Number.isInteger(bits) || bits < 0 || bits > (family === 6 ? 128 : 32)) {
    throw new KoineError("invalid-configuration", {
      detail: `KOINE_DESTINATIONS_ALLOW: '${text}' is no address and no network such as 10.0.0.0/8`,
    });
  }
  list.addSubnet(address, bits, familyOf(address));
}
