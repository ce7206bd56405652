import { existsSync } from "node:fs";
import { KoineError } from "../../core/errors.ts";

/** Where engines listen when nobody says otherwise, in the order in which they are looked for. */
const USUAL_SOCKETS = ["/var/run/docker.sock", "/run/podman/podman.sock"] as const;
const USUAL_SOCKETS_OF_USERS = ["docker.sock", "podman/podman.sock"] as const;

/**
 * The path of the engine's socket.
 * @param address `unix:///path` or a path; null: the first of the usual places where there is a socket
 * @throws KoineError `invalid-configuration` for an address that is no Unix socket
 */
export function engineSocket(address: string | null, runtimeFolder: string | undefined): string {
  if (address !== null) return pathOf(address);
  const own = runtimeFolder === undefined ? [] : USUAL_SOCKETS_OF_USERS.map((name) => `${runtimeFolder}/${name}`);
  return [...own, ...USUAL_SOCKETS].find((path) => existsSync(path)) ?? USUAL_SOCKETS[0];
}

function pathOf(address: string): string {
  if (address.startsWith("unix:///")) return address.slice("unix://".length);
  if (address.startsWith("/")) return address;
  throw new KoineError("invalid-configuration", {
    detail: `'${address}' is not the address of a container engine that can be used: write unix:///PATH`,
  });
}
