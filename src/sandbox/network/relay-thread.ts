import { setPriority } from "node:os";
import { parentPort, workerData } from "node:worker_threads";
import { answer } from "./answering.ts";
import { EgressNetwork } from "./egress.ts";
import { openNetworkKernel } from "./kernel.ts";
import { Surroundings } from "./surroundings.ts";
import type { RelaySettings, ToRelay } from "./wire.ts";

/**
 * The thread on which the traffic of all sandboxes passes, so that none of it delays an invocation. It has a lower priority than the
 * rest of the platform: who floods the network waits for himself.
 */
const PRIORITY = 5;

function serve(port: NonNullable<typeof parentPort>, settings: RelaySettings): void {
  const kernel = openNetworkKernel();
  if (kernel === null) throw new Error("this Node cannot call the system");
  try {
    // On Linux this is about the calling thread alone.
    setPriority(0, PRIORITY);
  } catch {
    // It goes without.
  }
  const surroundings = new Surroundings();
  const networks = new Map<string, EgressNetwork>();
  answer(port, (request: ToRelay) => {
    switch (request.kind) {
      case "adopt":
        networks.set(request.id, new EgressNetwork({ ...request, kernel, surroundings, settings }));
        return;
      case "allow":
        networks.get(request.id)?.allow(request);
        return;
      case "release":
        networks.get(request.id)?.close();
        networks.delete(request.id);
        return;
      default:
        request satisfies never;
    }
  });
}

if (parentPort !== null) serve(parentPort, workerData as RelaySettings);
