import { KoineError } from "../../core/errors.ts";
import { type EngineApi, EngineRefusal } from "./engine-api.ts";
import type { ImageFacts } from "./settings.ts";

/** Facts that are kept of images; a platform with more asks again. */
const KEPT_MAX = 1_000;

/** How this platform came to an image: the engine had it, the platform pulled it, the platform built it. */
export type Origin = "found" | "pulled" | "built";
const ORIGINS: readonly Origin[] = ["found", "pulled", "built"];

/** Image as the engine describes it; only what is used. */
export interface ImageInspection {
  readonly Id: string;
  readonly RepoTags?: readonly string[] | null;
  readonly RepoDigests?: readonly string[] | null;
  readonly Architecture?: string;
  readonly Os?: string;
  readonly Config?: {
    readonly Env?: readonly string[] | null;
    readonly Entrypoint?: readonly string[] | null;
    readonly Cmd?: readonly string[] | null;
    readonly User?: string;
    readonly StopSignal?: string;
    readonly Volumes?: Readonly<Record<string, unknown>> | null;
    readonly ExposedPorts?: Readonly<Record<string, unknown>> | null;
  } | null;
}

/** What the engine's images say of themselves; an image that is pinned never says anything else. */
export class ImageCatalogue {
  /** Where the images of this platform have names of its own, so that nobody's clean-up takes them. */
  readonly repository: string;
  readonly #api: EngineApi;
  readonly #kept = new Map<string, ImageFacts>();

  constructor(api: EngineApi, tag: string) {
    this.#api = api;
    this.repository = `koine-${tag}`;
  }

  /** @throws KoineError `image-not-found` when the engine does not have it */
  async facts(image: string, signal?: AbortSignal): Promise<ImageFacts> {
    const kept = this.#kept.get(image);
    if (kept !== undefined) return kept;
    for (const name of [image, ...this.#ownNames(image)]) {
      const found = await this.inspect(name, signal);
      if (found === null) continue;
      const facts = factsOf(found);
      if (this.#kept.size >= KEPT_MAX) this.#kept.clear();
      this.#kept.set(image, facts);
      return facts;
    }
    throw new KoineError("image-not-found", { image, detail: "the engine does not have it" });
  }

  /** null when the engine does not have it. */
  async inspect(name: string, signal?: AbortSignal): Promise<ImageInspection | null> {
    try {
      return (await this.#api.json("GET", `/images/${imagePath(name)}/json`, { signal })) as ImageInspection;
    } catch (thrown) {
      if (thrown instanceof EngineRefusal && thrown.status === 404) return null;
      throw thrown;
    }
  }

  /** Whether its facts are known, and no start has found it gone since. */
  knows(image: string): boolean {
    return this.#kept.has(image);
  }

  forget(image: string): void {
    this.#kept.delete(image);
  }

  /** The tag under which an image is kept. */
  ownTag(image: string, origin: Origin): string {
    return `${origin}-${hexOf(image)}`;
  }

  #ownNames(image: string): readonly string[] {
    if (!/^[0-9a-f]{64}$/.test(hexOf(image))) return [];
    return ORIGINS.map((origin) => `${this.repository}:${this.ownTag(image, origin)}`);
  }
}

/** The 64 hexadecimal digits at the end of a pinned image's name. */
export function hexOf(image: string): string {
  return image.slice(image.lastIndexOf(":") + 1);
}

/** An image's name as part of an address; its slashes stay. */
export function imagePath(image: string): string {
  return image.split("/").map(encodeURIComponent).join("/");
}

export function idOf({ Id: id }: ImageInspection): string {
  return id.startsWith("sha256:") ? id : `sha256:${id}`;
}

function factsOf(inspection: ImageInspection): ImageFacts {
  const { Architecture: architecture = "", Os: os = "linux", Config: config } = inspection;
  return {
    id: idOf(inspection),
    architecture,
    os,
    environment: config?.Env ?? [],
    entrypoint: config?.Entrypoint ?? [],
    arguments: config?.Cmd ?? [],
    user: config?.User ?? "",
    stopSignal: config?.StopSignal || "SIGTERM",
    volumes: Object.keys(config?.Volumes ?? {}),
    ports: Object.keys(config?.ExposedPorts ?? {}),
  };
}
