import { isIPv4, isIPv6 } from "node:net";
import { KoineError } from "./errors.ts";
import type { NetworkMode } from "./function.ts";
import { limits } from "./limits.ts";

/** How much of the network a sandbox has. */
export interface NetworkAccess {
  readonly mode: NetworkMode;
  /** What it may reach beyond the internet; only of use with `egress`. */
  readonly allow: readonly NetworkRule[];
}

/** One entry of an allow list. */
export interface NetworkRule {
  readonly target: RuleTarget;
  readonly portMin: number;
  readonly portMax: number;
  /** As it was written. */
  readonly text: string;
}

export type RuleTarget =
  /** The machine's own loopback interface, found inside at the same port of `localhost`. */
  | { readonly kind: "localhost" }
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "range"; readonly range: AddressRange };

export interface AddressRange {
  readonly family: 4 | 6;
  /** Its first address. */
  readonly value: bigint;
  readonly prefix: number;
}

export interface Address {
  readonly family: 4 | 6;
  readonly value: bigint;
}

const PORT_MAX = 65_535;
const HOST_NAME =
  /^(?=.{1,253}$)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/;

/**
 * Parses `TARGET[:PORT[-PORT]]`. A target is an IPv4 address or range (`10.1.2.0/24`), one of IPv6 in brackets where a port follows
 * (`[fd00::1]:5432`, `fd00::/8`), a host name (`db.internal:5432`), or `localhost`, which needs its ports.
 * @throws KoineError `invalid-network-rule`
 */
export function parseNetworkRule(text: string): NetworkRule {
  const fail = (detail: string): never => {
    throw new KoineError("invalid-network-rule", { rule: text.slice(0, 100), detail });
  };
  const [target, ports] = splitRule(text) ?? fail("it is not TARGET or TARGET:PORT");
  const [portMin, portMax] =
    ports === null
      ? [1, PORT_MAX]
      : (parsePorts(ports) ?? fail(`'${ports}' is not a port from 1 to ${PORT_MAX}, nor two joined by '-'`));
  if (target.toLowerCase() === "localhost") {
    const count = portMax - portMin + 1;
    if (ports === null) fail("localhost needs a port, such as localhost:5432");
    if (count > limits.networkLocalPortsMax) fail(`localhost takes at most ${limits.networkLocalPortsMax} ports`);
    return { target: { kind: "localhost" }, portMin, portMax, text };
  }
  const range = parseRange(target);
  if (range !== null) return { target: { kind: "range", range }, portMin, portMax, text };
  if (/^[0-9.]+(?:\/.*)?$/.test(target) || target.includes(":") || target.includes("/"))
    fail(`'${target}' is not an address or a range that begins at its first address`);
  if (!HOST_NAME.test(target)) fail(`'${target}' is not a host name`);
  return { target: { kind: "name", name: target.toLowerCase() }, portMin, portMax, text };
}

/** @throws KoineError `invalid-network-rule`, `limit-exceeded` */
export function parseNetworkRules(texts: readonly string[]): readonly NetworkRule[] {
  if (texts.length > limits.networkRulesMax) {
    throw new KoineError("limit-exceeded", {
      what: "number of network rules",
      value: texts.length,
      allowed: `at most ${limits.networkRulesMax}`,
    });
  }
  return texts.map(parseNetworkRule);
}

/** What a version gets: what it asked for, or else the platform's; never more than the platform's. */
export interface NetworkAsked {
  readonly network?: NetworkMode;
  readonly allowNetwork?: readonly string[];
}

const breadth: Readonly<Record<NetworkMode, number>> = { none: 0, egress: 1, host: 2 };

/**
 * The platform's access is the default and the most: a function can only have less of it.
 * @throws KoineError `network-not-allowed`, `invalid-network-rule`, `limit-exceeded`
 */
export function grantNetwork(asked: NetworkAsked, platform: NetworkAccess): NetworkAccess {
  const mode = asked.network ?? platform.mode;
  if (breadth[mode] > breadth[platform.mode]) {
    throw new KoineError("network-not-allowed", { what: `the network mode '${mode}'`, option: `--network ${mode}` });
  }
  if (asked.allowNetwork === undefined) return { mode, allow: mode === "egress" ? platform.allow : [] };
  const allow = parseNetworkRules(asked.allowNetwork);
  // A platform that lets functions reach everything has nothing to keep from them.
  const beyond =
    platform.mode === "host" ? undefined : allow.find((rule) => !platform.allow.some((wider) => covers(wider, rule)));
  if (beyond !== undefined) {
    throw new KoineError("network-not-allowed", { what: `'${beyond.text}'`, option: `--allow-network ${beyond.text}` });
  }
  return { mode, allow: mode === "egress" ? allow : [] };
}

