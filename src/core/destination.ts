import { type Address, type AddressRange, isWithin, type NetworkRule, parseAddress, parseRange } from "./network.ts";

/** Where code in a sandbox wants to send something. */
export interface Destination {
  readonly address: Address;
  readonly port: number;
}

export interface DestinationContext {
  readonly allow: readonly NetworkRule[];
  /** All addresses that the machine itself has now. */
  readonly ownAddresses: readonly Address[];
  /** What the names of the allow list stand for now. */
  addressesOf(name: string): readonly Address[];
}

export type Judgement = { readonly allowed: true } | { readonly allowed: false; readonly reason: string };

/**
 * Whether `egress` lets it out: the internet always, what is closer only by the list. What is not known to be the internet is not.
 * The machine's own addresses and those of metadata services are refused even within a range of the list: only an entry for exactly
 * that address opens them.
 */
export function judgeDestination({ address, port }: Destination, context: DestinationContext): Judgement {
  const isOwn = context.ownAddresses.some((own) => isSame(own, address));
  const isGuarded = isOwn || metadataAddresses.some((one) => isSame(one, address));
  const listed = context.allow.some((rule) => {
    if (port < rule.portMin || port > rule.portMax) return false;
    if (rule.target.kind === "name") return context.addressesOf(rule.target.name).some((one) => isSame(one, address));
    if (rule.target.kind !== "range" || !isWithin(address, rule.target.range)) return false;
    return !isGuarded || rule.target.range.prefix === (address.family === 4 ? 32 : 128);
  });
  if (listed) return { allowed: true };
  if (isOwn) return { allowed: false, reason: "an address of the machine itself" };
  const name = closerThanInternet(address);
  return name === null ? { allowed: true } : { allowed: false, reason: name };
}

function isSame(one: Address, other: Address): boolean {
  return one.family === other.family && one.value === other.value;
}

/** What the address belongs to, in words; null when it is one of the public internet. */
export function closerThanInternet(address: Address): string | null {
  const within = specialRanges.find(({ range }) => isWithin(address, range));
  if (within !== undefined) return within.name;
  if (address.family === 4) return null;
  const carried = carriedIPv4(address.value);
  if (carried !== null) return closerThanInternet({ family: 4, value: carried });
  return isWithin(address, publicIPv6) ? null : "not the public internet";
}

/** Addresses of IPv6 behind which a gateway may find one of IPv4: NAT64 and 6to4. */
function carriedIPv4(value: bigint): bigint | null {
  if (value >> 32n === 0x0064_ff9b_0000_0000_0000_0000n) return value & 0xffff_ffffn;
  if (value >> 112n === 0x2002n) return (value >> 80n) & 0xffff_ffffn;
  return null;
}

const addressOf = (text: string): Address => {
  const parsed = parseAddress(text);
  if (parsed === null) throw new Error(`${text} is not an address`);
  return parsed;
};

/** Where clouds tell a machine its credentials. */
export const metadataAddresses: readonly Address[] = [
  "169.254.169.254",
  "169.254.170.2",
  "169.254.170.23",
  "100.100.100.200",
  "fd00:ec2::254",
  "fd00:ec2::23",
].map(addressOf);

const range = (text: string): AddressRange => {
  const parsed = parseRange(text);
  if (parsed === null) throw new Error(`${text} is not a range`);
  return parsed;
};

const publicIPv6 = range("2000::/3");

const special = (
  name: string,
  ...texts: string[]
): readonly { readonly name: string; readonly range: AddressRange }[] =>
  texts.map((text) => ({ name, range: range(text) }));

/** Of IANA's registries of special-purpose addresses: everything that is not globally reachable. */
export const specialRanges: readonly { readonly name: string; readonly range: AddressRange }[] = [
  ...special("the loopback interface", "127.0.0.0/8"),
  ...special("a link-local or metadata address", "169.254.0.0/16", "fe80::/10"),
  ...special(
    "a private range",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
    "fec0::/10",
  ),
  ...special("a multicast address", "224.0.0.0/4", "ff00::/8"),
  ...special("a reserved range", "0.0.0.0/8", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4"),
  ...special(
    "a range for documentation",
    "192.0.2.0/24",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "2001:db8::/32",
    "3fff::/20",
  ),
  ...special("a tunnel", "2001::/23"),
];
