/** Descriptors of one sandbox's network; they are those of the whole process. */
export interface MadeNetwork {
  readonly namespace: number;
  /** null: it has only loopback. */
  readonly egress: EgressDescriptors | null;
}

export interface EgressDescriptors {
  readonly withIPv6: boolean;
  /** Netlink, to change its routes. */
  readonly routes: number;
  /** Netlink, to ask where its conversations were to go. */
  readonly tracked: number;
  readonly streams: readonly number[];
  readonly datagrams: readonly { readonly descriptor: number; readonly family: 4 | 6 }[];
}

/** What the thread is asked that makes networks, and wanders from one to the next. */
export type ToMaker =
  | {
      readonly kind: "make";
      /** One that is there already, with nothing in it; null: a new one. */
      readonly namespace: number | null;
      readonly withEgress: boolean;
      readonly ownAddresses: readonly string[];
    }
  /** A socket in the network of a process, bound to a port of loopback where one is named. */
  | { readonly kind: "socket"; readonly pid: number; readonly bindPort: number | null }
  /** Listens on loopback inside; ports that are taken there are left out. */
  | {
      readonly kind: "listen";
      readonly namespace: number;
      readonly ports: readonly number[];
      readonly withIPv6: boolean;
    };

export interface LocalPort {
  readonly descriptor: number;
  readonly port: number;
}

/** What the thread is asked that passes on what goes out. */
export type ToRelay =
  | {
      readonly kind: "adopt";
      readonly id: string;
      readonly egress: EgressDescriptors;
      readonly allow: readonly string[];
      readonly local: readonly LocalPort[];
    }
  /** Replaces what may be reached; null: nothing any more, for good. */
  | {
      readonly kind: "allow";
      readonly id: string;
      readonly allow: readonly string[] | null;
      readonly local: readonly LocalPort[];
    }
  /** Ends all connections and closes its descriptors. */
  | { readonly kind: "release"; readonly id: string };

export interface Asked<Request> {
  readonly number: number;
  readonly request: Request;
}

export interface Answered {
  readonly number: number;
  /** null: done. */
  readonly error: string | null;
  /** The system's, such as `EPERM`. */
  readonly code?: string;
  readonly value: unknown;
}

export interface RelaySettings {
  /** Sockets of each sandbox. */
  readonly connectionsMax: number;
  readonly datagramFlowsMax: number;
  readonly connectMsMax: number;
  readonly datagramIdleMs: number;
}