function covers(wider: NetworkRule, rule: NetworkRule): boolean {
  if (rule.portMin < wider.portMin || rule.portMax > wider.portMax) return false;
  switch (wider.target.kind) {
    case "localhost":
      return rule.target.kind === "localhost";
    case "name":
      return rule.target.kind === "name" && rule.target.name === wider.target.name;
    case "range":
      return rule.target.kind === "range" && rangeWithin(rule.target.range, wider.target.range);
    default:
      return wider.target satisfies never;
  }
}

function rangeWithin(inner: AddressRange, outer: AddressRange): boolean {
  return inner.prefix >= outer.prefix && isWithin(inner, outer);
}

/** Whether the address (or the first of a range) lies in the range. */
export function isWithin(address: Address, range: AddressRange): boolean {
  if (address.family !== range.family) return false;
  const shift = BigInt((range.family === 4 ? 32 : 128) - range.prefix);
  return address.value >> shift === range.value >> shift;
}

/** null when the text is no address in its usual spelling. IPv4 within IPv6 (`::ffff:1.2.3.4`) is IPv4, for so the kernel sends it. */
export function parseAddress(text: string): Address | null {
  if (isIPv4(text)) {
    const value = text.split(".").reduce((sum, part) => sum * 256n + BigInt(part), 0n);
    return { family: 4, value };
  }
  if (!isIPv6(text) || text.includes("%")) return null;
  const value = parseIPv6(text);
  return value >> 32n === 0xffffn ? { family: 4, value: value & 0xffff_ffffn } : { family: 6, value };
}

function parseIPv6(text: string): bigint {
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text);
  const hex = (high: string | undefined, low: string | undefined): string =>
    (Number(high) * 256 + Number(low)).toString(16);
  const plain = dotted === null ? text : `${dotted[1]}${hex(dotted[2], dotted[3])}:${hex(dotted[4], dotted[5])}`;
  const [head = "", tail] = plain.split("::");
  const groups = (part: string | undefined): string[] => (part === undefined || part === "" ? [] : part.split(":"));
  const [before, after] = [groups(head), groups(tail)];
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => "0");
  return [...before, ...zeros, ...after].reduce((sum, group) => (sum << 16n) + BigInt(`0x${group}`), 0n);
}

/** `a.b.c.d` or eight groups; what `parseAddress` reads. */
export function formatAddress({ family, value }: Address): string {
  const [count, bits] = family === 4 ? [4, 8n] : [8, 16n];
  const parts = Array.from(
    { length: count },
    (_, index) => (value >> (bits * BigInt(count - 1 - index))) & ((1n << bits) - 1n),
  );
  return family === 4 ? parts.join(".") : parts.map((part) => part.toString(16)).join(":");
}

/** `ADDRESS` or `ADDRESS/PREFIX`; null when it is neither, or begins elsewhere than at its first address. */
export function parseRange(text: string): AddressRange | null {
  const [written = "", length, ...rest] = text.split("/");
  const address = parseAddress(written);
  if (address === null || rest.length > 0) return null;
  const bits = address.family === 4 ? 32 : 128;
  if (length === undefined) return { ...address, prefix: bits };
  if (!/^\d{1,3}$/.test(length)) return null;
  // `::ffff:0:0/96` and the like would mean another family than they are written in.
  if (written.includes(":") && address.family === 4) return null;
  const prefix = Number(length);
  if (prefix > bits) return null;
  const rest_ = address.value & ((1n << BigInt(bits - prefix)) - 1n);
  return rest_ === 0n ? { ...address, prefix } : null;
}

function splitRule(text: string): readonly [target: string, ports: string | null] | null {
  if (text.length > limits.networkRuleLengthMax || text === "") return null;
  const bracketed = /^\[([^\]]*)\](?::(.*))?$/.exec(text);
  if (bracketed !== null) return [bracketed[1] ?? "", bracketed[2] ?? null];
  // More than one colon is IPv6 without a port.
  if (text.split(":").length > 2) return [text, null];
  const colon = text.indexOf(":");
  return colon < 0 ? [text, null] : [text.slice(0, colon), text.slice(colon + 1)];
}

function parsePorts(text: string): readonly [number, number] | null {
  const [, first, last = first] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text) ?? [];
  const [min, max] = [Number(first), Number(last)];
  return first !== undefined && min >= 1 && max <= PORT_MAX && min <= max ? [min, max] : null;
}
