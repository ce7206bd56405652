import { closeSync } from "node:fs";
import { KoineError } from "../../core/errors.ts";
import type { NetworkMode } from "../../core/function.ts";
import { limits } from "../../core/limits.ts";
import { formatAddress, type NetworkAccess, type NetworkRule } from "../../core/network.ts";
import type { NetworkFinding } from "../sandbox.ts";
import { AnsweringThread } from "./asking.ts";
import { openNetworkKernel } from "./kernel.ts";
import { addressesOfMachine } from "./surroundings.ts";
import type { EgressDescriptors, LocalPort, MadeNetwork, RelaySettings, ToMaker, ToRelay } from "./wire.ts";

/** A network namespace that the platform made for one sandbox. It belongs to the platform, so nothing inside can ever change it. */
export interface SandboxNetwork {
  /** By which a program that is started enters it: `nsenter --net=PATH`. */
  readonly path: string;
  /** Resolves once it has what the access says. One that was closed to `none` is never opened again. @throws KoineError `network-unavailable` */
  set(access: NetworkAccess): Promise<void>;
  /** Ends its connections. The namespace ends with the last process in it. */
  release(): void;
}

export interface Networks {
  readonly own: NetworkFinding;
  readonly egress: NetworkFinding;
  /** A new namespace with loopback, and with its ways out where `egress` is asked for; null: namespaces cannot be made here. */
  make(access: NetworkAccess): Promise<SandboxNetwork | null>;
  /** The same for a namespace that somebody else made, with nothing in it; takes over its descriptor, whatever comes of it. */
  adopt(namespace: number, access: NetworkAccess): Promise<SandboxNetwork | null>;
  close(): Promise<void>;
}

/**
 * Never rejects: what cannot be had is a finding.
 * @param entering what programs enter networks by that are made here; null: it is missing; absent: none are made
 */
export async function openNetworks({ entering }: { readonly entering?: string | null } = {}): Promise<Networks> {
  if (openNetworkKernel() === null) {
    const remedy = "Start koine with bin/koine, on the Node it brings along.";
    return without({ detail: "this Node cannot call the system", remedy });
  }
  if (entering === null) return without({ detail: "nsenter is not installed", remedy: "Install util-linux." });
  const opened = new OwnNetworks({ had: true });
  try {
    (await opened.make({ mode: "none", allow: [] }))?.release();
  } catch (thrown) {
    await opened.close();
    return without({ detail: causeOf(thrown), remedy: remedies.namespaces });
  }
  try {
    const rehearsal = await opened.make({ mode: "egress", allow: [] });
    await rehearsal?.set({ mode: "egress", allow: [] });
    rehearsal?.release();
    return opened;
  } catch (thrown) {
    await opened.close();
    return new OwnNetworks({ had: false, detail: causeOf(thrown), remedy: remedies.filter });
  }
}

const remedies = {
  namespaces:
    "Start koine with bin/koine, which gives it the right where the machine allows user namespaces, or run it as root; in a container allow CAP_SYS_ADMIN.",
  filter:
    "The kernel needs nf_tables with NAT and connection tracking: modprobe -a nf_tables nft_chain_nat nft_nat nf_conntrack_netlink (once per boot; as root).",
  report: "This is not expected; please report it.",
} as const;

function without(why: { readonly detail: string; readonly remedy: string }): Networks {
  const finding = { had: false, ...why } as const;
  return {
    own: finding,
    egress: finding,
    make: async () => null,
    adopt: async (namespace) => {
      closeSync(namespace);
      return null;
    },
    close: async () => {},
  };
}

/** @throws KoineError `network-unavailable` */
export function unavailable(mode: NetworkMode, finding: NetworkFinding): KoineError {
  const { detail, remedy } = finding.had ? { detail: "it does not work", remedy: remedies.report } : finding;
  return new KoineError("network-unavailable", { mode, detail, remedy });
}

class OwnNetworks implements Networks {
  readonly own = { had: true } as const;
  readonly egress: NetworkFinding;
  #maker: AnsweringThread<ToMaker> | null = null;
  #relay: AnsweringThread<ToRelay> | null = null;

  constructor(egress: NetworkFinding) {
    this.egress = egress;
  }

  make(access: NetworkAccess): Promise<SandboxNetwork> {
    return this.#make(null, access);
  }

  adopt(namespace: number, access: NetworkAccess): Promise<SandboxNetwork> {
    return this.#make(namespace, access);
  }

