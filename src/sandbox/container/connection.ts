import { type Engine, openEngine } from "./engine.ts";
import { EgressNetworks } from "./egress-networks.ts";
import { ImageCatalogue } from "./images.ts";

export interface ConnectedEngine extends Engine {
  readonly images: ImageCatalogue;
  readonly egress: EgressNetworks;
}

export interface ConnectionOptions {
  /** The path of the engine's socket. */
  socketPath(): string;
  /** Names this platform in the engine. */
  readonly tag: string;
  readonly directory: string;
}

/** The engine, connected to when somebody first needs it, and again after a failure: no engine is needed by those who have no images. */
export class EngineConnection {
  readonly #options: ConnectionOptions;
  #engine: Promise<ConnectedEngine> | null = null;
  #opened: ConnectedEngine | null = null;

  constructor(options: ConnectionOptions) {
    this.#options = options;
  }

  /** @throws KoineError `container-engine-unavailable`, `invalid-configuration` */
  get(): Promise<ConnectedEngine> {
    this.#engine ??= this.#open().catch((thrown: unknown) => {
      this.#engine = null;
      throw thrown;
    });
    return this.#engine;
  }

  /** The engine where somebody has needed it already, and it answered. */
  get opened(): ConnectedEngine | null {
    return this.#opened;
  }

  async close(): Promise<void> {
    const engine = await this.#engine?.catch(() => null);
    engine?.api.close();
    await engine?.egress.close();
  }

  async #open(): Promise<ConnectedEngine> {
    const { socketPath, tag, directory } = this.#options;
    const engine = await openEngine(socketPath(), directory);
    this.#opened = { ...engine, images: new ImageCatalogue(engine.api, tag), egress: new EgressNetworks() };
    return this.#opened;
  }
}
