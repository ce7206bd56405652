import { type Address, type AddressRange, type NetworkRule, parseAddress } from "../../core/network.ts";
import { metadataAddresses, specialRanges } from "../../core/destination.ts";
import {
  ACK,
  APPEND,
  attribute,
  attributeIn,
  CREATE,
  type Message,
  netShort,
  netWord,
  REQUEST,
  text0,
  word,
} from "./netlink.ts";

/**
 * What is put into the network namespace of a sandbox with `egress`. It has a loopback interface and nothing else, so no packet can
 * leave it: what goes to foreign addresses is turned to a port of loopback where the platform listens, which passes on what it judges
 * to be allowed. Should all rules be lost, there is no network at all.
 */
export const insideAddresses = {
  /** Where the platform listens, and answers questions for names. Of IANA's range for such inner links. */
  platform4: "192.0.0.1",
  own4: "192.0.0.2",
  platform6: "fd6b:6f69:6e65::1",
  own6: "fd6b:6f69:6e65::2",
} as const;

/** Below 1,024: code inside cannot take it, so a function's own ports never collide. */
export const RELAY_PORT = 15;
export const DNS_PORT = 53;

const AF_INET = 2;
const AF_INET6 = 10;
const LOOPBACK_INDEX = 1;

/** Just the interface, as in a sandbox without any network. */
export function loopbackMessages(): Message[] {
  const body = Buffer.alloc(16);
  body.writeInt32LE(LOOPBACK_INDEX, 4);
  // IFF_UP, and that it is this flag which changes.
  body.writeUInt32LE(1, 8);
  body.writeUInt32LE(1, 12);
  return [{ type: RTM_NEWLINK, flags: REQUEST | ACK, body }];
}

const RTM_NEWLINK = 16;
const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;

export interface RoutesPlan {
  readonly withIPv6: boolean;
  /** Addresses of the machine. */
  readonly ownAddresses: readonly Address[];
}

/** Addresses and ways out. What is refused always is refused by a route: then connecting fails at once, with EACCES. */
export function routeMessages({ withIPv6, ownAddresses }: RoutesPlan): Message[] {
  const { platform4, own4, platform6, own6 } = insideAddresses;
  const refused = [
    ...specialRanges.map(({ range }) => range),
    ...[...metadataAddresses, ...ownAddresses].map(single),
  ].filter(({ family }) => family === 4 || withIPv6);
  const kept = distinct(refused).filter(
    ({ family, value, prefix }) => !(family === 4 && value >> 24n === 127n && prefix >= 8),
  );
  return [
    addressMessage(platform4, 32),
    addressMessage(own4, 32),
    route({ type: UNICAST, range: { family: 4, value: 0n, prefix: 0 }, source: own4 }),
    ...(withIPv6
      ? [
          addressMessage(platform6, 128),
          addressMessage(own6, 128),
          route({ type: UNICAST, range: { family: 6, value: 0n, prefix: 0 }, source: own6 }),
        ]
      : []),
    ...kept.map((range) => route({ type: PROHIBIT, range, source: null })),
  ];
}

/** Opens the ways to what a list allows; whether its ports fit is judged for each connection. */
export function openingMessages(allow: readonly NetworkRule[], { withIPv6, ownAddresses }: RoutesPlan): Message[] {
  const { own4, own6 } = insideAddresses;
  const ranges = allow.flatMap(({ target }) => {
    if (target.kind === "range") return [target.range];
    // What a name stands for may change at any time.
    return target.kind === "name" ? [...privateRanges, ...ownAddresses.map(single)] : [];
  });
  return distinct(ranges)
    .filter(({ family }) => family === 4 || withIPv6)
    .map((range) => route({ type: UNICAST, range, source: range.family === 4 ? own4 : own6 }));
}

const privateRanges = specialRanges.filter(({ name }) => name === "a private range").map(({ range }) => range);

/** Removes the way to everything that is not inside. */
export function closingMessages(withIPv6: boolean): Message[] {
  const { platform4, own4, platform6, own6 } = insideAddresses;
  const addresses = [[platform4, 32] as const, [own4, 32] as const];
  const addresses6 = [[platform6, 128] as const, [own6, 128] as const];
  const families = withIPv6 ? ([4, 6] as const) : ([4] as const);
  return [
    ...families.map((family): Message => {
      const source = family === 4 ? own4 : own6;
      return {
        ...route({ type: UNICAST, range: { family, value: 0n, prefix: 0 }, source }),
        type: RTM_DELROUTE,
        flags: REQUEST | ACK,
      };
    }),
    ...[...addresses, ...(withIPv6 ? addresses6 : [])].map(([address, prefix]): Message => ({
      ...addressMessage(address, prefix),
      type: RTM_DELADDR,
      flags: REQUEST | ACK,
    })),
  ];
}

function single(address: Address): AddressRange {
  return { ...address, prefix: address.family === 4 ? 32 : 128 };
}

