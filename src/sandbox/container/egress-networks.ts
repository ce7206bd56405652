import { openSync } from "node:fs";
import { KoineError } from "../../core/errors.ts";
import type { NetworkRule } from "../../core/network.ts";
import { type Networks, openNetworks, unavailable } from "../network/networks.ts";
import type { MachineView } from "./machine-view.ts";

/**
 * Gives containers ways to the internet and to nothing else. An engine's own networks cannot promise that; these are made in the namespace
 * that the engine made, which code without capabilities cannot change.
 */
export class EgressNetworks {
  #networks: Promise<Networks> | null = null;

  /** @throws KoineError `network-unavailable` */
  async connect(view: MachineView | null, allow: readonly NetworkRule[]): Promise<Disposable> {
    this.#networks ??= openNetworks();
    const networks = await this.#networks;
    if (!networks.egress.had) throw unavailable("egress", networks.egress);
    if (view === null) {
      const detail = "the container's processes are not to be seen from here";
      throw new KoineError("network-unavailable", {
        mode: "egress",
        detail,
        remedy: "Run the platform beside its engine.",
      });
    }
    const access = { mode: "egress", allow } as const;
    const network = await networks.adopt(openSync(`/proc/${view.pid}/ns/net`, "r"), access);
    if (network === null) throw unavailable("egress", networks.own);
    try {
      await network.set(access);
    } catch (thrown) {
      network.release();
      throw thrown;
    }
    return { [Symbol.dispose]: () => network.release() };
  }

  async close(): Promise<void> {
    const networks = await this.#networks;
    await networks?.close();
  }
}
