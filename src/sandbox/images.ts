import type { Digest } from "../core/function.ts";

/** An image that cannot become another one, however its names move. */
export interface PinnedImage {
  /** `registry/name@sha256:…`, or `sha256:…` for one that only this engine has. */
  readonly image: string;
  readonly digest: Digest;
  /** Paths and ports that it declares, for hints: `8080/tcp`. */
  readonly ports: readonly string[];
}

/** Who asks a registry. */
export interface RegistryCredentials {
  readonly username: string;
  readonly password: string;
}

export interface ImageRequest {
  /** `NAME`, `NAME:TAG`, `NAME@sha256:…`, or the id of an image that the engine has. */
  readonly reference: string;
  /** null: what the engine's user is logged in as, or nobody. */
  readonly credentials: RegistryCredentials | null;
  /** One line that replaces the one before. */
  onProgress(line: string): void;
}

export interface ImageBuildRequest {
  /** Absolute; everything in it may be used by the build. */
  readonly contextFolder: string;
  /** Relative to the folder. */
  readonly dockerfile: string;
  onOutput(line: string): void;
}

/** The images of functions: brought to this node, pinned, kept while they are needed. */
export interface Images {
  /**
   * Finds out what a name means now, and brings that to this node.
   * @throws KoineError `image-not-found`, `image-access-denied`, `registry-unavailable`, `container-engine-unavailable`, `invalid-request`
   */
  pin(request: ImageRequest, signal: AbortSignal): Promise<PinnedImage>;
  /** @throws KoineError `image-build-failed`, `container-engine-unavailable` */
  build(request: ImageBuildRequest, signal: AbortSignal): Promise<PinnedImage>;
  /** Whether a pinned image was on this node when it was last looked for; false when it was not looked for yet. */
  has(image: string): boolean;
  /** Makes sure that a pinned image is still on this node; quick when it is. @throws KoineError as `pin` */
  ensure(image: string, credentials: () => Promise<RegistryCredentials | null>, signal: AbortSignal): Promise<void>;
  /** Lets go of all images of this platform but those named; removes what the platform itself brought. Answers how many went. */
  keepOnly(images: ReadonlySet<string>): Promise<number>;
}
