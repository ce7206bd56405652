import { connect, type Socket } from "node:net";
import type { Surroundings } from "./surroundings.ts";
import type { Way } from "./egress.ts";
import { DNS_PORT } from "./plan.ts";
import type { RelaySettings } from "./wire.ts";

/** Passes on what sandboxes say over TCP. A sandbox's connection stands before the one outside does: what fails there resets it. */
export class StreamRelay {
  readonly #settings: RelaySettings;
  readonly #surroundings: Surroundings;
  readonly #sockets = new Set<Socket>();

  constructor(settings: RelaySettings, surroundings: Surroundings) {
    this.#settings = settings;
    this.#surroundings = surroundings;
  }

  /** Takes a paused connection from inside. */
  take(inside: Socket, way: Promise<Way>): void {
    inside.on("error", () => {});
    if (this.#sockets.size >= 2 * this.#settings.connectionsMax) return void inside.resetAndDestroy();
    this.#keep(inside);
    void way.then(
      (found) => this.#pass(inside, found),
      () => inside.resetAndDestroy(),
    );
  }

  close(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  #pass(inside: Socket, way: Way): void {
    if (inside.destroyed) return;
    if (way.kind === "refused") return void inside.resetAndDestroy();
    const [resolver = ""] = way.kind === "names" ? this.#surroundings.resolvers() : [];
    const { host, port } = way.kind === "names" ? { host: resolver, port: DNS_PORT } : way;
    const outside = connect({ host, port, allowHalfOpen: true, noDelay: true });
    this.#keep(outside);
    const giveUp = setTimeout(() => outside.destroy(), this.#settings.connectMsMax);
    outside.once("connect", () => {
      clearTimeout(giveUp);
      if (inside.destroyed) return;
      inside.pipe(outside);
      outside.pipe(inside);
      inside.resume();
    });
    outside.on("error", () => inside.resetAndDestroy());
    inside.on("error", () => outside.resetAndDestroy());
    outside.once("close", () => {
      clearTimeout(giveUp);
      // Both sides have ended it, or it broke: what was read before is still to be written.
      if (!inside.writableEnded) inside.resetAndDestroy();
    });
    inside.once("close", () => {
      if (!outside.writableEnded) outside.resetAndDestroy();
    });
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
  }
}
