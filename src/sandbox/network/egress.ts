import type { Server, Socket } from "node:net";
import { createServer } from "node:net";
import { type Destination, judgeDestination } from "../../core/destination.ts";
import { type Address, formatAddress, type NetworkRule, parseAddress, parseNetworkRule } from "../../core/network.ts";
import { DatagramRelay } from "./datagrams.ts";
import type { Netlink, NetworkKernel } from "./kernel.ts";
import {
  closingMessages,
  type Conversation,
  conversationMessage,
  destinationIn,
  DNS_PORT,
  insideAddresses,
  openingMessages,
  TCP,
  UDP,
} from "./plan.ts";
import { StreamRelay } from "./streams.ts";
import type { Surroundings } from "./surroundings.ts";
import type { EgressDescriptors, LocalPort, RelaySettings } from "./wire.ts";

export interface EgressOptions {
  readonly egress: EgressDescriptors;
  readonly allow: readonly string[];
  readonly local: readonly LocalPort[];
  readonly kernel: NetworkKernel;
  readonly surroundings: Surroundings;
  readonly settings: RelaySettings;
}

/** Where something goes that came out of a sandbox. */
export type Way =
  | { readonly kind: "to"; readonly host: string; readonly port: number }
  /** To the machine's resolvers. */
  | { readonly kind: "names" }
  | { readonly kind: "refused" };

/** What goes out of one sandbox with `egress`, and what it may reach. */
export class EgressNetwork {
  readonly #options: EgressOptions;
  readonly #routes: Netlink;
  readonly #tracked: Netlink;
  readonly #streams: StreamRelay;
  readonly #datagrams: DatagramRelay;
  readonly #servers: Server[];
  #localServers: Server[] = [];
  #rules: readonly NetworkRule[] = [];
  #open = true;

  constructor(options: EgressOptions) {
    const { egress, kernel, settings, surroundings } = options;
    this.#options = options;
    this.#routes = kernel.netlinkOn(egress.routes);
    this.#tracked = kernel.netlinkOn(egress.tracked);
    this.#streams = new StreamRelay(settings, surroundings);
    const wayOf = (peer: Address, peerPort: number): Promise<Way> => this.#way({ protocol: UDP, peer, peerPort });
    this.#datagrams = new DatagramRelay({ settings, surroundings, wayOf });
    this.#servers = egress.streams.map((fd) => this.#serve(fd));
    for (const { descriptor, family } of egress.datagrams) this.#datagrams.add(descriptor, family);
    this.allow(options);
  }

  /** @param allow null: nothing any more */
  allow({ allow, local }: { readonly allow: readonly string[] | null; readonly local: readonly LocalPort[] }): void {
    const { egress, surroundings } = this.#options;
    for (const server of this.#localServers.splice(0)) server.close();
    if (allow === null) {
      this.#open = false;
      this.#end();
      this.#routes.change(closingMessages(egress.withIPv6));
      return;
    }
    const rules = allow.map(parseNetworkRule);
    const plan = { withIPv6: egress.withIPv6, ownAddresses: surroundings.ownAddresses() };
    const opening = openingMessages(rules, plan);
    // What an earlier list had opened stays open as a way; every connection is judged all the same.
    if (opening.length > 0) this.#routes.change(opening);
    this.#rules = rules;
    this.#localServers = local.map((one) => this.#serveLocally(one));
  }

  close(): void {
    this.#end();
    this.#routes[Symbol.dispose]();
    this.#tracked[Symbol.dispose]();
  }

  #end(): void {
    this.#streams.close();
    this.#datagrams.close();
    for (const server of [...this.#servers.splice(0), ...this.#localServers.splice(0)]) server.close();
  }

  #serve(fd: number): Server {
    const server = createServer({ pauseOnConnect: true, allowHalfOpen: true, noDelay: true }, (socket) => {
      const peer = parseAddress(socket.remoteAddress ?? "");
      const { remotePort } = socket;
      if (peer === null || remotePort === undefined) return void socket.on("error", () => {}).resetAndDestroy();
      this.#streams.take(socket, this.#way({ protocol: TCP, peer, peerPort: remotePort }));
    });
    // Nothing but the end of its namespace ends it.
    server.on("error", () => {});
    server.listen({ fd });
    return server;
  }

  #serveLocally({ descriptor, port }: LocalPort): Server {
    const pass = (socket: Socket): void =>
      this.#streams.take(socket, Promise.resolve({ kind: "to", host: "localhost", port }));
    const server = createServer({ pauseOnConnect: true, allowHalfOpen: true, noDelay: true }, pass);
    return server.on("error", () => {}).listen({ fd: descriptor });
  }

  async #way(conversation: Conversation): Promise<Way> {
    const destination = this.#destinationOf(conversation);
    if (destination === null || !this.#open) return { kind: "refused" };
    if (isPlatform(destination.address)) {
      return destination.port === DNS_PORT ? { kind: "names" } : { kind: "refused" };
    }
    const { surroundings } = this.#options;
    const rules = this.#rules;
    const names = await surroundings.namesIn(rules);
    const judgement = judgeDestination(destination, {
      allow: rules,
      ownAddresses: surroundings.ownAddresses(),
      addressesOf: (name) => names.get(name) ?? [],
    });
    if (!judgement.allowed) return { kind: "refused" };
    return { kind: "to", host: formatAddress(destination.address), port: destination.port };
  }

  #destinationOf(conversation: Conversation): Destination | null {
    try {
      const answer = this.#tracked.get(conversationMessage(conversation));
      return answer === null ? null : destinationIn(answer, conversation.peer.family);
    } catch {
      // It is over already, or the kernel is short of memory: then it goes nowhere.
      return null;
    }
  }
}

const platformAddresses = [insideAddresses.platform4, insideAddresses.platform6].map(
  (text) => parseAddress(text)?.value,
);

function isPlatform(address: Address): boolean {
  return platformAddresses.includes(address.value);
}
