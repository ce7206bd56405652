import { parentPort } from "node:worker_threads";
import { answer } from "./answering.ts";
import { openNetworkKernel } from "./kernel.ts";
import { listenInside, makeNetwork, socketInside } from "./make.ts";
import type { ToMaker } from "./wire.ts";

/**
 * The thread that makes the networks of sandboxes. It is in the newest of them, or where it made a socket last, and never comes home:
 * back into the machine's network only root of the machine could go. So it opens nothing that is for the machine.
 */
function serve(port: NonNullable<typeof parentPort>): void {
  const kernel = openNetworkKernel();
  if (kernel === null) throw new Error("this Node cannot call the system");
  answer(port, (request: ToMaker): unknown => {
    switch (request.kind) {
      case "make":
        return makeNetwork(kernel, request);
      case "listen":
        return listenInside(kernel, request);
      case "socket":
        return socketInside(kernel, request);
      default:
        return request satisfies never;
    }
  });
}

if (parentPort !== null) serve(parentPort);