function distinct(ranges: readonly AddressRange[]): AddressRange[] {
  return [...new Map(ranges.map((range) => [`${range.family}/${range.value}/${range.prefix}`, range])).values()];
}

function addressMessage(text: string, prefix: number): Message {
  const value = bytesOf(text);
  const body = Buffer.alloc(8);
  body.writeUInt8(value.length === 4 ? AF_INET : AF_INET6, 0);
  body.writeUInt8(prefix, 1);
  // Usable at once: nobody else could have it. (IFA_F_NODAD)
  if (value.length !== 4) body.writeUInt8(2, 2);
  body.writeUInt32LE(LOOPBACK_INDEX, 4);
  // IFA_ADDRESS and IFA_LOCAL
  return {
    type: RTM_NEWADDR,
    flags: REQUEST | ACK | CREATE,
    body: Buffer.concat([body, attribute(1, value), attribute(2, value)]),
  };
}

const UNICAST = 1;
const LOCAL = 2;
const PROHIBIT = 8;
const TABLE_MAIN = 254;
const PROTOCOL_STATIC = 4;
const SCOPE_LINK = 253;
const REPLACE = 0x100;

function route(options: {
  readonly type: number;
  readonly range: AddressRange;
  readonly source: string | null;
}): Message {
  const { type, range, source } = options;
  const is4 = range.family === 4;
  const header = Buffer.from([
    is4 ? AF_INET : AF_INET6,
    range.prefix,
    0,
    0,
    TABLE_MAIN,
    PROTOCOL_STATIC,
    is4 && source !== null ? SCOPE_LINK : 0,
    // IPv6 takes any other way through loopback for a refusal.
    type === UNICAST && !is4 ? LOCAL : type,
    0,
    0,
    0,
    0,
  ]);
  const body = Buffer.concat([
    header,
    // RTA_DST, RTA_OIF, RTA_PRIORITY and RTA_PREFSRC
    ...(range.prefix === 0 ? [] : [attribute(1, rangeBytes(range))]),
    ...(source === null ? [] : [attribute(4, word(LOOPBACK_INDEX)), attribute(7, bytesOf(source))]),
    attribute(6, word(source === null ? ROUTE_PRIORITY_REFUSED : ROUTE_PRIORITY_OPEN)),
  ]);
  return { type: RTM_NEWROUTE, flags: REQUEST | ACK | CREATE | REPLACE, body };
}

/** The lower number wins where a range is refused and opened alike. */
const ROUTE_PRIORITY_OPEN = 50;
const ROUTE_PRIORITY_REFUSED = 100;

export function bytesOf(text: string): Buffer {
  const address = parseAddress(text);
  if (address === null) throw new Error(`${text} is not an address`);
  return addressBytes(address);
}

function addressBytes({ family, value }: Address): Buffer {
  return Buffer.from(value.toString(16).padStart(family === 4 ? 8 : 32, "0"), "hex");
}

const rangeBytes = (range: AddressRange): Buffer => addressBytes(range);

const NFTABLES = 10;
const BATCH_BEGIN = 16;
const BATCH_END = 17;
const NEW_TABLE = (NFTABLES << 8) | 0;
const NEW_CHAIN = (NFTABLES << 8) | 3;
const NEW_RULE = (NFTABLES << 8) | 6;
const FAMILY_INET = 1;
const LOCAL_OUT = 3;
/** Where destinations are changed. */
const PRIORITY = -100;
const TABLE = "koine";
const CHAIN = "out";

/** Turns new connections to foreign addresses to the platform's port; one batch, so that it is there as a whole or not at all. */
export function redirectMessages(withIPv6: boolean): Message[] {
  const names = [attribute(1, text0(TABLE)), attribute(2, text0(CHAIN))];
  const rules = [...rulesOf(4), ...(withIPv6 ? rulesOf(6) : [])];
  const hook = attribute(4, [attribute(1, netWord(LOCAL_OUT)), attribute(2, netWord(PRIORITY))]);
  return [
    { type: BATCH_BEGIN, flags: REQUEST, body: netfilterHeader(0, NFTABLES) },
    nft(NEW_TABLE, CREATE, [attribute(1, text0(TABLE))]),
    nft(NEW_CHAIN, CREATE, [attribute(1, text0(TABLE)), attribute(3, text0(CHAIN)), hook, attribute(7, text0("nat"))]),
    ...rules.map((expressions) => nft(NEW_RULE, CREATE | APPEND, [...names, attribute(4, expressions)])),
    { type: BATCH_END, flags: REQUEST, body: netfilterHeader(0, NFTABLES) },
  ];
}

function nft(type: number, flags: number, attributes: readonly Buffer[]): Message {
  return {
    type,
    flags: REQUEST | ACK | flags,
    body: Buffer.concat([netfilterHeader(FAMILY_INET, 0), ...attributes]),
  };
}

export function netfilterHeader(family: number, resource: number): Buffer {
  const header = Buffer.alloc(4);
  header.writeUInt8(family, 0);
  header.writeUInt16BE(resource, 2);
  return header;
}

