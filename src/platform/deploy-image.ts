import { KoineError } from "../core/errors.ts";
import type { Digest, FunctionRef } from "../core/function.ts";
import type { PinnedImage, RegistryCredentials } from "../sandbox/images.ts";
import type { DeployOptions } from "./deploy.ts";
import type { PlatformParts } from "./parts.ts";
import { completeSpec, type SpecRequest } from "./spec.ts";

/** A deploy as a caller asks for it: of a code package, of an image, or of an image that is built from a package. */
export type DeploySource = Omit<SpecRequest, "code"> & {
  readonly code?: Digest | undefined;
  /** `code` is then what the image is built from. */
  readonly build?: { readonly dockerfile: string } | undefined;
};

/** Names the secret with which a registry is asked, among a spec's annotations. */
export const REGISTRY_SECRET = "registry-secret";
const IMAGE_RUNTIME = "image";
const IMAGE_PROTOCOL = "http";
const UNKNOWN_DIGEST = `sha256:${"0".repeat(64)}`;

/**
 * The request with its code known: an image is pulled or built, and pinned.
 * @throws KoineError `invalid-request`, those of `Images`, those of `completeSpec`
 */
export async function withCode(
  parts: PlatformParts,
  ref: FunctionRef,
  { build, ...request }: DeploySource,
  options: Pick<DeployOptions, "onProgress" | "signal">,
): Promise<SpecRequest> {
  const { image, code } = request;
  if (image === undefined && build === undefined) {
    if (code !== undefined) return { ...request, code };
    throw new KoineError("invalid-request", { detail: "it names neither code nor an image" });
  }
  if (image !== undefined && (build !== undefined || code !== undefined)) {
    throw new KoineError("invalid-request", { detail: "it names an image and code: an image holds the code" });
  }
  const wanted = {
    ...request,
    runtime: request.runtime ?? IMAGE_RUNTIME,
    protocol: request.protocol ?? IMAGE_PROTOCOL,
  };
  // What is wrong with it is told before anything is fetched.
  completeSpec({ ...wanted, image: image ?? "built", code: UNKNOWN_DIGEST }, parts);
  const pinned =
    image === undefined
      ? await buildImage(parts, { code: code ?? "", dockerfile: build?.dockerfile ?? "Dockerfile" }, options)
      : await pinImage(parts, ref, { image, secret: request.annotations?.[REGISTRY_SECRET] }, options);
  const port = request.port ?? (wanted.protocol === IMAGE_PROTOCOL ? onlyPort(pinned) : undefined);
  return {
    ...wanted,
    code: pinned.digest,
    image: pinned.image,
    handler: request.handler ?? image ?? "Dockerfile",
    ...(port === undefined ? {} : { port }),
  };
}

/**
 * What a registry is asked with for a function's image; null: nothing.
 * @throws KoineError `secret-not-found`, `invalid-request`
 */
export async function registryCredentials(
  parts: Pick<PlatformParts, "secrets">,
  namespace: string,
  secret: string | undefined,
): Promise<RegistryCredentials | null> {
  if (secret === undefined) return null;
  const { [secret]: value = "" } = await parts.secrets.open(namespace, [secret]);
  const [, username = "", password] = /^([^:\s]+):(.+?)\s*$/s.exec(value) ?? [];
  if (password !== undefined) return { username, password };
  throw new KoineError("invalid-request", { detail: `secret '${secret}' does not hold USER:PASSWORD` });
}

async function pinImage(
  parts: PlatformParts,
  { namespace }: FunctionRef,
  { image, secret }: { readonly image: string; readonly secret: string | undefined },
  { onProgress, signal }: Pick<DeployOptions, "onProgress" | "signal">,
): Promise<PinnedImage> {
  const credentials = await registryCredentials(parts, namespace, secret);
  const onLine = (line: string): void => onProgress("installing", line);
  return await parts.images.pin({ reference: image, credentials, onProgress: onLine }, signal);
}

async function buildImage(
  { packages, images }: PlatformParts,
  { code, dockerfile }: { readonly code: Digest; readonly dockerfile: string },
  { onProgress, signal }: Pick<DeployOptions, "onProgress" | "signal">,
): Promise<PinnedImage> {
  onProgress("unpacking", "unpacking the code");
  const contextFolder = await packages.folder(code, signal);
  onProgress("installing", "building the image");
  const onOutput = (line: string): void => onProgress("output", line);
  return await images.build({ contextFolder, dockerfile, onOutput }, signal);
}

/** The port that an image says its server has, when it says one. */
function onlyPort({ ports }: PinnedImage): number | undefined {
  const streams = ports.filter((port) => !port.endsWith("/udp"));
  const [port] = streams;
  return streams.length === 1 && port !== undefined ? Number.parseInt(port, 10) : undefined;
}