  async #make(namespace: number | null, access: NetworkAccess): Promise<SandboxNetwork> {
    const withEgress = access.mode === "egress" && this.egress.had;
    const maker = this.#making();
    try {
      const ownAddresses = withEgress ? addressesOfMachine().map(formatAddress) : [];
      const made = (await maker.ask({ kind: "make", namespace, withEgress, ownAddresses })) as MadeNetwork;
      return new MadeSandboxNetwork(
        { made, maker, relay: withEgress ? this.#relaying() : null, egress: this.egress },
        access,
      );
    } catch (thrown) {
      throw new KoineError(
        "sandbox-failed",
        { detail: `its network could not be made: ${messageOf(thrown)}` },
        { cause: thrown },
      );
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.#maker?.close(), this.#relay?.close()]);
  }

  /** A thread that broke takes the networks of its sandboxes with it; those that come later have another one. */
  #making(): AnsweringThread<ToMaker> {
    if (this.#maker === null || this.#maker.hasEnded) this.#maker = new AnsweringThread("maker-thread", null);
    return this.#maker;
  }

  #relaying(): AnsweringThread<ToRelay> {
    const settings: RelaySettings = {
      connectionsMax: limits.egressConnectionsMax,
      datagramFlowsMax: limits.egressDatagramFlowsMax,
      connectMsMax: limits.egressConnectMsMax,
      datagramIdleMs: limits.egressDatagramIdleMs,
    };
    if (this.#relay === null || this.#relay.hasEnded) this.#relay = new AnsweringThread("relay-thread", settings);
    return this.#relay;
  }
}

interface NetworkParts {
  readonly made: MadeNetwork;
  readonly maker: AnsweringThread<ToMaker>;
  readonly relay: AnsweringThread<ToRelay> | null;
  readonly egress: NetworkFinding;
}

let lastId = 0;

class MadeSandboxNetwork implements SandboxNetwork {
  readonly path: string;
  readonly #id = String(++lastId);
  readonly #parts: NetworkParts;
  #current: NetworkAccess;
  /** What was asked for last, done or not. */
  #settled: Promise<void>;
  #released = false;

  constructor(parts: NetworkParts, access: NetworkAccess) {
    this.#parts = parts;
    this.#current = parts.made.egress === null ? { mode: "none", allow: [] } : access;
    this.path = `/proc/${process.pid}/fd/${parts.made.namespace}`;
    this.#settled = this.#adopt(access);
    this.#settled.catch(() => {});
  }

  async set(access: NetworkAccess): Promise<void> {
    const current = this.#current;
    if (access.mode === "host" || (current.mode === "none" && access.mode !== "none"))
      throw unavailable(access.mode, this.#parts.egress);
    if (!isSameAccess(current, access)) {
      this.#current = access;
      this.#settled = this.#settled.then(() => this.#change(access));
      this.#settled.catch(() => {});
    }
    await this.#settled.catch((thrown: unknown) => {
      const detail = `its network could not be set: ${messageOf(thrown)}`;
      throw new KoineError("sandbox-failed", { detail }, { cause: thrown });
    });
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    const { relay, made } = this.#parts;
    closeSync(made.namespace);
    if (relay === null) return;
    const end = (): Promise<unknown> => relay.ask({ kind: "release", id: this.#id });
    // A thread that has ended has nothing to let go of.
    void this.#settled.then(end, end).catch(() => {});
  }

  async #adopt({ allow }: NetworkAccess): Promise<void> {
    const { relay, made } = this.#parts;
    if (relay === null || made.egress === null) return;
    const local = await this.#listenLocally(allow);
    // Nobody else knows of its descriptors then; once it was told, they are its.
    if (relay.hasEnded) closeAll(made.egress, local);
    await relay.ask({ kind: "adopt", id: this.#id, egress: made.egress, allow: textsOf(allow), local });
  }

  async #change({ mode, allow }: NetworkAccess): Promise<void> {
    const { relay } = this.#parts;
    if (relay === null || this.#released) return;
    const local = await this.#listenLocally(allow);
    await relay.ask({ kind: "allow", id: this.#id, allow: mode === "none" ? null : textsOf(allow), local });
  }

  /** The machine's `localhost:PORT` is found inside under the same name. */
  async #listenLocally(allow: readonly NetworkRule[]): Promise<readonly LocalPort[]> {
    const { maker, made } = this.#parts;
    const ports = [...new Set(allow.flatMap((rule) => (rule.target.kind === "localhost" ? portsOf(rule) : [])))];
    if (ports.length === 0 || made.egress === null || this.#released) return [];
    const { withIPv6 } = made.egress;
    return (await maker.ask({ kind: "listen", namespace: made.namespace, ports, withIPv6 })) as readonly LocalPort[];
  }
}

function closeAll({ routes, tracked, streams, datagrams }: EgressDescriptors, local: readonly LocalPort[]): void {
  for (const one of [routes, tracked, ...streams, ...datagrams.map(({ descriptor }) => descriptor)]) closeSync(one);
  for (const { descriptor } of local) closeSync(descriptor);
}

const textsOf = (rules: readonly NetworkRule[]): string[] => rules.map(({ text }) => text);

const portsOf = ({ portMin, portMax }: NetworkRule): number[] =>
  Array.from({ length: portMax - portMin + 1 }, (_, index) => portMin + index);

function isSameAccess(one: NetworkAccess, other: NetworkAccess): boolean {
  if (one.mode !== other.mode) return false;
  return one.allow === other.allow || textsOf(one.allow).join("\n") === textsOf(other.allow).join("\n");
}

function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** What the system said, below what we make of it. */
function causeOf(thrown: unknown): string {
  return thrown instanceof KoineError && thrown.cause !== undefined ? messageOf(thrown.cause) : messageOf(thrown);
}
