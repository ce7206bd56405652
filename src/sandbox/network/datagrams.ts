import { createSocket, type Socket } from "node:dgram";
import { type Address, parseAddress } from "../../core/network.ts";
import type { Way } from "./egress.ts";
import { DNS_PORT } from "./plan.ts";
import type { Surroundings } from "./surroundings.ts";
import type { RelaySettings } from "./wire.ts";

export interface DatagramOptions {
  readonly settings: RelaySettings;
  readonly surroundings: Surroundings;
  wayOf(peer: Address, port: number): Promise<Way>;
}

/** Packets that may wait for the way of their conversation to be known. */
const WAITING_MAX = 16;
/** A resolver that is silent for so long is passed over. */
const RESOLVER_MS_MAX = 2_000;

interface Flow {
  state: "judged" | "refused" | "connecting" | "connected";
  outside: Socket | null;
  waiting: Buffer[];
  readonly timer: NodeJS.Timeout;
}

/**
 * Passes on what sandboxes say over UDP: one socket outside for each conversation, until it is silent for a while. That while is shorter
 * than the kernel's memory of it, so a port inside that is used again is never taken for what it was before.
 */
export class DatagramRelay {
  readonly #options: DatagramOptions;
  readonly #inside: Socket[] = [];
  readonly #flows = new Map<string, Flow>();
  /** Which of the resolvers is asked. */
  #resolver = 0;
  #closed = false;

  constructor(options: DatagramOptions) {
    this.#options = options;
  }

  /** Takes over a socket inside. */
  add(fd: number, family: 4 | 6): void {
    const inside = createSocket({ type: family === 4 ? "udp4" : "udp6" });
    inside.on("error", () => {});
    inside.on("message", (packet, { address, port }) => this.#take(inside, packet, { address, port }));
    inside.bind({ fd });
    this.#inside.push(inside);
  }

  close(): void {
    this.#closed = true;
    for (const key of this.#flows.keys()) this.#forget(key);
    for (const inside of this.#inside.splice(0)) inside.close();
  }

  #take(inside: Socket, packet: Buffer, from: { readonly address: string; readonly port: number }): void {
    const key = `${from.address} ${from.port}`;
    const known = this.#flows.get(key);
    if (known !== undefined) {
      known.timer.refresh();
      if (known.state === "connected" && known.outside !== null) send(known.outside, packet);
      else if (known.state !== "refused" && known.waiting.length < WAITING_MAX) known.waiting.push(packet);
      return;
    }
    const peer = parseAddress(from.address);
    if (peer === null || this.#flows.size >= this.#options.settings.datagramFlowsMax) return;
    const timer = setTimeout(() => this.#forget(key), this.#options.settings.datagramIdleMs);
    const flow: Flow = { state: "judged", outside: null, waiting: [packet], timer };
    this.#flows.set(key, flow);
    void this.#options.wayOf(peer, from.port).then(
      (way) => {
        if (this.#flows.get(key) !== flow || this.#closed) return;
        if (way.kind !== "refused")
          return this.#open(flow, way, { key, answer: (back) => inside.send(back, from.port, from.address, () => {}) });
        // It is remembered, so that not every packet is judged again.
        flow.state = "refused";
        flow.waiting = [];
      },
      () => this.#forget(key),
    );
  }

  #open(
    flow: Flow,
    way: Exclude<Way, { kind: "refused" }>,
    { key, answer }: { readonly key: string; answer(packet: Buffer): void },
  ): void {
    const resolvers = this.#options.surroundings.resolvers();
    const asked = this.#resolver;
    const host = way.kind === "names" ? (resolvers[asked % resolvers.length] ?? "") : way.host;
    const port = way.kind === "names" ? DNS_PORT : way.port;
    const outside = createSocket({ type: host.includes(":") ? "udp6" : "udp4" });
    flow.outside = outside;
    flow.state = "connecting";
    const passOver = (): void => {
      if (way.kind === "names" && asked === this.#resolver) this.#resolver = (asked + 1) % resolvers.length;
    };
    const late = way.kind === "names" && resolvers.length > 1 ? setTimeout(passOver, RESOLVER_MS_MAX) : null;
    const inTime = (): void => void (late !== null && clearTimeout(late));
    outside.once("close", inTime);
    outside.on("error", () => {
      passOver();
      this.#forget(key);
    });
    outside.on("message", (packet) => {
      inTime();
      flow.timer.refresh();
      if (!this.#closed) answer(packet);
    });
    outside.connect(port, host, () => {
      if (this.#flows.get(key) !== flow) return;
      flow.state = "connected";
      for (const packet of flow.waiting.splice(0)) send(outside, packet);
    });
  }

  #forget(key: string): void {
    const flow = this.#flows.get(key);
    if (flow === undefined) return;
    this.#flows.delete(key);
    clearTimeout(flow.timer);
    if (flow.outside !== null) closeQuietly(flow.outside);
  }
}

function send(outside: Socket, packet: Buffer): void {
  try {
    outside.send(packet, () => {});
  } catch {
    // It was closed in between; a datagram may be lost.
  }
}

function closeQuietly(socket: Socket): void {
  try {
    socket.close();
  } catch {
    // It is closed.
  }
}
