import { closeSync, existsSync, openSync } from "node:fs";
import { parseAddress } from "../../core/network.ts";
import type { NetworkKernel } from "./kernel.ts";
import { bytesOf, insideAddresses, loopbackMessages, redirectMessages, RELAY_PORT, routeMessages } from "./plan.ts";
import type { EgressDescriptors, LocalPort, MadeNetwork, ToMaker } from "./wire.ts";

/** Makes a network on the calling thread, which stays in it. @throws Error, with nothing left open, not what it was given either */
export function makeNetwork(kernel: NetworkKernel, asked: Extract<ToMaker, { kind: "make" }>): MadeNetwork {
  const made: number[] = [];
  const keep = (descriptor: number): number => {
    made.push(descriptor);
    return descriptor;
  };
  try {
    const namespace = keep(asked.namespace ?? kernel.makeNamespace());
    if (asked.namespace !== null) kernel.enter(asked.namespace);
    const routes = kernel.openNetlink("route");
    keep(routes.descriptor);
    routes.change(loopbackMessages());
    if (asked.withEgress) return { namespace, egress: withEgress(kernel, { routes, keep, asked }) };
    routes[Symbol.dispose]();
    return { namespace, egress: null };
  } catch (thrown) {
    for (const descriptor of made) closeSync(descriptor);
    throw thrown;
  }
}

interface Making {
  readonly routes: ReturnType<NetworkKernel["openNetlink"]>;
  readonly asked: Extract<ToMaker, { kind: "make" }>;
  keep(descriptor: number): number;
}

function withEgress(kernel: NetworkKernel, { routes, keep, asked }: Making): EgressDescriptors {
  const withIPv6 = existsSync("/proc/net/if_inet6");
  const ownAddresses = asked.ownAddresses.map(parseAddress).filter((address) => address !== null);
  routes.change(routeMessages({ withIPv6, ownAddresses }));
  const tracked = kernel.openNetlink("netfilter");
  keep(tracked.descriptor);
  tracked.change(redirectMessages(withIPv6));
  const streams: number[] = [];
  const datagrams: { descriptor: number; family: 4 | 6 }[] = [];
  for (const family of withIPv6 ? ([4, 6] as const) : ([4] as const)) {
    const address = bytesOf(family === 4 ? insideAddresses.platform4 : insideAddresses.platform6);
    streams.push(keep(kernel.listen({ type: "stream", family, address, port: RELAY_PORT })));
    datagrams.push({
      descriptor: keep(kernel.listen({ type: "datagram", family, address, port: RELAY_PORT })),
      family,
    });
  }
  return { withIPv6, routes: routes.descriptor, tracked: tracked.descriptor, streams, datagrams };
}

/** Listens on loopback in a network, into which the calling thread goes. */
export function listenInside(kernel: NetworkKernel, asked: Extract<ToMaker, { kind: "listen" }>): LocalPort[] {
  kernel.enter(asked.namespace);
  const loopbacks = [[4, "127.0.0.1"] as const, ...(asked.withIPv6 ? [[6, "::1"] as const] : [])];
  return asked.ports.flatMap((port) =>
    loopbacks.flatMap(([family, address]) => {
      try {
        return [{ descriptor: kernel.listen({ type: "stream", family, address: bytesOf(address), port }), port }];
      } catch {
        // Code inside has taken the port already: then it is its own.
        return [];
      }
    }),
  );
}

/** A socket of IPv4 in the network of a process, into which the calling thread goes. @throws Error with `code` */
export function socketInside(kernel: NetworkKernel, { pid, bindPort }: Extract<ToMaker, { kind: "socket" }>): number {
  const namespace = openSync(`/proc/${pid}/ns/net`, "r");
  try {
    kernel.enter(namespace);
  } finally {
    closeSync(namespace);
  }
  return kernel.stream(bindPort === null ? null : { address: bytesOf("127.0.0.1"), port: bindPort });
}