/** Stay: loopback, and the sandbox's own address. Turn: TCP and UDP to everything else. */
function rulesOf(family: 4 | 6): Buffer[][] {
  const { own4, own6 } = insideAddresses;
  const stays =
    family === 4
      ? [
          [...payload(16, 1), ...equal(Buffer.from([127]))],
          [...payload(16, 4), ...equal(bytesOf(own4))],
        ]
      : [bytesOf("::1"), bytesOf(own6)].map((own) => [...payload(24, 16), ...equal(own)]);
  return [
    ...stays.map((match) => [...ofFamily(family), ...match, accept()]),
    ...[TCP, UDP].map((protocol) => [
      ...ofFamily(family),
      ...meta(META_L4PROTO),
      ...equal(Buffer.from([protocol])),
      ...turn(family),
    ]),
  ];
}

export const TCP = 6;
export const UDP = 17;
const META_NFPROTO = 15;
const META_L4PROTO = 16;
const REGISTER_1 = 1;
const REGISTER_2 = 2;

const expression = (name: string, attributes: readonly Buffer[]): Buffer =>
  attribute(1, [attribute(1, text0(name)), attribute(2, attributes)]);

const meta = (key: number): Buffer[] => [
  expression("meta", [attribute(1, netWord(REGISTER_1)), attribute(2, netWord(key))]),
];

const ofFamily = (family: 4 | 6): Buffer[] => [
  ...meta(META_NFPROTO),
  ...equal(Buffer.from([family === 4 ? AF_INET : AF_INET6])),
];

/** Loads bytes of the network header. */
const payload = (offset: number, length: number): Buffer[] => [
  expression("payload", [
    attribute(1, netWord(REGISTER_1)),
    attribute(2, netWord(1)),
    attribute(3, netWord(offset)),
    attribute(4, netWord(length)),
  ]),
];

const equal = (value: Buffer): Buffer[] => [
  expression("cmp", [attribute(1, netWord(REGISTER_1)), attribute(2, netWord(0)), attribute(3, [attribute(1, value)])]),
];

/** Into the register of verdicts, number 0. */
const accept = (): Buffer =>
  expression("immediate", [attribute(1, netWord(0)), attribute(2, [attribute(2, [attribute(1, netWord(1))])])]);

function turn(family: 4 | 6): Buffer[] {
  const { platform4, platform6 } = insideAddresses;
  const put = (register: number, value: Buffer): Buffer =>
    expression("immediate", [attribute(1, netWord(register)), attribute(2, [attribute(1, value)])]);
  return [
    put(REGISTER_1, bytesOf(family === 4 ? platform4 : platform6)),
    put(REGISTER_2, netShort(RELAY_PORT)),
    // Type DNAT, family, register of the address, register of the port.
    expression("nat", [
      attribute(1, netWord(1)),
      attribute(2, netWord(family === 4 ? AF_INET : AF_INET6)),
      attribute(3, netWord(REGISTER_1)),
      attribute(5, netWord(REGISTER_2)),
    ]),
  ];
}

const CONNTRACK_GET = (1 << 8) | 1;
const REPLY_TUPLE = 2;

export interface Conversation {
  readonly protocol: typeof TCP | typeof UDP;
  /** As the platform's socket sees it. */
  readonly peer: Address;
  readonly peerPort: number;
}

/** Asks the kernel where a conversation that was turned to the platform was to go. */
export function conversationMessage({ protocol, peer, peerPort }: Conversation): Message {
  const is4 = peer.family === 4;
  const platform = bytesOf(is4 ? insideAddresses.platform4 : insideAddresses.platform6);
  // Source and destination of an answer: addresses of IPv4 are attributes 1 and 2, of IPv6 3 and 4.
  const ips = [attribute(is4 ? 1 : 3, platform), attribute(is4 ? 2 : 4, addressBytes(peer))];
  const ports = [
    attribute(1, Buffer.from([protocol])),
    attribute(2, netShort(RELAY_PORT)),
    attribute(3, netShort(peerPort)),
  ];
  const tuple = attribute(REPLY_TUPLE, [attribute(1, ips), attribute(2, ports)]);
  return {
    type: CONNTRACK_GET,
    flags: REQUEST,
    body: Buffer.concat([netfilterHeader(is4 ? AF_INET : AF_INET6, 0), tuple]),
  };
}

/** From the answer to that; null when it cannot be read. */
export function destinationIn(
  answer: Buffer,
  family: 4 | 6,
): { readonly address: Address; readonly port: number } | null {
  const attributes = answer.subarray(4);
  const address = attributeIn(attributes, [1, 1, family === 4 ? 2 : 4]);
  const port = attributeIn(attributes, [1, 2, 3]);
  if (address === null || port === null || port.length !== 2) return null;
  return { address: { family, value: BigInt(`0x${address.toString("hex")}`) }, port: port.readUInt16BE(0) };
}
